"""Activations of units on stimuli, all layers in one pass, and each unit's most and least activating images.

A unit's activation on an image is the spatial mean of its channel in the conv's output, before BatchNorm and
ReLU; for a Linear layer it is the logit.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from prunelens.evaluation import evaluating


def record(
    network: nn.Module,
    layers: dict[str, nn.Module],
    images: np.ndarray,
    batch_size: int,
    device: str | torch.device,
) -> dict[str, np.ndarray]:
    """Spatial mean of every layer's output on every image, in one pass of the network in eval mode.

    layers: name -> module of the network whose output is (b, units, h, w) or (b, units). The outputs are
    reduced as the modules return them, so a later in-place operation changes nothing. To record after the
    ReLU (class selectivity), pass the modules that end in it.
    images: (n, size, size, 3) uint8. The pass runs in float32: lower precision would tie
    what ranks an image.

    Returns name -> (n, units) float32 in the order of `layers`; 331 MB for 10,000 images of GoogLeNet's 8,280
    units. The network is left as found: no hooks, same modes. It must be on `device`.
    Raises ValueError for images of another kind, and naming the layers that the network never calls.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(f"expected uint8 images (n > 0, size, size, 3), found {images.dtype} {images.shape}")
    device = torch.device(device)
    values: dict[str, np.ndarray] = {}
    means: dict[str, torch.Tensor] = {}
    with evaluating(network), ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(_record_mean(layer, name, means).remove)
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            means.clear()
            network(batch.permute(0, 3, 1, 2).float().div(255))
            if missing := [name for name in layers if name not in means]:
                raise ValueError(f"the network never calls {', '.join(missing)}")
            for name in layers:
                if name not in values:
                    values[name] = np.empty((len(images), means[name].shape[1]), dtype=np.float32)
                values[name][start : start + len(batch)] = means[name].cpu().numpy()
    return values


def _record_mean(layer: nn.Module, name: str, means: dict[str, torch.Tensor]) -> RemovableHandle:
    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        means[name] = output.float() if output.ndim == 2 else output.mean((2, 3), dtype=torch.float32)

    return layer.register_forward_hook(hook)


def tie_keys(names: Sequence[str], seed: int) -> np.ndarray:
    """A random uint64 per image, (n,), that is a function of its name and the seed only.

    Ties broken by these keys do not depend on the order of the files, which is the order of their classes.
    """
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def extremes(values: np.ndarray, k: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of each unit's k most and k least activating images, ties in the order of the keys.

    values: (n, units) float32; keys: (n,) distinct uint64, see `tie_keys`. Returns (top, bottom), each
    (units, k) int64: top[u, 0] is the most, bottom[u, 0] the least active. Exact, and top and bottom are
    disjoint where n >= 2k, for a constant unit too, whose images come at random. 8,280 units on 4,000 images
    take about 2 s on one CPU core.
    Raises ValueError for k > n, equal keys, or values that are not finite.
    """
    n, units = values.shape
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} extremes of {n} images")
    order = np.argsort(keys)
    if keys.shape != (n,) or (np.diff(keys[order]) == 0).any():
        raise ValueError(f"expected {n} distinct keys, found {len(np.unique(keys))} in an array of shape {keys.shape}")

    top, bottom = np.empty((units, k), dtype=np.int64), np.empty((units, k), dtype=np.int64)
    for start in range(0, units, 256):
        chunk = np.ascontiguousarray(values[order, start : start + 256].T, dtype=np.float32)
        if not np.isfinite(chunk).all():
            unit, image = np.argwhere(~np.isfinite(chunk))[0]
            raise ValueError(f"activation of unit {start + unit} on image {order[image]} is {chunk[unit, image]}")
        ranked = np.sort(_sortable(chunk), axis=1)
        images = order[(ranked & 0xFFFFFFFF).astype(np.int64)]
        bottom[start : start + 256] = images[:, :k]
        top[start : start + 256] = images[:, ::-1][:, :k]
    return top, bottom


def _sortable(values: np.ndarray) -> np.ndarray:
    """(units, n) float32 -> uint64: the value's rank in the high 32 bits, the column in the low ones.

    One integer holds the value and its tie-breaker, so there are no ties and any fast sort is exact.
    """
    bits = (values + np.float32(0)).view(np.uint32)  # -0 + 0 = 0: the two zeros are a tie
    negative = bits >> 31 == 1
    ranks = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return ranks.astype(np.uint64) << np.uint64(32) | np.arange(values.shape[1], dtype=np.uint64)


def alive(values: np.ndarray) -> np.ndarray:
    """(n, units) -> (units,) bool: False for a unit that is the same on all images (max - min < 1e-8)."""
    return np.ptp(values, axis=0) >= 1e-8
