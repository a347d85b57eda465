"""Compare networks: differences of accuracy, controls, courses of retraining, sparsity and cost.

Networks are compared seed by seed, and with those that were retrained for as many epochs. With accuracies by class the
intervals are over seeds and classes; see `difference`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from prunelens.analysis.estimates import NONE, Estimate, crossed_mean, mean, proportion_difference, table
from prunelens.analysis.selection import dense, pick, retrained
from prunelens.variants import CONFIGURATION, DENSE, FIELDS

Fields = dict[str, Any]
Classes = pd.DataFrame | None  # accuracies by class, over which intervals are then

# Methods that are controls of another: random masks of the same sparsity, and other choices of what to prune.
CONTROL_OF = {
    "unstructured_global_random": "unstructured_global",
    "unstructured_random": "unstructured_local",
    "structured_random": "structured_l1",
    "connection_random": "connection_l1",
    "connection_l1_shared": "connection_l1",
    "unstructured_sensitivity": "unstructured_global",
}


def difference(accuracy: pd.DataFrame, left: Fields, right: Fields, classes: Classes = None) -> Estimate:
    """Top-1 of the networks with the fields `left` minus that of those with `right`, paired by seed.

    With accuracies by class (`Study.class_accuracy`) the interval is over seeds and classes with their images. Without
    them it is Student's over seeds; with one seed, or where all differ by the same, Newcombe's over images.

    Raises:
        ValueError: the fields of a side fit several networks of one seed, of other epochs for example.
    """
    return _estimate(accuracy, left, right, classes)[0]


def _estimate(accuracy: pd.DataFrame, left: Fields, right: Fields, classes: Classes) -> tuple[Estimate, pd.DataFrame]:
    """`difference`, and the pairs of networks that it is of: Top-1 of both sides and n, a row per seed."""
    pairs = _paired(accuracy, left, right)
    differences = pairs.left - pairs.right
    if pairs.empty:
        found = NONE
    elif classes is not None:
        found = crossed_mean(by_class(pick(classes, **left), pick(classes, **right)), "seeds", "classes")
    elif differences.max() - differences.min() > 1e-9:
        found = mean(differences, "seeds")
    else:
        found = proportion_difference(pairs.left.mean(), pairs.right.mean(), int(pairs.n.iloc[0]))
        seeds = "one seed" if len(pairs) == 1 else f"{len(pairs)} equal seeds"
        found = replace(found, over=f"{found.over}, {seeds}")
    return found, pairs


def _paired(accuracy: pd.DataFrame, left: Fields, right: Fields) -> pd.DataFrame:
    sides = []
    for fields in (left, right):
        chosen = pick(accuracy, **fields).drop_duplicates(FIELDS)
        if chosen.seed.duplicated().any():
            raise ValueError(f"{fields}: found several networks of one seed, expected one; name more fields")
        sides.append(chosen.set_index("seed"))
    return pd.DataFrame({"left": sides[0].top1, "right": sides[1].top1, "n": sides[0].n}).dropna()


def by_class(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Differences of accuracy by class, weighted by the class's images: a row per seed, a column per output.

    The mean of a row is the difference of Top-1 over all images. Classes without images and seeds that only one side
    has are left out.
    """
    left, right = (side[side.n > 0].drop_duplicates(["seed", "output"]).set_index(["seed", "output"])
                   for side in (left, right))  # fmt: skip
    weighted = ((left.top1 - right.top1) * left.n / left.n.groupby("output").first().mean()).dropna()
    return weighted.unstack("output")


def _compare(accuracy: pd.DataFrame, classes: Classes, pairs: Iterable[tuple[Fields, Fields, Fields]]) -> pd.DataFrame:
    """A row per pair that has a difference: left fields and further columns, top1, value, low, high, over, seeds."""
    rows, seeds = [], []
    for left, right, more in pairs:
        found, both = _estimate(accuracy, left, right, classes)
        if len(both):
            rows.append(({**left, **more, "top1": both.left.mean()}, found))
            seeds.append((both.left - both.right).tolist())
    return table(rows, [*CONFIGURATION, "changed", "against", "top1"]).assign(seeds=seeds)


def _pruned(accuracy: pd.DataFrame) -> list[Fields]:
    """The configurations that are pruned and retrained."""
    return retrained(accuracy[accuracy.rate > 0])[CONFIGURATION].drop_duplicates().to_dict("records")


def against(accuracy: pd.DataFrame, classes: Classes = None) -> pd.DataFrame:
    """Top-1 of every pruned and retrained configuration minus the dense network's, retrained alike, seed by seed.

    Returns: CONFIGURATION, top1, value, low, high, over, seeds (their differences), minus_dense (top1 minus that of the
    dense network as it was).
    """
    control = {"method": DENSE, "rate": 0.0, "schedule": "one_shot", "masked": True, "weights": "trained"}
    found = _compare(accuracy, classes, ((each, each | control, {}) for each in _pruned(accuracy)))
    return found.assign(minus_dense=found.top1 - dense(accuracy).top1.mean())


def controls(accuracy: pd.DataFrame, classes: Classes = None) -> pd.DataFrame:
    """Top-1 of every control minus that of the network that it controls, which differs in one field.

    Other schedules are compared with one-shot, no masks with masks, and methods by `CONTROL_OF`.
    Returns: CONFIGURATION, changed (the field), against (its value there), top1, value, low, high, over, seeds.
    """
    pairs = []
    for each in _pruned(accuracy):
        method = CONTROL_OF.get(each["method"], each["method"])
        usual = {"schedule": "one_shot", "masked": True, "method": method}
        if changed := next((name for name, value in usual.items() if each[name] != value), None):
            value = usual[changed]
            pairs.append((each, each | {changed: value}, {"changed": changed, "against": str(value)}))
    return _compare(accuracy, classes, pairs)


def iterative_minus_one_shot(accuracy: pd.DataFrame, classes: Classes = None) -> pd.DataFrame:
    """Rows of `controls` that compare iterative with one-shot networks, at each number of epochs."""
    return pick(controls(accuracy, classes), schedule="iterative").sort_values(
        ["method", "rate", "epochs"], ignore_index=True
    )


def recalibration(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of networks as pruned, with BatchNorm's statistics measured anew, and retrained (a row per budget).

    Returns: FIELDS, pruned, recalibrated, retrained, retrained_epochs, share (of what retraining brings; NaN where that
    is not seen to be anything), value, low, high, over (recalibrated minus pruned, over images).
    """
    keys, rows = ["method", "rate", "seed"], []
    usual = pick(accuracy, masked=True, weights="trained").drop_duplicates(FIELDS)
    usual = usual[[*FIELDS, "n", "top1"]]
    found = pick(usual, schedule="recalibrated").rename(columns={"top1": "recalibrated"})
    found = found.merge(pick(usual, schedule="none")[[*keys, "top1"]].rename(columns={"top1": "pruned"}), on=keys)
    after = pick(usual, schedule="one_shot").rename(columns={"top1": "retrained", "epochs": "retrained_epochs"})
    found = found.merge(after[[*keys, "retrained", "retrained_epochs"]], on=keys, how="left")
    names = [*FIELDS, "pruned", "recalibrated", "retrained", "retrained_epochs", "share"]
    for row in found.to_dict("records"):
        pruned, recalibrated, after, n = (row[name] for name in ("pruned", "recalibrated", "retrained", "n"))
        seen = after > pruned and proportion_difference(after, pruned, int(n)).above(0)
        row["share"] = (recalibrated - pruned) / (after - pruned) if seen else float("nan")
        rows.append(({name: row[name] for name in names}, proportion_difference(recalibrated, pruned, int(n))))
    return table(rows, names)


# -------------------------------------------------------------------------------------------- courses, sparsity, cost


def course(epochs: pd.DataFrame) -> pd.DataFrame:
    """Top-1 by epoch, means over seeds: CONFIGURATION, step_rate (the rate in those epochs) and a column per epoch."""
    keys = [*CONFIGURATION, "step_rate", "epoch"]
    means = epochs.assign(step_rate=epochs.step_rate.round(4)).groupby(keys, sort=False).top1.mean()
    return (
        means.unstack("epoch", sort=False)
        .sort_index(axis=1)
        .rename(columns=str)
        .rename_axis(columns=None)
        .reset_index()
    )


def sparsity(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Sparsity of masks and of the pruned networks themselves, means over seeds.

    Returns: CONFIGURATION, networks, mask_sparsity, conv_sparsity, total_sparsity, top1, regrown (the largest
    difference of a mask's and its network's conv sparsity).
    """
    pruned = accuracy[accuracy.rate > 0].drop_duplicates(FIELDS)
    pruned = pruned.assign(regrown=(pruned.mask_sparsity - pruned.conv_sparsity).abs())
    means = {name: (name, "mean") for name in ("mask_sparsity", "conv_sparsity", "total_sparsity", "top1")}
    groups = pruned.groupby(CONFIGURATION, sort=False, as_index=False)
    return groups.agg(networks=("seed", "size"), **means, regrown=("regrown", "max"))


def speedups(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs of the pruned networks with a column allowed: the speed-up that their MACs would allow."""
    return costs[costs.form != DENSE].assign(allowed=costs[costs.form == DENSE].macs.iloc[0] / costs.macs)
