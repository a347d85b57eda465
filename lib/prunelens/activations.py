"""Activations of units on stimuli, all layers in one pass, and each unit's most and least activating images.

A unit's activation on an image is the spatial mean of its channel in the conv's output, before BatchNorm and
ReLU; for a Linear layer it is the logit. Beside these (`networks.unit_layers`), `batch_norm_layers` and
`rectified_layers` name the modules to record after BatchNorm and after the ReLU; all together are one pass:

    record(network, {**unit_layers(network), **batch_norm_layers(network), **rectified_layers(network)}, ...)
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from scipy.special import softmax
from torch import nn
from torch.utils.hooks import RemovableHandle

from prunelens.evaluation import evaluating
from prunelens.networks import conv_layers


def batch_norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The BatchNorm layers by dotted name, in order; none where the network has none. Their units are the
    convs' units before the ReLU: `record` reduces an output before the in-place ReLU behind it is run."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not name.startswith("aux")
    }


def rectified_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The blocks around the convs, which end in the ReLU, by dotted name ("inception3a.branch1" for the conv
    "inception3a.branch1.conv"): what measures of selectivity are defined on."""
    names = (name.removesuffix(".conv") for name in conv_layers(network))
    return {name: network.get_submodule(name) for name in names}


def record(
    network: nn.Module,
    layers: dict[str, nn.Module],
    images: np.ndarray,
    batch_size: int,
    device: str | torch.device,
) -> dict[str, np.ndarray]:
    """Spatial mean of every layer's output on every image, in one pass: name -> (n, units) float32, see `batches`.

    331 MB for 10,000 images of GoogLeNet's 8,280 units; more images than fit are for `Extremes`.
    """
    values: dict[str, np.ndarray] = {}
    for batch, means in batches(network, layers, images, batch_size, device):
        for name, mean in means.items():
            if name not in values:
                values[name] = np.empty((len(images), mean.shape[1]), dtype=np.float32)
            values[name][batch] = mean
    return values


def batches(
    network: nn.Module,
    layers: dict[str, nn.Module],
    images: np.ndarray,
    batch_size: int,
    device: str | torch.device,
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Spatial mean of every layer's output, batch after batch of the images: the batch's place among them, and
    name -> (b, units) float32 in the order of `layers`. The network is run in eval mode.

    layers: name -> module of the network whose output is (b, units, h, w) or (b, units). The outputs are
    reduced as the modules return them, so a later in-place operation changes nothing.
    images: (n, size, size, 3) uint8. The pass runs in float32: lower precision would tie
    what ranks an image.

    Between batches the network is as it was found: no hooks, same modes. It must be on `device`.
    Raises ValueError for images of another kind, and naming the layers that the network never calls.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(f"expected uint8 images (n > 0, size, size, 3), found {images.dtype} {images.shape}")
    for start in range(0, len(images), batch_size):
        batch = slice(start, min(start + batch_size, len(images)))
        pixels = torch.from_numpy(np.array(images[batch])).to(device)
        means = _means(network, layers, pixels.permute(0, 3, 1, 2).float().div(255))
        if missing := [name for name in layers if name not in means]:
            raise ValueError(f"the network never calls {', '.join(missing)}")
        yield batch, {name: means[name].cpu().numpy() for name in layers}


def _means(network: nn.Module, layers: dict[str, nn.Module], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    means: dict[str, torch.Tensor] = {}
    with evaluating(network), ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(_record_mean(layer, name, means).remove)
        network(pixels)
    return means


def _record_mean(layer: nn.Module, name: str, means: dict[str, torch.Tensor]) -> RemovableHandle:
    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        means[name] = output.float() if output.ndim == 2 else output.mean((2, 3), dtype=torch.float32)

    return layer.register_forward_hook(hook)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over a network's outputs, (n, outputs) -> (n, outputs) float32 in 0..1, computed in float64.

    Confident networks saturate it: float32 tells no probabilities between 1 - 6e-8 and 1 apart. See `tied`.
    """
    return softmax(logits.astype(np.float64), axis=1).astype(np.float32)


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
    order = _tie_order(k, keys, n)
    top, bottom = np.empty((units, k), dtype=np.int64), np.empty((units, k), dtype=np.int64)
    for start in range(0, units, 256):
        chunk = values[order, start : start + 256]
        _require_finite(chunk, order, start)
        ranked = np.sort(_pack(chunk, np.arange(n)), axis=1)
        bottom[start : start + 256] = order[_rank(ranked[:, :k])]
        top[start : start + 256] = order[_rank(ranked[:, ::-1][:, :k])]
    return top, bottom


def alive(values: np.ndarray) -> np.ndarray:
    """(n, units) -> (units,) bool: False for a unit that is the same on all images (max - min < 1e-8)."""
    return np.ptp(values, axis=0) >= 1e-8


class Extremes:
    """What `extremes` and `alive` give, of image sets too large for a matrix: batch after batch.

    keys: (n,) distinct uint64 of all images of the set, see `tie_keys`. Batches may come in any order and size;
    the result is that of the images seen, ties included. The state is 16 k bytes a unit and 9 n for the ties:
    38 MB for 8,280 units, k = 200 and ImageNet's 1.28 M images. 2,048 images of 8,280 units take about 0.4 s on
    one CPU core, and the first ones, which are all among the k, 2 s.
    Raises ValueError for k > n, or equal keys.
    """

    def __init__(self, k: int, keys: np.ndarray) -> None:
        self.k = k
        self._order = _tie_order(k, keys, len(keys)).astype(np.int32)
        self._ranks = np.empty_like(self._order)  # of each image among the keys
        self._ranks[self._order] = np.arange(len(keys), dtype=np.int32)
        self._seen = np.zeros(len(keys), dtype=bool)
        # Per layer (units, k) integers of `_pack`, complemented for the bottom: both keep the largest.
        self._top: dict[str, np.ndarray] = {}
        self._bottom: dict[str, np.ndarray] = {}

    def update(self, images: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """images: (b,) their indices in the set; values: layer -> (b, units) float32, as `batches` gives them.

        Raises ValueError for an image that came before, or values that are not finite; nothing is kept then.
        """
        if self._seen[images].any() or len(np.unique(images)) < len(images):
            raise ValueError("every image counts once: some of this batch came before")
        for layer, value in values.items():
            _require_finite(value, images, layer=layer)
        for layer, value in values.items():
            empty = np.zeros((value.shape[1], self.k), dtype=np.uint64)
            top, bottom = self._top.setdefault(layer, empty), self._bottom.setdefault(layer, empty.copy())
            for start in range(0, len(top), 256):
                packed = _pack(value[:, start : start + 256], self._ranks[images])
                _keep_largest(top[start : start + 256], packed)
                _keep_largest(bottom[start : start + 256], ~packed)
        self._seen[images] = True

    def result(self, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """top, bottom: (units, k) int64, and alive: (units,) bool. Raises ValueError where fewer than k images came."""
        if (seen := int(self._seen.sum())) < self.k:
            raise ValueError(f"k = {self.k} extremes of {seen} images")
        top = np.sort(self._top[layer], axis=1)[:, ::-1]
        bottom = ~np.sort(self._bottom[layer], axis=1)[:, ::-1]
        most, least = _value(top[:, 0]), _value(bottom[:, 0])
        return *(self._order[_rank(packed)].astype(np.int64) for packed in (top, bottom)), most - least >= 1e-8


def tied(values: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Share of each unit's extremes that have another's value among them: (n, units), (units, k) -> (units,).

    ranked: `top` or `bottom` of `extremes`. Tied images are in random order, so they say little of the unit.
    """
    found = np.take_along_axis(values.T, ranked, axis=1)
    equal = found[:, 1:] == found[:, :-1]
    edge = np.zeros((len(found), 1), dtype=bool)
    return (np.hstack([edge, equal]) | np.hstack([equal, edge])).mean(axis=1)


def _tie_order(k: int, keys: np.ndarray, n: int) -> np.ndarray:
    """The images in the order of their keys, (n,) int64, after a check of k and keys."""
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} extremes of {n} images")
    order = np.argsort(keys)
    if keys.shape != (n,) or (np.diff(keys[order]) == 0).any():
        raise ValueError(f"expected {n} distinct keys, found {len(np.unique(keys))} in an array of shape {keys.shape}")
    return order


def _require_finite(values: np.ndarray, images: np.ndarray, first_unit: int = 0, layer: str = "") -> None:
    if not np.isfinite(values).all():
        image, unit = np.argwhere(~np.isfinite(values))[0]
        named = f"{layer} " if layer else ""
        raise ValueError(
            f"activation of {named}unit {first_unit + unit} on image {images[image]} is {values[image, unit]}"
        )


def _pack(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """(n, units) float32 -> (units, n) uint64: the value in the high 32 bits, in order, the image's rank in the low.

    One integer holds the value and its tie-breaker, so there are no ties and any fast sort is exact.
    """
    bits = (np.ascontiguousarray(values.T, dtype=np.float32) + np.float32(0)).view(np.uint32)  # -0 + 0 = 0: a tie
    negative = bits >> 31 == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return ordered.astype(np.uint64) << np.uint64(32) | ranks.astype(np.uint64)


def _rank(packed: np.ndarray) -> np.ndarray:
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _value(packed: np.ndarray) -> np.ndarray:
    ordered = (packed >> np.uint64(32)).astype(np.uint32)
    positive = ordered >> 31 == 1
    return np.where(positive, ordered ^ np.uint32(1 << 31), ~ordered).view(np.float32)


def _keep_largest(best: np.ndarray, offered: np.ndarray) -> None:
    """best (units, k) becomes the k largest of itself and offered (units, b), row by row, in no order."""
    better = offered > best.min(axis=1, keepdims=True)
    width = better.sum(axis=1).max(initial=0)
    # Late in a long stream few are better: only these are compared, moved to the left of an array of zeros.
    row, column = np.nonzero(better)
    short = np.zeros((len(best), width), dtype=np.uint64)
    short[row, np.arange(len(row)) - np.searchsorted(row, row)] = offered[row, column]
    best[:] = np.partition(np.hstack([best, short]), width, axis=1)[:, width:]
