"""What a network can do: its logits on an image set, and the accuracies read from them."""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.stats import binomtest
from torch import nn

from prunelens.images.imageset import ImageSet
from prunelens.networks.hooks import evaluating

log = logging.getLogger(__name__)
Logits = Float[np.ndarray, "images outputs"]


def logits(network: nn.Module, image_set: ImageSet, batch_size: int, device: torch.device | str) -> Logits:
    """Compute the network's float32 logits for every image, in order, in evaluation mode; its modes are restored.

    Raises:
        ValueError: the image set is empty.
    """
    if not len(image_set):
        raise ValueError("logits: the image set is empty")
    network.to(device)
    with evaluating(network):  # in float32, whose ties are rare
        return torch.cat([network(images).float().cpu() for images, _ in image_set.batches(batch_size, device)]).numpy()


def accuracy(logits: Logits, image_set: ImageSet) -> dict[str, float]:
    """Compute accuracies in [0, 1] and the number of images, ``n``.

    ``top1`` and ``top5`` are among the outputs of the data's own classes, ``top1_all_outputs`` and ``top5_all_outputs``
    among all; ``_low`` and ``_high`` are Wilson 95 % intervals. With fewer than five outputs Top-5 counts all of them.
    Ties go to the lower output, as in argmax, so that a network with constant logits is right for one class only.

    Raises:
        ValueError: there is not one row per image, or no column for some class.
    """
    logits = _checked(logits, image_set)
    rank = _rank(logits[:, image_set.outputs], image_set.labels)
    rank_all = _rank(logits, image_set.outputs[image_set.labels])
    return {
        "n": len(image_set),
        **_top1(rank == 0, "top1"),
        "top5": float(np.mean(rank < 5)),
        **_top1(rank_all == 0, "top1_all_outputs"),
        "top5_all_outputs": float(np.mean(rank_all < 5)),
    }


def class_counts(logits: Logits, image_set: ImageSet) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Count by class the images that are right among the data's own classes, and all images."""
    classes = len(image_set.class_names)
    right = _checked(logits, image_set)[:, image_set.outputs].argmax(axis=1) == image_set.labels
    return np.bincount(image_set.labels[right], minlength=classes), np.bincount(image_set.labels, minlength=classes)


def _checked(logits: Logits, image_set: ImageSet) -> Logits:
    """The logits, with NaN as the lowest value: a diverged network then scores at chance, not by accident."""
    needed = int(image_set.outputs.max()) + 1
    if logits.ndim != 2 or len(logits) != len(image_set) or logits.shape[1] < needed:
        raise ValueError(f"logits: expected ({len(image_set)}, {needed} or more), found {logits.shape}")
    if not len(image_set):
        raise ValueError("logits: the image set is empty")
    if broken := int(np.isnan(logits).any(axis=1).sum()):
        log.warning("logits of %d of %d images are not numbers", broken, len(image_set))
    return np.where(np.isnan(logits), -np.inf, logits)


def _rank(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place of the target output, 0 for the highest; among equals the lower output comes first."""
    of_target = np.take_along_axis(logits, targets[:, None], axis=1)
    before = np.arange(logits.shape[1]) < targets[:, None]
    return ((logits > of_target) | ((logits == of_target) & before)).sum(axis=1)


def _top1(right: np.ndarray, name: str) -> dict[str, float]:
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {name: float(right.mean()), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
