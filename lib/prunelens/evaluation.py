"""What a network can do: its logits on an image set, the accuracies read from them, and its latency."""

import copy
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

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


def confusion(logits: Float[np.ndarray, "images outputs"], image_set: ImageSet) -> Int64[np.ndarray, "classes classes"]:
    """Images counted by class (row) and by the highest logit among the data set's own classes (column)."""
    classes = len(image_set.class_names)
    predicted = _checked(logits, image_set)[:, image_set.logits].argmax(axis=1)
    pairs = image_set.labels * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def latency(
    networks: Mapping[str, nn.Module], size: int, batch_size: int, repeats: int, device: torch.device | str
) -> pd.DataFrame:
    """Wall-clock time of forward passes of `batch_size` random images of `size` pixels: a row per network.

    The networks take turns, `repeats` rounds after three that warm up, so that what slows the machine for a
    while slows all of them. Evaluation mode, channels last, bfloat16 autocast on a GPU, which is waited for
    before every reading of the clock. Copies are timed: the networks given stay as they are. Columns: network
    (its name), batch_size, size, seconds, seconds_low, seconds_high (median, least and most), images_per_second
    at the median, and speedup, speedup_low, speedup_high: the first network's seconds over this one's in the same
    round (median, least and most).
    """
    device = torch.device(device)
    copies = {
        name: copy.deepcopy(network).to(device, memory_format=torch.channels_last) for name, network in networks.items()
    }
    images = torch.rand(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    seconds = np.empty((3 + repeats, len(copies)))
    with ExitStack() as stack:
        for network in copies.values():
            stack.enter_context(evaluating(network))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"))
        for turn in range(len(seconds)):
            seconds[turn] = [_seconds(network, images) for network in copies.values()]
    seconds = seconds[3:]
    table = pd.DataFrame({"network": list(copies), "batch_size": batch_size, "size": size})
    for name, values in (("seconds", seconds), ("speedup", seconds[:, :1] / seconds)):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = (
            np.median(values, 0), values.min(0), values.max(0),
        )  # fmt: skip
    return table.assign(images_per_second=batch_size / table.seconds)


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
