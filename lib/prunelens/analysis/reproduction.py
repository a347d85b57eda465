"""Compare two runs of a profile: does one reproduce the other?

Two estimates agree if their difference can be chance: Welch's test of what their intervals say, with Holm's correction
over all that is compared, so that a run that differs from the reference by nothing but its seeds fails at most 5 % of
the time. Numbers that have no chance in them, such as the sparsity of masks, have to agree to rounding.
"""

import math
from collections.abc import Mapping

import pandas as pd
from scipy import special

from prunelens.analysis.estimates import (
    NONE,
    Estimate,
    Part,
    critical,
    holm,
    mean,
    proportion_interval,
    satterthwaite,
    total,
    unit_mean,
)
from prunelens.analysis.selection import pick
from prunelens.analysis.verdicts import FAILS, HOLDS
from prunelens.variants import CONFIGURATION

LEVEL = 0.05  # of the whole comparison
ROUNDING = 5e-4  # of numbers without chance
EXACT = ("mask_sparsity", "conv_sparsity", "number")
NUMBERS = ["network", "quantity", "value", "low", "high", "over", "parts"]


def numbers(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The main numbers of a run, from the tables that claims are judged by.

    Of every configuration: top1 (over seeds and images), mask_sparsity, conv_sparsity; mis and mis_output (means over
    live convs and live outputs of the data's classes, over seeds and units). Of the "study": how many networks, classes
    and validation images it has. A retrained network alone has no interval: nothing is known of other seeds.
    Returns: network (in words), quantity, value, low, high, over, parts (JSON).
    """
    accuracy, units = tables["accuracy"], tables.get("units", pd.DataFrame())
    counts = {"networks": len(accuracy), "classes": tables["classes"].output.nunique(), "images": accuracy.n.max()}
    rows = [_row(f"study, {name}", "number", Estimate(float(n))) for name, n in counts.items()]
    several = accuracy.seed.nunique() > 1
    for key, networks in accuracy.groupby(CONFIGURATION, sort=False):
        name, fixed = _name(key), _is_fixed(networks, several)
        rows.append(_row(name, "top1", _top1(networks, fixed)))
        rows += [
            _row(name, quantity, Estimate(networks[quantity].mean())) for quantity in EXACT if quantity in networks
        ]
    for key, networks in units.groupby(CONFIGURATION, sort=False) if "mis" in units else ():
        live = networks[networks.alive.astype(bool) & networks.own_class.astype(bool)]
        for quantity, kind in {"mis": "conv", "mis_output": "output"}.items():
            rows.append(_row(_name(key), quantity, _mis(pick(live, kind=kind), _is_fixed(networks, several))))
    return pd.DataFrame(rows, columns=NUMBERS)


def _name(key: tuple) -> str:
    """A configuration in words."""
    fields = dict(zip(CONFIGURATION, key, strict=True))
    words = [fields["method"], f"{fields['rate']:.2f}", fields["schedule"]]
    words += [] if fields["masked"] else ["unmasked"]
    words += [] if fields["weights"] == "trained" else [fields["weights"]]
    return " ".join(words + ([f"{fields['epochs']:g} epochs"] if fields["epochs"] else []))


def _is_fixed(networks: pd.DataFrame, several: bool) -> bool:
    """Whether a configuration is the same network for every seed: the dense one, or pruned by a method without chance.

    several: whether the study has several seeds, so that a single network says so.
    """
    first = networks.iloc[0]
    untouched = first.schedule == "none" and first.weights == "trained"
    return untouched and networks.seed.nunique() == 1 and (several or first.rate == 0)


def _top1(networks: pd.DataFrame, fixed: bool) -> Estimate:
    value, n = networks.top1.mean(), int(networks.n.iloc[0])
    low, high = proportion_interval(value, n)
    if fixed:
        return Estimate(value, low, high, "images", (_images(low, high, n),))
    return mean(networks.top1, "seeds", [_images(low, high, n)])


def _images(low: float, high: float, n: int) -> Part:
    """What the images add to the variance of an accuracy, by Wilson's interval: also where all are right."""
    return Part("images", n, ((high - low) / 2 / critical(math.inf)) ** 2)


def _mis(live: pd.DataFrame, fixed: bool) -> Estimate:
    averaged = live.groupby(["layer", "unit"], as_index=False).mis.mean()
    over_units = unit_mean(averaged.mis, averaged.layer)
    return over_units if fixed else mean(live.groupby("seed").mis.mean(), "seeds", over_units.parts)


def _row(network: str, quantity: str, estimate: Estimate) -> dict[str, object]:
    return {"network": network, "quantity": quantity, **estimate.record()}


# ------------------------------------------------------------------------------------------------------- comparison


def compare(
    ours: Mapping[str, pd.DataFrame], reference: Mapping[str, pd.DataFrame], same_stimuli: bool = True
) -> pd.DataFrame:
    """Compare a run with a reference: both have "claims" (`verdicts.findings`) and "numbers" (`numbers`).

    same_stimuli: whether both looked at the same networks' units with the same stimuli. If not, what has an interval
    over units is not compared: such an interval speaks of no other stimuli.
    Returns a row for each number of the reference: claim ("": none), name, value, low, high, reference, reference_low,
    reference_high, p_holm, outcome: "agrees", "differs", "missing" (from the run), "verdict" (the claim's went from
    holds to does not hold, or back), or what is not compared: "no interval" (on one side at least), "other stimuli".
    """
    found, rows = _read(ours), []
    for key, (theirs, verdict) in _read(reference).items():
        our, our_verdict = found.get(key, (NONE, ""))
        outcome = _untested(our, theirs, key[-1] in EXACT, same_stimuli, {our_verdict, verdict})
        rows.append({
            "claim": key[0], "name": " ".join(filter(None, key)), "value": our.value, "low": our.low, "high": our.high,
            "reference": theirs.value, "reference_low": theirs.low, "reference_high": theirs.high,
            "p_holm": math.nan if outcome else _p(our, theirs), "outcome": outcome,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table.p_holm)
    by_test = table.p_holm.lt(LEVEL).map({True: "differs", False: "agrees"})
    return table.assign(outcome=table.outcome.where(table.outcome != "", by_test))


def _untested(one: Estimate, other: Estimate, exact: bool, same_stimuli: bool, verdicts: set[str]) -> str:
    """The outcome where no test of the difference is needed, or none is possible; else empty."""
    if math.isnan(one.value):
        return "missing"
    if not same_stimuli and any(part.sample == "units" for part in one.parts + other.parts):
        return "other stimuli"
    if verdicts == {HOLDS, FAILS}:
        return "verdict"
    variance = _variance(one) + _variance(other)
    if exact or variance == 0:
        return "agrees" if abs(one.value - other.value) <= ROUNDING else "differs"
    return "no interval" if math.isnan(variance) else ""


def _read(tables: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str, str], tuple[Estimate, str]]:
    """Estimates and verdicts by claim, name and quantity; those without a value are left out."""
    claims = [(row, (row.claim, row.comparison, ""), row.verdict) for row in tables["claims"].itertuples()]
    rows = [(row, ("", row.network, row.quantity), "") for row in tables["numbers"].itertuples()]
    return {key: (Estimate.of(row), verdict) for row, key, verdict in [*claims, *rows] if not math.isnan(row.value)}


def _variance(estimate: Estimate) -> float:
    """Variance of the value, as its interval says; NaN without one."""
    return ((estimate.high - estimate.low) / 2 / critical(total(estimate.parts)[1])) ** 2


def _p(one: Estimate, other: Estimate) -> float:
    """Welch's p value of the difference of two estimates; NaN where one has no interval."""
    variances = [_variance(one), _variance(other)]
    t = abs(one.value - other.value) / math.sqrt(sum(variances))
    freedom = satterthwaite(variances, [total(each.parts)[1] for each in (one, other)])
    return 2 * float(special.stdtr(freedom, -t))
