"""Tables as notebooks show them: blocks of the network, values of chosen units, networks with their accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunelens.analysis.correlations import SMALLEST
from prunelens.analysis.estimates import by, mean
from prunelens.analysis.published import headlines
from prunelens.analysis.selection import average_seeds, dense, pick, random
from prunelens.analysis.units import network_means
from prunelens.variants import CONFIGURATION, DENSE, FIELDS

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
    return abs(dense(means)[measure].mean() - random(means)[measure].mean())


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


def both_scans(scan: pd.DataFrame, published: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The sensitivity scan and, where it is at hand, the published one of the same methods and layers.

    Columns of the scan, and source ("ours", "published"). The published network's dense Top-1 is that of the headlines.
    """
    ours = scan.assign(source="ours")
    if "sensitivity" not in published:
        return ours
    theirs = published["sensitivity"].merge(scan[["layer", "block", "position"]].drop_duplicates(), on="layer")
    theirs = pick(theirs, method=scan.method.unique().tolist())
    dense_top1 = pick(headlines(), method=DENSE, measure="top1").value.item()
    theirs = theirs.assign(kept=theirs.top1 / dense_top1, source="published")
    return pd.concat([ours, theirs], ignore_index=True).sort_values(["method", "source"], kind="stable")


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


QUALITY = {  # by title of a panel: a quantity of pictures and what it is compared with
    "reached": ("reached", ""),
    "like top, minus random images": ("like_top", "like_random"),
    "consistent over starts": ("consistency", ""),
    "like the dense picture": ("like_dense", "dense_consistency"),
    "MIS with pictures": ("picture_mis", ""),
}


def quality_panels(quality: pd.DataFrame) -> pd.DataFrame:
    """What pictures are worth, for a forest plot: FIELDS, panel (of `QUALITY`), value, low, high, over (live units)."""
    living = quality[quality.alive.astype(bool)]
    parts = [
        living[FIELDS].assign(panel=panel, value=living[value] - (living[other] if other else 0))
        for panel, (value, other) in QUALITY.items()
    ]
    return by(pd.concat(parts), [*FIELDS, "panel"], lambda rows: mean(rows.value, "units"))
