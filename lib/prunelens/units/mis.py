"""Machine interpretability score (MIS) of units.

A task asks which of two query images activates the unit strongly, given K explanations that do (E+) and K that do not
(E-). With s(q, E) the mean similarity of q to the images of E (Zimmermann, Klindt & Brendel, "Measuring Per-Unit
Interpretability at Scale Without Humans", NeurIPS 2024):

    margin_i = [s(q+, E+) - s(q+, E-)] - [s(q-, E+) - s(q-, E-)]
    MIS = mean_i sigmoid(margin_i / T);   2-AFC accuracy = mean_i [margin_i > 0]     over N tasks

All functions work on one layer: `top` and `bottom` are (units, k) image indices, most extreme first, ties broken at
random (see `extremes.extremes`); `embeddings` are (n, D), one row per image.
"""

import hashlib
import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit

LARGE = 20_000  # images: inner products of the pairs of more would not fit into memory


class Tasks(NamedTuple):
    """Ranks among a unit's extremes, 0 the most extreme.

    queries: (N,), rank of the query of every task, the same for all units.
    top, bottom: (units, N, K), ranks of the explanations E+ and E- of every task.
    """

    queries: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def tasks(n_units: int, n_tasks: int, n_explanations: int, seed: int = 0, layer: str = "") -> Tasks:
    """Draw N tasks of K explanations from the N (K + 1) most extreme ranks of every unit.

    Ranks 0..NK-1 explain and the N ranks after them ask. Explanations come in K bins of N consecutive ranks; every bin
    is shuffled and task i takes its i-th, so all tasks are about equally extreme. The shuffles depend on seed, layer,
    unit, N and K only: a unit gets the same tasks in every variant.
    """
    digest = hashlib.blake2b(f"{seed}\0{layer}".encode(), digest_size=16).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    shuffles = generator.random((n_units, 2, n_explanations, n_tasks)).argsort(axis=-1)
    bins = n_tasks * np.arange(n_explanations)
    ranks = (bins[:, None] + shuffles).swapaxes(-1, -2)
    return Tasks(n_tasks * n_explanations + np.arange(n_tasks), ranks[:, 0], ranks[:, 1])


class Gram(NamedTuple):
    """products: (n, n) float32, inner products of all pairs of embeddings."""

    products: torch.Tensor


def gram(embeddings: np.ndarray | torch.Tensor, device: str | torch.device = "cpu") -> Gram | torch.Tensor:
    """Inner products of all pairs of (n, D) embeddings, for `margins` of many layers: 64 MB for 4,000 images.

    Of more than `LARGE` images they would not fit: then the embeddings themselves, for which margins take ten times as
    long. Raises ValueError for an embedding that is not finite.
    """
    table = finite(embeddings).to(device)
    return Gram(table @ table.T) if len(table) <= LARGE else table


def margins(
    top: np.ndarray,
    bottom: np.ndarray,
    embeddings: np.ndarray | torch.Tensor | Gram,
    n_tasks: int = 20,
    n_explanations: int = 9,
    seed: int = 0,
    layer: str = "",
    scale: float = 1.0,
) -> np.ndarray:
    """Margins of N tasks per unit, (units, N) float32, for the similarity scale * <a, b> (+ terms that cancel).

    From embeddings it is scale * <q+ - q-, mean E+ - mean E->, which is exact: means and inner products commute. From
    their `gram` it is the 4 K similarities of the definition, looked up: the same to 1e-6.
    Raises ValueError for fewer than 2 N (K + 1) images or N (K + 1) extremes, or an embedding that is not finite.
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
    chosen = tasks(len(top), n_tasks, n_explanations, seed, layer)
    plus, minus = top[:, chosen.queries], bottom[:, chosen.queries]
    e_plus = np.take_along_axis(top[:, None], chosen.top, axis=2)  # (units, N, K)
    e_minus = np.take_along_axis(bottom[:, None], chosen.bottom, axis=2)
    look_up = isinstance(embeddings, Gram)
    # Temporaries of a megaword: larger ones fragment the heap, and memory grows with every network scored.
    chunk = max(1, 2**20 // (n_tasks * (n_explanations if look_up else table.shape[1])))
    found = np.empty((len(top), n_tasks), dtype=np.float32)
    for start in range(0, len(top), chunk):
        images = (torch.from_numpy(a[start : start + chunk]).to(table.device) for a in (plus, minus, e_plus, e_minus))
        found[start : start + chunk] = scale * (_pairs if look_up else _means)(table, *images).cpu().numpy()
    return found


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
    """The embeddings as a float32 tensor; raises ValueError naming the first image whose embedding is not finite."""
    table = as_tensor(embeddings).float()
    good = torch.isfinite(table).all(dim=1)
    if not good.all():
        bad = (~good).nonzero().flatten()
        raise ValueError(f"embeddings of {len(bad)} of {len(good)} images are not finite, the first of image {bad[0]}")
    return table


def as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A tensor that shares memory with an array, which may be read-only: do not write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.as_tensor(array)


def mis(margins: np.ndarray, temperature: float | None) -> np.ndarray:
    """Mean sigmoid of margin / temperature over the tasks: (units, N) -> (units,) in 0..1; chance is .5.

    Raises ValueError for a temperature that is not positive, or not known (None).
    """
    if not (temperature or 0) > 0:
        raise ValueError(f"temperature must be positive, found {temperature}")
    return expit(margins / temperature).mean(axis=1)


def two_afc_accuracy(margins: np.ndarray) -> np.ndarray:
    """Share of tasks with a positive margin: (units, N) -> (units,) in 0..1; chance is .5."""
    return (margins > 0).mean(axis=1)


def fit_temperature(margins: np.ndarray) -> float:
    """Find the temperature at which the mean MIS lies halfway between chance, .5, and the 2-AFC accuracy.

    As T falls to 0 the mean MIS tends to the accuracy, as T grows to .5. Halfway, neither floor nor ceiling hides a
    change. Fit it once per similarity, on the margins (units, N) of the dense network's live units, and freeze it for
    the whole study: a T fitted to each variant would cancel the very difference it should show.
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
