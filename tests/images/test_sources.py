"""Image sources: the built-in one, and what is said of a user's that does not do what a source does."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from prunelens import registry
from prunelens.images import sources
from prunelens.images.imageset import ImageSet


def test_the_built_in_source_is_found_and_passes() -> None:
    source = registry.find("images", "embedded")
    sources.check(source, 32, 100)
    assert registry.description(source, "embedded").label == "embedded textures"
    assert len(source("train", 5, 32, 1)) == 5 and source("train", 5, 32, 1).names[0].startswith("train/1/")


def test_the_built_in_source_needs_a_number() -> None:
    with pytest.raises(ValueError, match=r"data.train_images and data.validation_images: .* needs a number"):
        sources.embedded("train", None, 32, 0)


TURN = itertools.count()


def changed(change: Callable[[str, ImageSet], object]) -> sources.Source:
    return lambda split, n, size, seed: change(split, sources.embedded(split, n, size, seed))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (changed(lambda split, images: images.images), "gave train images as ndarray, expected an ImageSet"),
        (
            changed(lambda split, images: images.subset(range(7))),
            r"gave train images \(7, 32, 32, 3\), expected \(8, 32",
        ),
        (lambda split, n, size, seed: sources.embedded(split, n, 64, seed), r"gave train images \(8, 64, 64, 3\)"),
        (
            changed(lambda split, images: replace(images, class_names=[f"{split}{i}" for i in range(100)])),
            "gave other classes or outputs for train than for validation",
        ),
        (
            changed(lambda split, images: replace(images, outputs=images.outputs + (split == "train"))),
            "gave other classes or outputs for train than for validation",
        ),
        (
            lambda split, n, size, seed: sources.embedded("train", n, size, seed),
            "gave images for train that are in validation too: train/0/000000",
        ),
        (
            changed(lambda split, images: replace(images, images=np.roll(images.images, next(TURN), axis=0))),
            "gave other train images when it was asked again",
        ),
        (changed(lambda split, images: replace(images, labels=np.roll(images.labels, next(TURN)))), "asked again"),
        (changed(lambda split, images: replace(images, names=["one"] * len(images))), "names: 1 occur more than once"),
        (
            changed(lambda split, images: replace(images, outputs=images.outputs + 100)),
            r"gave a class for output \d+, expected less than network\.outputs = 101",
        ),
    ],
)
def test_a_source_that_gives_something_else_is_refused(source: sources.Source, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        sources.check(source, 32, 101)
    assert "\n" not in str(error.value)


def test_a_source_of_ones_own_needs_no_concepts() -> None:
    def noise(split: str, n: int | None, size: int, seed: int) -> ImageSet:
        pixels = np.random.default_rng([seed, len(split)]).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        names = [f"{split}/{i}" for i in range(n)]
        return ImageSet(pixels, np.arange(n, dtype=np.int64) % 2, names, ["a", "b"], np.array([3, 4]))

    sources.check(noise, 32, 5)
