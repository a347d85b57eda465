"""Estimates: a value with its 95 % interval and what the interval is over, and how they are made.

An interval speaks of what it is over: seeds (other runs of the same configuration), images, or units of the same
networks. None speaks of other dense networks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its interval (NaN: there is none) and what that is over; value NaN: there is no value.

    ``format(estimate, "+.1%")`` gives "-4.4% (-13.6% to +4.8%)", "-4.4% (no interval)" or "-".
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    over: str = ""

    @classmethod
    def of(cls, row: Any) -> "Estimate":
        """The estimate in a row (Series or tuple) of a table with the columns value, low, high, over."""
        return cls(row.value, row.low, row.high, row.over)

    def __format__(self, form: str) -> str:
        if not math.isfinite(self.value):
            return "-"
        value, low, high = (format(each, form or ".3f") for each in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})" if math.isfinite(self.high - self.low) else f"{value} (no interval)"

    def __str__(self) -> str:
        return format(self, "")

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above a bound; False without an interval."""
        return self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below a bound; False without an interval."""
        return self.high < bound

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies between -margin and margin; False without an interval."""
        return self.above(-margin) and self.below(margin)

    def minus(self, constant: float) -> "Estimate":
        """The estimate moved by a known constant."""
        return Estimate(self.value - constant, self.low - constant, self.high - constant, self.over)


NONE = Estimate(math.nan)


def table(rows: Iterable[tuple[Mapping[str, Any], Estimate]], keys: Sequence[str] = ()) -> pd.DataFrame:
    """Estimates as a table: the keys of each, then value, low, high, over. keys: the columns of an empty table."""
    found = [{**names, **asdict(estimate)} for names, estimate in rows]
    return pd.DataFrame(found, columns=None if found else [*keys, *asdict(NONE)])


def mean(values: ArrayLike, over: str, level: float = LEVEL) -> Estimate:
    """Mean with Student's t interval over independent values; missing ones are left out.

    over: what the values are, in the plural. One value has no interval, and no values have no mean.
    """
    values = _present(values)
    if not values.size:
        return NONE
    parts = [(values.var(ddof=1) / values.size, values.size - 1)] if values.size > 1 else []
    return _student(values.mean(), parts, counted(values.size, over), level)


def proportion_difference(first: float, second: float, n: int, level: float = LEVEL) -> Estimate:
    """Difference of two proportions, each of n images, with Newcombe's interval (1998, method 10).

    It treats the two as independent, which is cautious where both are of the same images.
    """
    (low1, high1), (low2, high2) = (
        stats.binomtest(round(p * n), n).proportion_ci(level, method="wilson") for p in (first, second)
    )
    low, high = math.hypot(first - low1, high2 - second), math.hypot(high1 - first, second - low2)
    return Estimate(first - second, first - second - low, first - second + high, counted(n, "images"))


def unit_mean(values: ArrayLike, layers: ArrayLike, balanced: bool = False, level: float = LEVEL) -> Estimate:
    """Mean over the units of a network: every unit counts alike or, balanced, every layer.

    The interval is over other units of the same layers: the layers' variances of their means add up (Student's t,
    Satterthwaite's degrees of freedom). A layer of one unit gets the variance that units have in the other layers.
    Missing values are left out.

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
        return mean(values, "units", level)
    means = np.bincount(codes, values) / sizes
    squares = np.bincount(codes, (values - means[codes]) ** 2)
    several, spare = sizes > 1, values.size - sizes.size
    variances = np.where(several, squares / np.maximum(sizes - 1, 1), squares.sum() / spare)
    weights = np.full(sizes.size, 1 / sizes.size) if balanced else sizes / values.size
    parts = zip(weights**2 * variances / sizes, np.where(several, sizes - 1, spare), strict=True)
    return _student(weights @ means, list(parts), counted(values.size, "units"), level)


def share_between(values: ArrayLike, low: ArrayLike, high: float, over: str, level: float = LEVEL) -> Estimate:
    """Where values lie on average on the way from the mean of `low` (0) to `high` (1).

    The interval is over the values and over those of `low` (delta method; Student's t, Satterthwaite's degrees of
    freedom); `high` is taken as known, and so is `low` if it is one value. No share where there is no way.
    """
    values, low = _present(values), _present(low)
    way = high - low.mean() if low.size else math.nan
    if not values.size or not abs(way) > 0:
        return NONE
    share, parts = (values.mean() - low.mean()) / way, []
    if values.size > 1:
        parts.append((values.var(ddof=1) / values.size / way**2, values.size - 1))
    if values.size > 1 and low.size > 1:
        parts.append((low.var(ddof=1) / low.size * ((1 - share) / way) ** 2, low.size - 1))
    return _student(share, parts, counted(values.size, over), level)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p values, in the order given; NaN stays NaN and is not counted as a test."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    adjusted = np.full(p_values.shape, math.nan)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def counted(n: int, what: str) -> str:
    """A number of things: "1 seed", "1,000 images". what: the plural."""
    singular = what.removesuffix("es") if what.endswith("sses") else what.removesuffix("s")
    return f"{n:,} {singular if n == 1 else what}"


def _student(value: float, parts: Sequence[tuple[float, int]], over: str, level: float) -> Estimate:
    """Student's interval of a sum of independent parts: their variances and degrees of freedom; none: no interval."""
    variance = float(sum(part for part, _ in parts))
    if not parts or not variance > 0:
        end = math.nan if not parts else float(value)
        return Estimate(float(value), end, end, over)
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Estimate(float(value), float(value) - half, float(value) + half, over)


def _present(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, float).ravel()
    return values[~np.isnan(values)]
