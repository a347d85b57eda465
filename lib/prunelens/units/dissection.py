"""Network Dissection: how well the peaks of a unit's activation maps overlap with known concepts."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunelens.images.imageset import sample
from prunelens.units.recording import Recording

IMAGES = 128  # stimuli that are looked at, equally many of each class
QUANTILE = 0.9  # a unit's peaks are its activations above it; the paper's: .995

Maps = Iterable[tuple[str, slice, Tensor]]


def overlaps(recording: Recording) -> dict[str, np.ndarray]:
    """`dissect` the conv layers on a sample of the stimuli, equally many of each class.

    Returns layer -> (units, concepts), in the order of `recording.concepts`, which must be known.
    """

    def compute() -> dict[str, np.ndarray]:
        seen = sample(recording.stimuli, min(IMAGES, len(recording.stimuli)), recording.seed)
        masks = np.stack([np.asarray(seen.concepts[name]) for name in seen.concepts], axis=1)
        convs = recording.layers[:-1]
        return dissect(lambda: recording.maps(convs, seen.images), masks, QUANTILE)

    return recording.remember("dissection", compute)


def dissect(passes: Callable[[], Maps], masks: np.ndarray, quantile: float) -> dict[str, np.ndarray]:
    """Intersection over union of each unit's peaks with each concept (Bau et al., CVPR 2017).

    passes: called twice, gives (layer, place among the images, maps (b, units, h, w)); masks: bool (n, concepts, size,
    size). A unit's peaks are the places of its maps above their `quantile` over all images: the first pass finds it
    exactly, the second counts. Bau et al. upsample maps bilinearly; here a mask is averaged over the square of pixels
    that a place stands for, which gives the IoU, in pixels, of maps upsampled to the nearest neighbor. A concept on the
    share p of all pixels has an IoU of at most (1 - quantile) / p: lower the paper's .995 where concepts are common.

    Returns layer -> (units, concepts) float64 in 0..1: 0 for a concept that no image has, NaN for a unit without peaks
    (dead, or tied at its quantile). Raises ValueError for a layer without maps, or masks that do not fit the images.
    """
    if masks.dtype != bool or masks.ndim != 4:
        raise ValueError(f"masks: expected bool (n, concepts, size, size), found {masks.dtype} {masks.shape}")
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be between 0 and 1, found {quantile}")
    thresholds = _thresholds(passes(), len(masks), quantile)

    @lru_cache(maxsize=8)  # one batch's, at the sizes that maps have
    def shrunk(start: int, stop: int, height: int, width: int, device: torch.device) -> Tensor:
        batch = torch.from_numpy(masks[start:stop]).to(device).float()
        return _places(F.adaptive_avg_pool2d(batch, (height, width))).T

    overlap, peaks, covered = ({layer: 0.0 for layer in thresholds} for _ in range(3))
    for layer, place, maps in passes():
        peak = (_places(maps) > thresholds[layer][:, None]).float()
        mask = shrunk(place.start, place.stop, *maps.shape[2:], maps.device)
        overlap[layer] += (peak @ mask).double()  # places of peak and concept, (units, concepts)
        peaks[layer] += peak.sum(dim=1, keepdim=True).double()
        covered[layer] += mask.sum(dim=0).double()
    found = {}
    for layer, both in overlap.items():
        union = torch.where(peaks[layer] > 0, peaks[layer] + covered[layer] - both, torch.nan)
        found[layer] = (both / union).cpu().numpy()
    return found


def _thresholds(maps_of: Maps, n: int, quantile: float) -> dict[str, Tensor]:
    """By layer (units,): the quantile of each unit's activations at all places of n images."""
    largest: dict[str, Tensor] = {}
    images = 0
    for layer, place, maps in maps_of:
        if maps.ndim != 4:
            raise ValueError(f"{layer} has no maps to dissect: its output is {tuple(maps.shape)}")
        kept, images = int((1 - quantile) * n * maps.shape[2] * maps.shape[3]) + 1, place.stop
        if layer not in largest:
            largest[layer] = torch.full((maps.shape[1], kept), -torch.inf, device=maps.device)
        offered = torch.cat([largest[layer], _places(maps)], dim=1)
        largest[layer] = offered.topk(kept, dim=1, sorted=False).values
    if images != n:
        raise ValueError(f"masks: expected those of {images} images, found {n}")
    return {layer: values.amin(dim=1) for layer, values in largest.items()}


def _places(maps: Tensor) -> Tensor:
    """(b, units, h, w) -> (units, b h w)."""
    return maps.transpose(0, 1).flatten(1)
