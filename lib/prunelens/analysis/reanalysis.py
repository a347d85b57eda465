"""The paper's published scores analyzed again: its conclusion as it was drawn, then corrected step by step.

Functions take what `published.full` returns. The published networks are single runs from one dense network: no
interval speaks of other runs or of other dense networks. Source: von Rad & Seuffert, arXiv 2409.19727.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunelens.analysis import estimates
from prunelens.analysis.correlations import correlation, within
from prunelens.analysis.selection import pick
from prunelens.analysis.units import network_means, same_units
from prunelens.variants import FIELDS

IMAGES = 50_000  # ImageNet's validation set
BASELINE = "tf_inceptionv1"  # the network that the paper calls unpruned

Published = Mapping[str, pd.DataFrame]


def tables(published: Published) -> dict[str, pd.DataFrame]:
    """The published tables in the study's columns, for `judge` and other analyses: accuracy, units, classes.

    Networks halfway through their epochs stand for networks of half the budget, as the rate had fallen to a tenth.
    Methods are named with their optimizer or learning rate where these are not the paper's usual ones. epochs are those
    since the last mask; the rate of an iterative network is its measured sparsity, as networks of equal nominal rate
    differ in it. No random network was scored: the way from random to dense (attrs["way"] of the units) is taken from a
    unit that says nothing, .5, to the paper's baseline. That is longer, so that fewer slopes count as some.
    """
    found = {"classes": pd.DataFrame({"output": range(1000)})}
    if "retraining_curves" in published:
        found["accuracy"] = pd.concat([accuracy(published), accuracy(published, halfway=True)], ignore_index=True)
    if "unit_mis" in published:
        found["units"] = _units(published["unit_mis"])
        found["units"].attrs["way"] = _baseline(published) - 0.5
    return found


def accuracy(published: Published, halfway: bool = False) -> pd.DataFrame:
    """Top-1 of the published networks after their last epoch, or halfway, as if they had half as many epochs."""
    courses = _fields(published["retraining_curves"])
    if halfway:
        courses = courses[2 * courses.epoch <= courses.epochs].assign(epochs=lambda table: table.epochs // 2)
    last = courses.sort_values("epoch").groupby(FIELDS, sort=False).tail(1)
    low, high = np.transpose([estimates.proportion_interval(p, IMAGES) for p in last.top1])
    return last.assign(n=IMAGES, top1_low=low, top1_high=high).reset_index(drop=True)


def _fields(table: pd.DataFrame) -> pd.DataFrame:
    """A published table with the variants' fields."""
    slow = (table.get("learning_rate", 0.01) == 0.001) & (table.optimizer == "sgd")
    method = table.method + np.select([table.optimizer == "adam", slow], [", adam", ", learning rate .001"], "")
    table = table.assign(method=method, schedule=table.get("schedule", "one_shot"), seed=0, weights="trained")
    return table.assign(rate=table.rate.where(table.schedule != "iterative", table.get("conv_sparsity")))


def _units(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of the pruned networks' convs and outputs, and whether they are alive.

    The files do not say which units structured pruning removed; the scores do. A removed unit is constant, so that its
    extreme images are the first and last by file name, which are of single classes: it scores near 1. Networks of one
    rate share their removed units, rate x units of each layer, rounded: those of the highest mean score over these
    networks. Means over the others equal the published means to six digits.
    """
    rows = pick(scores, network="torchvision_googlenet", kind=["conv", "output"]).reset_index(drop=True)
    rows = rows.astype({"layer": str, "kind": str, "mis": float})
    prunable = rows.method.str.startswith("structured") & rows.layer.str.startswith("inception")
    means = rows[prunable].groupby(["rate", "layer", "unit"], as_index=False).mis.mean()
    layers = means.groupby(["rate", "layer"]).mis
    last = layers.rank(ascending=False, method="first") <= (layers.transform("size") * means.rate).round()
    removed, keys = means[last][["rate", "layer", "unit"]], rows[["rate", "layer", "unit"]]
    alive = ~(prunable & pd.MultiIndex.from_frame(keys).isin(pd.MultiIndex.from_frame(removed)))
    found = _fields(rows).assign(block=rows.layer.str.split(".").str[0], alive=alive, own_class=True)
    names = found.layer.replace("fc", "output")  # in order of the forward pass
    return found.assign(position=names.rank(method="dense"))


def points(published: Published) -> pd.DataFrame:
    """The 40 points of the paper's pooled correlation: series, schedule, rate, mean_mis, placeholder.

    Eight series of four rates, each with the value of the paper's baseline at rate 0.
    """
    means = published["mean_mis"]
    means = means.assign(series=means[["method", "schedule", "optimizer", "epochs"]].astype(str).agg(", ".join, axis=1))
    plotted = means[means.in_pooled_plot]
    zeros = plotted.drop_duplicates("series").assign(rate=0.0, mean_mis=_baseline(published), placeholder=False)
    return pd.concat([zeros, plotted], ignore_index=True)[["series", "schedule", "rate", "mean_mis", "placeholder"]]


def _baseline(published: Published) -> float:
    return float(pick(published["mean_mis"], method=BASELINE).mean_mis.item())


def corrections(published: Published) -> pd.DataFrame:
    """Correlation of the networks' mean MIS with their rate: as published, then with one more correction per row.

    Returns: step, changed, groups (series centered apart; 1: pooled), value, low, high, over, p, n. The last rows need
    the unit scores and are over the 24 networks that have them; without these scores they are left out.
    """
    plotted = points(published)
    pruned = plotted[plotted.rate > 0]
    scored = pruned[~pruned.placeholder]
    retrained = pick(scored, schedule="one_shot")
    steps = [
        ("as published", "eight series pooled, each with the unpruned network at rate 0", plotted, 1),
        ("wrong baseline out", "the unpruned network, which is another network (InceptionV1), left out", pruned, 1),
        ("no placeholders", "three values filled in by hand left out", scored, 1),
        ("retrained only", "networks not retrained and the one iterative network left out", retrained, 1),
        ("method as a factor", "each series against its own mean", retrained, retrained.series.nunique()),
    ]
    if "unit_mis" in published:
        for step, changed, means in _unit_means(tables(published)["units"]):
            series = means.method + ", " + means.epochs.astype(str)
            steps.append((step, changed, means.assign(series=series), series.nunique()))
    return estimates.table(
        (
            {"step": step, "changed": changed, "groups": groups},
            within(rows, "rate", "mean_mis", "series", "networks")
            if groups > 1
            else correlation(rows.rate, rows.mean_mis, "networks"),
        )
        for step, changed, rows, groups in steps
    )


def _unit_means(units: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Means of the networks with unit scores, taken in all ways that matter: step, what it changes, means."""
    convs = pick(units, kind="conv")
    same = pd.concat([same_units(series, "mis") for _, series in convs.groupby(["method", "epochs"])])
    ways = [
        ("with unit scores", "the 24 networks whose units are published, dead units dropped", units, "mis_all"),
        (
            "dead units kept",
            "constant units, which score near 1: not a correction",
            units.assign(alive=True),
            "mis_all",
        ),
        ("conv units only", "outputs, whose share grows with the rate, left out", units, "mis"),
        ("layers equal", "conv layers weighted equally", convs, "mis_layers"),
        ("same units", "units alive at every rate, conv layers weighted equally", same, "mis_layers"),
    ]
    means = [(step, changed, network_means(rows, "mis"), column) for step, changed, rows, column in ways]
    return [(step, changed, found.assign(mean_mis=found[column])) for step, changed, found, column in means]
