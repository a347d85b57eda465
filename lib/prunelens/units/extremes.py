"""The most and least activating images of units: exact, with ties broken at random."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

LARGE = 20_000  # images; of more, extremes are found batch after batch: the matrix of activations would not fit
_CHUNK = 256  # units at a time: bounds the memory


def of_layers(
    batches: Iterable[tuple[slice, Mapping[str, np.ndarray]]], k: int, keys: np.ndarray
) -> dict[str, np.ndarray]:
    """Find the extremes of every layer, batch after batch of the images.

    batches: place among the images, and layer -> (b, units) float32 activations. Returns, by layer, "top/LAYER" and
    "bottom/LAYER": (units, k) int32 image indices; and "alive/LAYER": (units,) bool. See `Extremes`.
    """
    stream, layers = Extremes(k, keys), []
    for place, values in batches:
        stream.update(np.arange(place.start, place.stop), values)
        layers = list(values)
    arrays = {}
    for layer in layers:
        top, bottom, alive = stream.result(layer)
        arrays[f"top/{layer}"], arrays[f"bottom/{layer}"] = top.astype(np.int32), bottom.astype(np.int32)
        arrays[f"alive/{layer}"] = alive
    return arrays


def extremes(values: np.ndarray, k: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Top, bottom and alive of one layer, (n, units) float32, see `Extremes.result`."""
    stream = Extremes(k, keys)
    stream.update(np.arange(len(values)), {"": values})
    return stream.result("")


def tie_keys(names: Sequence[str], seed: int) -> np.ndarray:
    """Draw a random uint64 per image, (n,), that is a function of its name and the seed only.

    Ties broken by these keys do not depend on the order of the files, which is the order of their classes.
    """
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def tied(values: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Share of each unit's extremes that have another's value among them: (n, units), (units, k) -> (units,).

    ranked: top or bottom of `extremes`. Tied images are in random order, so they say little about the unit.
    """
    found = np.take_along_axis(values.T, ranked, axis=1)
    equal = found[:, 1:] == found[:, :-1]
    edge = np.zeros((len(found), 1), dtype=bool)
    return (np.hstack([edge, equal]) | np.hstack([equal, edge])).mean(axis=1)


class Extremes:
    """Each unit's k most and k least activating images, from one batch after another; ties in the order of the keys.

    keys: (n,) distinct uint64 of all images of the set, see `tie_keys`. Batches may come in any order and size; the
    result is that of the images seen, ties included. The state takes 16 k bytes a unit and 9 n for the ties: 38 MB for
    8,280 units, k = 200 and ImageNet's 1.28 M images. Raises ValueError for k > n, or equal keys.
    """

    def __init__(self, k: int, keys: np.ndarray) -> None:
        if not 1 <= k <= len(keys):
            raise ValueError(f"k = {k} extremes of {len(keys)} images")
        if (distinct := len(np.unique(keys))) < len(keys):
            raise ValueError(f"expected {len(keys)} distinct keys, found {distinct}")
        self.k = k
        self._order = np.argsort(keys).astype(np.int32)
        self._ranks = np.empty_like(self._order)  # of each image among the keys
        self._ranks[self._order] = np.arange(len(keys), dtype=np.int32)
        self._seen = np.zeros(len(keys), dtype=bool)
        # Per layer (units, k) integers of `_pack`, complemented for the bottom: both keep the largest.
        self._top: dict[str, np.ndarray] = {}
        self._bottom: dict[str, np.ndarray] = {}

    def update(self, images: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Take in a batch: images (b,), their indices in the set; values: layer -> (b, units) float32.

        Raises ValueError for an image that came before, or values that are not finite; then nothing is kept.
        """
        if self._seen[images].any() or len(np.unique(images)) < len(images):
            raise ValueError("every image counts once: some of this batch came before")
        for layer, value in values.items():
            _require_finite(value, images, layer)
        for layer, value in values.items():
            empty = np.zeros((value.shape[1], self.k), dtype=np.uint64)
            top, bottom = self._top.setdefault(layer, empty), self._bottom.setdefault(layer, empty.copy())
            for start in range(0, len(top), _CHUNK):
                packed = _pack(value[:, start : start + _CHUNK], self._ranks[images])
                _keep_largest(top[start : start + _CHUNK], packed)
                _keep_largest(bottom[start : start + _CHUNK], ~packed)
        self._seen[images] = True

    def result(self, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Top, bottom and alive of a layer's units, of the images seen.

        top, bottom: (units, k) int64 image indices: top[u, 0] is the most, bottom[u, 0] the least active. Exact, and
        disjoint where there are 2k images, also of a constant unit, whose images come at random.
        alive: (units,) bool, False for a unit that is the same on all images (max - min < 1e-8).
        Raises ValueError where fewer than k images came.
        """
        if (seen := int(self._seen.sum())) < self.k:
            raise ValueError(f"k = {self.k} extremes of {seen} images")
        top = np.sort(self._top[layer], axis=1)[:, ::-1]
        bottom = ~np.sort(self._bottom[layer], axis=1)[:, ::-1]
        most, least = _value(top[:, 0]), _value(bottom[:, 0])
        return *(self._order[_rank(packed)].astype(np.int64) for packed in (top, bottom)), most - least >= 1e-8


def _require_finite(values: np.ndarray, images: np.ndarray, layer: str) -> None:
    if not np.isfinite(values).all():
        image, unit = np.argwhere(~np.isfinite(values))[0]
        value, named = values[image, unit], f"{layer} " if layer else ""
        raise ValueError(f"activation of {named}unit {unit} on image {images[image]} is {value}")


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
    if width < offered.shape[1] / 2:
        # Late in a long stream few are better: only these are compared, moved to the left of an array of zeros.
        row, column = np.nonzero(better)
        short = np.zeros((len(best), width), dtype=np.uint64)
        short[row, np.arange(len(row)) - np.searchsorted(row, row)] = offered[row, column]
        offered = short
    n = offered.shape[1]
    best[:] = np.partition(np.hstack([best, offered]), n, axis=1)[:, n:]
