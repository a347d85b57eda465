"""Correlations with intervals, within groups and pooled.

Intervals are Fisher's z over the rows; each group that is centered apart costs a degree of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from prunelens.analysis.estimates import LEVEL, Estimate, Part, by, counted, table
from prunelens.analysis.selection import above_chance, average_seeds, pick, retrained, series, working
from prunelens.variants import DENSE, FIELDS

FEW = 20  # rows; |r| = 1 over fewer leaves no spread to judge from


@dataclass(frozen=True)
class Correlation(Estimate):
    """A correlation with its interval, two-sided p value and number of rows; `over` says why there is no value."""

    p: float = math.nan
    n: int = 0

    def columns(self) -> dict[str, Any]:
        return {**super().columns(), "p": self.p, "n": self.n}


def correlation(x: ArrayLike, y: ArrayLike, over: str) -> Correlation:
    """Pearson's correlation of pairs, as `within` a single group."""
    return within(pd.DataFrame({"x": np.asarray(x), "y": np.asarray(y), "all": 0}), "x", "y", "all", over)


def within(rows: pd.DataFrame, x: str, y: str, group: str, over: str) -> Correlation:
    """Pearson's correlation of two columns after both are centered within groups.

    The p value is that of x in the linear model y ~ x + group. Rows with a missing value, and groups of one row, are
    left out. over: what the rows are, in the plural.
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
    r = float(np.corrcoef(centered.T)[0, 1])
    if n < FEW and abs(r) > 1 - 1e-12:
        return Correlation(r, over=counted(n, over), n=n)
    z = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    variance = 1 / (freedom - 1) if freedom > 1 else math.inf
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt(variance)
    p = 2 * stats.t.sf(math.sinh(abs(z)) * math.sqrt(freedom), freedom)  # r / sqrt(1 - r^2) is sinh(atanh(r))
    parts = (Part(over, n, variance),)  # of Fisher's z
    return Correlation(r, math.tanh(z - half), math.tanh(z + half), counted(n, over), parts, float(p), n)


# -------------------------------------------------------------------------------------------------- over networks


def rate_correlations(networks: pd.DataFrame, xs: Sequence[str], measure: str, chance: float) -> pd.DataFrame:
    """Correlation of each x and a measure over networks, with methods kept apart, centered apart, or pooled.

    networks: a row each, with fields, the xs, the measure and top1_low.
    Returns: x, row, method (of a single series, else ""), groups (centered apart), value, low, high, over, p, n; rows
    without a correlation are left out. Rows: each series; within methods, over configurations (seeds averaged), also
    without networks at chance; and all as the paper pools them, with the dense network and unmasked ones.
    """
    single = series(networks)
    seen = series(above_chance(networks, networks, chance))
    dense_network = pick(networks, method=DENSE, schedule="none", weights="trained")
    pooled = average_seeds(pd.concat([dense_network, networks[networks.rate > 0]]))
    parts = [(name, rows.method.iloc[0], rows, "networks") for name, rows in single.groupby("series", sort=False)]
    parts += [
        ("within methods", "", average_seeds(single, "series"), "configurations"),
        ("within methods, above chance", "", average_seeds(seen, "series"), "configurations"),
        ("all, pooled as in the paper", "", pooled.assign(series="all"), "configurations"),
    ]
    found = table(
        (
            {"x": x, "row": name, "method": of, "groups": rows.series.nunique()},
            within(rows, x, measure, "series", over),
        )
        for x in xs
        for name, of, rows, over in parts
    )
    return found.dropna(subset="value", ignore_index=True)


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


def concept_agreement(units: pd.DataFrame, measures: Sequence[str], truth: str) -> pd.DataFrame:
    """Do measures rank the units of a layer as a known truth does? Correlations of ranks within layers.

    A unit counts once, with its mean rank over the networks of a panel.
    Returns: panel ("dense network", "random weights", "pruned, retrained"), measure, value, low, high, over, p, n.
    """
    unpruned = pick(units, rate=0.0, schedule="none").index
    pruned = retrained(units[(units.rate > 0) & units.masked]).index
    panel = units.weights.map({"trained": "dense network", "random": "random weights"})
    panel = panel.where(units.index.isin(unpruned)).mask(units.index.isin(pruned), "pruned, retrained")
    places = ["panel", "layer", "unit"]
    live = units.assign(panel=panel)[units.alive.astype(bool)].dropna(subset="panel")
    ranks = live.groupby([*FIELDS, "layer"])[[*measures, truth]].rank(pct=True)
    ranks = ranks.groupby([live[name] for name in places], sort=False).mean().reset_index()
    long = ranks.melt([*places, truth], list(measures), "measure")
    return by(long, ["panel", "measure"], lambda rows: within(rows, "value", truth, "layer", "units"))
