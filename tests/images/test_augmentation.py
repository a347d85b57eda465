"""Batches of training images: shuffled, cropped and flipped by a seed."""

import numpy as np
import torch

from prunelens.images import sources
from prunelens.images.augmentation import augment, augmented_batches
from prunelens.images.imageset import to_batch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_comes_once_an_epoch_in_random_order() -> None:
    images = sources.embedded("train", 10, 32, 0)
    batches = list(augmented_batches(images, 4, 0.5, generator(), "cpu"))
    assert [pixels.shape for pixels, _ in batches] == [(4, 3, 32, 32)] * 2 + [(2, 3, 32, 32)]
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
    labels = torch.cat([labels for _, labels in batches])
    assert sorted(labels.tolist()) == sorted(images.labels.tolist())
    order = torch.randperm(10, generator=generator()).numpy()
    assert labels.tolist() == np.concatenate([images.labels[np.sort(order[i : i + 4])] for i in (0, 4, 8)]).tolist()


def test_one_seed_gives_the_same_batches() -> None:
    images = sources.embedded("train", 10, 32, 0)
    one, again, other = (list(augmented_batches(images, 4, 0.5, generator(seed), "cpu")) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_whole_crops_are_images_or_their_mirrors() -> None:
    images = to_batch(sources.embedded("train", 16, 32, 0).images, "cpu")
    crops = augment(images, 1.0, generator())  # only the aspect ratio is drawn: at most one side is cut
    assert crops.shape == images.shape and crops.min() >= 0 and crops.max() <= 1 + 1e-6
    constant = torch.full((8, 3, 32, 32), 0.25)
    torch.testing.assert_close(augment(constant, 0.08, generator()), constant)


def test_crops_keep_at_least_the_smallest_area() -> None:
    """Of an image of columns counted from left to right, a crop shows a range of columns."""
    columns = torch.linspace(0, 1, 64).expand(500, 3, 64, 64)
    small, large = (augment(columns, least, generator())[:, 0, 32] for least in (0.08, 0.9))
    width = lambda crops: crops.amax(1) - crops.amin(1)  # noqa: E731
    assert width(small).min() > 0.08**0.5 * 0.75**0.5 - 0.05  # the least area at the narrowest aspect ratio
    assert width(large).min() > (0.9 * 0.75) ** 0.5 - 0.05
    assert width(small).mean() < 0.8 < width(large).mean()
    assert 0.4 < (large[:, 0] > large[:, -1]).float().mean() < 0.6, "half are mirrored"
