"""The paper's published scores analyzed again: its conclusion as it was drawn, then corrected step by step.

Functions take what `published.full` returns. The published networks are single runs from one dense network: no
interval speaks of other runs or of other dense networks. Source: von Rad & Seuffert, arXiv 2409.19727.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunelens.analysis import comparisons, estimates
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


def order_of_methods(published: Published, epochs: int = 50) -> pd.DataFrame:
    """C2 in the published curves: `comparisons.ranking` of one-shot networks, unmasked ones at their nominal rate."""
    found = pick(accuracy(published), schedule="one_shot", epochs=epochs)
    return comparisons.ranking(found.assign(masked=True))


def iterative_minus_one_shot(published: Published) -> pd.DataFrame:
    """C3 in the published curves: each iterative network beside the one-shot network of nearest sparsity.

    Returns: method; conv_sparsity, epochs (in all) and top1 of both sides (_one_shot: the other's); value, low, high,
    over (over images; another run is left out). No row has both sparsity and epochs in common, so none settles C3.
    """
    networks, rows = accuracy(published), []
    # One-shot global unstructured pruning went on from rate to rate, 50 epochs each.
    chained = pick(networks, method="unstructured_global", schedule="one_shot", epochs=50).index
    networks.loc[chained, "epochs"] *= (networks.rate[chained] / 0.2).round().astype(int)
    for method, steps in pick(networks, schedule="iterative").groupby("method"):
        others = pick(networks, method=method, schedule="one_shot")
        for number, step in enumerate(steps.sort_values("rate").itertuples(), 1):
            other = others.loc[(others.conv_sparsity - step.conv_sparsity).abs().idxmin()]
            row = {"method": method, "conv_sparsity": step.conv_sparsity, "epochs": number * step.epochs,
                   "top1": step.top1, "conv_sparsity_one_shot": other.conv_sparsity, "epochs_one_shot": other.epochs,
                   "top1_one_shot": other.top1}  # fmt: skip
            rows.append((row, estimates.proportion_difference(step.top1, other.top1, IMAGES)))
    return estimates.table(rows, ["method"])


def rank_agreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Do two scans rank the layers alike? Spearman's correlation, per method, of how well each layer bears pruning.

    That is a layer's mean Top-1 over the rates that both scans have for it.
    ours, theirs: method, layer, rate, top1 (one layer pruned): `Study.sensitivity` and the published "sensitivity".
    Returns: method, value, low, high, over (other layers of such networks), p, n.

    Raises:
        ValueError: the scans have no layer of a method at a rate in common.
    """
    keys = ["method", "layer", "rate"]
    both = ours.round({"rate": 6}).merge(theirs.round({"rate": 6}), on=keys, suffixes=("", "_theirs"))
    if both.empty:
        found = (
            "; ".join(f"{m} at {sorted(t.rate.unique())}" for m, t in scan.groupby("method")) for scan in (ours, theirs)
        )
        raise ValueError(f"scans: found {' and '.join(found)}, expected a method, layer and rate in both")
    means = both.groupby(["method", "layer"], sort=False)[["top1", "top1_theirs"]].mean()
    return estimates.table(
        ({"method": method}, correlation(each.top1, each.top1_theirs, "layers", "spearman"))
        for method, each in means.groupby("method", sort=False)
    )
