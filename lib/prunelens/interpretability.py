"""Machine interpretability score (MIS) of units, its controls and its anchors.

A task asks, of two query images, which one activates the unit strongly, given K explanations that do (E+) and
K that do not (E-). With s(q, E) the mean similarity of q to the images of E (Zimmermann, Klindt & Brendel,
"Measuring Per-Unit Interpretability at Scale Without Humans", NeurIPS 2024):

    margin_i = [s(q+, E+) - s(q+, E-)] - [s(q-, E+) - s(q-, E-)]
    MIS = mean_i sigmoid(margin_i / T);   2-AFC accuracy = mean_i [margin_i > 0]     over N tasks

All functions work on one layer at a time: `top` and `bottom` are (units, k) image indices as
`activations.extremes` gives them, most extreme first; `embeddings` are (n, D), as `similarity` gives them.

What a score is read against: `shuffled` embeddings (images exchanged: .5 on average for any unit), and the
anchors, `planted_units` (they tell two kinds of image apart, and see nothing else) and `random_units` (they see
nothing at all). Their activations go through `activations.extremes` and `margins` like those of a layer.
"""

import hashlib
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit

Queries = Literal["inner", "outer"]


class Tasks(NamedTuple):
    """Ranks among a unit's extremes, 0 the most extreme.

    queries: (N,), rank of the query of every task, the same for all units.
    top, bottom: (units, N, K), ranks of the explanations E+ and E- of every task.
    """

    queries: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def tasks(
    n_units: int,
    n_tasks: int,
    n_explanations: int,
    queries: Queries = "inner",
    seed: int = 0,
    layer: str = "",
) -> Tasks:
    """N tasks of K explanations from the N (K + 1) most extreme ranks of every unit.

    Explanations come in K bins of N consecutive ranks; every bin is shuffled and task i takes its i-th, so
    all tasks are about equally extreme. "inner": ranks 0..NK-1 explain and the N ranks after them ask (the
    paper's rule); "outer": ranks 0..N-1 ask and the NK ranks after them explain.
    The shuffles depend on seed, layer, unit, N and K only: a unit gets the same tasks in every variant.
    """
    if queries not in ("inner", "outer"):
        raise ValueError(f"queries must be 'inner' or 'outer', found {queries!r}")
    shuffles = _generator(seed, layer).random((n_units, 2, n_explanations, n_tasks)).argsort(axis=-1)

    first_asked = n_tasks * n_explanations if queries == "inner" else 0
    first_explained = 0 if queries == "inner" else n_tasks
    bins = first_explained + n_tasks * np.arange(n_explanations)
    ranks = (bins[:, None] + shuffles).swapaxes(-1, -2)
    return Tasks(first_asked + np.arange(n_tasks), ranks[:, 0], ranks[:, 1])


def _generator(seed: int, layer: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}\0{layer}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


class Gram(NamedTuple):
    """products: (n, n) float32, inner products of all pairs of embeddings."""

    products: torch.Tensor


def gram(embeddings: np.ndarray | torch.Tensor) -> Gram:
    """Inner products of all pairs of (n, D) embeddings, for `margins` of many layers: 64 MB for 4,000 images.

    0.5 s on one CPU core at D = 1,280. Raises ValueError for an embedding that is not finite.
    """
    table = finite(embeddings)
    return Gram(table @ table.T)


def margins(
    top: np.ndarray,
    bottom: np.ndarray,
    embeddings: np.ndarray | torch.Tensor | Gram,
    n_tasks: int = 20,
    n_explanations: int = 9,
    queries: Queries = "inner",
    seed: int = 0,
    layer: str = "",
    scale: float = 1.0,
) -> np.ndarray:
    """Margins of N tasks per unit, (units, N) float32, for f(a, b) = scale * <a, b> (+ terms that cancel).

    From embeddings it is scale * <q+ - q-, mean E+ - mean E->, which is exact: means and inner products commute.
    From their `gram` it is the 4 K similarities of the definition, looked up: the same to 1e-6, and the faster
    way wherever n x n numbers fit into memory. 8,280 units of N = 20, K = 9 on 4,000 images take 3.4 s from 1,280-d
    embeddings on one CPU core, and 0.4 s from their gram.
    Raises ValueError for fewer than 2 N (K + 1) images, or an embedding that is not finite.
    """
    table = embeddings.products if isinstance(embeddings, Gram) else finite(embeddings)
    needed = n_tasks * (n_explanations + 1)
    if len(table) < 2 * needed:
        raise ValueError(
            f"{len(table)} images are too few: {n_tasks} tasks of {n_explanations} explanations need "
            f"2 x {n_tasks} x ({n_explanations} + 1) = {2 * needed}"
        )
    if min(top.shape[1], bottom.shape[1]) < needed:
        raise ValueError(f"{needed} extremes a unit are needed, found {top.shape[1]} top, {bottom.shape[1]} bottom")

    chosen = tasks(len(top), n_tasks, n_explanations, queries, seed, layer)
    plus, minus = top[:, chosen.queries], bottom[:, chosen.queries]
    e_plus, e_minus = (_take(ranked, ranks) for ranked, ranks in ((top, chosen.top), (bottom, chosen.bottom)))
    look_up = isinstance(embeddings, Gram)
    # Temporaries of a megaword: larger ones fragment the heap, and memory grows with every network scored.
    chunk = max(1, 2**20 // (n_tasks * (n_explanations if look_up else table.shape[1])))
    found = np.empty((len(top), n_tasks), dtype=np.float32)
    for start in range(0, len(top), chunk):
        images = (torch.from_numpy(a[start : start + chunk]).to(table.device) for a in (plus, minus, e_plus, e_minus))
        found[start : start + chunk] = scale * (_pairs if look_up else _means)(table, *images).cpu().numpy()
    return found


def picture_margins(
    top: np.ndarray,
    bottom: np.ndarray,
    embeddings: np.ndarray | torch.Tensor,
    exciting: np.ndarray,
    inhibiting: np.ndarray,
    n_tasks: int = 20,
    n_explanations: int = 9,
    queries: Queries = "inner",
    scale: float = 1.0,
) -> np.ndarray:
    """Margins of tasks whose explanations are a unit's feature visualizations, (units, N) float32.

    The queries q+ and q- are those of `margins`; E+ are the unit's exciting pictures, E- its inhibiting ones: their
    embeddings are (units, pictures, D) each, of the same space as `embeddings`. Borowski et al., "Exemplary natural
    images explain CNN activations better than state-of-the-art feature visualization" (ICLR 2021), asked humans so.
    Raises ValueError for too few extremes, or an embedding that is not finite.
    """
    table, needed = finite(embeddings), n_tasks * (n_explanations + 1)
    if min(top.shape[1], bottom.shape[1]) < needed:
        raise ValueError(f"{needed} extremes a unit are needed, found {top.shape[1]} top, {bottom.shape[1]} bottom")
    asked = tasks(1, n_tasks, n_explanations, queries).queries
    plus, minus = (table[torch.from_numpy(ranked[:, asked])] for ranked in (top, bottom))
    shown = [finite(pictures.reshape(-1, table.shape[1])).view(pictures.shape) for pictures in (exciting, inhibiting)]
    difference = (shown[0].mean(1) - shown[1].mean(1))[:, None]
    return scale * ((plus - minus) * difference).sum(-1).numpy()


def _take(ranked: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Images (units, N, K) at the given ranks of each unit's own list (units, k)."""
    return np.take_along_axis(ranked[:, None], ranks, axis=2)


def _means(
    table: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor, e_plus: torch.Tensor, e_minus: torch.Tensor
) -> torch.Tensor:
    """Margins (units, N) from images (units, N) that ask and (units, N, K) that explain, and their (n, D) table."""

    def mean(images: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(images.flatten(0, 1), table, mode="mean").unflatten(0, images.shape[:2])

    return ((table[plus] - table[minus]) * (mean(e_plus) - mean(e_minus))).sum(-1)


def _pairs(
    products: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor, e_plus: torch.Tensor, e_minus: torch.Tensor
) -> torch.Tensor:
    """The same from the (n, n) products of all pairs."""

    def s(query: torch.Tensor, explanations: torch.Tensor) -> torch.Tensor:
        return products[query[..., None], explanations].mean(-1)

    return s(plus, e_plus) - s(plus, e_minus) - s(minus, e_plus) + s(minus, e_minus)


def finite(embeddings: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The embeddings as a float32 tensor; ValueError naming the first image whose embedding is not finite."""
    table = torch.as_tensor(embeddings).float()
    good = torch.isfinite(table).all(dim=1)
    if not good.all():
        bad = (~good).nonzero().flatten()
        raise ValueError(f"embeddings of {len(bad)} of {len(good)} images are not finite, the first of image {bad[0]}")
    return table


def summarize(margins: np.ndarray, temperature: float, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """(units, N) margins -> a row per unit: unit, mis and two_afc_accuracy (0..1, chance .5), mean margin.

    mis_low, mis_high: 95 % percentile bootstrap interval of the MIS. It resamples the unit's N tasks, so it
    says how far the score would move with other tasks from the same images; not with other images or networks.
    All units share one matrix of resampled task indices. At N = 20 such intervals are some 9 % too short.
    8,280 units of N = 20 take 0.4 s on one CPU core.

    Raises ValueError for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, found {temperature}")
    scores = expit(margins / temperature)
    low, high = _bootstrap(scores, resamples, seed)
    return pd.DataFrame(
        {
            "unit": np.arange(len(margins)),
            "mis": scores.mean(axis=1),
            "mis_low": low,
            "mis_high": high,
            "two_afc_accuracy": (margins > 0).mean(axis=1),
            "margin": margins.mean(axis=1),
        }
    )


def _bootstrap(scores: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """2.5 % and 97.5 % quantiles of the resampled row means of (units, N) scores: (2, units)."""
    n = scores.shape[1]
    picked = np.random.default_rng(seed).integers(n, size=(resamples, n))
    # The mean of resampled scores is a product with how often each was drawn.
    shares = np.stack([np.bincount(row, minlength=n) for row in picked], axis=1).astype(scores.dtype) / n
    bounds = np.empty((2, len(scores)), dtype=scores.dtype)
    for start in range(0, len(scores), 1024):
        means = scores[start : start + 1024] @ shares
        bounds[:, start : start + 1024] = np.quantile(means, [0.025, 0.975], axis=1)
    return bounds


def fit_temperature(margins: np.ndarray) -> float:
    """The T at which the mean MIS lies halfway between chance, .5, and the 2-AFC accuracy.

    As T falls to 0 the mean MIS tends to the accuracy, as T grows to .5. Halfway, neither floor nor ceiling
    hides a change. Fit it once per similarity, on the margins (units, N) of the dense network's live units,
    and freeze it for the whole study: a T fitted to each variant would cancel the very difference it should
    show.

    Raises ValueError where the accuracy is not above .5, for margins that are not finite, and for none at all.
    """
    margins = np.asarray(margins, dtype=np.float64).ravel()
    if not len(margins):
        raise ValueError("a temperature is fitted to the margins of live units: found none, are all units dead?")
    if not np.isfinite(margins).all():
        raise ValueError("margins must be finite")
    accuracy = (margins > 0).mean()
    if not accuracy > 0.5:
        raise ValueError(f"2-AFC accuracy is {accuracy:.3f}; a temperature can be fitted only above chance, .5")
    target = (0.5 + accuracy) / 2

    def excess(log_temperature: float) -> float:
        return expit(margins / np.exp(log_temperature)).mean() - target

    sizes = np.abs(margins[margins != 0])
    low, high = np.log(sizes.min() * 1e-2), np.log(sizes.max() * 1e6)
    return float(np.exp(brentq(excess, low, high)))


# ---------------------------------------------------------------------------------------- controls and anchors


def shuffled(embeddings: np.ndarray, seed: int, layer: str = "") -> np.ndarray:
    """The control "shuffled images": the same embeddings, (n, D), dealt to other images.

    No unit can see what the similarity then compares: margins are symmetric about 0, so the expected MIS is
    exactly .5. Units share the permutation, so the mean over a layer scatters more than its units suggest;
    another layer, another permutation.
    """
    return embeddings[_generator(seed, layer).permutation(len(embeddings))]


def planted_units(embeddings: np.ndarray, k: int, n_units: int, seed: int) -> np.ndarray:
    """The upper anchor: activations (n_images, n_units) float32 of units that tell two groups of k images apart.

    They are 1 on one group, -1 on the other and 0 on the rest; whoever ranks images breaks the ties. The groups begin
    as the k images that are more like a random image than like the image least like it, and the k that are less, in
    inner products of the embeddings (n_images, D). Each of at most 100 rounds then sorts images by the means of the two
    groups instead (k-means with two clusters of fixed size), which never brings the means closer. With k = N (K + 1)
    the squared distance of the means is about a unit's expected margin, so the groups are as unlike as the search finds
    them: a bound in practice, none in theory, and above it are units that keep a group's most typical images for the
    ranks that ask. Of n_units searches, one from each of so many images (at most all), take the unit with the highest
    MIS. 200 units on 1,800 images of D = 1,280 take 3 s on one CPU core.

    Raises ValueError for fewer than 2 k images, or an embedding that is not finite.
    """
    table = finite(embeddings)
    if len(table) < 2 * k:
        raise ValueError(f"{len(table)} images are too few for two groups of {k}")
    starts = np.random.default_rng(seed).choice(len(table), min(n_units, len(table)), replace=False)
    alike = table @ table[starts].T
    contrast = alike - table @ table[alike.argmin(dim=0)].T
    groups = torch.zeros_like(contrast)
    for _ in range(100):
        ranked, before = contrast.argsort(dim=0, stable=True), groups
        groups = torch.zeros_like(contrast).scatter_(0, ranked[-k:], 1).scatter_(0, ranked[:k], -1)
        if torch.equal(groups, before):
            break
        contrast = table @ (table.T @ groups)
    return groups.cpu().numpy()


def random_units(n_images: int, n_units: int, seed: int) -> np.ndarray:
    """The lower anchor: activations (n_images, n_units) float32 that are random numbers; expected MIS .5."""
    return np.random.default_rng(seed).standard_normal((n_images, n_units), dtype=np.float32)
