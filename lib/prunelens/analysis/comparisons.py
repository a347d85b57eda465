"""Compare networks: differences of accuracy, controls, courses of retraining, costs, classes and pictures.

Networks are compared seed by seed, and with those that were retrained for as many epochs. With accuracies by class the
intervals are over seeds and classes; see `difference`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from prunelens.analysis.estimates import NONE, Estimate, by, crossed_mean, mean, proportion_difference, table
from prunelens.analysis.selection import above_chance, average_seeds, dense, pick, retrained
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
    return table(rows, [*CONFIGURATION, "changed", "against", "place", "top1"]).assign(seeds=seeds)


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

    Other schedules are compared with one-shot, weights drawn anew with trained ones, no masks with masks, and methods
    by `CONTROL_OF`.
    Returns: CONFIGURATION, changed (the field), against (its value there), top1, value, low, high, over, seeds.
    """
    pairs = []
    for each in _pruned(accuracy):
        method = CONTROL_OF.get(each["method"], each["method"])
        usual = {"schedule": "one_shot", "weights": "trained", "masked": True, "method": method}
        if changed := next((name for name, value in usual.items() if each[name] != value), None):
            value = usual[changed]
            pairs.append((each, each | {changed: value}, {"changed": changed, "against": str(value)}))
    return _compare(accuracy, classes, pairs)


def iterative_minus_one_shot(accuracy: pd.DataFrame, classes: Classes = None) -> pd.DataFrame:
    """Rows of `controls` that compare iterative with one-shot networks, at each number of epochs."""
    return pick(controls(accuracy, classes), schedule="iterative").sort_values(
        ["method", "rate", "epochs"], ignore_index=True
    )


def ranking(accuracy: pd.DataFrame, classes: Classes = None) -> pd.DataFrame:
    """Pruned, masked and retrained configurations of each rate and number of epochs, from best to worst.

    Returns: CONFIGURATION, place (1: best), top1, value, low, high, over, seeds (minus the best).
    """
    means = average_seeds(retrained(accuracy[(accuracy.rate > 0) & accuracy.masked]))
    pairs = []
    for _, group in means.sort_values("top1", ascending=False, kind="stable").groupby(["rate", "epochs"]):
        ranked = group[CONFIGURATION].to_dict("records")
        pairs += [(each, ranked[0], {"place": place}) for place, each in enumerate(ranked, 1)]
    return _compare(accuracy, classes, pairs)


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


# ------------------------------------------------------------------------------------- courses, sparsity, cost, layers


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


def first_epoch(epochs: pd.DataFrame, chance: float) -> Estimate:
    """Share of what networks pruned in one step have above chance in the end that they have after one epoch.

    The interval is over configurations; networks at chance in the end are left out.
    """
    chosen = epochs[(epochs.rate > 0) & (epochs.schedule != "iterative")]
    means = average_seeds(above_chance(chosen[chosen.epoch == chosen.epochs], chosen, chance), "epoch")
    first, last = (means[means.epoch == at].set_index(CONFIGURATION).top1 for at in (1, means.epochs))
    return mean((first - chance) / (last - chance), "configurations")


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


def sensitivity(scan: pd.DataFrame) -> pd.DataFrame:
    """Share of the dense Top-1 left when a layer alone is pruned, mean over rates.

    Returns: method, layer, position, kept, place (1: most sensitive), mean (over the method's layers).
    """
    found = scan.groupby(["method", "layer", "position"], sort=False, as_index=False).kept.mean()
    kept = found.groupby("method").kept
    return found.assign(place=kept.rank(method="first").astype(int), mean=kept.transform("mean"))


def pareto(epochs: pd.DataFrame, macs: float, images: int) -> pd.DataFrame:
    """What masked networks reach and what it costs: FIELDS, top1 (last epoch), seconds, pflops (in all).

    Compute counts two operations per multiplication (macs: of one image, dense) and three forward passes per step.
    """
    groups = epochs[epochs.masked].sort_values("epoch", kind="stable").groupby(FIELDS, sort=False, as_index=False)
    found = groups.agg(top1=("top1", "last"), seconds=("seconds", "sum"))
    return found.assign(pflops=6 * macs * images * found.epochs / 1e15)


def speedups(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs of the pruned networks with a column allowed: the speed-up that their MACs would allow."""
    return costs[costs.form != DENSE].assign(allowed=costs[costs.form == DENSE].macs.iloc[0] / costs.macs)


# ------------------------------------------------------------------------------------------------- classes, pictures


def lowest(accuracy: pd.DataFrame, chance: float) -> Fields:
    """Fields of the pruned one-shot network of lowest Top-1 among those above chance, or of all where none is.

    Raises:
        ValueError: there is no such network.
    """
    chosen = pick(accuracy[accuracy.rate > 0], schedule="one_shot")
    if chosen.empty:
        raise ValueError("accuracy: found no pruned one-shot network, expected at least one")
    above = above_chance(accuracy, chosen, chance)
    return (above if len(above) else chosen).nsmallest(1, "top1")[FIELDS].to_dict("records")[0]


def class_differences(classes: pd.DataFrame, network: Fields) -> pd.DataFrame:
    """Top-1 of each class in a network minus the dense network's, greatest loss first.

    Returns: output, class_name, n, dense, top1, value, low, high, over (images). Classes without images are left out.
    """
    before = dense(classes)[["output", "class_name", "n", "top1"]].rename(columns={"top1": DENSE})
    both = before[before.n > 0].merge(pick(classes, **network)[["output", "top1"]], on="output")
    rows = both.to_dict("records")
    found = table(((row, proportion_difference(row["top1"], row[DENSE], int(row["n"]))) for row in rows), both.columns)
    return found.sort_values("value", kind="stable", ignore_index=True)


def picture_differences(quality: pd.DataFrame) -> pd.DataFrame:
    """Quantities of units' pictures minus those of the same units in the dense network, where they live in both.

    like_dense is compared with how alike the dense network's own pictures of a unit are (consistency).
    Returns: FIELDS, quantity, value, low, high, over (units).
    """
    names = [name for name in quality.select_dtypes("float") if name not in FIELDS]
    before = dense(quality).set_index(["layer", "unit"])[names]
    before = before.assign(like_dense=before.consistency)
    pruned = quality[quality.rate > 0].set_index(["layer", "unit"])
    changes = pruned[FIELDS].assign(**pruned[names] - before.reindex(pruned.index))
    rows = changes.melt(FIELDS, names, "quantity")
    return by(rows, [*FIELDS, "quantity"], lambda group: mean(group.value, "units"))
