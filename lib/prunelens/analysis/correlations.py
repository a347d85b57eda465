"""Correlations with intervals, within groups and pooled, and tests of their absence.

Intervals are Fisher's z over the rows; each group that is centered apart costs a degree of freedom. An absent effect is
claimed by equivalence tests only: a large p value says nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from prunelens.analysis.estimates import LEVEL, Estimate, Part, by, counted, holm, table
from prunelens.analysis.selection import above_chance, average_seeds, pick, retrained, series, working
from prunelens.variants import DENSE, FIELDS, RETRAINED

FEW = 20  # rows; |r| = 1 over fewer leaves no spread to judge from
SMALLEST = 0.3  # a correlation smaller than this counts as none (Cohen's "medium")


@dataclass(frozen=True)
class Correlation(Estimate):
    """A correlation with its interval, two-sided p value and number of rows; `over` says why there is no value."""

    p: float = math.nan
    n: int = 0

    def columns(self) -> dict[str, Any]:
        return {**super().columns(), "p": self.p, "n": self.n}


def correlation(x: ArrayLike, y: ArrayLike, over: str, method: str = "pearson") -> Correlation:
    """Correlation of pairs, as `within` a single group."""
    return within(pd.DataFrame({"x": np.asarray(x), "y": np.asarray(y), "all": 0}), "x", "y", "all", over, method)


def within(rows: pd.DataFrame, x: str, y: str, group: str, over: str, method: str = "pearson") -> Correlation:
    """Correlation of two columns after both are centered within groups.

    Pearson's p value is that of x in the linear model y ~ x + group; Spearman's (of the centered values) is Fisher's z
    with Bonett and Wright's (2000) standard error. Rows with a missing value, and groups of one row, are left out.

    Args:
        over: what the rows are, in the plural.
        method: "pearson" or "spearman".
    """
    rows = rows[[x, y, group]].dropna()
    rows = rows[rows.groupby(group)[x].transform("size") > 1]
    n, groups, values = len(rows), rows[group].nunique(), rows[[x, y]].astype(float)
    freedom = n - groups - 1
    centered = (values - values.groupby(rows[group]).transform("mean")).to_numpy()
    constant = np.abs(centered).max(0, initial=0) <= 1e-12 * np.abs(values.to_numpy()).max(0, initial=0)
    if freedom < 1 or constant.any():
        reason = "too few" if freedom < 1 else f"{x if constant[0] else y} is constant"
        return Correlation(math.nan, over=f"{counted(n, over)}: {reason}", n=n)
    if method == "spearman":  # rounded, else the last bit of a mean would break ties
        centered = stats.rankdata((centered / np.abs(centered).max(0)).round(12), axis=0)
    r = float(np.corrcoef(centered.T)[0, 1])
    if n < FEW and abs(r) > 1 - 1e-12:
        return Correlation(r, over=counted(n, over), n=n)
    z, error = _fisher(r, n, groups, method)
    half = stats.norm.ppf((1 + LEVEL) / 2) * error
    t = math.sinh(abs(z)) * math.sqrt(freedom)  # r / sqrt(1 - r^2) is sinh(atanh(r))
    p = 2 * (stats.t.sf(t, freedom) if method == "pearson" else stats.norm.sf(abs(z) / error))
    parts = (Part(over, n, error**2),)  # of Fisher's z
    return Correlation(r, math.tanh(z - half), math.tanh(z + half), counted(n, over), parts, float(p), n)


def _fisher(r: float, n: int, groups: int, method: str = "pearson") -> tuple[float, float]:
    """Fisher's z of a correlation within groups, and its standard error (infinite: too few rows)."""
    variance = 1 + r**2 / 2 if method == "spearman" else 1.0
    error = math.sqrt(variance / (n - groups - 2)) if n - groups > 2 else math.inf
    return math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15)), error


def equivalence(r: float, n: int, bound: float = SMALLEST, groups: int = 1) -> tuple[str, float]:
    """Two one-sided tests (TOST) that a true correlation is inside (-bound, bound): verdict and p value.

    n: independent rows; groups: centered apart. Verdicts: "equivalent", "related" (differs from 0), "undecided".
    """
    if not math.isfinite(r) or n - groups <= 2:
        return "undecided", math.nan
    z, error = _fisher(r, n, groups)
    p = float(stats.norm.cdf((abs(z) - math.atanh(bound)) / error))
    related = 2 * stats.norm.sf(abs(z) / error) < 0.05
    return "equivalent" if p < 0.05 else "related" if related else "undecided", p


def needed(r: float = SMALLEST) -> int:
    """Number of independent rows at which a true correlation r is seen with 80 % power, tested at 5 %."""
    distance = stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    return math.ceil((distance / math.atanh(abs(r))) ** 2 + 3)


# -------------------------------------------------------------------------------------------------- over networks


def rate_correlations(
    networks: pd.DataFrame, x: str, measure: str, chance: float | None = None, method: str = "pearson"
) -> pd.DataFrame:
    """Correlation of x and a measure over networks, with methods kept apart, centered apart, or pooled.

    networks: a row each, with fields, x, measure, and top1_low where `chance` is given.
    Returns: row, method (of a single series, else ""), groups (centered apart), value, low, high, over, p, n. Rows:
    each series; within methods, over configurations (seeds averaged), over networks, and without networks at chance;
    the retrained ones, the others, and all as the paper pools them, with the dense network and unmasked ones.
    """
    single = series(networks)
    means, pruned = average_seeds(single, "series"), networks[networks.rate > 0]
    pooled = average_seeds(pd.concat([pick(networks, method=DENSE, schedule="none", weights="trained"), pruned]))
    left = average_seeds(pruned[~pruned.schedule.isin(RETRAINED)])
    parts = [(name, rows.method.iloc[0], rows, "networks") for name, rows in single.groupby("series", sort=False)]
    parts.append(("within methods", "", means, "configurations"))
    if len(single) > len(means):
        parts.append(("within methods, single networks", "", single, "networks"))
    if chance is not None:
        seen = average_seeds(series(above_chance(networks, networks, chance)), "series")
        parts.append(("within methods, above chance", "", seen, "configurations"))
    for name, rows in (("retrained", means), ("not retrained", left), ("all", pooled)):
        ending = "pooled as in the paper" if name == "all" else "pooled"
        parts.append((f"{name}, {ending}", "", rows.assign(series="all"), "configurations"))
    return table(
        ({"row": name, "method": of, "groups": rows.series.nunique()}, within(rows, x, measure, "series", over, method))
        for name, of, rows, over in parts
    )


def all_correlations(
    networks: pd.DataFrame, xs: Sequence[str], measures: Sequence[str], chance: float | None = None
) -> pd.DataFrame:
    """`rate_correlations` of every x and measure; rows without a correlation are left out.

    Returns: measure, x, the columns there, spearman, spearman_low, spearman_high, equivalence (to |r| < .3), p_holm
    (corrected for all rows).
    """
    parts = []
    for measure, x in ((measure, x) for measure in measures for x in xs):
        found = rate_correlations(networks, x, measure, chance)
        ranks = rate_correlations(networks, x, measure, chance, "spearman")
        found[["spearman", "spearman_low", "spearman_high"]] = ranks[["value", "low", "high"]]
        found["equivalence"] = [equivalence(r.value, r.n, SMALLEST, r.groups)[0] for r in found.itertuples()]
        found.insert(0, "measure", measure)
        found.insert(1, "x", x)
        parts.append(found)
    found = pd.concat(parts).dropna(subset="value", ignore_index=True)
    return found.assign(p_holm=holm(found.p))


# --------------------------------------------------------------------------------------------- over classes and units


def class_scores(units: pd.DataFrame, classes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Classes of dense and retrained networks beside their live output units.

    Returns: FIELDS, class_name, output, top1, `measure`.
    """
    outputs = pick(units, kind="output", alive=True).rename(columns={"unit": "output"})
    both = working(classes).merge(outputs[[*FIELDS, "output", measure]], on=[*FIELDS, "output"])
    return both[[*FIELDS, "class_name", "output", "top1", measure]].dropna(subset=["top1", measure])


def class_correlation(scores: pd.DataFrame, measure: str) -> Correlation:
    """Correlation over classes of accuracy and a measure (of `class_scores`), averaged over networks.

    Networks of one dense parent are no independent draws. Both are centered within networks first, so that a class
    whose unit is dead in some is not the mean of other networks.
    """
    values = scores[["top1", measure]]
    centered = values - values.groupby([scores[field] for field in FIELDS]).transform("mean")
    averaged = centered.groupby(scores.output).mean()
    return correlation(averaged.top1, averaged[measure], "classes")


def class_correlations(scores: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Spearman's correlation over classes in each network: FIELDS, value, low, high, over, p, n, p_holm."""
    found = by(scores, FIELDS, lambda rows: correlation(rows.top1, rows[measure], "classes", "spearman"))
    return found.assign(p_holm=holm(found.get("p", [])))


def concept_agreement(units: pd.DataFrame, measures: Sequence[str], truth: str) -> pd.DataFrame:
    """Do measures rank the units of a layer as a known truth does? Correlations of ranks within layers.

    A unit counts once, with its mean rank over the networks of a panel.
    Returns: panel ("dense network", "random weights", "pruned, retrained"), measure, value, low, high, over, p, n.
    """
    unpruned = pick(units, rate=0.0, schedule="none").index
    pruned = retrained(units[(units.rate > 0) & units.masked]).index
    panel = units.weights.map({"trained": "dense network", "random": "random weights"}).where(
        units.index.isin(unpruned)
    )
    return _agreement(
        units.assign(panel=panel.mask(units.index.isin(pruned), "pruned, retrained")), ["panel"], measures, truth
    )


def concept_agreement_by_network(units: pd.DataFrame, measures: Sequence[str], truth: str) -> pd.DataFrame:
    """`concept_agreement` in each network: FIELDS, measure, value, low, high, over, p, n."""
    return _agreement(units, FIELDS, measures, truth)


def _agreement(units: pd.DataFrame, keys: list[str], measures: Sequence[str], truth: str) -> pd.DataFrame:
    places = [*keys, "layer", "unit"]
    live = units[units.alive.astype(bool)].dropna(subset=keys)
    ranks = live.groupby([*FIELDS, "layer"])[[*measures, truth]].rank(pct=True)
    ranks = ranks.groupby([live[name] for name in places], sort=False).mean().reset_index()
    long = ranks.melt([*places, truth], list(measures), "measure")
    return by(long, [*keys, "measure"], lambda rows: within(rows, "value", truth, "layer", "units"))
