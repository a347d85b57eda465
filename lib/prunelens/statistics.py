"""Intervals, correlations and tests of the study.

Two habits hold in every function. What is resampled is said, because it decides what an interval is about:
seeds (other runs of the same configuration), networks, or units of the same networks. And an absent effect is
claimed only through an equivalence test: a large p value of a correlation says nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

FEW = 20  # rows; bootstrap intervals over fewer are too short (within_group_correlation says how much)
PERFECT = "none: |r| = 1 over so few rows leaves no spread to judge from"

Method = Literal["pearson", "spearman", "kendall"]


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


class Correlation(NamedTuple):
    """A correlation with its interval. `interval` says how low and high came about: "bootstrap", "Fisher z",
    or "none: ..." with the reason why there is none (then low, high and p are NaN, and r where it is not defined)."""

    r: float
    low: float
    high: float
    p: float
    n: int
    interval: str


class Equivalence(NamedTuple):
    """Outcome of `equivalence`: p of the two one-sided tests and a verdict on the true correlation rho, one
    of "equivalent" (|rho| < bound), "related" (rho differs from 0) and "undecided" (too little data)."""

    r: float
    n: int
    bound: float
    p: float
    verdict: str


class Trend(NamedTuple):
    """Slope of a measure against the rate, over units that are the same in all networks. `interval` says what low
    and high resample, or "none: ..." why there is no slope (then slope, low and high are NaN)."""

    slope: float
    low: float
    high: float
    networks: int
    units: int
    layers: int
    interval: str


# ---------------------------------------------------------------------------------------------------- means


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean with Student's t interval; missing values (NaN) are left out.

    Resamples nothing: it treats the values as independent draws (over seeds: other seeds of the same
    configuration). One value has a mean but an interval of NaN; no value gives NaN throughout.
    """
    values = _present(values)
    if values.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def share_between(values: ArrayLike, low: ArrayLike, high: float, level: float = 0.95) -> Interval:
    """Where values lie on average on the way from the mean of `low` (0) to `high` (1).

    The interval is over the values and over those of `low`, both independent draws (delta method; Student's t with
    Welch and Satterthwaite's degrees of freedom); `high` is taken as known, and so is `low` if it is one value.
    """
    values, low = _present(values), _present(low)
    way = high - low.mean()
    share = float((values.mean() - low.mean()) / way)
    if values.size < 2:
        return Interval(share, math.nan, math.nan)
    parts = [(values.var(ddof=1) / values.size / way**2, values.size - 1)]
    if low.size > 1:
        parts.append((low.var(ddof=1) / low.size * ((1 - share) / way) ** 2, low.size - 1))
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return Interval(share, share, share)
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(share, share - half, share + half)


def difference_interval(first: float, second: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval for the difference of two proportions, ``first - second``, each of n images.

    Resamples nothing; it treats the two as independent, which is cautious where both are of the same images.
    """
    low, high = confint_proportions_2indep(
        round(first * n), n, round(second * n), n, method="newcomb", compare="diff", alpha=1 - level
    )
    return float(low), float(high)


def unit_mean(
    values: ArrayLike,
    layers: ArrayLike,
    layers_equal: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean over one network's units, every unit alike or (layers_equal) every layer alike, with its interval.

    The interval resamples units within their layer (percentile bootstrap): it speaks of other units of the same
    layers of this one network, not of other networks. It is a little short where layers are small: n units of a
    layer show (n - 1) / n of its variance, a single one none. Missing values are left out, and layers without any
    other; no value at all gives NaN. Of fewer than `FEW` values it resamples nothing: it is `mean_interval`'s.
    """
    values, layers = np.asarray(values, float), np.asarray(layers)
    if values.shape != layers.shape or values.ndim != 1:
        raise ValueError(f"values and layers have shapes {values.shape} and {layers.shape}, expected equal lengths")
    present = ~np.isnan(values)
    if not present.any():
        return Interval(math.nan, math.nan, math.nan)
    values, codes = _by_group(values[present], layers[present])
    if values.size < FEW and not layers_equal:
        return mean_interval(values, level)
    mean = _mean_of_layers if layers_equal else _mean_of_units
    resampled = [mean(values[rows], codes) for rows in _blocks_of_resamples(codes, n_resamples, seed)]
    return Interval(float(mean(values, codes)), *_percentiles(np.concatenate(resampled), level))


def output_gaps(convs: pd.DataFrame, outputs: pd.DataFrame, network: list[str], columns: list[str]) -> pd.DataFrame:
    """Mean MIS of each network's convs minus that of each of its output units: a row per output.

    Networks of one dense parent have the same output units: it is outputs that an interval has to be over.

    Args:
        convs, outputs: one row per live unit, with mis; outputs also with unit.
        network: the columns that tell networks apart; columns: those of them that get a column each, means over the
            others.
    """
    before = convs.groupby(network).mis.mean().rename("before")
    gaps = outputs.join(before, on=network)
    return gaps.assign(gap=gaps.before - gaps.mis).pivot_table(index="unit", columns=columns, values="gap")


# ---------------------------------------------------------------------------------------------------- trends


def same_units(units: pd.DataFrame, network: str = "variant") -> pd.DataFrame:
    """The rows of those units that are alive in every network of the table (columns layer, unit, alive, network).

    Means over what is left compare like with like: a pruned network keeps its strongest filters, and its fc layer
    is never pruned, so means over whatever is alive change though no unit does.
    """
    alive = units[units.alive.to_numpy(bool)]
    everywhere = alive.groupby(["layer", "unit"], observed=True)[network].transform("nunique")
    return alive[everywhere == units[network].nunique()]


def unit_trend(
    units: pd.DataFrame,
    value: str,
    rate: str = "rate",
    network: str = "variant",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Trend:
    """Slope of `value` against `rate` adjusted for composition: same units only (`same_units`), layers alike.

    The slope is that of the least-squares line through the networks' layer-balanced means, which is the mean over
    layers of the mean over units of each unit's own slope. The interval resamples units within layers: the
    networks are fixed, so it leaves out how much another run of the same networks would differ. One series (method,
    schedule) at a time. Fewer than two rates or no unit alive in all networks: NaN with the reason.
    """
    rates = units.groupby(network, observed=True)[rate].first()
    same = same_units(units, network)
    table = same.pivot(index=["layer", "unit"], columns=network, values=value).reindex(columns=rates.index).dropna()
    counts = len(rates), len(table), table.index.get_level_values("layer").nunique()
    if rates.nunique() < 2:
        return Trend(math.nan, math.nan, math.nan, *counts, "none: fewer than 2 rates")
    if table.empty:
        return Trend(math.nan, math.nan, math.nan, *counts, "none: no unit is alive in all networks")
    centred = (rates - rates.mean()).to_numpy(float)
    slopes = table.to_numpy(float) @ centred / (centred @ centred)
    found = unit_mean(slopes, table.index.get_level_values("layer"), True, n_resamples, seed, level)
    return Trend(*found, *counts, "bootstrap of units within layers")


def mixed_model(
    table: pd.DataFrame,
    measure: str,
    rate: str = "rate",
    method: str = "method",
    network: str = "variant",
    layer: str = "layer",
    level: float = 0.95,
) -> pd.DataFrame:
    """Slope of `measure` against `rate` for each method, in the model ``measure ~ rate x method`` with crossed random
    effects of network and layer (restricted maximum likelihood, statsmodels' MixedLM).

    Give it one row per network and layer (the layer's mean over units): units of one layer share their network, so
    more rows would add time and no networks. The interval resamples nothing. It is Student's t with networks - 2 x
    methods degrees of freedom, for a rate belongs to a network and not to a row: on complete tables it is the
    interval of ordinary regression over network means.

    Returns one row per method: the column `method`, slope, low, high, p, networks, converged, note. A method at a
    single rate, too few networks and a fit that fails give NaN with the reason in `note`; a fit that warns keeps its
    numbers and has the warning there. Rows with a missing value are left out.
    """
    rows = table[[measure, rate, method, network, layer]].dropna()
    rows = rows.set_axis(["y", "rate", "method", "network", "layer"], axis=1)
    rows["method"] = rows.method.astype(str)
    networks = rows.groupby("method", sort=False).network.nunique()
    usable = rows[rows.groupby("method").rate.transform("nunique") > 1]
    freedom = usable.network.nunique() - 2 * usable.method.nunique()
    found = {name: _no_slope("none: fewer than 2 rates") for name in networks.index}
    if len(usable):
        fitted = _fit_mixed(usable, freedom, level)
        found.update({name: fitted(name) for name in usable.method.unique()})
    columns = [method, "networks", *_no_slope("")]
    return pd.DataFrame(
        [{method: name, "networks": networks[name], **row} for name, row in found.items()], columns=columns
    )


def _fit_mixed(rows: pd.DataFrame, freedom: int, level: float) -> Callable[[str], dict]:
    """Method -> its slope with interval; the fit itself happens once."""
    scale = float(rows.y.std())
    if freedom < 1:
        return lambda name: _no_slope("none: no more networks than coefficients (two per method)")
    if not scale > 1e-12 * rows.y.abs().max():
        return lambda name: _no_slope("none: the measure is constant")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = MixedLM.from_formula(
                "y ~ 0 + C(method) + C(method):rate",
                rows.assign(y=rows.y / scale),  # statsmodels' tolerances are absolute
                groups=np.ones(len(rows)),  # one group: network and layer are crossed, not nested
                vc_formula={"network": "0 + C(network)", "layer": "0 + C(layer)"},
            )
            fit = model.fit(method=["lbfgs", "powell"])
            slopes, errors = fit.fe_params, fit.bse_fe
        except (np.linalg.LinAlgError, ValueError) as error:
            reason = f"none: the fit failed ({error})"
            return lambda name: _no_slope(reason)
    note = "; ".join(dict.fromkeys(str(warning.message) for warning in caught))

    def slope(name: str) -> dict:
        value, error = (scale * float(part[f"C(method)[{name}]:rate"]) for part in (slopes, errors))
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
        p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else math.nan
        return {"slope": value, "low": value - half, "high": value + half, "p": p, "converged": bool(fit.converged),
                "note": note}  # fmt: skip

    return slope


def _no_slope(reason: str) -> dict:
    return {**dict.fromkeys(("slope", "low", "high", "p"), math.nan), "converged": False, "note": reason}


# --------------------------------------------------------------------------------------------- correlations


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    method: Method = "pearson",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Correlation:
    """Correlation of pairs, two-sided p value and interval; pairs with a missing value (NaN) are left out.

    The interval resamples pairs with replacement (percentile bootstrap). With fewer than `FEW` pairs it
    resamples nothing and comes from Fisher's z (standard errors of Bonett & Wright 2000 for the rank
    correlations), because a bootstrap over a handful of pairs is too short. Fewer than 3 pairs, or x or y
    constant: NaN with the reason in `interval`; so few pairs with |r| = 1: r alone. A Kendall interval over thousands
    of pairs takes seconds.
    """
    if method not in COEFFICIENTS:
        raise ValueError(f"unknown correlation {method!r}, expected one of {', '.join(COEFFICIENTS)}")
    x, y = _pairs(x, y)
    n = x.size
    if reason := _why_none(x, y):
        return Correlation(math.nan, math.nan, math.nan, math.nan, n, reason)
    coefficient, test = COEFFICIENTS[method]
    r, p = map(float, test(x, y))
    if n < FEW and abs(r) > 1 - 1e-12:
        return Correlation(r, math.nan, math.nan, math.nan, n, PERFECT)
    if n < FEW:
        return Correlation(r, *_fisher_interval(r, n, method, level), p, n, "Fisher z")
    resampled = [coefficient(x[rows], y[rows]) for rows in _resamples(np.zeros(n, int), n_resamples, seed)]
    return Correlation(r, *_percentiles(resampled, level), p, n, "bootstrap")


def within_group_correlation(
    table: pd.DataFrame,
    x: str,
    y: str,
    group: str,
    method: Method = "pearson",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Correlation:
    """Correlation of x and y after both are centred within each group (for Pearson's: analysis of covariance with
    `group` as a factor): do they move together inside a group, whatever the differences between groups?

    The p value is that of x's coefficient in the linear model y ~ x + group, with n - groups - 1 degrees of
    freedom; for a rank correlation (of the centred values) it comes from Fisher's z. The interval resamples rows
    within their group and centres each resample anew; the groups themselves are fixed. Where a group has fewer than
    `FEW` rows it resamples nothing and comes from Fisher's z with the same loss of degrees of freedom: in a
    simulation of 5 groups of 4 the bootstrap covered 78-92 % instead of 95 %, Fisher's z 92-95 %. Rows with a missing
    value, and groups left with a single row, say nothing here and are not counted.
    """
    rows = table[[x, y, group]].dropna()
    rows = rows[rows.groupby(group)[x].transform("size") > 1]
    codes = np.sort(pd.factorize(rows[group])[0])
    rows = rows.sort_values(group, key=lambda names: pd.factorize(names)[0], kind="stable")
    a, b = rows[x].to_numpy(float), rows[y].to_numpy(float)
    n, groups = len(rows), len(np.unique(codes))
    reason = _why_none(_centred(a, codes), _centred(b, codes))
    if n - groups - 1 < 1:
        reason = "none: too few rows per group"
    if reason:
        return Correlation(math.nan, math.nan, math.nan, math.nan, n, reason)
    r = _within(a, b, codes, method)
    few = np.bincount(codes).min() < FEW
    if few and abs(r) > 1 - 1e-12:
        return Correlation(r, math.nan, math.nan, math.nan, n, PERFECT)
    if method == "pearson":
        p = _p_value(r, n - groups - 1)
    else:
        p = float(2 * stats.norm.sf(abs(_fisher(r)) / _standard_error(r, n - groups + 1, method)))
    if few:
        return Correlation(r, *_fisher_interval(r, n - groups + 1, method, level), p, n, "Fisher z")
    resampled = [_within(a[rows], b[rows], codes, method) for rows in _resamples(codes, n_resamples, seed)]
    return Correlation(r, *_percentiles(resampled, level), p, n, "bootstrap")


def correlation_lead(
    table: pd.DataFrame,
    measures: tuple[str, str],
    y: str,
    group: str,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """How much more the first of two measures correlates with y than the second, within groups (Pearson's).

    The difference of two `within_group_correlation`s over the rows that have all three values. The interval resamples
    rows within their group and takes both correlations of each resample (percentile bootstrap).
    """
    rows = table[[*measures, y, group]].dropna()
    values, codes = _by_group(rows[[*measures, y]].to_numpy(float), rows[group])

    def lead(values: NDArray) -> float:
        first, second, target = values.T
        return _within(first, target, codes, "pearson") - _within(second, target, codes, "pearson")

    resampled = [lead(values[rows]) for rows in _resamples(codes, n_resamples, seed)]
    return Interval(lead(values), *_percentiles(resampled, level))


# ---------------------------------------------------------------------------------------------------- tests


def equivalence(r: float, n: int, bound: float, groups: int = 1, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests (TOST), on Fisher's z scale, that the true correlation is inside (-bound, bound).

    n is the number of independent rows behind r (networks, not units of the same network); for a within-group
    correlation name the number of groups too, each costs a degree of freedom. Resamples nothing.
    """
    if not 0 < bound < 1:
        raise ValueError(f"bound of an equivalence test is {bound}, expected a correlation between 0 and 1")
    error = _standard_error(r, n - groups + 1, "pearson")
    if not math.isfinite(error) or not math.isfinite(r):
        return Equivalence(r, n, bound, math.nan, "undecided")
    z, edge = _fisher(r), math.atanh(bound)
    p = float(max(stats.norm.sf((z + edge) / error), stats.norm.cdf((z - edge) / error)))
    if p < alpha:
        return Equivalence(r, n, bound, p, "equivalent")
    differs = 2 * stats.norm.sf(abs(z) / error) < alpha
    return Equivalence(r, n, bound, p, "related" if differs else "undecided")


def networks_needed(r: float, power: float = 0.8, alpha: float = 0.05, groups: int = 1) -> int:
    """Number of networks (independent pairs) at which a true correlation r is seen with the given power in a
    two-sided test at alpha; Fisher's z approximation, within one of the exact number. Resamples nothing.

    For a within-group correlation name the number of groups: each but the first costs one network more.
    """
    if not 0 < abs(r) < 1:
        raise ValueError(f"correlation to be seen is {r}, expected a value between 0 and 1 in size")
    distance = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    return math.ceil((distance / math.atanh(abs(r))) ** 2 + 3) + groups - 1


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p values, in the order given; NaN stays NaN and is not counted as a test."""
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, np.nan)
    tested = ~np.isnan(p_values)
    if tested.any():
        adjusted[tested] = multipletests(p_values[tested], method="holm")[1]
    return adjusted


# ---------------------------------------------------------------------------------------------------- parts


def _present(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y of a correlation have shapes {x.shape} and {y.shape}, expected two equal lengths")
    both = ~(np.isnan(x) | np.isnan(y))
    return x[both], y[both]


def _why_none(x: NDArray, y: NDArray) -> str:
    if x.size < 3:
        return "none: fewer than 3 pairs"
    for name, values in (("x", x), ("y", y)):
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return f"none: {name} is constant"
    return ""


def _pearson(x: NDArray, y: NDArray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / size if size > 0 else math.nan


def _spearman(x: NDArray, y: NDArray) -> float:
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def _kendall(x: NDArray, y: NDArray) -> float:
    return float(stats.kendalltau(x, y).statistic)


COEFFICIENTS: dict[str, tuple[Callable, Callable]] = {  # coefficient alone (fast), coefficient and p value
    "pearson": (_pearson, stats.pearsonr),
    "spearman": (_spearman, stats.spearmanr),
    "kendall": (_kendall, stats.kendalltau),
}


def _centred(values: NDArray, codes: NDArray) -> NDArray:
    if values.size == 0:
        return values
    return values - (np.bincount(codes, values) / np.bincount(codes))[codes]


def _by_group(values: NDArray, groups: NDArray) -> tuple[NDArray, NDArray]:
    """The values and their groups' codes, both in order of the codes."""
    codes = pd.factorize(groups)[0]
    order = np.argsort(codes, kind="stable")
    return values[order], codes[order]


def _mean_of_units(values: NDArray, codes: NDArray) -> NDArray:
    return values.mean(-1)


def _mean_of_layers(values: NDArray, codes: NDArray) -> NDArray:
    sizes = np.bincount(codes)
    return (np.add.reduceat(values, np.cumsum(sizes) - sizes, axis=-1) / sizes).mean(-1)


def _within(x: NDArray, y: NDArray, codes: NDArray, method: Method) -> float:
    x, y = _centred(x, codes), _centred(y, codes)
    if method != "pearson":  # else the last bit of a mean would break ties among ranks
        x, y = (np.round(values / (np.abs(values).max() or 1), 12) for values in (x, y))
    return COEFFICIENTS[method][0](x, y)


def _resamples(codes: NDArray, n_resamples: int, seed: int) -> Iterator[NDArray]:
    """Row numbers of each resample: every row gives way to a row of its own group. `codes` are sorted."""
    for block in _blocks_of_resamples(codes, n_resamples, seed):
        yield from block


def _blocks_of_resamples(codes: NDArray, n_resamples: int, seed: int) -> Iterator[NDArray]:
    """`_resamples`, as many at once, (resamples, rows), as take a few megabytes."""
    sizes, generator = np.bincount(codes), np.random.default_rng(seed)
    bounds, at_once = np.concatenate([[0], np.cumsum(sizes)]), max(1, 500_000 // max(1, codes.size))
    for first in range(0, n_resamples, at_once):
        rows = np.empty((min(at_once, n_resamples - first), codes.size), np.int64)
        for start, end in pairwise(bounds):
            rows[:, start:end] = generator.integers(start, end, rows[:, start:end].shape)
        yield rows


def _percentiles(resampled: Sequence[float], level: float) -> tuple[float, float]:
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _fisher(r: float) -> float:
    return math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))


def _standard_error(r: float, n: int, method: Method) -> float:
    """Standard error on Fisher's z scale; infinite where n is too small for one (Bonett & Wright 2000)."""
    variance, lost = {"pearson": (1.0, 3), "spearman": (1 + r**2 / 2, 3), "kendall": (0.437, 4)}[method]
    return math.sqrt(variance / (n - lost)) if n > lost else math.inf


def _fisher_interval(r: float, n: int, method: Method, level: float) -> tuple[float, float]:
    half = float(stats.norm.ppf((1 + level) / 2)) * _standard_error(r, n, method)
    return math.tanh(_fisher(r) - half), math.tanh(_fisher(r) + half)


def _p_value(r: float, freedom: int) -> float:
    if abs(r) >= 1:
        return 0.0
    return float(2 * stats.t.sf(abs(r) * math.sqrt(freedom / (1 - r**2)), freedom))
