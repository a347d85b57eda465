"""What a network can do: its logits on an image set, the accuracies read from them, and its latency."""

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from statsmodels.stats.proportion import proportion_confint
from torch import nn
from tqdm import tqdm

from prunelens.datasets import ImageSet

log = logging.getLogger(__name__)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode without gradients; then each module gets its mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def logits(
    network: nn.Module, image_set: ImageSet, batch_size: int, device: torch.device | str
) -> Float[np.ndarray, "images outputs"]:
    """The network's float32 logits for every image, in order, in one pass in evaluation mode.

    The network is moved to `device`; its mode is restored. It computes in float32, whose ties are rare.
    Raises ValueError for an empty image set.
    """
    if not len(image_set):
        raise ValueError("logits: the image set is empty")
    network.to(device)
    batches = tqdm(
        image_set.batches(batch_size, device),
        total=-(-len(image_set) // batch_size),
        desc="logits",
        unit="batch",
        delay=5,
        leave=False,
    )
    with evaluating(network):
        return torch.cat([network(images).float().cpu() for images, _ in batches]).numpy()


def accuracy(logits: Float[np.ndarray, "images outputs"], image_set: ImageSet) -> dict[str, float]:
    """Accuracies in [0, 1], among all outputs and ("known") among those of the data set's own classes.

    n; top1, top5, top1_known, top5_known; for both top-1 a Wilson 95 % interval, `_low` and `_high`. With
    fewer than five outputs top5 counts all of them. Ties go to the lower output, as in argmax, so a network
    with constant logits is right for one class only; NaN counts as the lowest logit. Raises ValueError if
    there is not one row per image, or no column for some class.
    """
    logits = _checked(logits, image_set)
    rank = _rank(logits, image_set.logits[image_set.labels])
    rank_known = _rank(logits[:, image_set.logits], image_set.labels)
    return {
        "n": len(image_set),
        **_top1(rank == 0, "top1"),
        "top5": float(np.mean(rank < 5)),
        **_top1(rank_known == 0, "top1_known"),
        "top5_known": float(np.mean(rank_known < 5)),
    }


def per_class(logits: Float[np.ndarray, "images outputs"], image_set: ImageSet) -> pd.DataFrame:
    """Top-1 of each class among the data set's own classes: a row per class, in label order.

    Columns: class (name), logit (network output), n (images), top1_known and its Wilson 95 % interval, low
    and high. A class without images has no accuracy (NaN).
    """
    counts = confusion(logits, image_set)
    table = pd.DataFrame({"class": image_set.class_names, "logit": image_set.logits, "n": counts.sum(axis=1)})
    right, n = np.diag(counts), table["n"].where(table["n"] > 0)
    table["top1_known"] = right / n
    table["low"], table["high"] = proportion_confint(right, n, method="wilson")
    return table


def confusion(logits: Float[np.ndarray, "images outputs"], image_set: ImageSet) -> Int64[np.ndarray, "classes classes"]:
    """Images counted by class (row) and by the highest logit among the data set's own classes (column)."""
    classes = len(image_set.class_names)
    predicted = _checked(logits, image_set)[:, image_set.logits].argmax(axis=1)
    pairs = image_set.labels * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def latency(
    network: nn.Module, size: int, batch_size: int, repeats: int, device: torch.device | str
) -> dict[str, object]:
    """Wall-clock time of a forward pass of `batch_size` random images of `size` pixels, `repeats` times.

    Three passes warm up. Evaluation mode, channels last, bfloat16 autocast on a GPU, which is waited for
    before every reading of the clock. A copy is timed: the network given stays as it is. Returns device,
    size, batch_size, threads (torch's, on the CPU), the seconds of each pass, their median, min and max,
    and images_per_second at the median.
    """
    device = torch.device(device)
    network = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with evaluating(network), autocast:
        seconds = [_seconds(network, images) for _ in range(3 + repeats)][3:]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "size": size,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "median": float(np.median(seconds)),
        "min": min(seconds),
        "max": max(seconds),
        "images_per_second": batch_size / float(np.median(seconds)),
    }


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    def wait() -> None:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    wait()
    start = time.perf_counter()
    network(images)
    wait()
    return time.perf_counter() - start


def _checked(logits: np.ndarray, image_set: ImageSet) -> np.ndarray:
    """The logits, with NaN as the lowest value: a diverged network then scores at chance, not by accident."""
    needed = int(image_set.logits.max()) + 1
    if logits.ndim != 2 or len(logits) != len(image_set) or logits.shape[1] < needed:
        raise ValueError(f"logits: expected ({len(image_set)}, {needed} or more), found {logits.shape}")
    if not len(image_set):
        raise ValueError("logits: the image set is empty")
    broken = int(np.isnan(logits).any(axis=1).sum())
    if broken:
        log.warning("logits of %d of %d images are not numbers", broken, len(image_set))
    return np.where(np.isnan(logits), -np.inf, logits)


def _rank(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place of the target output, 0 for the highest; among equals the lower output comes first."""
    of_target = np.take_along_axis(logits, targets[:, None], axis=1)
    before = np.arange(logits.shape[1]) < targets[:, None]
    return ((logits > of_target) | ((logits == of_target) & before)).sum(axis=1)


def _top1(right: np.ndarray, name: str) -> dict[str, float]:
    low, high = proportion_confint(int(right.sum()), len(right), method="wilson")
    return {name: float(right.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
