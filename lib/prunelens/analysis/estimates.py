"""Estimates: a value, its 95 % interval, and what the interval is over.

An interval over seeds speaks of other runs of the same configuration, one over images of other images, one over units
of other units of the same networks. None speaks of other dense networks.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

LEVEL = 0.95


class Part(NamedTuple):
    """What one sample adds to the variance of an estimate.

    sample: what was sampled, in the plural, such as "seeds"; n: how many. freedom: degrees of freedom of the variance;
    infinite: normal theory.
    """

    sample: str
    n: int
    variance: float
    freedom: float = math.inf


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its interval (NaN: there is none) and what that is over; value NaN: there is no value.

    parts: the samples that its interval is over; none where they are not known, as after a `table`.

    ``format(estimate, "+.1%")`` gives "-4.4% (-13.6% to +4.8%)", "-4.4% (no interval)" or "-".
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    over: str = ""
    parts: tuple[Part, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, row: Any) -> "Estimate":
        """The estimate in a row (Series or named tuple) of a table with the columns value, low, high, over.

        Its parts are known where the table has those of `record`.
        """
        parts = (Part(*each) for each in json.loads(getattr(row, "parts", "[]")))
        return cls(row.value, row.low, row.high, row.over, tuple(parts))

    def columns(self) -> dict[str, Any]:
        """The columns of the estimate in a `table`."""
        return {"value": self.value, "low": self.low, "high": self.high, "over": self.over}

    def record(self) -> dict[str, Any]:
        """`columns` with the parts, as JSON: all of an estimate."""
        return {**self.columns(), "parts": json.dumps(self.parts)}

    def __format__(self, form: str) -> str:
        if not math.isfinite(self.value):
            return "-"
        value, low, high = (format(each, form or ".3f") for each in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})" if math.isfinite(self.high - self.low) else f"{value} (no interval)"

    def __str__(self) -> str:
        return format(self, "")

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above a bound; like the next two, False without an interval."""
        return self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below a bound."""
        return self.high < bound

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies between -margin and margin."""
        return self.above(-margin) and self.below(margin)


NONE = Estimate(math.nan)


def table(rows: Iterable[tuple[Mapping[str, Any], Estimate]], keys: Sequence[str] = ()) -> pd.DataFrame:
    """Estimates as a table: the keys of each, then value, low, high, over. keys: columns of an empty table."""
    found = [{**names, **estimate.columns()} for names, estimate in rows]
    return pd.DataFrame(found, columns=None if found else [*keys, *NONE.columns()])


def by(rows: pd.DataFrame, keys: Sequence[str], estimate: Callable[[pd.DataFrame], Estimate]) -> pd.DataFrame:
    """An estimate of each group of rows, as a `table`."""
    groups = rows.groupby(list(keys), sort=False)
    return table(((dict(zip(keys, key, strict=True)), estimate(group)) for key, group in groups), keys)


def mean(values: ArrayLike, over: str, shared: Iterable[Part] = ()) -> Estimate:
    """Mean of independent values with Student's interval; missing values are left out.

    over: what the values are, in the plural. One value has no interval, and no values have no mean.
    shared: further variance, of errors that all values share, such as those of the images that all were measured on.
    """
    values = _present(values)
    if not values.size:
        return NONE
    return _student(values.mean(), [_part(values, over), *shared], counted(values.size, over))


def crossed_mean(values: ArrayLike, rows: str, columns: str) -> Estimate:
    """Mean of a table (rows, columns) whose rows and columns are both samples, such as seeds and classes.

    The variances of the mean over other rows and over other columns add up (two-way random effects; what varies with
    both is counted twice, which is cautious). A single row or column stands for no others.

    Raises:
        ValueError: a value is missing.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise ValueError(f"table of {rows} and {columns}: found missing values, expected none")
    if not values.size:
        return NONE
    sides = ((values.mean(1), rows), (values.mean(0), columns))
    parts = [_part(means, what) for means, what in sides if means.size > 1]
    over = " and ".join(counted(means.size, what) for means, what in sides)
    return _student(values.mean(), parts, over) if parts else Estimate(float(values.mean()), over=over)


def proportion_interval(p: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a proportion of n images."""
    low, high = stats.binomtest(round(p * n), n).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def proportion_difference(first: float, second: float, n: int) -> Estimate:
    """Difference of two proportions, each of n images, with Newcombe's interval (1998, method 10).

    It treats the two as independent, which is cautious where both are of the same images.
    """
    first, second = float(first), float(second)
    (low1, high1), (low2, high2) = (proportion_interval(p, n) for p in (first, second))
    value = first - second
    below, above = math.hypot(first - low1, high2 - second), math.hypot(high1 - first, second - low2)
    variance = ((below + above) / 2 / critical(math.inf)) ** 2
    return Estimate(value, value - below, value + above, counted(n, "images"), (Part("images", n, variance),))


def unit_mean(values: ArrayLike, layers: ArrayLike, balanced: bool = False) -> Estimate:
    """Mean over the units of a network: every unit counts alike or, balanced, every layer.

    The interval is over other units of the same layers: variances of the layers' means add up. A layer of one unit
    gets the variance that units have within the other layers. Missing values are left out.

    Raises:
        ValueError: values and layers are of different lengths.
    """
    values, layers = np.asarray(values, float), np.asarray(layers)
    if values.shape != layers.shape:
        raise ValueError(f"values and layers: found shapes {values.shape} and {layers.shape}, expected equal lengths")
    present = ~np.isnan(values)
    values, codes = values[present], pd.factorize(layers[present])[0]
    sizes = np.bincount(codes)
    if not values.size or sizes.max() == 1:
        return mean(values, "units")
    means = np.bincount(codes, values) / sizes
    squares, spare = np.bincount(codes, (values - means[codes]) ** 2), values.size - sizes.size
    freedom = np.where(sizes > 1, sizes - 1, spare)
    variances = np.where(sizes > 1, squares, squares.sum()) / freedom
    weights = np.full(sizes.size, 1 / sizes.size) if balanced else sizes / values.size
    variances = weights**2 * variances / sizes
    units = Part("units", values.size, variances.sum(), satterthwaite(variances, freedom))
    return _student(weights @ means, [units], counted(values.size, "units"))


def share_between(values: ArrayLike, low: ArrayLike, high: float, over: str) -> Estimate:
    """Where values lie on average on the way from the mean of `low` (0) to `high` (1).

    The interval is over the values and, where there are several, over those of `low` (delta method); `high` is taken
    as known. There is no share where there is no way.
    """
    values, low = _present(values), _present(low)
    way = high - low.mean() if low.size else 0.0
    if not values.size or way == 0:
        return NONE
    share = (values.mean() - low.mean()) / way
    parts = [_part(values / way, over), *([_part(low * (1 - share) / way, "seeds")] if low.size > 1 else [])]
    return _student(share, parts, counted(values.size, over))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p values, in the order given; NaN stays NaN and is not counted as a test."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    adjusted = np.full(p_values.shape, math.nan)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def counted(n: int, what: str) -> str:
    """A number of things, given their plural: "1 seed", "1,000 images"."""
    singular = what.removesuffix("es") if what.endswith("sses") else what.removesuffix("s")
    return f"{n:,} {singular if n == 1 else what}"


def critical(freedom: float) -> float:
    """Half width of Student's interval in standard errors."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def satterthwaite(variances: ArrayLike, freedom: ArrayLike) -> float:
    """Degrees of freedom of a sum of independent variances that have their own; infinite where there is no variance."""
    variances, freedom = np.asarray(variances, float), np.asarray(freedom, float)
    spread = float((variances**2 / freedom).sum())
    return float(variances.sum()) ** 2 / spread if spread else math.inf


def total(parts: Iterable[Part]) -> tuple[float, float]:
    """Variance of a sum of independent parts, and its degrees of freedom."""
    variances, freedom = [part.variance for part in parts], [part.freedom for part in parts]
    return float(sum(variances)), satterthwaite(variances, freedom)


def _part(values: NDArray[np.float64], sample: str) -> Part:
    """Variance of the mean of independent values; NaN of one."""
    freedom = values.size - 1
    return Part(sample, values.size, values.var(ddof=1) / values.size if freedom else math.nan, max(freedom, 1))


def _student(value: float, parts: Sequence[Part], over: str) -> Estimate:
    """Student's interval of a sum of independent parts."""
    variance, freedom = total(parts)
    half = critical(freedom) * math.sqrt(variance) if variance != 0 else 0.0
    return Estimate(float(value), float(value) - half, float(value) + half, over, tuple(parts))


def _present(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]
