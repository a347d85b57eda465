"""Measures of single units beside the MIS, and what is known of the concepts they could stand for.

Every measure is a function of one layer: activations (n, units) on n images, and embeddings, labels or concepts
of the same images, give (units,). The unit is NaN that a measure is not defined on: one that is dead (the same
on all images), or silent where the measure is about a rectified unit, which is 0 on all images.

| measure | 0 | 1 | compares |
|---|---|---|---|
| `clarity` | its top images differ | they are alike | images, by similarity |
| `monosemanticity` | all it responds to differs | is alike | images, by similarity |
| `class_selectivity` | same mean for all classes | responds to one class | classes |
| `lifetime_sparseness` | responds to all images alike | to one image | nothing but itself |
| `redundancy` | like no other unit of the layer | equals one, up to sign and scale | units of the layer |
| `dissect` | overlaps with no concept | its peaks are the concept's pixels | pixels, with concepts |
| `concept_selectivity` | tells no concept | tells one from all the rest | images, with concepts |

The last two need the truth about an image, which the embedded data has for every pixel: `concept_masks`. A unit's
feature visualizations are judged by `alikeness` (to its natural images, to those of another network) and
`consistency` (over starts).
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from prunelens.datasets import ImageSet
from prunelens.evaluation import evaluating
from prunelens.interpretability import finite
from prunelens.textures import SHAPES, TEXTURES, TINTS

_CHUNK = 1024  # units at a time: bounds the memory


def clarity(top: np.ndarray, embeddings: np.ndarray | Tensor) -> np.ndarray:
    """Mean cosine of all pairs of a unit's n most activating images: top (units, n) -> (units,), -1/(n-1)..1.

    (n |mean v|^2 - 1) / (n - 1) over the embeddings scaled to unit length v.
    Raises ValueError for n < 2 or an embedding that is not finite.
    """
    n = top.shape[1]
    if n < 2:
        raise ValueError(f"clarity compares pairs: at least 2 images a unit, found {n}")
    table = F.normalize(finite(embeddings), dim=1)
    mean = F.embedding_bag(torch.from_numpy(top).to(table.device), table, mode="mean")
    return ((n * mean.square().sum(1) - 1) / (n - 1)).cpu().numpy()


def monosemanticity(values: np.ndarray, embeddings: np.ndarray | Tensor) -> np.ndarray:
    """Mean cosine of all pairs of images, weighted by how much both activate the unit: (units,), -1..1.

    The weight of a pair is the product of its activations, scaled to 0..1 over the images (Pach et al., "Sparse
    autoencoders learn monosemantic features in vision-language models", NeurIPS 2025). With a the scaled
    activations and e unit-length embeddings,

        sum_{i != j} a_i a_j <e_i, e_j> / sum_{i != j} a_i a_j = (|w|^2 - v) / (u^2 - v)

    with u = sum a, v = sum a^2, w = sum a_i e_i: linear in the number of images.

    NaN for a dead unit, and for one that leaves its minimum on a single image: there is no pair to weigh.
    Raises ValueError for an embedding that is not finite, or not one embedding per image.
    """
    table = F.normalize(finite(embeddings), dim=1).cpu()
    _require_rows(len(values), embeddings=len(table))
    return _by_chunks(partial(_monosemanticity, table=table), values)


def _monosemanticity(values: np.ndarray, table: Tensor) -> np.ndarray:
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, np.nan)
    w = (torch.from_numpy(scaled.astype(np.float32)).T @ table).numpy()
    u, v = scaled.sum(axis=0, dtype=np.float64), np.square(scaled).sum(axis=0, dtype=np.float64)
    pairs = u**2 - v
    similar = np.square(w).sum(axis=1, dtype=np.float64) - v
    # One image above the minimum: pairs is 0 up to rounding.
    return similar / np.where((scaled > 0).sum(axis=0) > 1, pairs, np.nan)


def class_selectivity(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(mu_max - mu_rest) / (mu_max + mu_rest) of each unit, (n, units) -> (units,) in 0..1.

    mu_max: the largest class mean; mu_rest: the mean of the other classes' means (Morcos et al., "On the
    importance of single directions", ICLR 2018). values: spatial means *after* the ReLU
    (`activations.rectified_layers`; for fc units, probabilities); labels: (n,) class of each image. NaN for a
    silent unit. Raises ValueError for negative values, or fewer than two classes.
    """
    _require_rectified(values, "class selectivity")
    _require_rows(len(values), labels=len(labels))
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"class selectivity compares classes: found {len(classes)}")
    means = np.stack([values[labels == c].mean(axis=0, dtype=np.float64) for c in classes])
    largest = means.max(axis=0)
    rest = (means.sum(axis=0) - largest) / (len(classes) - 1)
    with np.errstate(invalid="ignore"):
        return (largest - rest) / (largest + rest)


def lifetime_sparseness(values: np.ndarray) -> np.ndarray:
    """(1 - (mean r)^2 / mean r^2) / (1 - 1/n) over the n images, (n, units) -> (units,) in 0..1.

    0: the same response r to all images; 1: a response to a single one (Vinje & Gallant, "Sparse coding and
    decorrelation in primary visual cortex during natural vision", Science 2000). values: spatial means after
    the ReLU, as for `class_selectivity`. NaN for a silent unit. Raises ValueError for negative values, or fewer
    than two images.
    """
    _require_rectified(values, "lifetime sparseness")
    n = len(values)
    if n < 2:
        raise ValueError(f"lifetime sparseness compares images: found {n}")
    mean, square = values.mean(axis=0, dtype=np.float64), np.square(values).mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (1 - mean**2 / square) / (1 - 1 / n)


def redundancy(values: np.ndarray) -> np.ndarray:
    """Largest absolute Pearson correlation with another unit of the layer: (n, units) -> (units,) in 0..1.

    NaN for a dead unit, and for the only live one.
    """
    deviations = values - values.mean(axis=0, dtype=np.float64)
    sizes = np.linalg.norm(deviations, axis=0)
    live = np.ptp(values, axis=0) > 0
    unit = (deviations / np.where(live, sizes, np.inf)).astype(np.float32)
    largest = np.empty(unit.shape[1])
    for start in range(0, len(largest), _CHUNK):
        rows = np.abs(unit[:, start : start + _CHUNK].T @ unit)
        rows[np.arange(len(rows)), start + np.arange(len(rows))] = 0
        largest[start : start + _CHUNK] = rows.max(axis=1)
    return np.where(live & (live.sum() > 1), largest.clip(0, 1), np.nan)


# -------------------------------------------------------------------------------------- feature visualizations


def alikeness(pictures: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean cosine of all pairs of a unit's pictures and images: (units, p, D), (units, n, D) -> (units,), -1..1.

    With the unit's most activating images it says whether a feature visualization shows what excites the unit.
    """
    return _cosines(pictures, images).mean((1, 2))


def consistency(pictures: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Mean cosine of all pairs of a unit's pictures from different starts: (units, starts, D) -> (units,), -1..1.

    others: the pictures of the same units in another network, of which one of each pair is taken; lower by how far the
    unit has drifted. Pairs of one start are left out there too: they are alike for another reason.
    Raises ValueError for one start.
    """
    starts = pictures.shape[1]
    if starts < 2:
        raise ValueError(f"consistency compares pictures from different starts: found {starts}")
    cosines = _cosines(pictures, pictures if others is None else others)
    return (cosines.sum((1, 2)) - np.trace(cosines, axis1=1, axis2=2)) / (starts * (starts - 1))


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(units, p, D), (units, n, D) -> (units, p, n)."""
    one, other = (F.normalize(torch.from_numpy(rows).float(), dim=2) for rows in (one, other))
    return (one @ other.mT).numpy()


# ------------------------------------------------------------------------------------------ concepts of images


def concept_masks(image_set: ImageSet) -> tuple[list[str], np.ndarray]:
    """Names of the embedded data's concepts, and the pixels that show each: bool (n, concepts, size, size).

    8 textures and 6 tints, on the background or the filling, and 6 shapes: 82 kB for an image of 64 px. An
    image has the concepts `masks.any(axis=(2, 3))`.
    Raises ValueError for an image set without these concepts.
    """
    concepts = image_set.concepts
    if concepts is None:
        raise ValueError("no concepts are known of these images: only the embedded data has them")
    names, masks = [], []
    inside = concepts["mask"]

    def of(index: np.ndarray, where: np.ndarray, wanted: int) -> np.ndarray:
        return where & (index == wanted)[:, None, None]

    for kind, known in (("texture", TEXTURES), ("shape", SHAPES), ("tint", TINTS)):
        for i, name in enumerate(known):
            names.append(f"{kind}:{name}")
            if kind == "shape":
                masks.append(of(concepts["shape"], inside, i))
            else:
                suffix = "" if kind == "texture" else "_tint"
                background, filling = concepts[f"background{suffix}"], concepts[f"filling{suffix}"]
                masks.append(of(background, ~inside, i) | of(filling, inside, i))
    return names, np.stack(masks, axis=1)


def concept_auc(values: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """How well each unit tells images with a concept from those without: (units, concepts), .5 is chance.

    values: (n, units); concepts: (n, concepts) bool. The area under the ROC curve, 0..1: the probability that an
    image with the concept activates the unit more than one without, ties counting half (Mann-Whitney U over
    n1 n0). It reads ranks only, as the MIS does, so no scale or bias of a unit matters, and no frequency of a
    concept: eta^2 and the point-biserial correlation depend on all three.
    NaN for a dead unit and for a concept that all images have, or none. Raises ValueError where rows disagree.
    """
    _require_rows(len(values), concepts=len(concepts))
    present = concepts.astype(np.float64)
    with_it = present.sum(axis=0)
    without = len(concepts) - with_it

    def auc(chunk: np.ndarray) -> np.ndarray:
        ranks = rankdata(chunk, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas = (ranks.T @ present - with_it * (with_it + 1) / 2) / (with_it * without)
        areas[np.ptp(chunk, axis=0) == 0] = np.nan
        return areas

    return _by_chunks(auc, values)


def concept_selectivity(values: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """The truth that measures are judged by: 2 |AUC - .5| of the concept that a unit tells best, (units,) in 0..1.

    A unit that falls silent for a concept is as selective as one that responds to it; the MIS looks at both
    ends too. The largest of many concepts is above 0 by chance: compare with `interpretability.random_units`.
    NaN for a dead unit. See `concept_auc`; raises ValueError where no concept varies over the images.
    """
    varies = concepts.any(axis=0) & ~concepts.all(axis=0)
    if not varies.any():
        raise ValueError(f"none of {concepts.shape[1]} concepts is on some images and not on others")
    return np.abs(2 * concept_auc(values, concepts[:, varies]) - 1).max(axis=1)


# ------------------------------------------------------------------------------------------ Network Dissection


def dissect(
    network: nn.Module,
    layers: dict[str, nn.Module],
    images: np.ndarray,
    masks: np.ndarray,
    batch_size: int,
    device: str | torch.device,
    quantile: float = 0.995,
) -> dict[str, np.ndarray]:
    """Network Dissection (Bau et al., CVPR 2017): intersection over union of each unit's peaks with each concept.

    A unit's peaks are the places of its activation maps above their `quantile` over all images; the first pass
    over the images finds it exactly, the second counts. layers: name -> module whose output is (b, units, h, w).
    images: (n, size, size, 3) uint8; masks: (n, concepts, size, size) bool, see `concept_masks`.

    Bau et al. upsample the maps bilinearly to the masks' size. Here a mask is averaged over the square of pixels
    that a place of the map stands for, which gives the IoU, in pixels, of maps upsampled to the nearest
    neighbour, and needs no rule for squares that are partly the concept's. It is what a CPU can afford: at 64 px
    the maps of the inception blocks have 64 to 1,024 times fewer places than the image.

    Peaks are the share 1 - quantile of all places, so a concept on the share p of all pixels has an IoU of at
    most (1 - quantile) / p: with the paper's quantile .04 for a texture of the embedded data, which is on an
    eighth of all pixels. The paper's concepts are rare. Where they are common, lower the quantile, compare
    values, and leave the paper's threshold of .04 for "detects" alone.

    Returns name -> (units, concepts) float64 in 0..1, 0 for a concept that no image has, NaN for a unit without
    peaks (dead, or tied at its quantile). Memory:
    the masks of a batch at each map's size, and the share 1 - quantile of all activations, 4 bytes each. The
    network is left as found and must be on `device`.
    Raises ValueError for a layer without maps, one that is never called, or masks that do not fit the images.
    """
    if masks.dtype != bool or masks.ndim != 4 or len(masks) != len(images):
        expected = f"bool ({len(images)}, concepts, size, size)"
        raise ValueError(f"masks: expected {expected}, found {masks.dtype} {masks.shape}")
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be between 0 and 1, found {quantile}")
    each_map = partial(_each_map, network, layers, images, batch_size, torch.device(device))

    largest: dict[str, Tensor] = {}

    def collect(name: str, batch: slice, maps: Tensor) -> None:
        kept = int((1 - quantile) * len(images) * maps.shape[2] * maps.shape[3]) + 1
        if name not in largest:
            largest[name] = torch.full((maps.shape[1], kept), -torch.inf, device=maps.device)
        largest[name] = _largest(largest[name], _places(maps))

    each_map(collect)
    thresholds = {name: values.amin(dim=1) for name, values in largest.items()}

    @lru_cache(maxsize=8)  # one batch's, at the sizes that maps have
    def shrunk(start: int, stop: int, height: int, width: int) -> Tensor:
        batch = torch.from_numpy(masks[start:stop]).to(device).float()
        return _places(F.adaptive_avg_pool2d(batch, (height, width))).T

    overlap = {name: 0.0 for name in layers}  # places of peak and concept, (units, concepts)
    peaks, covered = dict(overlap), dict(overlap)  # places of peaks, (units, 1), and of concepts, (concepts,)

    def count(name: str, batch: slice, maps: Tensor) -> None:
        peak = (_places(maps) > thresholds[name][:, None]).float()
        mask = shrunk(batch.start, batch.stop, *maps.shape[2:])
        overlap[name] += (peak @ mask).double()
        peaks[name] += peak.sum(dim=1, keepdim=True).double()
        covered[name] += mask.sum(dim=0).double()

    each_map(count)
    return {name: _iou(overlap[name], peaks[name], covered[name]).cpu().numpy() for name in layers}


def _largest(best: Tensor, offered: Tensor) -> Tensor:
    """The k largest of each row of best (units, k) and offered (units, b) together, in no order."""
    return torch.cat([best, offered], dim=1).topk(best.shape[1], dim=1, sorted=False).values


def _iou(overlap: Tensor, peaks: Tensor, covered: Tensor) -> Tensor:
    return overlap / torch.where(peaks > 0, peaks + covered - overlap, torch.nan)


def _places(maps: Tensor) -> Tensor:
    """(b, units, h, w) -> (units, b h w)."""
    return maps.transpose(0, 1).flatten(1)


def _each_map(
    network: nn.Module,
    layers: dict[str, nn.Module],
    images: np.ndarray,
    batch_size: int,
    device: torch.device,
    see: Callable[[str, slice, Tensor], None],
) -> None:
    """One pass over the images; `see` gets every layer's name, the batch's place and its maps (b, units, h, w)."""
    called: set[str] = set()
    batch = slice(0)

    def hook(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if output.ndim != 4:
            raise ValueError(f"{name} has no maps to dissect: its output is {tuple(output.shape)}")
        called.add(name)
        see(name, batch, output.float())

    with evaluating(network), ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(hook, name)).remove)
        for start in range(0, len(images), batch_size):
            batch = slice(start, min(start + batch_size, len(images)))
            pixels = torch.from_numpy(np.array(images[batch])).to(device)
            network(pixels.permute(0, 3, 1, 2).float().div(255))
            if missing := layers.keys() - called:
                raise ValueError(f"the network never calls {', '.join(sorted(missing))}")


# ------------------------------------------------------------------------------------------------------ checks


def _by_chunks(measure: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """The measure of (n, units) values, some units at a time."""
    return np.concatenate([measure(values[:, i : i + _CHUNK]) for i in range(0, max(1, values.shape[1]), _CHUNK)])


def _require_rows(images: int, **tables: int) -> None:
    for name, rows in tables.items():
        if rows != images:
            raise ValueError(f"activations of {images} images, but {name} of {rows}")


def _require_rectified(values: np.ndarray, measure: str) -> None:
    if values.min() < 0:
        raise ValueError(f"{measure} is defined after the ReLU: found an activation of {values.min():.3g}")
