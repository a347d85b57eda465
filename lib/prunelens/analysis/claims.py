"""The paper's claims C1 to C6 and its open questions Q1 to Q3, as functions of the study's tables.

All networks come from one dense network: no interval speaks of other dense networks. Accuracies are compared between
networks retrained for equally many epochs, and a verdict on them has to be the same at another number of epochs.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from prunelens.analysis import comparisons, published
from prunelens.analysis.correlations import class_correlation, class_scores, concept_agreement
from prunelens.analysis.estimates import NONE, Estimate, Part, mean, share_between
from prunelens.analysis.selection import above_chance, average_seeds, dense, pick, random, working
from prunelens.analysis.units import network_means, output_gaps, slopes, way
from prunelens.analysis.verdicts import Claim as claim
from prunelens.analysis.verdicts import Finding, Tables
from prunelens.variants import DENSE, FIELDS


def _paper(**fields: object) -> list[float]:
    """The paper's numbers of these fields."""
    return pick(published.headlines(), **fields).value.tolist()


METHODS = ("connection_l1", "unstructured_global", "structured_l1")
_LAST = {"measure": "top1", "schedule": "one_shot", "optimizer": "sgd", "epochs": 50, "rate": 0.8}
_ORDER = [_paper(method=method, **_LAST)[0] for method in METHODS]
_C1 = {"rule": "positive", "margin": "accuracy", "form": "+.1%", "figure": "03_differences", "needs": ("accuracy",),
       "paper": f"{_ORDER[0]:.3f} against {_paper(method=DENSE)[0]:.3f} dense, 50 epochs without masks"}  # fmt: skip

# ------------------------------------------------------------------------------------------------- C1 to C3, accuracy


@claim("C1a", "connection sparsity with masks, at the highest rate, beats the dense network retrained alike", **_C1)
def c1a(tables: Tables) -> Finding:
    return _connection(tables, masked=True)


@claim("C1b", "connection sparsity as coded, without masks, beats the dense network retrained alike", **_C1)
def c1b(tables: Tables) -> Finding:
    return _connection(tables, masked=False)


@claim("C2", "connection sparsity > unstructured > structured pruning at the highest rate",
       rule="positive", margin="accuracy", form="+.1%", figure="03_accuracy_by_rate", needs=("accuracy",),
       paper="{:.3f}, {:.3f}, {:.3f} at 0.8, the first without masks".format(*_ORDER))  # fmt: skip
def c2(tables: Tables) -> Finding:
    """Masked; unmasked where connection sparsity is not there with masks, as in the published tables."""
    first, second, third = (_most_pruned(tables, method) for method in METHODS)
    if pick(tables["accuracy"], **first).empty:
        first["masked"] = False
    return _differences(tables, (first, second), (second, third))


@claim("C3", "iterative is better than one-shot pruning at equal epochs",
       rule="positive", margin="accuracy", form="+.1%", figure="07_iterative", needs=("accuracy", "classes"),
       paper="{:.3f} (200 epochs) against {:.3f} (60 epochs), both 84 % sparse".format(
           *_paper(schedule="iterative", epochs=200), *_paper(schedule="one_shot", epochs=60)))  # fmt: skip
def c3(tables: Tables) -> Finding:
    return _iterative(tables)


def _most_pruned(tables: Tables, method: str, masked: bool = True) -> dict[str, object]:
    """Fields of a method's one-shot networks at the highest rate, or of the dense network retrained alike."""
    epochs = _budget(tables)
    rates = pick(tables["accuracy"], schedule="one_shot", weights="trained", epochs=epochs).rate
    return {"method": method, "rate": 0.0 if method == DENSE else rates.max(), "schedule": "one_shot",
            "masked": masked, "weights": "trained", "epochs": epochs}  # fmt: skip


def _budget(tables: Tables) -> float:
    """The number of epochs that most one-shot networks have."""
    return pick(tables["accuracy"], schedule="one_shot").epochs.mode().max()


def _differences(tables: Tables, *pairs: tuple[dict, dict]) -> Finding:
    """Top-1 of the left minus that of the right networks of each pair, at two budgets."""
    found = {}
    for left, right in pairs:
        name = f"{left['method']}{'' if left['masked'] else ' (unmasked)'} - {right['method']}"
        found[name] = {
            epochs: comparisons.difference(
                tables["accuracy"], left | {"epochs": epochs}, right | {"epochs": epochs}, _classes(tables)
            )
            for epochs in sorted(pick(tables["accuracy"], schedule="one_shot").epochs.unique())
        }
    return _at_two_budgets(found, _budget(tables), f"rate {pairs[0][0]['rate']:g}")


def _classes(tables: Tables) -> pd.DataFrame | None:
    """Accuracies by class, where they are known: the published ones are not."""
    return tables["classes"] if "top1" in tables.get("classes", ()) else None


def _at_two_budgets(found: Mapping[str, Mapping[float, Estimate]], budget: float, note: str) -> Finding:
    """A finding at one number of epochs that has to be the same at another, at least twice or at most half as many.

    found: by comparison and number of epochs.
    """
    values, undecided, again = {}, {}, {}
    for name, by_epochs in found.items():
        values[name] = by_epochs.get(budget, NONE)
        others = [epochs for epochs, estimate in by_epochs.items() if not math.isnan(estimate.value)]
        longer = [epochs for epochs in others if epochs >= 2 * budget]
        shorter = [epochs for epochs in others if epochs <= budget / 2]
        if other := min(longer, default=None) or max(shorter, default=None):
            again[name] = by_epochs[other], f"{other:g} epochs"
        elif not math.isnan(values[name].value):
            undecided[name] = f"whether it has settled is not known: retrained for {budget:g} epochs alone"
    return Finding(values, undecided, f"{note}, {budget:g} epochs", again=again)


def _connection(tables: Tables, masked: bool) -> Finding:
    pruned = _most_pruned(tables, "connection_l1", masked)
    found = _differences(tables, (pruned, _most_pruned(tables, DENSE)))
    zeros = pick(tables["accuracy"], **pruned).conv_sparsity.mean()
    return replace(found, note=f"{found.note}, {zeros:.1%} of the conv weights are zero")


def _iterative(tables: Tables) -> Finding:
    """Top-1 of iterative minus one-shot networks, mean over methods and rates; pairs at chance are left out."""
    rows, classes = _iterative_pairs(tables), _classes(tables)
    if classes is not None:
        classes = _over_configurations(classes.merge(rows[FIELDS]), "output")
    sides = ({"schedule": "iterative"}, {"schedule": "one_shot"})
    found = {
        epochs: comparisons.difference(
            _over_configurations(rows), *(side | {"epochs": epochs} for side in sides), classes
        )
        for epochs in sorted(rows.epochs.unique())
    }
    return _at_two_budgets({"": found}, _budget(tables), "mean over methods and rates")


def _over_configurations(rows: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Means over methods and rates by schedule, seed and epochs."""
    means = rows.groupby(["schedule", "seed", "epochs", *more], as_index=False)[["top1", "n"]].mean()
    return means.assign(method="all", rate=0.0, masked=True, weights="trained")


def _iterative_pairs(tables: Tables) -> pd.DataFrame:
    """Accuracy of iterative networks and their one-shot partners, of which at least one is above chance."""
    keys = [field for field in FIELDS if field != "schedule"]
    rows = pick(tables["accuracy"], schedule=("iterative", "one_shot")).drop_duplicates(FIELDS)
    rows = rows[rows.groupby(keys).schedule.transform("nunique") == 2]
    keys.remove("seed")
    return rows[rows.groupby(keys).top1_low.transform("max") > _chance(tables)]


def _chance(tables: Tables) -> float:
    """Top-1 of guessing among the data's classes."""
    return 1 / tables["classes"].output.nunique()


# ---------------------------------------------------------------------------------------------------- C4 to C6, units

_UNITS = ("accuracy", "classes", "units.mis")


@claim("C4", "MIS does not change with the rate (share of the way from random to dense, per unit of rate)",
       rule="equivalent", margin="slope", form="+.0%", figure="06_slopes", needs=_UNITS,
       paper=f"r = {_paper(measure='rate_mis_r')[0]:.2f}, 8 series pooled, 40 networks")  # fmt: skip
def c4(tables: Tables) -> Finding:
    """Same live units, networks above chance; over seeds, or with one seed over units."""
    found, distance = slopes(_above_chance(tables), "mis"), way(tables["units"], "mis")
    if distance <= 0:
        return Finding({"": NONE}, {"": "no way from random to dense: random networks score as high"})
    values, freedom = {}, math.inf
    for row in found.itertuples():
        seeds = [slope for slope in row.seeds if not math.isnan(slope)]
        slope = mean(seeds, "seeds") if len(seeds) > 1 else Estimate.of(row)
        freedom = min(freedom, len(seeds) - 1) if len(seeds) > 1 else freedom
        scaled = {end: getattr(slope, end) / distance for end in ("value", "low", "high")}
        values[row.series] = replace(slope, **scaled)
    return Finding(values, freedom=freedom)


@claim("C5", "networks at chance, not retrained, keep more than half of the dense network's MIS above random networks'",
       rule="above", margin=0.5, form=".0%", figure="05_by_rate", needs=_UNITS,
       paper="{:.2f} and {:.2f} at 0.8, unpruned {:.2f}".format(
           *_paper(measure="mean_mis", schedule="none", rate=0.8),
           *_paper(method="tf_inceptionv1", measure="mean_mis", source="arXiv 2409.19727")))  # fmt: skip
def c5(tables: Tables) -> Finding:
    """Over methods, each the mean of its rates: rates of one method are no independent draws."""
    means = network_means(tables["units"], "mis")
    lost = means.drop(above_chance(tables["accuracy"], means, _chance(tables)).index)
    lost = average_seeds(pick(lost[lost.rate > 0], schedule="none"))
    low, high = random(means).mis, dense(means).mis.mean()
    share = share_between(lost.groupby("method").mis.mean(), low, high, "methods")
    if high <= low.mean():
        return Finding({"": share}, {"": "no way from random to dense: random networks score as high"})
    return replace(_at_least(8, len(lost), "unretrained methods and rates at chance", share), least=0)


@claim("C6a", "outputs have lower MIS than convs",
       rule="positive", margin="mis", figure="05_blocks", needs=_UNITS,
       paper="lower in every network, no number")  # fmt: skip
def c6a(tables: Tables) -> Finding:
    gaps = output_gaps(working(_above_chance(tables)), "mis")
    found = _at_least(100, len(gaps), "classes", mean(gaps.mean(axis=1), "classes"))
    lower = f"lower in {(gaps.mean() > 0).sum()} of {gaps.shape[1]} configurations"
    return replace(found, note=lower)


@claim("C6b", "class accuracy does not correlate with the MIS of the class's output",
       rule="unrelated", margin="correlation", form="+.2f", figure="06_class_accuracy", needs=(*_UNITS, "classes.top1"),
       paper="no correlation, no number")  # fmt: skip
def c6b(tables: Tables) -> Finding:
    r = class_correlation(class_scores(_above_chance(tables), tables["classes"], "mis"), "mis")
    return _at_least(93, r.n, "classes", r)


def _above_chance(tables: Tables) -> pd.DataFrame:
    return above_chance(tables["accuracy"], tables["units"], _chance(tables))


def _at_least(needed: int, found: int, what: str, estimate: Estimate) -> Finding:
    """An estimate that decides nothing where it is over fewer than the number needed."""
    why = {"": f"{found} {what}, at least {needed} are needed"} if 0 < found < needed else {}
    return Finding({"": estimate}, why, least=needed)


# ----------------------------------------------------------------------------------------------------- open questions


@claim("Q1", "within layers, units of higher MIS tell a known concept better",
       rule="above", margin="correlation", form="+.2f", figure="07_truth", paper="left open",
       needs=("units.mis", "units.concept_selectivity"))  # fmt: skip
def q1(tables: Tables) -> Finding:
    """Ranks of the dense network's units; rivals beside it, but for measures that know the concepts themselves."""
    units, out = dense(tables["units"]), ("rate", "position", "concept_selectivity", "dissection")
    measures = [name for name in units.select_dtypes("float") if name not in out]
    found = concept_agreement(units, measures, "concept_selectivity")
    named = {row.measure: _over_units(row) for row in found.itertuples()}
    mis, rivals = named.pop("mis"), ", ".join(f"{name} {r.value:+.2f}" for name, r in named.items())
    return Finding({"": mis}, note=f"rivals: {rivals}")


def _over_units(row: Any) -> Estimate:
    """The correlation in a table's row, which does not keep what the interval is over."""
    return replace(Estimate.of(row), parts=(Part("units", row.n, 1 / row.n),) if row.n else ())


@claim("Q2", "iterative pruning is the better trade-off: above one-shot at equal epochs, method and rate",
       rule="positive", margin="accuracy", form="+.1%", figure="07_iterative", paper="left open",
       needs=("accuracy", "classes"))  # fmt: skip
def q2(tables: Tables) -> Finding:
    return _iterative(tables)


@claim("Q3", "outputs are low of themselves: lower than the convs of the last block",
       rule="positive", margin="mis", figure="05_blocks", paper="left open", needs=_UNITS)  # fmt: skip
def q3(tables: Tables) -> Finding:
    gaps = output_gaps(working(_above_chance(tables)), "mis", last_block=True)
    return Finding({"": mean(gaps.mean(axis=1), "classes")})
