"""Tables as notebooks show them: blocks of the network, values of chosen units, networks with their accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunelens.analysis.correlations import SMALLEST
from prunelens.analysis.selection import dense, pick
from prunelens.analysis.units import network_means
from prunelens.variants import DENSE, FIELDS

AGAINST = {"rate": "nominal rate", "conv_sparsity": "sparsity of the convs", "top1": "Top-1"}


def blocks(layers: pd.DataFrame) -> pd.DataFrame:
    """The blocks of a network: block, layers, prunable (layers), units, weights."""
    return layers.groupby("block", sort=False, as_index=False).agg(
        layers=("layer", "size"), prunable=("prunable", "sum"), units=("units", "sum"), weights=("weights", "sum")
    )


def values(
    units: pd.DataFrame, network: Mapping[str, Any], measure: str, chosen: Sequence[tuple[str, int]]
) -> pd.DataFrame:
    """A measure of chosen units (layer, unit) of one network, in their order: FIELDS, layer, block, unit, `measure`."""
    rows = pick(units, **network).set_index(["layer", "unit"], drop=False)
    return rows.loc[list(chosen), [*FIELDS, "layer", "block", "unit", measure]].reset_index(drop=True)


def with_accuracy(networks: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    """Networks with top1, top1_low and conv_sparsity of the accuracy table; those that are in both."""
    return networks.merge(accuracy[[*FIELDS, "top1", "top1_low", "conv_sparsity"]], on=FIELDS)


def way(units: pd.DataFrame, measure: str) -> float:
    """How far the dense network's conv mean of a measure lies from that of random networks."""
    means = network_means(units, measure)
    random = pick(means, method=DENSE, weights="random")[measure].mean()
    return abs(dense(means)[measure].mean() - random)


def correlation_panels(found: pd.DataFrame) -> pd.DataFrame:
    """Correlations as a forest plot takes them: a panel for each x."""
    return found.assign(panel=found.x.map(AGAINST).fillna(found.x))


def equivalence_words(verdict: str) -> str:
    """What an equivalence test says, in words."""
    return {
        "equivalent": f"a correlation of {SMALLEST} or more is excluded",
        "related": "there is a correlation",
        "undecided": "nothing can be told",
    }[verdict]


def softmax_means(softmax: pd.DataFrame) -> pd.DataFrame:
    """Means over the outputs of the data's classes, by network, stimuli and output (logit, probability)."""
    keys = [*FIELDS, "stimuli", "output"]
    numbers = softmax.select_dtypes("number").columns.difference([*keys, "unit"], sort=False)
    return softmax.groupby(keys, sort=False, as_index=False)[list(numbers)].mean()
