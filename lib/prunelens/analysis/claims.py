"""The paper's claims C1 to C6 and its open questions Q1 to Q3, as functions of the study's tables.

All networks come from one dense network: no interval speaks of other dense networks. Accuracies are compared between
networks retrained for equally many epochs, and not decided while the last epoch still raises Top-1.
"""

import math

import pandas as pd

from prunelens.analysis import comparisons, correlations, estimates, published
from prunelens.analysis.estimates import Estimate
from prunelens.analysis.selection import above_chance, average_seeds, pick
from prunelens.analysis.units import network_means, output_gaps, slopes
from prunelens.analysis.verdicts import Claim as claim
from prunelens.analysis.verdicts import Finding, Tables
from prunelens.variants import DENSE, FIELDS, RETRAINED

SETTLED = 0.01  # of Top-1: retraining whose last epoch raises it by more has not settled
LEAST = {"C5": 8, "C6a": 100, "C6b": 93}  # numbers of networks and classes below which nothing is decided


def _paper(**fields: object) -> list[float]:
    """The paper's numbers of these fields."""
    return pick(published.headlines(), **fields).value.tolist()


_LAST = {"measure": "top1", "schedule": "one_shot", "optimizer": "sgd", "epochs": 50, "rate": 0.8}
_METHODS = ("connection_l1", "unstructured_global", "structured_l1")
_ORDER = [_paper(method=method, **_LAST)[0] for method in _METHODS]
_ITERATIVE = [*_paper(schedule="iterative", epochs=200), *_paper(schedule="one_shot", epochs=60)]
_BROKEN = _paper(measure="mean_mis", schedule="none", rate=0.8)

# ------------------------------------------------------------------------------------------------- C1 to C3, accuracy


def _most_pruned(tables: Tables, method: str, masked: bool = True) -> dict[str, object]:
    """Fields of a method's one-shot networks at the highest rate and the study's number of epochs."""
    one_shot = pick(tables["accuracy"], schedule="one_shot")
    rate = 0.0 if method == DENSE else one_shot.rate.max()
    fields = {"method": method, "rate": rate, "schedule": "one_shot", "masked": masked, "weights": "trained"}
    return fields | {"epochs": one_shot.epochs.mode().max()}


def _rising(tables: Tables, *sides: dict[str, object]) -> str:
    """Which sides of a comparison the last epoch of retraining still raised, and by how much."""
    found = []
    for side in sides if "epochs" in tables else ():
        course = pick(tables["epochs"], **side).sort_values("epoch")
        rise = course.groupby(FIELDS).top1.agg(lambda top1: top1.diff().iloc[-1]).mean()
        if rise > SETTLED:
            found.append(f"{side.get('method', side['schedule'])} {rise:+.1%}")
    return f"not settled: the last epoch brought {' and '.join(found)}" if found else ""


def _differences(tables: Tables, *pairs: tuple[dict, dict]) -> Finding:
    """Top-1 of the left minus that of the right networks of each pair."""
    found, undecided = {}, {}
    for left, right in pairs:
        name = f"{left['method']} - {right['method']}:"
        found[name] = comparisons.difference(tables["accuracy"], left, right)
        rising = _rising(tables, left, right)
        if rising and not math.isnan(found[name].value):
            undecided[name] = rising
    return Finding(found, undecided)


def _connection(tables: Tables, masked: bool) -> Finding:
    """Connection sparsity minus dense, retrained alike, with the zeros that are left."""
    pruned = _most_pruned(tables, "connection_l1", masked)
    found = _differences(tables, (pruned, _most_pruned(tables, DENSE)))
    zeros = pick(tables["accuracy"], **pruned).conv_sparsity.mean()
    return Finding(found.estimates, found.undecided, f"{zeros:.1%} of the conv weights are zero at {pruned['rate']:g}")


_C1 = {"rule": "positive", "margin": "accuracy", "form": "+.1%", "needs": ("accuracy",), "figure": "03_differences",
       "paper": f"{_ORDER[0]:.3f} against {_paper(method=DENSE)[0]:.3f} dense, 50 epochs without masks"}  # fmt: skip


@claim("C1a", "connection sparsity, masked, at the highest rate beats the dense network retrained alike", **_C1)
def c1a(tables: Tables) -> Finding:
    return _connection(tables, masked=True)


@claim("C1b", "connection sparsity as coded, without masks, beats the dense network retrained alike", **_C1)
def c1b(tables: Tables) -> Finding:
    return _connection(tables, masked=False)


@claim("C2", "connection sparsity beats unstructured, and that beats structured pruning at the highest rate",
       rule="positive", margin="accuracy", form="+.1%", needs=("accuracy",), figure="03_accuracy_by_rate",
       paper="{:.3f}, {:.3f}, {:.3f} at 0.8, the first without masks".format(*_ORDER))  # fmt: skip
def c2(tables: Tables) -> Finding:
    """With masks; without where there is no such network, as in the published tables."""
    sides = [_most_pruned(tables, method) for method in _METHODS]
    if pick(tables["accuracy"], **sides[0]).empty:
        sides[0]["masked"] = False
    found = _differences(tables, (sides[0], sides[1]), (sides[1], sides[2]))
    return Finding(found.estimates, found.undecided, f"at {sides[0]['rate']:g}, {'' if sides[0]['masked'] else 'not '}masked")


def _against_one_shot(tables: Tables, schedules: tuple[str, ...]) -> Finding:
    """Top-1 of other schedules minus one-shot, mean over methods and rates, at equal epochs.

    Pairs of networks that are both at chance are left out.
    """
    accuracy, keys = tables["accuracy"], [field for field in FIELDS if field != "schedule"]
    budget, found, undecided = pick(accuracy, schedule="one_shot").epochs.mode().max(), {}, {}
    for schedule in schedules:
        ends = ["", "_one_shot"]
        pairs = pick(accuracy, schedule=schedule, epochs=budget).merge(pick(accuracy, schedule="one_shot"), on=keys, suffixes=ends)
        ...


def _chance(tables: Tables) -> float:
    return 1 / tables["classes"].output.nunique()


# --------------------------------------------------------------------------------------------------- C4 to C6, units
