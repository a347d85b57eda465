"""Measures of units: functions (recording, layer) -> (units,) float, one value per unit of the layer.

A measure of your own has this signature too. NaN: not defined on a unit; dead units are made NaN by `score`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from prunelens.images.imageset import ImageSet
from prunelens.registry import describe, description
from prunelens.units import dissection as dissecting
from prunelens.units import mis as scoring
from prunelens.units.recording import ArraySource, Recording, Settings

CLASS_IMAGES = 10  # stimuli, at least, of a class whose mean activation counts for class_selectivity
_CHUNK = 1024  # units at a time: bounds the memory

Measure = Callable[[Recording, str], np.ndarray]


@describe("MIS", limits=(0, 1), chance=0.5, needs=("temperature",))
def mis(recording: Recording, layer: str) -> np.ndarray:
    """Machine interpretability score, see `units.mis`."""
    return scoring.mis(recording.margins[layer], recording.temperature)


@describe("2-AFC accuracy", limits=(0, 1), chance=0.5)
def two_afc_accuracy(recording: Recording, layer: str) -> np.ndarray:
    """Share of the MIS's tasks with a positive margin."""
    return scoring.two_afc_accuracy(recording.margins[layer])


@describe("margin (similarity)", chance=0.0)
def margin(recording: Recording, layer: str) -> np.ndarray:
    """Mean margin of the MIS's tasks, in units of the similarity."""
    return recording.margins[layer].mean(axis=1)


@describe("clarity")
def clarity(recording: Recording, layer: str) -> np.ndarray:
    """Mean cosine of all pairs of a unit's k most activating images, -1/(k-1)..1.

    (k |mean v|^2 - 1) / (k - 1) over the embeddings scaled to unit length v.
    """
    top = recording.top[layer]
    mean = F.embedding_bag(scoring.as_tensor(top), _unit_length(recording), mode="mean")
    k = top.shape[1]
    return ((k * mean.square().sum(1) - 1) / (k - 1)).numpy()


@describe("monosemanticity")
def monosemanticity(recording: Recording, layer: str) -> np.ndarray:
    """Mean cosine of all pairs of images, weighted by how much both activate the unit, -1..1.

    The weight of a pair is the product of its activations, scaled to 0..1 over the images (Pach et al., "Sparse
    autoencoders learn monosemantic features in vision-language models", NeurIPS 2025). With scaled activations a, unit-
    length embeddings e, u = sum a, v = sum a^2 and w = sum a_i e_i it is linear in the number of images:

        sum_{i != j} a_i a_j <e_i, e_j> / sum_{i != j} a_i a_j = (|w|^2 - v) / (u^2 - v)

    NaN for a unit that leaves its minimum on a single image: there is no pair to weigh.
    """
    table = _unit_length(recording)

    def weighted(values: np.ndarray) -> np.ndarray:
        low, high = values.min(axis=0), values.max(axis=0)
        scaled = (values - low) / np.where(high > low, high - low, np.nan)
        w = (torch.from_numpy(scaled.astype(np.float32)).T @ table).numpy()
        u, v = scaled.sum(axis=0, dtype=np.float64), np.square(scaled).sum(axis=0, dtype=np.float64)
        similar = np.square(w).sum(axis=1, dtype=np.float64) - v
        # One image above the minimum: u^2 - v is 0 up to rounding.
        return similar / np.where((scaled > 0).sum(axis=0) > 1, u**2 - v, np.nan)

    return _by_chunks(weighted, recording.activations[layer])


@describe("class selectivity", limits=(0, 1))
def class_selectivity(recording: Recording, layer: str) -> np.ndarray:
    """(mu_max - mu_rest) / (mu_max + mu_rest) of rectified activations, 0..1.

    mu_max: the largest class mean; mu_rest: the mean of the other classes' means (Morcos et al., "On the importance of
    single directions", ICLR 2018), over the classes of at least `CLASS_IMAGES` stimuli. NaN for a silent unit,
    and for all where there are fewer than two such classes.
    """
    values, labels = recording.rectified[layer], recording.labels
    classes = np.flatnonzero(np.bincount(labels) >= CLASS_IMAGES)
    if len(classes) < 2:
        return np.full(values.shape[1], np.nan)
    means = np.stack([values[labels == c].mean(axis=0, dtype=np.float64) for c in classes])
    largest = means.max(axis=0)
    rest = (means.sum(axis=0) - largest) / (len(classes) - 1)
    with np.errstate(invalid="ignore"):
        return (largest - rest) / (largest + rest)


@describe("lifetime sparseness", limits=(0, 1))
def lifetime_sparseness(recording: Recording, layer: str) -> np.ndarray:
    """(1 - (mean r)^2 / mean r^2) / (1 - 1/n) over the rectified activations r on n images, 0..1.

    0: the same response to all images; 1: a response to a single one (Vinje & Gallant, "Sparse coding and decorrelation
    in primary visual cortex during natural vision", Science 2000). NaN for a silent unit.
    """
    values = recording.rectified[layer]
    mean, square = values.mean(axis=0, dtype=np.float64), np.square(values).mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (1 - mean**2 / square) / (1 - 1 / len(values))


@describe("concept selectivity", limits=(0, 1), needs=("concepts",))
def concept_selectivity(recording: Recording, layer: str) -> np.ndarray:
    """2 |AUC - .5| of the concept that a unit tells best, 0..1: the truth that other measures are judged by.

    A unit that falls silent for a concept is as selective as one that responds to it. The largest of many concepts is
    above 0 by chance. See `concept_auc`. NaN where no concept varies over the images.
    """
    known = recording.concepts
    concepts = recording.remember("shown", lambda: np.stack([known[name].any(axis=(1, 2)) for name in known], axis=1))
    varies = concepts.any(axis=0) & ~concepts.all(axis=0)
    if not varies.any():
        return np.full(recording.activations[layer].shape[1], np.nan)
    return np.abs(2 * concept_auc(recording.activations[layer], concepts[:, varies]) - 1).max(axis=1)


def concept_auc(values: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """How well each unit tells images with a concept from those without: (units, concepts) in 0..1, chance .5.

    values: (n, units); concepts: (n, concepts) bool. The area under the ROC curve is the probability that an image with
    the concept activates the unit more than one without, ties counting half (Mann-Whitney U over n1 n0): neither scale
    and bias of a unit nor the frequency of a concept matter. NaN for a dead unit, a concept of all images or of none.
    """
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


@describe("dissection (IoU)", limits=(0, 1), needs=("concepts",))
def dissection(recording: Recording, layer: str) -> np.ndarray:
    """Largest overlap of a conv unit's peaks with a concept, see `units.dissection`; NaN for output units."""
    if layer == recording.layers[-1]:
        return np.full(len(recording.alive[layer]), np.nan)
    return dissecting.overlaps(recording)[layer].max(axis=1)


def _unit_length(recording: Recording) -> Tensor:
    return recording.remember("unit length", lambda: F.normalize(scoring.finite(recording.embeddings), dim=1))


def _by_chunks(formula: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """The formula's result for (n, units) values, some units at a time."""
    return np.concatenate([formula(values[:, i : i + _CHUNK]) for i in range(0, max(1, values.shape[1]), _CHUNK)])


def score(recording: Recording, measure: Measure) -> pd.DataFrame:
    """A row per unit of every layer: layer, unit, alive and value (NaN where dead or not finite).

    Raises ValueError where the measure gives anything but one float for each unit.
    """
    tables, name = [], getattr(measure, "__name__", type(measure).__name__)
    for layer in recording.layers:
        alive, found = recording.alive[layer], np.asarray(measure(recording, layer))
        if found.shape != alive.shape or found.dtype.kind != "f":
            expected = f"expected floats {alive.shape}, one for each unit of {layer}"
            raise ValueError(f"measure {name}: {expected}, found {found.dtype} {found.shape}")
        value = np.where(alive & np.isfinite(found), found.astype(np.float64), np.nan)
        tables.append(pd.DataFrame({"layer": layer, "unit": np.arange(len(alive)), "alive": alive, "value": value}))
    return pd.concat(tables, ignore_index=True)


def check_measure(measure: Measure) -> None:
    """Try a measure on a few made-up units; concepts are known where it needs them.

    Raises ValueError, in one line, unless it gives one float for each unit, finite for some.
    """
    name = getattr(measure, "__name__", type(measure).__name__)
    try:
        found = score(_made_up("concepts" in description(measure, name).needs), measure)
        if found.value.isna().all():
            raise ValueError(f"measure {name}: found no finite value, expected one for some unit")
    except Exception as error:  # a user's function can fail in any way
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        said = " ".join(str(error).split()).removeprefix(f"measure {name}: ")
        raise ValueError(f"tried on made-up units, {kind}{said}") from error


def _made_up(concepts: bool) -> Recording:
    """Two conv layers and an output layer on 60 images of 3 classes."""
    rng, n = np.random.default_rng(0), 60
    maps = {layer: rng.standard_normal((n, units, 2, 2), dtype=np.float32) for layer, units in (("a", 4), ("b", 5))}
    activations = {layer: values.mean(axis=(2, 3)) for layer, values in maps.items()}
    activations["output"] = rng.standard_normal((n, 3), dtype=np.float32)
    known = {name: rng.random((n, 8, 8)) < 0.01 for name in ("p", "q")} if concepts else None
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    stimuli = ImageSet(images, np.arange(n) % 3, [str(i) for i in range(n)], list("xyz"), np.arange(3), known)
    embeddings = rng.standard_normal((n, 6), dtype=np.float32)
    return Recording(ArraySource(activations, maps), stimuli, embeddings, Settings(2, 3, temperature=1.0))
