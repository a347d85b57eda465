"""The most and least activating images of units: exact, with ties broken at random."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

_CHUNK = 256  # units at a time: bounds the memory


def of_layers(activations: Mapping[str, np.ndarray], k: int, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Find the `extremes` of every layer.

    activations: layer -> (n, units) float32. Returns, by layer, "top/LAYER" and "bottom/LAYER": (units, k) int32 image
    indices; and "alive/LAYER": (units,) bool. Raises ValueError for activations that are not finite.
    """
    arrays = {}
    for layer, values in activations.items():
        if not np.isfinite(values).all():
            image, unit = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"activation of {layer} unit {unit} on image {image} is {values[image, unit]}")
        top, bottom, alive = extremes(values, k, keys)
        arrays[f"top/{layer}"], arrays[f"bottom/{layer}"] = top.astype(np.int32), bottom.astype(np.int32)
        arrays[f"alive/{layer}"] = alive
    return arrays


def extremes(values: np.ndarray, k: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank the images of each unit by activation, equal ones in the order of their keys.

    values: (n, units) float32, finite; keys: (n,) distinct numbers, see `tie_keys`.
    Returns top, bottom: (units, k) image indices: top[u, 0] is the most, bottom[u, 0] the least active; disjoint where
    there are 2k images, also of a constant unit, whose images come at random. alive: (units,) bool, False for a unit
    that is the same on all images (max - min < 1e-8). Raises ValueError for k > n, or equal keys.
    """
    if not 1 <= k <= len(keys):
        raise ValueError(f"k = {k} extremes of {len(keys)} images")
    if (distinct := len(np.unique(keys))) < len(keys):
        raise ValueError(f"expected {len(keys)} distinct keys, found {distinct}")
    order = np.argsort(keys)
    top, bottom = (np.empty((values.shape[1], k), dtype=np.int64) for _ in range(2))
    for start in range(0, len(top), _CHUNK):
        units = slice(start, start + _CHUNK)
        ranked = np.argsort(values[order, units], axis=0, kind="stable").T  # equal values stay in the order of keys
        top[units], bottom[units] = order[ranked[:, : -k - 1 : -1]], order[ranked[:, :k]]
    return top, bottom, np.ptp(values, axis=0) >= 1e-8


def tie_keys(names: Sequence[str], seed: int) -> np.ndarray:
    """Draw a random uint64 per image, (n,), that is a function of its name and the seed only.

    Ties broken by these keys do not depend on the order of the files, which is the order of their classes.
    """
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
