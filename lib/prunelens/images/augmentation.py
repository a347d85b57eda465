"""Shuffled batches of randomly cropped and flipped images."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunelens.images.imageset import ImageSet, to_batch


def augmented_batches(
    image_set: ImageSet, batch_size: int, smallest_crop: float, generator: torch.Generator, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images once, in random order, randomly cropped and flipped: (b, 3, size, size) in [0, 1], and labels (b,)."""
    order = torch.randperm(len(image_set), generator=generator).numpy()
    for start in range(0, len(order), batch_size):
        indices = np.sort(order[start : start + batch_size])  # sorted: a memory map is read forwards
        labels = torch.from_numpy(image_set.labels[indices]).to(device)
        yield augment(to_batch(image_set.images[indices], device), smallest_crop, generator), labels


def augment(images: Tensor, smallest_crop: float, generator: torch.Generator) -> Tensor:
    """Random resized crop and horizontal flip of every image, on the device.

    It differs from torchvision's RandomResizedCrop in three ways: it crops what was decoded, which is the center of the
    photograph (see `folders.Protocol`); a crop too wide or too high is clamped, not drawn again; bilinear sampling has
    no antialiasing.

    Args:
        images: (n, 3, height, width).
        smallest_crop: the least fraction of the area that a crop keeps (the paper: .08); aspect ratios 3/4 to 4/3.
        generator: of the CPU, whatever the images' device.
    """
    n = len(images)
    area = smallest_crop + (1 - smallest_crop) * torch.rand(n, generator=generator)
    ratio = torch.exp(torch.empty(n).uniform_(-0.2877, 0.2877, generator=generator))  # log(4/3) = .2877
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.randint(2, (n,), generator=generator) * 2 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = (1 - width) * (2 * torch.rand(n, generator=generator) - 1)
    theta[:, 1, 2] = (1 - height) * (2 * torch.rand(n, generator=generator) - 1)
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    crops = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return crops.contiguous(memory_format=torch.channels_last)
