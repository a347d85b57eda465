"""Tables as notebooks show them: blocks of the network, values of chosen units, networks with their accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunelens.analysis.estimates import by, mean
from prunelens.analysis.published import headlines
from prunelens.analysis.selection import average_seeds, pick
from prunelens.variants import CONFIGURATION, FIELDS


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


def side_by_side(accuracy: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Our configurations beside the paper's numbers of the same method, schedule, rate and masks, of trained weights.

    accuracy: a row per network; means: the networks' mean MIS (`units.network_means`). Columns: CONFIGURATION,
    conv_sparsity, top1, top1_all_outputs, mis_all; paper_epochs_top1, paper_top1, paper_epochs_mean_mis, paper_mean_mis
    (SGD, the longest runs).
    """
    ours = average_seeds(accuracy.merge(means[[*FIELDS, "mis_all"]], on=FIELDS))
    ours = ours[[*CONFIGURATION, "conv_sparsity", "top1", "top1_all_outputs", "mis_all"]]
    keys = ["method", "schedule", "masked", "rate", "weights"]
    for measure in ("top1", "mean_mis"):
        paper = pick(headlines(), measure=measure, optimizer=["none", "sgd"]).assign(weights="trained")
        paper = paper.sort_values("epochs").drop_duplicates(keys, keep="last").astype({"masked": bool})
        paper = paper.rename(columns={"value": f"paper_{measure}", "epochs": f"paper_epochs_{measure}"})
        ours = ours.merge(paper[[*keys, f"paper_epochs_{measure}", f"paper_{measure}"]], on=keys, how="left")
    return ours


def quality_means(quality: pd.DataFrame) -> pd.DataFrame:
    """What pictures are worth: FIELDS, panel (a quantity of `quality`), value, low, high, over (live units)."""
    living = quality[quality.alive.astype(bool)]
    rows = living.melt(FIELDS, ["reached", "like_top", "consistency", "like_dense"], "panel")
    return by(rows, [*FIELDS, "panel"], lambda group: mean(group.value, "units"))
