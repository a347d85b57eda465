"""Folders of photographs: what is read, the cache of decoded images, and what is said of bad input."""

import json
import logging
import multiprocessing
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision import transforms

from prunelens import profile
from prunelens.images import folders
from prunelens.images.folders import Protocol, read_folder
from prunelens.images.imageset import pixel_hash as folders_hash

ASSETS = os.environ.get("PRUNELENS_ASSETS")
CLASSES = {"cat": 0, "dog": 1, "a": 0, "wide": 0, "empty": 2}
needs_assets = pytest.mark.skipif(not ASSETS, reason="no assets")


def write_images(root: Path, classes: list[str], per_class: int, size: tuple = (12, 12), suffix: str = "png") -> None:
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


# ImageNet's classes


def test_imagenet_classes() -> None:
    indices, names = folders.imagenet_class_indices(), folders.imagenet_classes()
    assert list(indices.values()) == list(range(1000)) and list(indices) == sorted(indices)
    known = {"n01440764": (0, "tench"), "n02102040": (217, "English springer"), "n13133613": (998, "ear")}
    assert {wnid: (indices[wnid], names[wnid]) for wnid in known} == known
    assert len(set(names.values())) == 1000


# read_folder: what is read


def test_folder_of_the_right_size_is_read_as_it_is(folder: Path, cache: Path) -> None:
    images = read_folder(folder, Protocol(12), cache, CLASSES)
    assert images.names == [f"{c}/{i:03d}.png" for c in ("cat", "dog") for i in range(4)]
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    assert images.class_names == ["cat", "dog"] and images.outputs.tolist() == [0, 1]
    np.testing.assert_array_equal(images.images, np.stack([original(folder, name) for name in images.names]))


def test_class_indices_give_the_outputs_and_readable_names(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path / "images", ["n02102040", "n01440764"], 1)
    images = read_folder(tmp_path / "images", Protocol(12), cache, folders.imagenet_class_indices())
    assert images.outputs.tolist() == [0, 217] and images.class_names == ["tench", "English springer"]
    assert images.names == ["n01440764/000.png", "n02102040/000.png"]


def test_shorter_side_is_resized_then_center_cropped(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path / "images", ["wide"], 1, size=(40, 20))
    wide = Image.open(tmp_path / "images/wide/000.png")
    expected = np.asarray(wide.resize((20, 10), Image.Resampling.BILINEAR))[:, 5:15]
    images = read_folder(tmp_path / "images", Protocol(10), cache, CLASSES)
    np.testing.assert_array_equal(images.images[0], expected)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (31, 33), (33, 10), (10, 10), (101, 100), (7, 500), (9, 4)])
@pytest.mark.parametrize("protocol", [Protocol(10), Protocol(10, 13), Protocol(9, 12, "bicubic"), Protocol(10, 10)])
def test_pixels_are_those_of_torchvision(
    tmp_path: Path, cache: Path, size: tuple[int, int], protocol: Protocol
) -> None:
    write_images(tmp_path / "images", ["a"], 1, size=size)
    interpolation = transforms.InterpolationMode(protocol.interpolation)
    resize = transforms.Resize(protocol.resize or protocol.size, interpolation, antialias=True)
    theirs = transforms.Compose([resize, transforms.CenterCrop(protocol.size)])
    expected = np.asarray(theirs(Image.open(tmp_path / "images/a/000.png")))
    np.testing.assert_array_equal(read_folder(tmp_path / "images", protocol, cache, CLASSES).images[0], expected)


def test_imagenet_is_prepared_as_torchvisions_weights_expect() -> None:
    data = profile.load("imagenet").data
    theirs = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    assert ([data.size], [data.resize], data.interpolation) == (
        theirs.crop_size, theirs.resize_size, theirs.interpolation.value
    )  # fmt: skip


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
def test_every_color_mode_becomes_rgb(
    tmp_path: Path, cache: Path, mode: str, color: object, suffix: str, expected: tuple[int, ...]
) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    path = tmp_path / f"images/a/a.{suffix}"
    Image.new(mode, (8, 8), color).save(path)
    assert Image.open(path).mode == mode
    pixels = read_folder(tmp_path / "images", Protocol(8), cache, CLASSES).images[0]
    np.testing.assert_allclose(pixels.astype(int), np.full((8, 8, 3), expected), atol=2)


def test_hidden_files_and_folders_are_left_out(folder: Path, cache: Path) -> None:
    (folder / "cat/.DS_Store").write_bytes(b"x")
    (folder / ".checkpoints").mkdir()
    assert len(read_folder(folder, Protocol(12), cache, CLASSES)) == 8


# read_folder: the cache


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(path: Path, protocol: Protocol) -> None:
        raise AssertionError(f"decoded {path} again")

    monkeypatch.setattr(folders, "_decode_or_reason", decode)


def test_cache_is_opened_by_the_second_call(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_folder(folder, Protocol(12), cache, CLASSES)
    forbid_decoding(monkeypatch)
    second = read_folder(folder, Protocol(12), cache, {"cat": 5, "dog": 3})  # the outputs are no part of the cache
    assert isinstance(second.images, np.memmap) and not second.images.flags.writeable
    np.testing.assert_array_equal(first.images, second.images)
    assert second.names == first.names and second.outputs.tolist() == [5, 3]
    assert names_in(cache.parent) == [".images.of-12.lock", "images.of-12.json", "images.of-12.npy"]


@pytest.mark.parametrize("change", ["file added", "file removed", "file replaced", "same name and length", "protocol"])
def test_cache_is_redone_when_its_source_changes(
    folder: Path, cache: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (12, 12), "blue").save(folder / "cat/000.bmp")
    read_folder(folder, Protocol(12), cache, CLASSES)
    protocol = Protocol(12, 14) if change == "protocol" else Protocol(12)
    if change == "file added":
        Image.new("RGB", (12, 12), "red").save(folder / "cat/new.png")
    elif change == "file removed":
        (folder / "cat/000.png").unlink()
    elif change == "file replaced":
        Image.new("RGB", (12, 12), "red").save(folder / "cat/000.png")
    elif change == "same name and length":
        replaced, length = folder / "cat/000.bmp", (folder / "cat/000.bmp").stat().st_size
        Image.new("RGB", (12, 12), "red").save(replaced)
        assert replaced.stat().st_size == length
    images = read_folder(folder, protocol, cache, CLASSES)
    assert "other files or follows another protocol" in caplog.text
    fresh = read_folder(folder, protocol, cache.with_name("fresh"), CLASSES)
    np.testing.assert_array_equal(images.images, fresh.images)
    assert images.names == fresh.names and images.labels.tolist() == fresh.labels.tolist()


def test_an_outdated_cache_stays_whole_in_the_hands_of_who_opened_it(folder: Path, cache: Path) -> None:
    opened = read_folder(folder, Protocol(12), cache, CLASSES)
    before = np.array(opened.images)
    Image.new("RGB", (12, 12), "red").save(folder / "cat/000.png")
    read_folder(folder, Protocol(12), cache, CLASSES)
    np.testing.assert_array_equal(opened.images, before)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_cache_is_noticed_and_redone(
    folder: Path, cache: Path, suffix: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = np.array(read_folder(folder, Protocol(12), cache, CLASSES).images)
    path = cache.with_name(f"{cache.name}.{suffix}")
    damage(path)
    after = read_folder(folder, Protocol(12), cache, CLASSES)
    np.testing.assert_array_equal(after.images, before)
    absent_listing = suffix == "json" and damage is Path.unlink  # not damage: nothing decoded
    assert absent_listing or "is damaged" in caplog.text


@pytest.mark.parametrize("damage", ["pixels", "names"])
def test_a_cache_of_other_pixels_or_names_is_noticed_and_redone(
    folder: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_folder(folder, Protocol(12), cache, CLASSES)
    pixels, content = np.array(before.images), before.content
    if damage == "pixels":
        stored = np.load(cache.with_name(f"{cache.name}.npy"), mmap_mode="r+")
        stored[5:] = 0
        stored.flush()
    else:
        listing = cache.with_name(f"{cache.name}.json")
        listing.write_text(listing.read_text().replace("cat/003.png", "dog/003.png"))
    after = read_folder(folder, Protocol(12), cache, CLASSES)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(after.images, pixels)
    assert after.content == content and after.labels.tolist() == [0] * 4 + [1] * 4


def test_pixels_are_hashed_again_only_where_their_file_has_changed(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read_folder(folder, Protocol(12), cache, CLASSES)
    hashed = []
    monkeypatch.setattr(folders, "pixel_hash", lambda images: hashed.append(len(images)) or folders_hash(images))
    read_folder(folder, Protocol(12), cache, CLASSES)
    assert hashed == []
    os.utime(cache.with_name(f"{cache.name}.npy"), (1, 1))  # a copy has another time
    for _ in range(2):
        read_folder(folder, Protocol(12), cache, CLASSES)
    assert hashed == [8] and not caplog.text


def test_a_cache_that_cannot_be_written_is_opened(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_folder(folder, Protocol(12), cache, CLASSES)
    os.utime(cache.with_name(f"{cache.name}.npy"), (1, 1))

    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(folders, "write_text", read_only)
    monkeypatch.setattr(folders, "locked", read_only)
    assert len(read_folder(folder, Protocol(12), cache, CLASSES)) == 8


def test_content_is_that_of_the_same_images_in_memory(folder: Path, cache: Path) -> None:
    images = read_folder(folder, Protocol(12), cache, CLASSES)
    assert images.content == images.subset(range(8)).content


def test_decoding_that_breaks_off_leaves_no_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(path: Path, protocol: Protocol) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folders, "_decode_or_reason", decode)
        read_folder(folder, Protocol(12), cache, CLASSES)
    assert names_in(cache.parent) == [".images.of-12.lock"]
    assert len(read_folder(folder, Protocol(12), cache, CLASSES)) == 8


def decode_slowly(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> multiprocessing.Process:
    """A started process that decodes a folder; it notes each image in a file, for which it takes 2 s."""

    def decode(path: Path, protocol: Protocol) -> np.ndarray:
        with (folder.parent / "decoded").open("a") as file:
            file.write(f"{path}\n")
        time.sleep(2)
        return original(folder, path)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_decode_or_reason", decode)
        process = multiprocessing.get_context("fork").Process(
            target=read_folder, args=(folder, Protocol(12), cache, CLASSES)
        )
        process.start()
    while not (folder.parent / "decoded").exists():
        assert process.is_alive(), "it ended before it decoded"
        time.sleep(0.01)
    return process


def test_a_second_process_waits_for_the_first_to_decode(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = decode_slowly(folder, cache, monkeypatch)
    forbid_decoding(monkeypatch)
    assert len(read_folder(folder, Protocol(12), cache, CLASSES)) == 8
    process.join()
    assert process.exitcode == 0


def test_what_killed_processes_left_is_removed(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = decode_slowly(folder, cache, monkeypatch)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [name for name in names_in(cache.parent) if name.endswith("-images.of-12.npy")]
    (cache.parent / ".host-1-images.of-128.npy").touch()  # another cache's
    assert len(read_folder(folder, Protocol(12), cache, CLASSES)) == 8
    hidden = [name for name in names_in(cache.parent) if name.startswith(".")]
    assert hidden == [".host-1-images.of-128.npy", ".images.of-12.lock"]


# read_folder: bad input


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(500))


def text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("spoil", [cut, empty, garbage, text])
def test_unreadable_files_are_skipped_and_listed(
    tmp_path: Path, cache: Path, suffix: str, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "images", ["cat", "dog"], 4, suffix=suffix)
    bad = f"cat/001.{suffix}"
    spoil(tmp_path / "images" / bad)
    images = read_folder(tmp_path / "images", Protocol(12), cache, CLASSES)
    assert len(images) == 7 and bad not in images.names
    assert images.labels.tolist() == [0] * 3 + [1] * 4
    whole = [original(tmp_path / "images", name) for name in images.names]
    np.testing.assert_array_equal(images.images, np.stack(whole))
    (listed,) = json.loads(cache.with_name(f"{cache.name}.json").read_text())["bad"]
    assert listed.startswith(f"{bad} (") and len(listed) > len(bad) + 10
    assert "1 unreadable files skipped" in caplog.text and bad in caplog.text
    caplog.clear()
    read_folder(tmp_path / "images", Protocol(12), cache, CLASSES)
    assert bad in caplog.text  # said again when the cache is opened


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [empty, link_to_nothing, folder_instead])
def test_more_than_five_that_cannot_be_read_are_an_error(
    tmp_path: Path, cache: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Links to nothing and folders are counted too: whatever is in a class folder is meant as an image."""
    write_images(tmp_path / "images", ["cat", "dog"], 4)
    for i in range(5):
        spoil(tmp_path / f"images/{'cat' if i < 3 else 'dog'}/00{i % 3}.png")
    assert len(read_folder(tmp_path / "images", Protocol(12), cache, CLASSES)) == 3
    assert "5 unreadable files skipped: cat/000.png" in caplog.text
    spoil(tmp_path / "images/dog/002.png")
    before = names_in(cache.parent)
    with pytest.raises(ValueError, match=r"more than 5 files can't be read as images: cat/000.png \("):
        read_folder(tmp_path / "images", Protocol(12), cache, CLASSES)
    assert names_in(cache.parent) == before


def test_class_without_a_readable_image_is_an_error(folder: Path, cache: Path) -> None:
    for i in range(4):
        empty(folder / f"dog/00{i}.png")
    with pytest.raises(ValueError, match="no image can be read in dog"):
        read_folder(folder, Protocol(12), cache, CLASSES)


def test_missing_folder_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder; expected .*CLASS/FILE"):
        read_folder(tmp_path / "nowhere", Protocol(12), cache, CLASSES)


def test_folder_without_class_folders(tmp_path: Path, cache: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="has no class folders; expected images in"):
        read_folder(tmp_path, Protocol(12), cache, CLASSES)


def test_class_folder_without_files(folder: Path, cache: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"images/empty has no files"):
        read_folder(folder, Protocol(12), cache, CLASSES)


def test_unknown_class_folders_are_named(folder: Path, cache: Path) -> None:
    message = "2 of 2 class folders are unknown: cat, dog; expected names out of 1000 such as n01440764"
    with pytest.raises(ValueError, match=message):
        read_folder(folder, Protocol(12), cache, folders.imagenet_class_indices())


# split_root, imagenette


def test_split_root(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ["cat", "dog"], 1)
    with pytest.raises(FileNotFoundError, match=r"val is not a folder"):
        folders.split_root(tmp_path)
    write_images(tmp_path / "val", ["cat", "cow"], 1)
    with pytest.raises(ValueError, match=r"must have the same classes; only one has cow, dog"):
        folders.split_root(tmp_path)
    (tmp_path / "val/cow").rename(tmp_path / "val/dog")
    assert folders.split_root(tmp_path) == (tmp_path / "train", tmp_path / "val")


def test_validation_images_are_others_than_training_images(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ["cat", "dog"], 1)
    (tmp_path / "val").symlink_to("train")
    with pytest.raises(ValueError, match="are the same folder, expected other images for validation"):
        folders.split_root(tmp_path)


def test_imagenette_is_downloaded_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own code, given a small archive as if it had come over the network."""
    write_images(tmp_path / "imagenette2-160/train", ["n01440764", "n02102040"], 1, suffix="JPEG")
    target = tmp_path / "data"
    target.mkdir()
    with tarfile.open(target / "imagenette2-160.tgz", "w:gz") as tar:
        tar.add(tmp_path / "imagenette2-160", "imagenette2-160")
    with pytest.raises(FileNotFoundError, match=r"imagenette2-160/train does not exist"):
        folders.imagenette(target, "train", download=False)
    address, _ = torchvision.datasets.Imagenette._ARCHIVES["160px"]
    monkeypatch.setitem(torchvision.datasets.Imagenette._ARCHIVES, "160px", (address, None))
    with pytest.raises(ValueError, match="has 2 images, not 9469"):
        folders.imagenette(target, "train", download=True)
    monkeypatch.setitem(folders.IMAGENETTE_IMAGES, "train", 2)
    assert folders.imagenette(target, "train", download=True) == target / "imagenette2-160/train"


# the real images


def part_of(folder: Path, classes: list[str], per_class: int, part: Path) -> Path:
    """A folder of links to the first images of some classes."""
    for name in classes:
        (part / name).mkdir(parents=True)
        for path in sorted((folder / name).iterdir())[:per_class]:
            (part / name / path.name).symlink_to(path)
    return part


@needs_assets
def test_real_imagenette(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = folders.split_root(Path(ASSETS) / "images/imagenette-160")
    caplog.set_level(logging.WARNING)
    part = part_of(val, [folder.name for folder in val.iterdir()], 4, tmp_path / "part")
    stored = read_folder(part, Protocol(160), tmp_path / "160", folders.imagenet_class_indices())
    assert len(stored) == 40 and stored.outputs.tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert stored.class_names[0] == "tench" and not caplog.text
    np.testing.assert_array_equal(stored.images[7], original(val, stored.names[7]))
    smaller = read_folder(part, Protocol(128), tmp_path / "128", folders.imagenet_class_indices())
    resized = Image.open(val / stored.names[7]).resize((128, 128), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(smaller.images[7], np.asarray(resized))
    assert len(list(train.glob("*/*"))) == folders.IMAGENETTE_IMAGES["train"]


@needs_assets
def test_real_imagenet_sample_is_cropped_without_resizing(tmp_path: Path) -> None:
    root = Path(ASSETS) / "images/imagenet-sample-1000"
    assert sorted(path.name for path in root.iterdir()) == list(folders.imagenet_class_indices())
    part = part_of(root, list(folders.imagenet_class_indices())[::100], 1, tmp_path / "part")
    images = read_folder(part, Protocol(224), tmp_path / "cache", folders.imagenet_class_indices())
    assert images.outputs.tolist() == list(range(0, 1000, 100))
    for name, pixels in zip(images.names, images.images, strict=True):
        expected = torchvision.transforms.CenterCrop(224)(Image.open(part / name).convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(expected))
