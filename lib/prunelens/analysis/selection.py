"""Choose and average rows of tables that have the variants' fields as columns."""

from typing import Any

import numpy as np
import pandas as pd

from prunelens.variants import CONFIGURATION, DENSE, FIELDS, RETRAINED


def pick(table: pd.DataFrame, **fields: Any) -> pd.DataFrame:
    """Rows whose columns have the values named; a list or tuple stands for any of its values."""
    chosen = np.ones(len(table), bool)
    for name, value in fields.items():
        values = table[name]
        chosen &= values.isin(value).to_numpy() if isinstance(value, list | tuple) else values.to_numpy() == value
    return table[chosen]


def dense(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the dense network as it was trained."""
    return pick(table, method=DENSE, schedule="none", weights="trained")


def random(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the dense network with weights drawn anew."""
    return pick(table, method=DENSE, weights="random")


def retrained(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks with gradient steps since the dense network's training, of the dense one retrained too."""
    return pick(table, schedule=RETRAINED)


def working(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the dense network and of all retrained ones: neither random nor pruned and left so."""
    return table[table.schedule.isin(RETRAINED) | ((table.rate == 0) & (table.weights == "trained"))]


def series(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of pruned, masked and retrained networks of more than one rate, with a column series (its name).

    A series has one method, schedule and number of epochs. Unmasked networks are left out: their weights grow back, so
    that their rate is none.
    """
    chosen = retrained(table[(table.rate > 0) & table.masked])
    keys = ["method", "schedule"]
    rates = chosen.groupby([*keys, "epochs"]).rate
    chosen = chosen[rates.transform("nunique") > 1].reset_index(drop=True)
    method, schedule = chosen.method.astype(str), chosen.schedule.astype(str)
    names = method.where(schedule == "one_shot", method + ", " + schedule)
    several = chosen.groupby(keys).epochs.transform("nunique") > 1
    return chosen.assign(series=names.mask(several, names + ", " + chosen.epochs.astype(str) + " epochs"))


def average_seeds(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Means of all numbers over the seeds of each configuration, and of each value of `more` columns."""
    keys = [*CONFIGURATION, *more]
    numbers = table.select_dtypes("number").columns.difference([*keys, "seed"], sort=False)
    return table.groupby(keys, sort=False, as_index=False)[list(numbers)].mean()


def above_chance(accuracy: pd.DataFrame, table: pd.DataFrame, chance: float) -> pd.DataFrame:
    """The table without networks at chance: those whose 95 % interval of Top-1 over images reaches down to it."""
    lost = pd.MultiIndex.from_frame(accuracy.loc[accuracy.top1_low <= chance, FIELDS])
    return table[~pd.MultiIndex.from_frame(table[FIELDS]).isin(lost)]
