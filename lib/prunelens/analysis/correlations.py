"""Correlations with intervals, within groups and pooled, and tests of their absence.

All intervals are Fisher's z over the rows, with the loss of a degree of freedom per group. An absent effect is claimed
by equivalence tests only: a large p value says nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from prunelens.analysis.estimates import LEVEL, Estimate, counted, holm, table
from prunelens.analysis.selection import above_chance, average_seeds, dense, pick, retrained, series, working
from prunelens.variants import DENSE, FIELDS, RETRAINED

FEW = 20  # rows; |r| = 1 over fewer leaves no spread to judge from
SMALLEST = 0.3  # a correlation smaller than this counts as none (Cohen's "medium")


@dataclass(frozen=True)
class Correlation(Estimate):
    """A correlation with its interval, two-sided p value and number of rows; `over` says why there is no value."""

    p: float = math.nan
    n: int = 0


def correlation(x: ArrayLike, y: ArrayLike, over: str, method: str = "pearson") -> Correlation:
    """Correlation of pairs ("pearson" or "spearman"); pairs with a missing value are left out.

    over: what the rows are, in the plural.
    """
    return within(pd.DataFrame({"x": np.asarray(x), "y": np.asarray(y), "all": 0}), "x", "y", "all", over, method)


def within(rows: pd.DataFrame, x: str, y: str, group: str, over: str, method: str = "pearson") -> Correlation:
    """Correlation of two columns after both are centered within groups.

    Pearson's p value is that of x in the linear model y ~ x + group; Spearman's (of the centered values) is Fisher's z
    with Bonett and Wright's (2000) standard error. Rows with a missing value, and groups of one row, are left out.
    """
    rows = rows[[x, y, group]].dropna()
    rows = rows[rows.groupby(group)[x].transform("size") > 1]
    n, groups = len(rows), rows[group].nunique()
    values = rows[[x, y]].astype(float)
    centered = (values - values.groupby(rows[group]).transform("mean")).to_numpy()
    constant = np.abs(centered).max(0, initial=0) <= 1e-12 * np.abs(values.to_numpy()).max(0, initial=0)
    if n - groups - 1 < 1 or constant.any():
        reason = "too few" if n - groups - 1 < 1 else f"{x if constant[0] else y} is constant"
        return Correlation(math.nan, over=f"{counted(n, over)}: {reason}", n=n)
    if method == "spearman":  # rounded, else the last bit of a mean would break ties
        centered = stats.rankdata((centered / np.abs(centered).max(0)).round(12), axis=0)
    elif method != "pearson":
        raise ValueError(f"method: found {method!r}, expected 'pearson' or 'spearman'")
    r = float(np.corrcoef(centered.T)[0, 1])
    if n < FEW and abs(r) > 1 - 1e-12:
        return Correlation(r, over=counted(n, over), n=n)
    z, error = _fisher(r, n, groups, method)
    half = stats.norm.ppf((1 + LEVEL) / 2) * error
    if method == "pearson":
        p = 2 * stats.t.sf(math.sinh(abs(z)) * math.sqrt(n - groups - 1), n - groups - 1)
    else:
        p = 2 * stats.norm.sf(abs(z) / error)
    return Correlation(r, math.tanh(z - half), math.tanh(z + half), counted(n, over), float(p), n)


def _fisher(r: float, n: int, groups: int, method: str = "pearson") -> tuple[float, float]:
    """Fisher's z of a correlation within groups, and its standard error (infinite: too few rows)."""
    variance = 1 + r**2 / 2 if method == "spearman" else 1.0
    z = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    return z, math.sqrt(variance / (n - groups - 2)) if n - groups > 2 else math.inf


def equivalence(r: float, n: int, bound: float = SMALLEST, groups: int = 1, alpha: float = 0.05) -> tuple[str, float]:
    """Two one-sided tests (TOST) that a true correlation is inside (-bound, bound): verdict and p value.

    Verdicts: "equivalent", "related" (differs from 0), "undecided" (too few). n: independent rows; groups: centered ones.
    """
    if not math.isfinite(r) or n - groups <= 2:
        return "undecided", math.nan
    z, error = _fisher(r, n, groups)
    p = float(stats.norm.cdf((abs(z) - math.atanh(bound)) / error))
    related = 2 * stats.norm.sf(abs(z) / error) < alpha
    return "equivalent" if p < alpha else "related" if related else "undecided", p


def needed(r: float = SMALLEST, power: float = 0.8, alpha: float = 0.05, groups: int = 1) -> int:
    """Number of independent rows at which a true correlation r is seen with the given power, tested at alpha."""
    distance = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    return math.ceil((distance / math.atanh(abs(r))) ** 2 + 3) + groups - 1


# ------------------------------------------------------------------------------------------------- over networks


def rate_correlations(
    networks: pd.DataFrame, x: str, measure: str, chance: float | None = None, method: str = "pearson"
) -> pd.DataFrame:
    """Correlation of x and a measure over networks, with methods kept apart, centered apart, or pooled.

    networks: a row each, with fields, x, measure, and top1_low where `chance` is given.
    Returns: row, method (of a single series, else ""), groups (centered apart), value, low, high, over, p, n. Rows: each
    series; within methods (over configurations, and where there are seeds over networks; without those at chance);
    retrained, not retrained, and all as the paper pools them, with the dense network and unmasked ones.
    """
    single = series(networks)
    configurations = average_seeds(single, "series")
    pruned = average_seeds(networks[(networks.rate > 0) | networks.index.isin(dense(networks).index)])
    groups = {"within methods": (configurations, "configurations")}
    if len(single) > len(configurations):
        groups["within methods, single networks"] = single, "networks"
    if chance is not None:
        working_ = average_seeds(series(above_chance(networks, networks, chance)), "series")
        groups["within methods, above chance"] = working_, "configurations"
    pooled = {
        "retrained, pooled": configurations,
        "not retrained, pooled": pruned[(pruned.rate > 0) & ~pruned.schedule.isin(RETRAINED)],
        "all, pooled as in the paper": pruned,
    }
    named = single.groupby("series", sort=False)
    found = [
        (
            {"row": name, "method": one.method.iloc[0], "groups": 1},
            correlation(one[x], one[measure], "networks", method),
        )
        for name, one in named
    ]
    for name, (rows, over) in groups.items():
        keys = {"row": name, "method": "", "groups": rows.series.nunique()}
        found.append((keys, within(rows, x, measure, "series", over, method)))
    for name, rows in pooled.items():
        keys = {"row": name, "method": "", "groups": 1}
        found.append((keys, correlation(rows[x], rows[measure], "configurations", method)))
    return table(found)


def all_correlations(
    networks: pd.DataFrame, xs: Sequence[str], measures: Sequence[str], chance: float | None = None
) -> pd.DataFrame:
    """`rate_correlations` of every x and measure.

    Returns: measure, x, the columns there, spearman, spearman_low, spearman_high, equivalence (to |r| < .3), p_holm
    (corrected for all rows). Rows without a correlation are left out.
    """
    parts = []
    for measure in measures:
        for x in xs:
            found = rate_correlations(networks, x, measure, chance)
            ranks = rate_correlations(networks, x, measure, chance, "spearman")
            found[["spearman", "spearman_low", "spearman_high"]] = ranks[["value", "low", "high"]]
            found["equivalence"] = [equivalence(r.value, r.n, SMALLEST, r.groups)[0] for r in found.itertuples()]
            parts.append(found.assign(measure=measure, x=x))
    found = pd.concat(parts).dropna(subset="value", ignore_index=True)
    found = found.assign(p_holm=holm(found.p))
    return found[["measure", "x", *found.columns.difference(["measure", "x"], sort=False)]]


# --------------------------------------------------------------------------------------------- over classes and units


def class_scores(units: pd.DataFrame, classes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Classes of dense and retrained networks beside their live output units: FIELDS, class_name, output, top1, measure."""
    outputs = pick(units, kind="output", alive=True).rename(columns={"unit": "output"})
    both = working(classes).merge(outputs[[*FIELDS, "output", measure]], on=[*FIELDS, "output"])
    return both[[*FIELDS, "class_name", "output", "top1", measure]].dropna(subset=["top1", measure])


def class_correlation(scores: pd.DataFrame, measure: str) -> Correlation:
    """Correlation over classes of accuracy and measure (of `class_scores`), averaged over networks.

    Networks of one dense parent are no independent draws. Both are centered within networks first, so that a class
    whose unit is dead in some is not the mean of other networks.
    """
    values = scores[["top1", measure]]
    centered = values - scores.groupby(FIELDS)[["top1", measure]].transform("mean")
    averaged = centered.groupby(scores.output).mean()
    return correlation(averaged.top1, averaged[measure], "classes")


def class_correlations(scores: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Spearman's correlation over classes in each network: FIELDS, value, low, high, over, p, n, p_holm."""
    found = table(
        (dict(zip(FIELDS, key, strict=True)), correlation(one.top1, one[measure], "classes", "spearman"))
        for key, one in scores.groupby(FIELDS, sort=False)
    )
    return found.assign(p_holm=holm(found.p)) if len(found) else found


def concept_agreement(units: pd.DataFrame, measures: Sequence[str], truth: str) -> pd.DataFrame:
    """Do measures rank the units of a layer as a known truth does? Correlations of ranks within layers.

    Returns: panel ("dense network", "random weights", "pruned, retrained"), measure, value, low, high, over, p, n. A unit
    counts once, with its mean rank over a panel's networks.
    """
    panels = {
        "dense network": dense(units),
        "random weights": pick(units, method=DENSE, weights="random"),
        "pruned, retrained": retrained(units[(units.rate > 0) & units.masked]),
    }
    found = [({"panel": name}, rows) for name, rows in panels.items() if len(rows)]
    return table(_agreement(found, measures, truth), ["panel", "measure"])


def concept_agreement_by_network(units: pd.DataFrame, measures: Sequence[str], truth: str) -> pd.DataFrame:
    """`concept_agreement` in each network: FIELDS, measure, value, low, high, over, p, n."""
    groups = [(dict(zip(FIELDS, key, strict=True)), rows) for key, rows in units.groupby(FIELDS, sort=False)]
    return table(_agreement(groups, measures, truth), [*FIELDS, "measure"])


def _agreement(
    groups: Sequence[tuple[dict[str, object], pd.DataFrame]], measures: Sequence[str], truth: str
) -> Iterator[tuple[dict[str, object], Correlation]]:
    for keys, rows in groups:
        live = rows[rows.alive.astype(bool)]
        ranks = live.groupby([*FIELDS, "layer"])[[*measures, truth]].rank(pct=True)
        ranks = ranks.groupby([live.layer, live.unit]).mean().reset_index()
        for measure in measures:
            yield {**keys, "measure": measure}, within(ranks, measure, truth, "layer", "units")
