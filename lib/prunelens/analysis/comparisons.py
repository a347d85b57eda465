"""Compare networks: differences of accuracy with intervals, controls, costs, and what becomes of classes and pictures.

Networks are compared seed by seed, and only with those that were retrained for as many epochs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from prunelens.analysis.estimates import NONE, Estimate, counted, mean, proportion_difference, table
from prunelens.analysis.selection import above_chance, average_seeds, dense, pick, retrained
from prunelens.variants import CONFIGURATION, DENSE, FIELDS

Fields = dict[str, Any]

# Methods that are controls of another: random masks of the same sparsity, other choices of what to prune.
CONTROL_OF = {
    "unstructured_global_random": "unstructured_global",
    "unstructured_random": "unstructured_local",
    "structured_random": "structured_l1",
    "connection_random": "connection_l1",
    "connection_l1_shared": "connection_l1",
    "unstructured_sensitivity": "unstructured_global",
}


def paired(accuracy: pd.DataFrame, left: Fields, right: Fields, value: str = "top1") -> pd.DataFrame:
    """Networks of two configurations seed by seed: left, right, difference, n (images); index: seeds that both have.

    Raises:
        ValueError: the fields of a side fit several networks of one seed (of other epochs, for example).
    """
    sides = []
    for fields in (left, right):
        chosen = pick(accuracy, **fields).drop_duplicates(FIELDS)
        if chosen.seed.duplicated().any():
            raise ValueError(f"{fields}: found several networks of one seed, expected one; name more fields")
        sides.append(chosen.set_index("seed"))
    pairs = pd.DataFrame({"left": sides[0][value], "right": sides[1][value], "n": sides[0].n}).dropna()
    return pairs.assign(difference=pairs.left - pairs.right)


def difference(accuracy: pd.DataFrame, left: Fields, right: Fields, value: str = "top1") -> Estimate:
    """A value of the networks with the fields `left` minus that of those with `right`.

    The interval is Student's over the seeds' paired differences. With one seed, or where all differ by the same
    (networks at chance often do), it is Newcombe's over images.
    """
    return _estimate(paired(accuracy, left, right, value))


def _estimate(pairs: pd.DataFrame) -> Estimate:
    if pairs.empty:
        return NONE
    if pairs.difference.max() - pairs.difference.min() > 1e-9:
        return mean(pairs.difference, "seeds")
    found = proportion_difference(pairs.left.mean(), pairs.right.mean(), int(pairs.n.iloc[0]))
    seeds = "one seed" if len(pairs) == 1 else f"{len(pairs)} equal seeds"
    return Estimate(found.value, found.low, found.high, f"{found.over}, {seeds}")


def _compare(accuracy: pd.DataFrame, pairs: Iterable[tuple[Fields, Fields, Fields]]) -> pd.DataFrame:
    """A row per pair: the left fields and `more`, top1 (of the left), value, low, high, over, seeds."""
    rows, seeds = [], []
    for left, right, more in pairs:
        both = paired(accuracy, left, right)
        rows.append(({**left, **more, "top1": both.left.mean()}, _estimate(both)))
        seeds.append(both.difference.tolist())
    return table(rows, [*CONFIGURATION, "top1"]).assign(seeds=seeds).dropna(subset="value", ignore_index=True)


def _configurations(accuracy: pd.DataFrame) -> list[Fields]:
    return accuracy[CONFIGURATION].drop_duplicates().to_dict("records")


def against(accuracy: pd.DataFrame, **control: Any) -> pd.DataFrame:
    """Top-1 of every pruned and retrained configuration minus a control's of the same seed and epochs.

    control: fields of the control; by default the dense network retrained alike.
    Returns: CONFIGURATION, top1, value, low, high, over, seeds (their differences), minus_dense (top1 minus that of the
    dense network as it was).
    """
    control = {"method": DENSE, "rate": 0.0, "schedule": "one_shot", "masked": True, "weights": "trained"} | control
    chosen = _configurations(retrained(accuracy[accuracy.rate > 0]))
    found = _compare(accuracy, ((each, each | control, {}) for each in chosen))
    return found.assign(minus_dense=found.top1 - dense(accuracy).top1.mean())


def controls(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of every control minus that of the network that it controls, which differs in one field alone.

    Other schedules are compared with one-shot, weights drawn anew with trained ones, no masks with masks, and methods
    by `CONTROL_OF`. Returns the columns of `against` but the last, and changed (the field), against (its value there).
    """
    pairs = []
    for each in _configurations(retrained(accuracy[accuracy.rate > 0])):
        method = CONTROL_OF.get(each["method"], each["method"])
        usual = {"schedule": "one_shot", "weights": "trained", "masked": True, "method": method}
        changed = next((name for name, value in usual.items() if each[name] != value), None)
        if changed:
            control = {changed: usual[changed]}
            pairs.append((each, each | control, {"changed": changed, "against": str(usual[changed])}))
    return _compare(accuracy, pairs).reindex(
        columns=[*CONFIGURATION, "changed", "against", "top1", "value", "low", "high", "over", "seeds"]
    )


def iterative_minus_one_shot(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Rows of `controls` that compare iterative with one-shot networks, at each number of epochs."""
    return pick(controls(accuracy), schedule="iterative").sort_values(["method", "rate", "epochs"], ignore_index=True)


def ranking(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Masked, pruned and retrained configurations of each rate and number of epochs, from best to worst.

    Returns: CONFIGURATION, place (1: best), top1, value, low, high, over, seeds: top1 minus the best's.
    """
    means = average_seeds(retrained(accuracy[(accuracy.rate > 0) & accuracy.masked]))
    pairs = []
    for _, group in means.sort_values("top1", ascending=False, kind="stable").groupby(["rate", "epochs"]):
        ranked = group[CONFIGURATION].to_dict("records")
        pairs += [(each, ranked[0], {"place": place}) for place, each in enumerate(ranked, 1)]
    return _compare(accuracy, pairs)


def recalibration(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of networks as pruned, with BatchNorm's statistics measured anew, and retrained; a row per budget.

    Returns: FIELDS, pruned, recalibrated, retrained, retrained_epochs, value, low, high, over (recalibrated minus pruned,
    over images), share (of what retraining brings; NaN where that is not seen to bring anything).
    """
    keys, rows = ["method", "rate", "seed"], []
    usual = pick(accuracy, masked=True, weights="trained").drop_duplicates(FIELDS)
    before = pick(usual, schedule="none")[[*keys, "top1"]].rename(columns={"top1": "pruned"})
    after = pick(usual, schedule="one_shot").rename(columns={"top1": "retrained", "epochs": "retrained_epochs"})
    both = pick(usual, schedule="recalibrated").merge(before, on=keys)
    both = both.merge(after[[*keys, "retrained", "retrained_epochs"]], on=keys, how="left")
    both = both.rename(columns={"top1": "recalibrated"})
    names = [*FIELDS, "pruned", "recalibrated", "retrained", "retrained_epochs", "share"]
    for row in both.to_dict("records"):
        brought = row["retrained"] - row["pruned"]
        seen = brought == brought and proportion_difference(row["retrained"], row["pruned"], int(row["n"])).above(0)
        row["share"] = (row["recalibrated"] - row["pruned"]) / brought if seen else float("nan")
        found = proportion_difference(row["recalibrated"], row["pruned"], int(row["n"]))
        rows.append(({name: row[name] for name in names}, found))
    return table(rows, names)


# ------------------------------------------------------------------------------------- courses, sparsity, cost, layers


def course(epochs: pd.DataFrame) -> pd.DataFrame:
    """Top-1 by epoch, means over seeds: CONFIGURATION, step_rate (the rate in those epochs) and a column per epoch."""
    keys = [*CONFIGURATION, "step_rate"]
    rows = epochs.assign(step_rate=epochs.step_rate.round(4))
    found = rows.groupby([*keys, "epoch"], sort=False).top1.mean().unstack("epoch").sort_index(axis=1)
    return found.rename(columns=str).rename_axis(columns=None).reset_index()


def first_epoch(epochs: pd.DataFrame, chance: float) -> Estimate:
    """Share of what pruned networks have above chance in the end that they have after one epoch, over configurations.

    Networks pruned in one step alone; networks at chance in the end are left out.
    """
    chosen = epochs[(epochs.rate > 0) & (epochs.schedule != "iterative")]
    chosen = above_chance(chosen[chosen.epoch == chosen.epochs], chosen, chance)
    means = average_seeds(chosen, "epoch")
    first, last = (means[means.epoch == at].set_index(CONFIGURATION).top1 for at in (1, means.epochs))
    return mean((first - chance) / (last - chance), "configurations")


def sparsity(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Sparsity of the masks and of the pruned networks themselves.

    Returns: CONFIGURATION, networks, mask_sparsity, conv_sparsity, total_sparsity, top1 (means over seeds), regrown (the
    largest difference of mask and network).
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
    groups = found.groupby("method").kept
    return found.assign(place=groups.rank(method="first").astype(int), mean=groups.transform("mean"))


def pareto(epochs: pd.DataFrame, macs: float, images: int) -> pd.DataFrame:
    """What masked networks cost to retrain and what they reach: FIELDS, top1 (last epoch), pflops, seconds.

    Compute counts two operations per MAC of a dense image (macs) and three forward passes per training step.
    """
    groups = epochs[epochs.masked].sort_values("epoch", kind="stable").groupby(FIELDS, sort=False, as_index=False)
    found = groups.agg(top1=("top1", "last"), seconds=("seconds", "sum"))
    return found.assign(pflops=6 * macs * images * found.epochs / 1e15)


def speedups(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs of the pruned networks with the speed-up that their MACs would allow: all columns, allowed."""
    return costs[costs.form != DENSE].assign(allowed=costs[costs.form == DENSE].macs.iloc[0] / costs.macs)


# ------------------------------------------------------------------------------------------------ classes, pictures


def lowest(accuracy: pd.DataFrame, chance: float) -> Fields:
    """Fields of the pruned one-shot network of lowest Top-1 among those above chance, or of all where none is."""
    chosen = pick(accuracy, schedule="one_shot")
    chosen = chosen[chosen.rate > 0]
    above = above_chance(accuracy, chosen, chance)
    return (above if len(above) else chosen).nsmallest(1, "top1")[FIELDS].to_dict("records")[0]


def class_differences(classes: pd.DataFrame, network: Fields) -> pd.DataFrame:
    """Top-1 of each class in a network minus the dense network's, over images, greatest loss first.

    Returns: output, class_name, n, dense, top1, value, low, high, over. Classes without images are left out.
    """
    both = dense(classes).merge(pick(classes, **network)[["output", "top1"]], on="output", suffixes=("_dense", ""))
    both = both[both.n > 0].rename(columns={"top1_dense": "dense"})
    rows = both[["output", "class_name", "n", "dense", "top1"]].to_dict("records")
    found = [(row, proportion_difference(row["top1"], row["dense"], int(row["n"]))) for row in rows]
    return table(found).sort_values("value", kind="stable", ignore_index=True)


def means(rows: pd.DataFrame, keys: Sequence[str], over: str) -> pd.DataFrame:
    """Mean of every column of floats by `keys`: keys, quantity, value, low, high, over (Student's interval)."""
    names = [name for name in rows.select_dtypes("float") if name not in keys and name not in FIELDS]
    groups = rows.groupby(list(keys), sort=False)
    found = [
        (dict(zip(keys, key, strict=True)) | {"quantity": name}, mean(group[name], over))
        for key, group in groups
        for name in names
    ]
    return table(found, [*keys, "quantity"])


def picture_differences(quality: pd.DataFrame) -> pd.DataFrame:
    """Quantities of units' pictures minus those of the same units in the dense network, where they live in both.

    like_dense is compared with how alike the dense network's own pictures of the unit are (consistency).
    Returns: FIELDS, quantity, value, low, high, over (units).
    """
    keys = ["layer", "unit"]
    names = [name for name in quality.select_dtypes("float") if name not in FIELDS]
    before = dense(quality).set_index(keys)[names].assign(like_dense=lambda t: t.consistency)
    pruned = quality[quality.rate > 0].reset_index(drop=True)
    same = before.reindex(pd.MultiIndex.from_frame(pruned[keys])).reset_index(drop=True)
    return means(pruned[FIELDS].join(pruned[names] - same), FIELDS, "units")
