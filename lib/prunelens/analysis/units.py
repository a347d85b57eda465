"""What becomes of units: means by network, layer and block, the same units through pruning, slopes against the rate.

A mean over whatever is alive changes when units die though no unit does: slopes, followed units and differences of
blocks compare the same units. Intervals over units speak of other units of the same networks.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from prunelens.analysis.correlations import within
from prunelens.analysis.estimates import Estimate, holm, mean, table, unit_mean
from prunelens.analysis.selection import average_seeds, dense, pick, series
from prunelens.variants import CONFIGURATION, DENSE, FIELDS

UNIT = ["layer", "unit"]


def live(units: pd.DataFrame) -> pd.DataFrame:
    """Live units; of the output layer those of the data's own classes."""
    return units[units.alive.astype(bool) & units.own_class.astype(bool)]


def same_units(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Rows of the units that are alive, and have a value, in every network of the table."""
    network = units.groupby(FIELDS, sort=False).ngroup()
    found = units.alive.astype(bool) & units[measure].notna()
    networks = network[found].groupby([units.layer[found], units.unit[found]]).transform("nunique")
    return units[found][networks == network.nunique()]


def network_means(units: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """A row per network: FIELDS, dead (units), and for each measure its means over live units.

    MEASURE: of convs; MEASURE_output: of the data's own classes' outputs; MEASURE_all_outputs: of all outputs;
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
    for ending, rows in parts.items():
        found = found.join(rows.groupby(FIELDS)[names].mean().add_suffix(ending))
    return found.reset_index()


def dead(units: pd.DataFrame) -> pd.DataFrame:
    """Networks with dead conv units: FIELDS, units, dead."""
    convs = pick(units, kind="conv")
    groups = convs.assign(dead=~convs.alive.astype(bool)).groupby(FIELDS, sort=False, as_index=False)
    found = groups.agg(units=("dead", "size"), dead=("dead", "sum"))
    return found[found.dead > 0].reset_index(drop=True)


def _means(rows: pd.DataFrame, value: str, keys: Sequence[str]) -> pd.DataFrame:
    """Mean over units, seeds averaged before: CONFIGURATION, keys, value, low, high, over."""
    names = list(dict.fromkeys([*keys, *UNIT]))
    averaged = rows.groupby([*CONFIGURATION, *names], sort=False, as_index=False)[value].mean()
    groups = averaged.groupby([*CONFIGURATION, *keys], sort=False)
    found = ((dict(zip([*CONFIGURATION, *keys], k, strict=True)), unit_mean(g[value], g.layer)) for k, g in groups)
    return table(found, [*CONFIGURATION, *keys])


def layer_means(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean of a measure by layer: CONFIGURATION, layer, block, position, kind, value, low, high, over (units)."""
    return _means(live(units), measure, ["layer", "block", "position", "kind"])


def block_differences(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure minus the dense network's, mean over the units of each block that live in both.

    Returns: CONFIGURATION, block (in order of the forward pass), value, low, high, over (units, seeds averaged).
    """
    rows = live(units).sort_values("position", kind="stable")
    before = dense(rows).set_index(UNIT)[measure].rename("before")
    rows = rows.drop(dense(rows).index).join(before, on=UNIT)
    rows = rows[rows.weights == "trained"].assign(difference=lambda t: t[measure] - t.before)
    return _means(rows.dropna(subset="difference"), "difference", ["block"])


def output_gaps(units: pd.DataFrame, measure: str, last_block: bool = False) -> pd.DataFrame:
    """Mean of a measure over the convs minus that of each output of the data's classes, both alive.

    Returns a row per output unit and a column per configuration, means over seeds: networks of one dense parent have
    the same outputs, so that an interval has to be over outputs. last_block: convs of the last block alone.
    """
    rows = live(units)
    convs = pick(rows, kind="conv").sort_values("position", kind="stable")
    if last_block and len(convs):
        convs = pick(convs, block=convs.block.iloc[-1])
    before = convs.groupby(FIELDS)[measure].mean().rename("before")
    outputs = pick(rows, kind="output").join(before, on=FIELDS)
    return outputs.assign(gap=outputs.before - outputs[measure]).pivot_table("gap", "unit", CONFIGURATION)


# ------------------------------------------------------------------------------------------------------- slopes


def slopes(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Slope of a measure against the rate in each series (`selection.series`), over the same live conv units.

    It is the mean over layers of the mean over units of each unit's own least-squares slope.
    Returns: fields of the series, series, networks, units, layers; value, low, high, over (units, networks fixed); seeds
    (slopes of single seeds), seeds_low, seeds_high (Student's interval over them).
    """
    rows, seeds = [], []
    fields = [field for field in CONFIGURATION if field != "rate"]
    for name, group in series(pick(units, kind="conv")).groupby("series", sort=False):
        same = same_units(group, measure)
        counts = {"networks": len(group[FIELDS].drop_duplicates()), "units": len(same[UNIT].drop_duplicates())}
        keys = {**group[fields].iloc[0], "series": name, **counts, "layers": same.layer.nunique()}
        rows.append((keys, _slope(same, measure)))
        seeds.append([_slope(one, measure).value for _, one in same.groupby("seed")])
    over = [mean(each, "seeds") for each in seeds]
    found = table(rows, [*fields, "series", "networks", "units", "layers"])
    return found.assign(seeds=seeds, seeds_low=[e.low for e in over], seeds_high=[e.high for e in over])


def _slope(same: pd.DataFrame, measure: str) -> Estimate:
    values = same.pivot(index=UNIT, columns=["seed", "rate"], values=measure)
    rates = values.columns.get_level_values("rate").to_numpy(float)
    centered = rates - rates.mean() if len(rates) else rates
    width = centered @ centered
    each = values.to_numpy(float) @ centered / width if width > 0 else np.full(len(values), np.nan)
    return unit_mean(each, values.index.get_level_values("layer"), balanced=True)


def measure_slopes(units: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """`slopes` of several measures, each in standard deviations of the dense network's live conv units.

    Returns: measure, the columns of `slopes`, p (t test over seeds' slopes), p_holm (corrected for all rows).
    """
    spread = pick(dense(live(units)), kind="conv")[list(measures)].std()
    found = [slopes(units.assign(**{m: units[m] / spread[m]}), m).assign(measure=m) for m in measures if spread[m] > 0]
    rows = pd.concat([slopes(units[:0], measures[0]).assign(measure=""), *found], ignore_index=True)
    p = [float(stats.ttest_1samp(seeds, 0).pvalue) if len(seeds) > 1 else np.nan for seeds in rows.seeds]
    return rows.assign(p=p, p_holm=holm(p))[["measure", *rows.columns.drop("measure"), "p", "p_holm"]]


# ------------------------------------------------------------------------------------------------ the same units


def followed(units: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The same conv units through pruning: alive in the dense network and in all one-shot networks of a method.

    Returns: method, epochs, schedule, rate, layer, unit, dense (value in the dense network), `measure`. Networks are of the
    dense network's seed, from dense (schedule "none") to most pruned. First comes the control, the method "dense": the
    dense network and itself retrained.
    """
    convs = pick(units, kind="conv", masked=True, weights="trained")
    first = dense(convs)
    others = pick(convs, schedule="one_shot", seed=first.seed.unique().tolist()).sort_values("rate", kind="stable")
    found = [
        same_units(pd.concat([first, networks]), measure).assign(method=method, epochs=epochs)
        for (method, epochs), networks in others.groupby(["method", "epochs"], sort=False)
    ]
    start = first.set_index(UNIT)[measure].rename(DENSE)
    table_ = pd.concat([convs[:0], *found], ignore_index=True).join(start, on=UNIT)
    return table_[["method", "epochs", "schedule", "rate", *UNIT, DENSE, measure]]


def followed_summary(followed: pd.DataFrame, measure: str) -> pd.DataFrame:
    """How the units of each network of `followed` lie, and whether they keep the dense network's order.

    Returns: method, epochs, schedule, rate, units, q10, q25, q50, q75, q90; change, change_low, change_high (mean of the
    units' own changes against the dense network); r, r_low, r_high (correlation of ranks within layers with the dense
    network's); value, low, high, over (mean). Intervals are over units; the dense network has no change and no r.
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
    ranked = pick(dense(live(units)), kind="conv").dropna(subset=measure).sort_values(measure, ascending=False)
    half = len(ranked) // 2
    return ranked.iloc[sorted({0, 1, half, half + 1, len(ranked) - 2, len(ranked) - 1} & set(range(len(ranked))))]


def softmax_differences(softmax: pd.DataFrame, measure: str = "mis") -> pd.DataFrame:
    """A measure of the outputs ranked by probability minus ranked by logit: FIELDS, stimuli, value, low, high, over."""
    keys = [*FIELDS, "stimuli"]
    wide = softmax.pivot(index=[*keys, "unit"], columns="output", values=measure)
    groups = (wide.probability - wide.logit).groupby(keys, sort=False)
    return table(((dict(zip(keys, key, strict=True)), mean(each, "classes")) for key, each in groups), keys)
