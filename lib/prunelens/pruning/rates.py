"""Rates by layer, from what each layer tolerates. Imports no PyTorch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

TOLERANCE = 0.02  # a loss of Top-1 that a layer's rate is allowed to cost
HIGHEST = 0.98  # rate of a layer


def tolerated(table: pd.DataFrame, dense_top1: float) -> dict[str, float]:
    """By layer, the largest scanned rate up to which Top-1 stays within `TOLERANCE` of the dense network's.

    table: columns layer, rate, top1, one method. A layer that tolerates no scanned rate gets half of the smallest.
    """
    rates = {}
    for layer, rows in table.sort_values("rate").groupby("layer", sort=False):
        fine = np.logical_and.accumulate(rows.top1.to_numpy() >= dense_top1 - TOLERANCE)
        rates[str(layer)] = float(rows.rate[fine].max() if fine.any() else rows.rate.min() / 2)
    return rates


def scaled_rates(tolerated: Mapping[str, float], sizes: Mapping[str, int], rate: float) -> dict[str, float]:
    """Rates in proportion to ``tolerated``, at most `HIGHEST`, whose mean weighted by ``sizes`` is ``rate``.

    Raises:
        ValueError: ``rate`` is above what the layers that tolerate anything can give.
    """
    total, factor, step = sum(sizes.values()), 0.0, 1e6
    reachable = sum(size for name, size in sizes.items() if tolerated[name] > 0) * HIGHEST / total
    if rate > reachable:
        raise ValueError(f"pruning rate: found {rate}, but the layers that tolerate pruning reach {reachable:.3f}")
    while step > 1e-12:  # the weighted mean rises with the factor: bisection
        candidate = factor + step
        mean = sum(min(HIGHEST, candidate * tolerated[name]) * size for name, size in sizes.items()) / total
        factor = candidate if mean <= rate else factor
        step /= 2
    return {name: min(HIGHEST, factor * tolerated[name]) for name in sizes}
