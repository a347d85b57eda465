"""What pictures of units are worth in numbers: do they show what excites a unit, and does it stay?"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F


class Drawn(NamedTuple):
    """A network's pictures of some units.

    embeddings: of the pictures (units, starts, D). objective, excited: of the pictures (units, starts). top: indices of
    the unit's K most activating stimuli (units, K). most, least: its activations on the most and the least activating
    one (units,). alive: (units,) bool.
    """

    embeddings: np.ndarray
    objective: np.ndarray
    excited: np.ndarray
    top: np.ndarray
    most: np.ndarray
    least: np.ndarray
    alive: np.ndarray


def quality(drawn: Drawn, dense: Drawn, stimuli: np.ndarray, seed: int) -> pd.DataFrame:
    """Judge a network's pictures: a row per unit, NaN where it is dead.

    stimuli: embeddings (n, D) in the space of the pictures'; dense: the same units in the dense network.
    Columns: alive; excited: share of starts from which the unit could be excited. reached: the mean objective where 0
    is the unit's least and 1 its most activating stimulus. like_top: mean cosine of the pictures with the K most
    activating stimuli, minus that with K random ones. consistency: that among the pictures of one unit. like_dense:
    that with the dense network's pictures of the unit, if it lives there, minus that of these among each other; both
    are of different starts.
    """
    random = np.random.default_rng(seed).choice(len(stimuli), drawn.top.shape[1], replace=False)
    of_random = stimuli[random][None].repeat(len(drawn.top), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = (drawn.objective.mean(1) - drawn.least) / (drawn.most - drawn.least)
    like_dense = consistency(drawn.embeddings, dense.embeddings) - consistency(dense.embeddings)
    table = pd.DataFrame(
        {
            "excited": drawn.excited.mean(1),
            "reached": reached,
            "like_top": alikeness(drawn.embeddings, stimuli[drawn.top]) - alikeness(drawn.embeddings, of_random),
            "consistency": consistency(drawn.embeddings),
            "like_dense": np.where(dense.alive, like_dense, np.nan),
        }
    )
    table.loc[~drawn.alive] = np.nan
    return table.assign(alive=drawn.alive)


def alikeness(pictures: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean cosine of all pairs of a unit's pictures and images: (units, p, D), (units, n, D) -> (units,), -1..1.

    With the unit's most activating images it says whether a picture shows what excites the unit.
    """
    return _cosines(pictures, images).mean((1, 2))


def consistency(pictures: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Mean cosine of all pairs of a unit's pictures from different starts: (units, starts, D) -> (units,), -1..1.

    others: the pictures of the same units in another network, of which one of each pair is taken; the less alike, the
    more a unit has changed. Pairs of one start are left out there too: they are alike for another reason.
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
