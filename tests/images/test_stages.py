"""Images of a study: which classes they are of, that validation is apart from training, and what is said otherwise."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunelens import profile
from prunelens.images import stages as images
from prunelens.stages import Pipeline
from prunelens.store import Store

EIGHT = [f"class{label}" for label in range(8)]
ALL = ["data.source=folder", "data.train_images=null", "data.validation_images=null", "data.stimulus_images=64",
       "interpretability.tasks=1", "interpretability.explanations=1", "sensitivity.images=8",
       "network.outputs=8"]  # fmt: skip


def write(folder: Path, classes: list[str], n: int = 2, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{i}.bmp")


def pipeline(root: Path, *overrides: str) -> Pipeline:
    wanted = profile.load("smoke", [*ALL, "data.size=32", f"data.root={root}", *overrides])
    return Pipeline(wanted, Store(root / "runs"), "cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight classes, two images each, in train and val."""
    write(tmp_path / "train", EIGHT)
    write(tmp_path / "val", EIGHT, seed=1)
    return tmp_path


def test_folders_stand_for_the_outputs_in_the_order_of_their_names(root: Path) -> None:
    assert images.validation(pipeline(root)).outputs.tolist() == list(range(8))


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_more_or_fewer_folders_than_outputs_are_refused_unless_the_profile_names_them(root: Path, change: str) -> None:
    for split in ("train", "val"):
        if change == "fewer":
            shutil.rmtree(root / split / "class2")
        else:
            shutil.copytree(root / split / "class2", root / split / "class8")
    n = 7 if change == "fewer" else 9
    with pytest.raises(ValueError, match=rf"^network\.outputs: found 8, but .*train has {n} class folders; .*classes"):
        images.validation(pipeline(root))
    named = pipeline(root, f"data.classes=[{', '.join(EIGHT)}]")
    if change == "fewer":
        assert images.validation(named).outputs.tolist() == [0, 1, 3, 4, 5, 6, 7]
    else:
        with pytest.raises(ValueError, match=r"1 of 9 class folders are unknown: class8"):
            images.validation(named)


@pytest.mark.parametrize("form", ["{}", "class_{}"])
def test_folders_with_two_orders_are_refused_unless_the_profile_names_them(tmp_path: Path, form: str) -> None:
    names = [form.format(i) for i in range(12)]
    for seed, split in enumerate(("train", "val")):
        write(tmp_path / split, names, seed=seed)
    twelve = "network.outputs=12"
    with pytest.raises(ValueError, match=r"^data\.classes: found nothing, expected the names .* in the order of the"):
        images.validation(pipeline(tmp_path, twelve))
    found = images.validation(pipeline(tmp_path, twelve, f"data.classes={names}"))
    assert [names[output] for output in found.outputs] == found.class_names


@pytest.mark.parametrize(
    ("key", "split"), [("train_images", "train"), ("validation_images", "validation"), ("stimulus_images", "stimuli")]
)
def test_more_images_than_there_are_name_the_key(root: Path, key: str, split: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{key}: found 800, expected at most 16"):
        getattr(images, split)(pipeline(root, f"data.{key}=800"))


def relink(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to(root / "train")


def relink_classes(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    for folder in (root / "train").iterdir():
        (root / "val" / folder.name).symlink_to(folder)


def copy_renamed(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    for file in [*(root / "val").glob("*/*")]:
        file.rename(file.with_name(f"renamed-{file.name}"))


@pytest.mark.parametrize("make", [relink, relink_classes, copy_renamed])
def test_validation_images_that_are_trained_on_are_refused(root: Path, make: object) -> None:
    make(root)
    with pytest.raises(ValueError, match=r"are the same folder|^data\.root: 16 of 16 validation images are among the"):
        images.train(pipeline(root))


def test_a_few_that_both_have_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(root / "train/class0/0.bmp", root / "val/class0/0.bmp")
    assert len(images.train(pipeline(root))) == 16
    assert "1 of 16 validation images are among the training images: class0/0.bmp" in caplog.text


def test_replaced_images_make_other_results(root: Path) -> None:
    """Of the same name and length; a time of modification can be set."""
    import os

    before = pipeline(root).key("classes")
    file = root / "val/class3/1.bmp"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    Image.new("RGB", (32, 32)).save(file)
    os.utime(file, ns=times)
    assert pipeline(root).key("classes") != before
    assert not images.validation(pipeline(root)).images[7].any()


def test_extra_stimuli_may_have_the_same_names_and_other_classes(root: Path) -> None:
    write(root / "extra", ["class3", "thing", "other"], seed=2)
    found = images.stimuli(pipeline(root, "data.stimulus_images=16", f"data.extra_stimuli={root / 'extra'}"))
    shown = dict(zip(found.names, found.outputs[found.labels].tolist(), strict=True))
    assert len(found) == 22 and shown["class3/0.bmp"] == shown["extra/class3/0.bmp"] == 3
    assert shown["extra/other/0.bmp"] == 8 and shown["extra/thing/1.bmp"] == 9, "no output of the network"


def test_extremes_are_at_most_a_quarter_of_all_stimuli(root: Path) -> None:
    write(root / "extra", ["thing"], n=8, seed=2)
    asked = ["data.stimulus_images=16", f"data.extra_stimuli={root / 'extra'}", "interpretability.explanations=2"]
    assert len(images.stimuli(pipeline(root, *asked))) == 24
    with pytest.raises(ValueError, match=r"found 24 stimuli, of which 2 .* 1 explanations take 8 .* at least 32"):
        images.stimuli(pipeline(root, *asked[:2], "interpretability.tasks=2"))


@pytest.mark.parametrize("wrong", ["absent", "empty"])
def test_extra_stimuli_that_cannot_be_read_name_the_key(root: Path, wrong: str) -> None:
    (root / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^data\.extra_stimuli: .*{wrong}"):
        images.stimuli(pipeline(root, "data.stimulus_images=16", f"data.extra_stimuli={root / wrong}"))


def test_a_class_folder_that_is_a_link_to_nothing_is_no_absent_class(root: Path) -> None:
    shutil.rmtree(root / "val/class4")
    (root / "val/class4").symlink_to(root / "gone")
    with pytest.raises(FileNotFoundError, match=re.escape(str(root / "val/class4"))):
        images.validation(pipeline(root))
