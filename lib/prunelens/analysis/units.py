"""What becomes of units: means by network, layer and block, slopes against the rate, the same units through pruning.

A mean over whatever is alive changes when units die though no unit does: slopes, differences of blocks and followed
units are of the same units. Intervals over units speak of other units of the same networks.
"""

from collections.abc import Sequence

import pandas as pd

from prunelens.analysis.correlations import within
from prunelens.analysis.estimates import Estimate, by, mean, table, unit_mean
from prunelens.analysis.selection import dense, pick, random, series
from prunelens.variants import CONFIGURATION, DENSE, FIELDS

UNIT = ["layer", "unit"]


def _live(units: pd.DataFrame) -> pd.DataFrame:
    """Live units; of the output layer those of the data's own classes."""
    return units[units.alive.astype(bool) & units.own_class.astype(bool)]


def same_units(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Rows of the units that are alive, and have a value, in every network of the table."""
    network = units.groupby(FIELDS, sort=False).ngroup()
    found = units[units.alive.astype(bool) & units[measure].notna()]
    return found[network[found.index].groupby([found.layer, found.unit]).transform("nunique") == network.nunique()]


def network_means(units: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """A row per network: FIELDS, dead (units), and for each measure its means over live units.

    MEASURE: of convs; MEASURE_output: of the outputs of the data's own classes; MEASURE_all_outputs: of all outputs;
    MEASURE_layers: of the layers' means; MEASURE_all: of all units, as the paper averages.
    """
    alive, names = units[units.alive.astype(bool)], list(measures)
    outputs = pick(alive, kind="output")
    parts = {
        "": pick(alive, kind="conv"),
        "_output": pick(outputs, own_class=True),
        "_all_outputs": outputs,
        "_layers": alive.groupby([*FIELDS, "layer"], as_index=False)[names].mean(),
        "_all": alive,
    }
    found = units.assign(dead=~units.alive.astype(bool)).groupby(FIELDS, sort=False)[["dead"]].sum()
    return found.join([rows.groupby(FIELDS)[names].mean().add_suffix(end) for end, rows in parts.items()]).reset_index()


def _means(rows: pd.DataFrame, value: str, *keys: str) -> pd.DataFrame:
    """Mean over units, seeds averaged before."""
    places = list(dict.fromkeys([*CONFIGURATION, *keys, *UNIT]))
    averaged = rows.groupby(places, sort=False, as_index=False)[value].mean()
    return by(averaged, [*CONFIGURATION, *keys], lambda group: unit_mean(group[value], group.layer))


def layer_means(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean over live units by layer: CONFIGURATION, layer, block, position, kind, value, low, high, over (units)."""
    return _means(_live(units), measure, "layer", "block", "position", "kind")


def block_differences(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure minus the dense network's, mean over the units of a block that live in both; seeds averaged.

    Returns: CONFIGURATION, block (in order of the forward pass), value, low, high, over (units).
    """
    rows = pick(_live(units), weights="trained").sort_values("position", kind="stable")
    first = dense(rows)
    rows = rows.drop(first.index).join(first.set_index(UNIT)[measure].rename(DENSE), on=UNIT)
    rows = rows.assign(difference=rows[measure] - rows[DENSE]).dropna(subset="difference")
    return _means(rows, "difference", "block")


def output_gaps(units: pd.DataFrame, measure: str, last_block: bool = False) -> pd.DataFrame:
    """Mean of a measure over a network's live convs minus that of each live output of the data's classes.

    Returns a row per output and a column per configuration (means over seeds): networks of one dense parent have the
    same outputs, so that an interval has to be over outputs. last_block: convs of the last block alone.
    """
    rows = _live(units)
    convs = pick(rows, kind="conv").sort_values("position", kind="stable")
    if last_block and len(convs):
        convs = pick(convs, block=convs.block.iloc[-1])
    outputs = pick(rows, kind="output").join(convs.groupby(FIELDS)[measure].mean().rename("convs"), on=FIELDS)
    return outputs.assign(gap=outputs.convs - outputs[measure]).pivot_table("gap", "unit", CONFIGURATION)


# ------------------------------------------------------------------------------------------------------- slopes


def slopes(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Slope of a measure against the rate in each series (`selection.series`), over the same live conv units.

    It is the mean over layers of the mean over units of each unit's own least-squares slope.
    Returns: CONFIGURATION but the rate, series; networks, units, layers; value, low, high, over (units, the networks
    fixed); seeds (slopes of single seeds), seeds_low, seeds_high (Student's interval over them).
    """
    rows, seeds, fields = [], [], [field for field in CONFIGURATION if field != "rate"]
    for name, group in series(pick(units, kind="conv")).groupby("series", sort=False):
        same = same_units(group, measure)
        counts = [len(group[FIELDS].drop_duplicates()), len(same[UNIT].drop_duplicates()), same.layer.nunique()]
        names = {**group[fields].iloc[0], "series": name}
        rows.append((names | dict(zip(("networks", "units", "layers"), counts, strict=True)), _slope(same, measure)))
        seeds.append([_slope(one, measure).value for _, one in same.groupby("seed")])
    over = [mean(each, "seeds") for each in seeds]
    found = table(rows, [*fields, "series", "networks", "units", "layers"])
    return found.assign(seeds=seeds, seeds_low=[e.low for e in over], seeds_high=[e.high for e in over])


def _slope(same: pd.DataFrame, measure: str) -> Estimate:
    values = same.pivot(index=UNIT, columns=["seed", "rate"], values=measure)
    rates = values.columns.get_level_values("rate").to_series()
    centered = rates.to_numpy(float) - rates.mean()
    width = centered @ centered
    each = values.to_numpy(float) @ centered / (width if width > 0 else float("nan"))
    return unit_mean(each, values.index.get_level_values("layer"), balanced=True)


def way(units: pd.DataFrame, measure: str) -> float:
    """How far the dense network's conv mean of a measure lies above that of random networks.

    Published units, none of a random network, bring theirs as attrs["way"].
    """
    means = network_means(units, measure)
    return units.attrs.get("way") or dense(means)[measure].mean() - random(means)[measure].mean()


def measure_slopes(units: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """`slopes` of several measures, each in standard deviations of the dense network's live conv units.

    Returns: measure and the columns of `slopes`.
    """
    spread = pick(dense(_live(units)), kind="conv")[list(measures)].std()
    found = [slopes(units.assign(**{m: units[m] / spread[m]}), m).assign(measure=m) for m in measures if spread[m] > 0]
    rows = pd.concat([slopes(units[:0], measures[0]).assign(measure=""), *found], ignore_index=True)
    return rows[["measure", *rows.columns.drop("measure")]]


# -------------------------------------------------------------------------------------------------- the same units


def followed(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The same conv units through pruning: alive in the dense network and in all one-shot networks of a method.

    Networks are of the dense network's seed, from dense (schedule "none") to most pruned. First comes the control, the
    method "dense": the dense network and itself retrained.
    Returns: method, epochs, schedule, rate, layer, unit, dense (the value in the dense network), `measure`.
    """
    convs = pick(units, kind="conv", masked=True, weights="trained")
    first = dense(convs)
    others = pick(convs, schedule="one_shot", seed=first.seed.unique().tolist()).sort_values("rate", kind="stable")
    found = [
        same_units(pd.concat([first, networks]), measure).assign(method=method, epochs=epochs)
        for (method, epochs), networks in others.groupby(["method", "epochs"], sort=False)
    ]
    start = first.set_index(UNIT)[measure].rename(DENSE)
    found = pd.concat([convs[:0], *found], ignore_index=True)[["method", "epochs", "schedule", "rate", *UNIT, measure]]
    return found.join(start, on=UNIT)


def followed_summary(followed: pd.DataFrame, measure: str) -> pd.DataFrame:
    """How the units of each network of `followed` lie, and whether they keep the dense network's order.

    Returns: method, epochs, schedule, rate, units, q10, q25, q50, q75, q90; but for the dense network change,
    change_low, change_high (mean of the units' own changes since) and r, r_low, r_high (of ranks within layers with
    those there); value, low, high, over (their mean). Intervals are over units.
    """
    keys, rows = ["method", "epochs", "schedule", "rate"], []
    for key, units in followed.groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True)) | {"units": len(units)}
        row |= {f"q{percent}": units[measure].quantile(percent / 100) for percent in (10, 25, 50, 75, 90)}
        if row["schedule"] != "none":
            ranks = units.groupby("layer")[[DENSE, measure]].rank(pct=True).assign(layer=units.layer)
            change = unit_mean(units[measure] - units[DENSE], units.layer)
            for name, e in {"change": change, "r": within(ranks, DENSE, measure, "layer", "units")}.items():
                row |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
        rows.append((row, unit_mean(units[measure], units.layer)))
    return table(rows, keys)


def examples(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The dense network's two highest, two median and two lowest live conv units, all columns."""
    ranked = pick(dense(_live(units)), kind="conv").dropna(subset=measure).sort_values(measure, ascending=False)
    half, last = len(ranked) // 2, len(ranked) - 1
    return ranked.iloc[sorted({0, 1, half, half + 1, last - 1, last} & set(range(len(ranked))))]
