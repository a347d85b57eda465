import json
import logging
import multiprocessing
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunelens import datasets
from prunelens.datasets import ImageSet, concatenate, read_folder, sample

ASSETS = os.environ.get("PRUNELENS_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="no assets")


def image_set(labels, logits=(0, 1, 2), size=4, prefix="", concepts=None) -> ImageSet:
    labels = np.array(labels, dtype=np.int64)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    names = [f"{prefix}{label}/{i}.png" for i, label in enumerate(labels)]
    class_names = [f"class of {logit}" for logit in logits]
    return ImageSet(pixels, labels, names, class_names, np.array(logits, dtype=np.int64), concepts)


def write_images(root: Path, classes: list[str], per_class: int, size=(12, 12), suffix="png") -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03d}.{suffix}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", ["cat", "dog"], 4)
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "images.of-12"  # a dot in the name is no suffix


def original(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name))


# ImageSet


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((3, 4, 4, 3), np.float32), "images: expected uint8"),
        ("images", np.zeros((3, 4, 5, 3), np.uint8), "images: expected uint8"),
        ("images", np.zeros((3, 3, 4, 4), np.uint8), "images: expected uint8"),
        ("labels", np.zeros(3, np.int32), "labels: expected int64"),
        ("labels", np.zeros(2, np.int64), "labels: expected int64"),
        ("labels", np.array([0, 1, 3]), r"labels: expected 0\.\.2, found 0\.\.3"),
        ("labels", np.array([0, 1, -1]), r"labels: expected 0\.\.2, found -1\.\.1"),
        ("names", ["a", "b"], "names: expected one for each of 3 images, found 2"),
        ("logits", np.array([0, 1]), "logits: expected int64"),
        ("logits", np.array([0, 1, 1]), "logits: expected a different output"),
        ("concepts", {"shape": np.zeros(2)}, "concept shape: expected 3 rows, found 2"),
    ],
)
def test_image_set_rejects_parts_that_disagree(field, value, message):
    parts = vars(image_set([0, 1, 2])) | {field: value}
    with pytest.raises(ValueError, match=message):
        ImageSet(**parts)


def test_batches_keep_order_and_values():
    images = image_set([0, 1, 2, 0, 1])
    batches = list(images.batches(2, "cpu"))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == images.labels.tolist()
    pixels = torch.cat([pixels for pixels, _ in batches])
    assert pixels.dtype == torch.float32 and pixels.shape == (5, 3, 4, 4)
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal((pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy(), images.images)
    assert pixels.min() >= 0 and pixels.max() <= 1


def test_subset_takes_rows_of_everything_in_the_order_asked_for():
    images = image_set([0, 1, 2, 0], concepts={"shape": np.arange(4)})
    part = images.subset([3, 1])
    np.testing.assert_array_equal(part.images, images.images[[3, 1]])
    assert part.labels.tolist() == [0, 1]
    assert part.names == [images.names[3], images.names[1]]
    assert part.concepts["shape"].tolist() == [3, 1]
    assert part.class_names == images.class_names and len(part) == 2


# concatenate, sample


def test_concatenate_merges_classes_by_network_output():
    first = image_set([0, 1, 1], logits=(7, 3), prefix="a")
    second = image_set([1, 0], logits=(7, 5), prefix="b")
    both = concatenate([first, second])
    assert both.logits.tolist() == [3, 5, 7]
    assert both.class_names == ["class of 3", "class of 5", "class of 7"]
    assert both.logits[both.labels].tolist() == [7, 3, 3, 5, 7]
    assert both.names == first.names + second.names
    np.testing.assert_array_equal(both.images[3:], second.images)
    assert both.labels.dtype == np.int64 and both.concepts is None


def test_concatenate_joins_concepts():
    first = image_set([0], prefix="a", concepts={"shape": np.array([4])})
    second = image_set([1], prefix="b", concepts={"shape": np.array([6])})
    assert concatenate([first, second]).concepts["shape"].tolist() == [4, 6]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (image_set([0], size=8, prefix="b"), "one image size"),
        (image_set([0], concepts={"shape": np.zeros(1)}, prefix="b"), "same concepts"),
        (image_set([0]), "1 names occur more than once: 0/0.png"),
        (ImageSet(**vars(image_set([0], prefix="b")) | {"class_names": list("xyz")}), "output 0 is called"),
    ],
)
def test_concatenate_rejects_sets_that_disagree(second, message):
    with pytest.raises(ValueError, match=message):
        concatenate([image_set([0]), second])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.data())
def test_sample_is_balanced_reproducible_and_nested(labels, data):
    images = image_set(labels)
    n = data.draw(st.integers(0, len(labels)))
    seed = data.draw(st.integers(0, 5))
    chosen = sample(images, n, seed)
    assert len(chosen) == n and len(set(chosen.names)) == n
    assert chosen.names == sample(images, n, seed).names
    assert set(sample(images, n // 2, seed).names) <= set(chosen.names)
    available, taken = (np.bincount(s.labels, minlength=3) for s in (images, chosen))
    # A class that still has images is at most one behind any other.
    assert all(taken[c] >= taken.max() - 1 for c in range(3) if taken[c] < available[c])
    places = [images.names.index(name) for name in chosen.names]
    assert places == sorted(places)


def test_sample_depends_on_the_seed_and_needs_enough_images():
    images = image_set([0, 1, 2] * 20)
    assert sample(images, 30, seed=0).names != sample(images, 30, seed=1).names
    with pytest.raises(ValueError, match="cannot sample 61 images from a set of 60"):
        sample(images, 61, seed=0)


def test_balanced_takes_equally_many_of_the_classes_wanted_and_none_of_others():
    images = image_set([0, 0, 0, 0, 1, 1, 2, 2, 2], logits=(3, 5, 9))
    chosen = datasets.balanced(images, [3, 9], seed=0)
    assert images.labels[chosen].tolist() == [0, 0, 0, 2, 2, 2]  # three each, of the three of class 2
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    picked = {tuple(datasets.balanced(images, [5, 3], seed)) for seed in range(20)}
    assert len(picked) > 1 and all(images.labels[list(p)].tolist() == [0, 0, 1, 1] for p in picked)
    assert datasets.balanced(images, [3, 4], seed=0).tolist() == []  # no image stands for output 4


# ImageNet's classes


def test_imagenet_classes():
    indices, names = datasets.imagenet_class_indices(), datasets.imagenet_class_names()
    assert list(indices.values()) == list(range(1000)) and list(indices) == sorted(indices)
    known = {"n01440764": (0, "tench"), "n02102040": (217, "English springer"), "n13133613": (998, "ear")}
    assert {wnid: (indices[wnid], names[wnid]) for wnid in known} == known
    assert len(set(names.values())) == 1000


# read_folder: what is read


def test_folder_of_the_right_size_is_read_as_it_is(folder, cache):
    images = read_folder(folder, 12, cache, None)
    assert images.names == [f"{c}/{i:03d}.png" for c in ("cat", "dog") for i in range(4)]
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    assert images.class_names == ["cat", "dog"] and images.logits.tolist() == [0, 1]
    np.testing.assert_array_equal(images.images, np.stack([original(folder, name) for name in images.names]))


def test_class_indices_give_the_outputs_and_readable_names(tmp_path, cache):
    write_images(tmp_path / "images", ["n02102040", "n01440764"], 1)
    images = read_folder(tmp_path / "images", 12, cache, datasets.imagenet_class_indices())
    assert images.logits.tolist() == [0, 217] and images.class_names == ["tench", "English springer"]
    assert images.names == ["n01440764/000.png", "n02102040/000.png"]


def test_shorter_side_is_resized_then_center_cropped(tmp_path, cache):
    write_images(tmp_path / "images", ["wide"], 1, size=(40, 20))
    wide = Image.open(tmp_path / "images/wide/000.png")
    expected = np.asarray(wide.resize((20, 10), Image.Resampling.BILINEAR))[:, 5:15]
    images = read_folder(tmp_path / "images", 10, cache, None)
    np.testing.assert_array_equal(images.images[0], expected)


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "expected"),
    [
        ("L", 90, "png", (90, 90, 90)),
        ("1", 1, "png", (255, 255, 255)),
        ("P", 0, "png", (0, 0, 0)),
        ("RGBA", (10, 20, 30, 255), "png", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), "png", (255, 255, 255)),
        ("LA", (10, 255), "png", (10, 10, 10)),
        ("I;16", 0x8000, "png", (128, 128, 128)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
        ("L", 90, "jpg", (90, 90, 90)),
    ],
)
def test_every_color_mode_becomes_rgb(tmp_path, cache, mode, color, suffix, expected):
    (tmp_path / "images/a").mkdir(parents=True)
    path = tmp_path / f"images/a/a.{suffix}"
    Image.new(mode, (8, 8), color).save(path)
    assert Image.open(path).mode == mode
    pixels = read_folder(tmp_path / "images", 8, cache, None).images[0]
    np.testing.assert_allclose(pixels.astype(int), np.full((8, 8, 3), expected), atol=2)


def test_limit_takes_evenly_spaced_files_of_each_class(tmp_path, cache):
    write_images(tmp_path / "images", ["cat", "dog"], 9)
    names = read_folder(tmp_path / "images", 12, cache, None, limit_per_class=3).names
    assert names == [f"{c}/{i:03d}.png" for c in ("cat", "dog") for i in (0, 4, 8)]
    assert len(read_folder(tmp_path / "images", 12, cache, None, limit_per_class=99)) == 18


def test_hidden_files_and_folders_are_left_out(folder, cache):
    (folder / "cat/.DS_Store").write_bytes(b"x")
    (folder / ".checkpoints").mkdir()
    assert len(read_folder(folder, 12, cache, None, max_bad=0)) == 8


# read_folder: the cache


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forbid_decoding(monkeypatch):
    def decode(path, size):
        raise AssertionError(f"decoded {path} again")

    monkeypatch.setattr(datasets, "_decode_or_reason", decode)


def test_cache_is_opened_by_the_second_call(folder, cache, monkeypatch):
    first = read_folder(folder, 12, cache, None)
    forbid_decoding(monkeypatch)
    second = read_folder(folder, 12, cache, {"cat": 5, "dog": 3})  # the outputs are no part of the cache
    assert isinstance(second.images, np.memmap) and not second.images.flags.writeable
    np.testing.assert_array_equal(first.images, second.images)
    assert second.names == first.names and second.logits.tolist() == [5, 3]
    assert names_in(cache.parent) == [".images.of-12.lock", "images.of-12.json", "images.of-12.npy"]


@pytest.mark.parametrize("change", ["file added", "file removed", "file replaced", "size", "limit"])
def test_cache_is_redone_when_its_source_changes(folder, cache, change, caplog):
    read_folder(folder, 12, cache, None)
    size, limit = (6, None) if change == "size" else (12, 2) if change == "limit" else (12, None)
    if change == "file added":
        Image.new("RGB", (12, 12), "red").save(folder / "cat/new.png")
    elif change == "file removed":
        (folder / "cat/000.png").unlink()
    elif change == "file replaced":
        Image.new("RGB", (12, 12), "red").save(folder / "cat/000.png")
    images = read_folder(folder, size, cache, None, limit)
    assert "other files or another size" in caplog.text
    fresh = read_folder(folder, size, cache.with_name("fresh"), None, limit)
    np.testing.assert_array_equal(images.images, fresh.images)
    assert images.names == fresh.names and images.labels.tolist() == fresh.labels.tolist()


def test_an_outdated_cache_stays_whole_in_the_hands_of_who_opened_it(folder, cache):
    opened = read_folder(folder, 12, cache, None)
    before = np.array(opened.images)
    Image.new("RGB", (12, 12), "red").save(folder / "cat/000.png")
    read_folder(folder, 12, cache, None)
    np.testing.assert_array_equal(opened.images, before)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_cache_is_noticed_and_redone(folder, cache, suffix, damage, caplog):
    before = np.array(read_folder(folder, 12, cache, None).images)
    path = cache.with_name(f"{cache.name}.{suffix}")
    damage(path)
    after = read_folder(folder, 12, cache, None)
    np.testing.assert_array_equal(after.images, before)
    absent_listing = suffix == "json" and damage is Path.unlink  # not damage: nothing decoded
    assert absent_listing or "is damaged" in caplog.text


def test_decoding_that_breaks_off_leaves_no_cache(folder, cache, monkeypatch):
    def decode(path, size):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(datasets, "_decode_or_reason", decode)
        read_folder(folder, 12, cache, None)
    assert names_in(cache.parent) == [".images.of-12.lock"]
    assert len(read_folder(folder, 12, cache, None)) == 8


def decode_slowly(folder, cache, monkeypatch) -> multiprocessing.Process:
    """A started process that decodes a folder; it notes each image in a file, for which it takes 2 s."""

    def decode(path, size):
        with (folder.parent / "decoded").open("a") as file:
            file.write(f"{path}\n")
        time.sleep(2)
        return original(folder, path)

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "_decode_or_reason", decode)
        process = multiprocessing.get_context("fork").Process(target=read_folder, args=(folder, 12, cache, None))
        process.start()
    while not (folder.parent / "decoded").exists():
        time.sleep(0.01)
    return process


def test_a_second_process_waits_for_the_first_to_decode(folder, cache, monkeypatch):
    process = decode_slowly(folder, cache, monkeypatch)
    forbid_decoding(monkeypatch)
    assert len(read_folder(folder, 12, cache, None)) == 8
    process.join()
    assert process.exitcode == 0


def test_what_killed_processes_left_is_removed(folder, cache, monkeypatch):
    process = decode_slowly(folder, cache, monkeypatch)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [name for name in names_in(cache.parent) if name.startswith(".images.of-12-")]
    (cache.parent / ".images.of-128-used").mkdir()  # another cache's
    assert len(read_folder(folder, 12, cache, None)) == 8
    hidden = [name for name in names_in(cache.parent) if name.startswith(".")]
    assert hidden == [".images.of-12.lock", ".images.of-128-used"]


# read_folder: bad input


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(500))


def text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("spoil", [cut, empty, garbage, text])
def test_unreadable_files_are_skipped_and_listed(tmp_path, cache, suffix, spoil, caplog):
    write_images(tmp_path / "images", ["cat", "dog"], 4, suffix=suffix)
    bad = f"cat/001.{suffix}"
    spoil(tmp_path / "images" / bad)
    images = read_folder(tmp_path / "images", 12, cache, None)
    assert len(images) == 7 and bad not in images.names
    assert images.labels.tolist() == [0] * 3 + [1] * 4
    whole = [original(tmp_path / "images", name) for name in images.names]
    np.testing.assert_array_equal(images.images, np.stack(whole))
    (listed,) = json.loads(cache.with_name(f"{cache.name}.json").read_text())["bad"]
    assert listed.startswith(f"{bad} (") and len(listed) > len(bad) + 10
    assert "1 unreadable files skipped" in caplog.text and bad in caplog.text
    caplog.clear()
    read_folder(tmp_path / "images", 12, cache, None)
    assert bad in caplog.text  # said again when the cache is opened


def test_too_many_unreadable_files_are_an_error(folder, cache, caplog):
    for i in range(2):
        empty(folder / f"dog/00{i}.png")
    with pytest.raises(ValueError, match=r"more than 1 files can't be read as images: dog/000.png \("):
        read_folder(folder, 12, cache, None, max_bad=1)
    assert names_in(cache.parent) == [".images.of-12.lock"]
    assert len(read_folder(folder, 12, cache, None, max_bad=2)) == 6
    with pytest.raises(ValueError, match="more than 1 files"):  # of the cache, too
        read_folder(folder, 12, cache, None, max_bad=1)


def test_five_unreadable_files_are_the_least_that_is_borne(tmp_path, cache):
    write_images(tmp_path / "images", ["cat"], 8)
    for i in range(5):
        empty(tmp_path / f"images/cat/00{i}.png")
    assert len(read_folder(tmp_path / "images", 12, cache, None)) == 3
    empty(tmp_path / "images/cat/005.png")
    with pytest.raises(ValueError, match="more than 5 files"):
        read_folder(tmp_path / "images", 12, cache, None)


def test_class_without_a_readable_image_is_an_error(folder, cache):
    for i in range(4):
        empty(folder / f"dog/00{i}.png")
    with pytest.raises(ValueError, match="no image can be read in dog"):
        read_folder(folder, 12, cache, None)


def test_missing_folder_is_named(tmp_path, cache):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder; expected .*CLASS/FILE"):
        read_folder(tmp_path / "nowhere", 12, cache, None)


def test_folder_without_class_folders(tmp_path, cache):
    Image.new("RGB", (8, 8)).save(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="has no class folders; expected images in"):
        read_folder(tmp_path, 12, cache, None)


def test_class_folder_without_files(folder, cache):
    (folder / "empty/images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"images/empty has no files"):
        read_folder(folder, 12, cache, None)


def test_unknown_class_folders_are_named(folder, cache):
    message = "2 of 2 class folders are unknown: cat, dog; expected names out of 1000 such as n01440764"
    with pytest.raises(ValueError, match=message):
        read_folder(folder, 12, cache, datasets.imagenet_class_indices())


# split_root, imagenette


def test_split_root(tmp_path):
    write_images(tmp_path / "train", ["cat", "dog"], 1)
    with pytest.raises(FileNotFoundError, match=r"val is not a folder"):
        datasets.split_root(tmp_path)
    write_images(tmp_path / "val", ["cat", "cow"], 1)
    with pytest.raises(ValueError, match=r"must have the same classes; only one has cow, dog"):
        datasets.split_root(tmp_path)
    (tmp_path / "val/cow").rename(tmp_path / "val/dog")
    assert datasets.split_root(tmp_path) == (tmp_path / "train", tmp_path / "val")


def test_imagenette_is_downloaded_by_torchvision(tmp_path, monkeypatch):
    """torchvision's own code, given a small archive as if it had come over the network."""
    write_images(tmp_path / "imagenette2-160/train", ["n01440764", "n02102040"], 1, suffix="JPEG")
    target = tmp_path / "data"
    target.mkdir()
    with tarfile.open(target / "imagenette2-160.tgz", "w:gz") as tar:
        tar.add(tmp_path / "imagenette2-160", "imagenette2-160")
    with pytest.raises(FileNotFoundError, match=r"imagenette2-160/train does not exist"):
        datasets.imagenette(target, "train")
    address, _ = torchvision.datasets.Imagenette._ARCHIVES["160px"]
    monkeypatch.setitem(torchvision.datasets.Imagenette._ARCHIVES, "160px", (address, None))
    with pytest.raises(ValueError, match="has 2 images, not 9469"):
        datasets.imagenette(target, "train", download=True)
    monkeypatch.setitem(datasets.IMAGENETTE_IMAGES, "train", 2)
    assert datasets.imagenette(target, "train", download=True) == target / "imagenette2-160/train"


# the real images


@needs_assets
def test_real_imagenette(tmp_path, caplog):
    root = Path(ASSETS) / "images/imagenette-160"
    train, val = datasets.split_root(root)
    caplog.set_level(logging.WARNING)
    stored = read_folder(val, 160, tmp_path / "160", datasets.imagenet_class_indices(), limit_per_class=4)
    assert len(stored) == 40 and stored.logits.tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert stored.class_names[0] == "tench" and not caplog.text
    np.testing.assert_array_equal(stored.images[7], original(val, stored.names[7]))
    smaller = read_folder(val, 128, tmp_path / "128", datasets.imagenet_class_indices(), limit_per_class=4)
    resized = Image.open(val / stored.names[7]).resize((128, 128), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(smaller.images[7], np.asarray(resized))
    assert len(list(train.glob("*/*"))) == datasets.IMAGENETTE_IMAGES["train"]


@needs_assets
def test_real_imagenet_sample_is_cropped_without_resizing(tmp_path):
    root = Path(ASSETS) / "images/imagenet-sample-1000"
    assert sorted(path.name for path in root.iterdir()) == list(datasets.imagenet_class_indices())
    part = tmp_path / "part"
    part.mkdir()
    for wnid in list(datasets.imagenet_class_indices())[::100]:
        (part / wnid).symlink_to(root / wnid)
    images = read_folder(part, 224, tmp_path / "cache", datasets.imagenet_class_indices())
    assert images.logits.tolist() == list(range(0, 1000, 100))
    for name, pixels in zip(images.names, images.images, strict=True):
        expected = torchvision.transforms.CenterCrop(224)(Image.open(part / name).convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(expected))
