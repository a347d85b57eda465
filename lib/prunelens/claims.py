"""The paper's claims C1 to C6 and its open questions Q1 to Q3, judged by a profile's tables.

Every number, verdict and reason is computed from the tables. A verdict is "holds" or "does not hold" where a 95 %
interval or test decides, "cannot be told" where it does not, and "not tested" where the profile has no networks for it.
Seeds of one configuration share the dense parent and, unless the method is random, the mask: where a claim is about
other configurations they are averaged, where it is about other runs of the same one the interval is over them.

Notebook 08 keeps the tables beside the verdicts, so that others can judge them by other rules, and all of them again:

    python -m prunelens.claims figures/quick
"""

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prunelens import published, statistics
from prunelens.statistics import Correlation, Interval, Method

SMALLEST_EFFECT = 0.3  # a correlation smaller than this counts as none (Cohen's "medium")
SMALLEST_SLOPE = 0.1  # of the way from random to dense per unit of rate: a smaller slope of the MIS counts as none
SETTLED = 0.01  # retraining whose last epoch raises Top-1 by more has not settled
CONFIGURATION = ["method", "schedule", "rate"]
RETRAINED = ("one_shot", "iterative", "rewound")  # schedules


class Verdict(NamedTuple):
    """A row of `verdicts`: paper and ours are numbers in words, why the reason for the verdict, where the figure."""

    claim: str
    statement: str
    paper: str
    ours: str
    verdict: str
    why: str
    where: str


class Compared(NamedTuple):
    """A `difference` of Top-1, what its interval is over, and the networks that the last epoch still made better."""

    gap: Interval
    over: str
    rising: str = ""

    @property
    def verdict(self) -> str:
        """Networks that still rise are not what the paper compares: of them nothing can be told."""
        sign = _sign(self.gap)
        return "cannot be told" if self.rising and sign != "not tested" else sign

    @property
    def why(self) -> str:
        reason = _reason(self.gap, self.over)
        return (
            f"{reason}, and retraining is not seen to have settled: its last epoch brought {self.rising}"
            if self.rising
            else reason
        )


EVIDENCE = ("accuracy", "epochs", "units", "means", "classes", "truth")  # the tables of `judge`
UNIT = [*CONFIGURATION, "seed", "variant", "layer", "kind", "unit", "alive", "mis"]  # what claims ask of a unit


def judge(
    accuracy: pd.DataFrame,
    epochs: pd.DataFrame,
    units: pd.DataFrame,
    means: pd.DataFrame,
    classes: pd.DataFrame,
    truth: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """`verdicts` and `open_questions` in one table."""
    claimed = verdicts(accuracy, epochs, units, means, classes)
    return pd.concat([claimed, open_questions(accuracy, units, classes, truth)], ignore_index=True)


def judge_again(folder: Path) -> pd.DataFrame:
    """`judge` of the tables that notebook 08 kept in a folder of figures.

    Raises FileNotFoundError naming a table that is not there; one of known concepts need not be.
    """
    files = {name: folder / f"08_{name}.parquet" for name in EVIDENCE}
    return judge(**{name: pd.read_parquet(file) for name, file in files.items() if name != "truth" or file.exists()})


def verdicts(
    accuracy: pd.DataFrame, epochs: pd.DataFrame, units: pd.DataFrame, means: pd.DataFrame, classes: pd.DataFrame
) -> pd.DataFrame:
    """One row per claim C1a to C6b, with the columns of `Verdict`.

    Args:
        accuracy: one row per network (``Study.accuracy``).
        epochs: one row per one-shot network and epoch of its retraining (``Study.epochs``).
        units: one row per network and unit (``Study.units``).
        means: one row per network, mean MIS of its units (``Study.network_means``).
        classes: one row per network and class, top1 and its output unit's mis (``Study.class_scores``).
    """
    chance = 1 / classes.logit.nunique()
    working = above_chance(accuracy, units, chance)
    judged = [
        _rate_and_mis(means, above_chance(accuracy, means, chance), unit_trends(working, n_resamples=1)),
        broken_networks(accuracy, means, chance),
        _last_layer(working, classes),
        _class_accuracy(above_chance(accuracy, classes, chance)),
    ]
    return pd.concat([accuracy_verdicts(accuracy, epochs, chance), pd.DataFrame(judged)], ignore_index=True)


def accuracy_verdicts(accuracy: pd.DataFrame, epochs: pd.DataFrame, chance: float) -> pd.DataFrame:
    """The verdicts on C1 to C3 alone, which need no MIS; chance is 1 / number of classes."""
    retrained = accuracy[accuracy.schedule == "one_shot"]
    judged = [
        _gain(retrained, epochs, "C1a", "connection_l1", "with masks"),
        _gain(retrained, epochs, "C1b", "connection_l1_unmasked", "without masks, as coded"),
        _order_of_methods(retrained, epochs),
        _iterative(accuracy, chance),
    ]
    return pd.DataFrame(judged)


def open_questions(
    accuracy: pd.DataFrame, units: pd.DataFrame, classes: pd.DataFrame, truth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per question Q1 to Q3, each put as a statement, with the columns of `Verdict`.

    Args:
        accuracy, classes: as for `verdicts`.
        units: one row per unit of every network, layers in order of the forward pass (``Study.units``).
        truth: one row per unit of one network: layer, mis, and how well the unit tells one concept that is known to be
            in an image, as concept_selectivity (NaN where it is not defined).
    """
    chance = 1 / classes.logit.nunique()
    working = above_chance(accuracy, units, chance)
    return pd.DataFrame([_truth(truth), _best_schedule(accuracy, chance), _last_block(working, classes)])


# ---------------------------------------------------------------------------------------------- C1 to C3, accuracy


def _gain(retrained: pd.DataFrame, epochs: pd.DataFrame, claim: str, method: str, how: str) -> Verdict:
    highest = retrained.rate.max()
    gain = _settled(retrained, epochs, (method, highest), ("dense_retrained", 0.0))
    found = retrained[(retrained.method == method) & (retrained.rate == highest)]
    zeros = f"; {found.conv_sparsity.mean():.1%} of the conv weights are zero" if len(found) else ""
    return Verdict(
        claim, f"connection sparsity at {highest:g}, {how}, gains Top-1", _paper_gain(),
        f"{show(gain.gap)} against dense, retrained{zeros}", gain.verdict, gain.why, "03_net_gain",
    )  # fmt: skip


def _order_of_methods(retrained: pd.DataFrame, epochs: pd.DataFrame) -> Verdict:
    """Judged at the highest rate, as the paper's claim is; at how many rates the order holds is said."""
    pairs = [("connection_l1", "unstructured_global"), ("unstructured_global", "structured_l1")]
    rates = sorted((rate for rate in retrained.rate.unique() if rate > 0), reverse=True)
    found = {
        rate: {f"{a} - {b}": _settled(retrained, epochs, (a, rate), (b, rate)) for a, b in pairs} for rate in rates
    }
    judged = {rate: _all_hold([each.verdict for each in gaps.values()]) for rate, gaps in found.items()}
    tested = [one for one in judged.values() if one != "not tested"]
    verdict = judged[rates[0]] if rates else "not tested"
    ours = "; ".join(f"{pair}: {show(each.gap)}" for pair, each in found[rates[0]].items()) if rates else "-"
    why = _decisive(found[rates[0]] if rates else {}, verdict)
    if verdict != "not tested":
        why += f"; the order holds at {tested.count('holds')} of {len(tested)} rates"
    statement = "connection sparsity (masked) > unstructured > structured" + (f" at {rates[0]:g}" if rates else "")
    methods = ("connection_l1_unmasked", "unstructured_global", "structured_l1")
    paper = f"{', '.join(f'{_paper_top1(method):.3f}' for method in methods)} at {PAPER_RATE}"
    return Verdict("C2", statement, paper, ours, verdict, why, "03_accuracy_by_rate")


def _iterative(accuracy: pd.DataFrame, chance: float) -> Verdict:
    found = _against_one_shot(accuracy, ["iterative"], chance)
    verdict = _all_hold([each.verdict for each in found.values()])
    ours = "; ".join(f"{name}: {show(each.gap)}" for name, each in found.items()) or "-"
    return Verdict("C3", "iterative is better than one-shot at equal epochs", _paper_iterative(), ours, verdict,
                   _decisive(found, verdict), "03_accuracy_by_rate")  # fmt: skip


def _against_one_shot(accuracy: pd.DataFrame, schedules: list[str], chance: float) -> dict[str, Compared]:
    """Top-1 of the networks of other schedules minus that of the one-shot ones of the same method and rate.

    Where all of both are at chance there is nothing to compare.
    """
    others = accuracy[accuracy.schedule.isin(schedules)].drop_duplicates(CONFIGURATION)
    name = "{0.method} at {0.rate:g}" if len(schedules) == 1 else "{0.schedule} {0.method} at {0.rate:g}"
    found = {}
    for row in others.itertuples():
        pair = accuracy[
            (accuracy.method == row.method)
            & (accuracy.rate == row.rate)
            & accuracy.schedule.isin([row.schedule, "one_shot"])
        ]
        if (pair.top1_low > chance).any():
            compared = accuracy, (row.method, row.rate), (row.method, row.rate), (row.schedule, "one_shot")
            found[name.format(row)] = Compared(difference(*compared), _over(differences(*compared)))
    return found


# --------------------------------------------------------------------------------------------- C4, MIS and the rate


def retrained_networks(table: pd.DataFrame) -> pd.DataFrame:
    """The retrained networks that are as sparse as their rate says, with a column series.

    A series is a method and a schedule with more than one rate. Unmasked networks are left out: their rate is none.
    """
    chosen = table[(table.rate > 0) & table.schedule.isin(RETRAINED) & ~table.method.str.endswith("_unmasked")]
    series = chosen.method.where(chosen.schedule == "one_shot", chosen.method + ", " + chosen.schedule)
    chosen = chosen.assign(series=series)
    return chosen[chosen.groupby("series").rate.transform("nunique") > 1].reset_index(drop=True)


def rate_series(table: pd.DataFrame) -> pd.DataFrame:
    """`retrained_networks`, one row per configuration: the mean over its seeds.

    An interval over these rows is about other configurations (rates) of these methods and this dense network.
    """
    return averaged(retrained_networks(table), ["series"])


def averaged(table: pd.DataFrame, more: Iterable[str] = ()) -> pd.DataFrame:
    """Means of all numbers over the seeds of each configuration."""
    keys = [*CONFIGURATION, *more]
    numbers = table.select_dtypes("number").columns.difference(["seed", *keys])
    return table.groupby(keys, sort=False)[list(numbers)].mean().reset_index()


def above_chance(accuracy: pd.DataFrame, table: pd.DataFrame, chance: float) -> pd.DataFrame:
    """The table without the networks at chance: those whose 95 % interval of Top-1, over images, reaches down to it."""
    return table[~table.variant.isin(accuracy.variant[accuracy.top1_low <= chance])]


def correlations(
    table: pd.DataFrame,
    x: str,
    y: str = "mis_conv",
    method: Method = "pearson",
    n_resamples: int = 2000,
    seed: int = 0,
    chance: float | None = None,
) -> pd.DataFrame:
    """Correlation of x and y over networks, with methods kept apart, centred apart, or pooled.

    Columns: row (what is correlated), method (of a row that is one series, else empty), r, low, high, p, n,
    resamples. Rows: each series, over its single networks; `within`, each series against its own mean, and where
    `chance` is given (a Top-1; `table` then has top1_low) the same without the networks at chance; the retrained
    and the other pruned networks pooled; and all with the dense one at rate 0, pooled as the paper does, unmasked
    networks at their nominal rate included. All but the series and "within, single networks" are over configurations
    (seeds averaged). A rank correlation within series is one of values centred within series.
    """
    single, means = retrained_networks(table), rate_series(table)
    pruned = averaged(table[(table.rate > 0) | (table.method == "dense")])
    others = pruned[(pruned.rate > 0) & ~pruned.schedule.isin(RETRAINED)]
    options = {"method": method, "n_resamples": n_resamples, "seed": seed}
    rows = [
        (name, group.method.iloc[0], statistics.correlation(group[x], group[y], **options))
        for name, group in single.groupby("series", sort=False)
    ]
    rows.append(("within methods", "", statistics.within_group_correlation(means, x, y, "series", **options)))
    if len(single) > len(means):
        within = statistics.within_group_correlation(single, x, y, "series", **options)
        rows.append(("within methods, single networks", "", within))
    if chance is not None:
        working = rate_series(above_chance(table, table, chance))
        within = statistics.within_group_correlation(working, x, y, "series", **options)
        rows.append(("within methods, above chance", "", within))
    rows += [
        (name, "", statistics.correlation(group[x], group[y], **options))
        for name, group in (
            ("retrained, pooled", means),
            ("not retrained, pooled", others),
            ("all, pooled as in the paper", pruned),
        )
    ]
    return pd.DataFrame([{"row": name, "method": series, **_named(found)} for name, series, found in rows])


def _named(found: Correlation) -> dict:
    """The fields of a correlation, its interval in words."""
    row = found._asdict()
    how = row.pop("interval")
    return row | {"resamples": {"bootstrap": "networks", "Fisher z": "nothing (Fisher's z)"}.get(how, how)}


def unit_trends(units: pd.DataFrame, n_resamples: int = 2000, seed: int = 0, measure: str = "mis") -> pd.DataFrame:
    """Slope of a measure of units (of the MIS unless told) against the rate in each series of `retrained_networks`,
    adjusted for composition: over the conv units that are alive in all networks of the series, layers weighted equally
    (`statistics.unit_trend`).

    Columns: series, method, schedule; slope, low, high (resamples units within layers, the networks fixed); networks,
    units, layers, interval; seeds, the slope of each seed's networks alone, over the same units; seeds_low and
    seeds_high, Student's interval over them (NaN with one seed), which speaks of other runs.
    """
    rows = []
    for name, series in retrained_networks(units[units.kind == "conv"]).groupby("series", sort=False):
        found = statistics.unit_trend(series, measure, n_resamples=n_resamples, seed=seed)
        same = statistics.same_units(series)
        slopes = [statistics.unit_trend(one, measure, n_resamples=1).slope for _, one in same.groupby("seed")]
        over = statistics.mean_interval(slopes)
        row = {"series": name, "method": series.method.iloc[0], "schedule": series.schedule.iloc[0]}
        rows.append(row | found._asdict() | {"seeds": slopes, "seeds_low": over.low, "seeds_high": over.high})
    columns = ["series", "method", "schedule", *statistics.Trend._fields, "seeds", "seeds_low", "seeds_high"]
    return pd.DataFrame(rows, columns=columns)


def rate_slopes(units: pd.DataFrame, n_resamples: int = 2000, seed: int = 0, measure: str = "mis") -> pd.DataFrame:
    """Two estimates of a measure's slope against the rate, one row per series of `retrained_networks` and estimate.

    The first rows are `unit_trends`, estimate "same units, layers equal". The others, "all live units, mixed model",
    are `statistics.mixed_model` of the layers' means over live conv units, seeds averaged: rate x series with random
    effects of configuration and layer. Both have slope, low, high and networks (the model's are configurations); p,
    converged and note are the model's.
    """
    trends = unit_trends(units, n_resamples, seed, measure)
    retrained = retrained_networks(units[units.alive.astype(bool) & (units.kind == "conv")])
    layers = retrained.groupby(["series", "variant", "rate", "layer"], sort=False)[measure].mean()
    layers = layers.groupby(["series", "rate", "layer"], sort=False).mean().reset_index()  # over seeds
    layers["configuration"] = layers.series + " " + layers.rate.astype(str)
    mixed = statistics.mixed_model(layers, measure, method="series", network="configuration")
    mixed = trends[["series", "method", "schedule"]].merge(mixed, on="series", how="left")
    mixed["seeds"] = [[] for _ in range(len(mixed))]
    both = [trends.assign(estimate="same units, layers equal"), mixed.assign(estimate="all live units, mixed model")]
    return pd.concat(both, ignore_index=True).astype({"units": "Int64", "layers": "Int64"})


def followed_units(units: pd.DataFrame) -> pd.DataFrame:
    """The same conv units through pruning: those alive in the dense network and all one-shot networks of a method.

    One row per method, network and unit, networks of the dense network's seed from dense to most pruned: method,
    variant, rate (0 for the dense network, which is in each method's rows), layer, unit, mis. First comes the control:
    the method dense_retrained is the dense network and itself retrained, whose rate is 0 too.
    """
    conv = units[units.kind == "conv"]
    dense = conv[conv.method == "dense"]
    conv = conv[conv.seed.isin(dense.seed.unique())]
    pruned = conv[(conv.rate > 0) & (conv.schedule == "one_shot") & ~conv.method.str.endswith("_unmasked")]
    pruned = pruned.sort_values("rate", kind="stable")
    found = pd.concat([conv[conv.method == "dense_retrained"], pruned])
    same = [
        statistics.same_units(pd.concat([dense, networks])).assign(method=method)
        for method, networks in found.groupby("method", sort=False)
    ]
    return pd.concat([conv[:0], *same], ignore_index=True)[["method", "variant", "rate", "layer", "unit", "mis"]]


def followed_summary(followed: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row per method and network of `followed_units`: how its units' MIS lies, and keeps the dense network's order.

    Columns: method, variant, rate, units; mean, low, high (`statistics.unit_mean`, resamples units within layers);
    q10, q25, q50, q75, q90; change, change_low, change_high: the mean of the units' own changes against the dense
    network, with the same interval; r, r_low, r_high: correlation of the units' ranks within their layers with those
    in the dense network, layers centred (`statistics.within_group_correlation`; its interval is over units, the
    networks fixed). The last six are missing for the dense network itself.
    """
    unit_mean = partial(statistics.unit_mean, n_resamples=n_resamples, seed=seed)
    rows = []
    for method, units in followed.groupby("method", sort=False):
        dense, *others = units.variant.unique()
        table = units.pivot(index=["layer", "unit"], columns="variant", values="mis")
        layers = table.index.get_level_values("layer")
        ranks = table.groupby("layer").rank(pct=True).reset_index()
        for variant in (dense, *others):
            values = table[variant]
            mean = unit_mean(values, layers)
            row = {"method": method, "variant": variant, "rate": units.rate[units.variant == variant].iloc[0],
                   "units": len(values), **mean._asdict()}  # fmt: skip
            row |= {f"q{percent}": values.quantile(percent / 100) for percent in (10, 25, 50, 75, 90)}
            if variant != dense:
                r = statistics.within_group_correlation(ranks, dense, variant, "layer", "pearson", n_resamples, seed)
                change = unit_mean(values - table[dense], layers)
                row |= {"change": change.mean, "change_low": change.low, "change_high": change.high}
                row |= {"r": r.r, "r_low": r.low, "r_high": r.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _rate_and_mis(means: pd.DataFrame, working: pd.DataFrame, trends: pd.DataFrame) -> Verdict:
    """Networks that collapse to chance make a correlation of their own (C5): it has to be there without them too.

    Methods may go up and down and cancel out: the claim fails too if the slope of any one method is larger than
    `SMALLEST_SLOPE`. working, trends: without networks at chance.
    """
    r, verdict, why = _no_trend(rate_series(means))
    ours = f"{_show_r(r)} within methods, n = {r.n}" if r.n else "-"
    if len(rate_series(working)) < len(rate_series(means)):
        without, without_verdict, without_why = _no_trend(rate_series(working))
        ours += f"; without networks at chance {_show_r(without)}, n = {without.n}"
        if without_verdict != verdict:
            verdict, why = "cannot be told", f"{verdict} over all, but without networks at chance: {without_why}"
    smallest = SMALLEST_SLOPE * (_mean_mis(means, "dense") - _mean_mis(means, "random_init"))
    # Bonferroni's correction: any one of the methods would do.
    slopes = [statistics.mean_interval(seeds, 1 - 0.05 / len(trends)) for seeds in trends.seeds]
    moving = [f"{series} {show(slope)}" for series, slope in zip(trends.series, slopes, strict=True)
              if slope.low > smallest > 0 or slope.high < -smallest < 0]  # fmt: skip
    if moving:
        verdict = "does not hold"
        ours += f"; per unit of rate {', '.join(moving)}"
        why = (
            f"MIS per unit of rate changes by more than {smallest:.3f}, {SMALLEST_SLOPE:.0%} of the way from random to "
            f"dense (same units, above chance; intervals over seeds, Bonferroni over {_count(len(trends), 'method')})"
        )
    return Verdict("C4", "MIS does not correlate with the rate", _paper_pooled_r(), ours, verdict, why,
                   "06_correlations")  # fmt: skip


def _mean_mis(means: pd.DataFrame, method: str) -> float:
    return means.mis_conv[means.method == method].mean()


def _no_trend(series: pd.DataFrame) -> tuple[Correlation, str, str]:
    """Correlation of rate and MIS within `rate_series`; verdict and reason on the claim that there is none."""
    r = statistics.within_group_correlation(series, "rate", "mis_conv", "series")
    judged = _absence(r, max(1, series.series.nunique()), "configurations") if len(series) else ("not tested", NOTHING)
    return r, *judged


# ----------------------------------------------------------------------------------------- C5 and C6, what MIS is of


def broken_networks(accuracy: pd.DataFrame, means: pd.DataFrame, chance: float) -> Verdict:
    """The verdict on C5: how far networks at chance stand between the random networks (0) and the dense one (1).

    chance: 1 / number of classes; the rest as for `verdicts`.
    """
    table = means.merge(accuracy[["variant", "top1_low"]], on="variant")
    dense, random = _mean_mis(table, "dense"), _mean_mis(table, "random_init")
    broken = at_chance(table, chance).mis_conv
    judged = "cannot be told"
    if not len(broken):
        ours, judged, why = "no network is at chance", "not tested", NOTHING
    elif not dense > random:
        ours = f"a random network ({random:.3f}) scores no lower than the dense one ({dense:.3f})"
        why = "there is no way from random to dense"
    else:
        drawn = table.mis_conv[table.method == "random_init"]
        share = statistics.share_between(broken, drawn, dense)
        half = Interval(share.mean - 0.5, share.low - 0.5, share.high - 0.5)
        ours = f"{show(share, '.0%')} of the way from random to dense"
        over = f"{_count(len(broken), 'method')} and {_count(len(drawn), 'random network')}"
        judged, why = _sign(half), _reason(half, over, "half of the way")
    return Verdict("C5", "networks at chance stay closer to the dense network's MIS than to a random one's",
                   _paper_broken(), ours, judged, why, "05_mis_by_rate")  # fmt: skip


def at_chance(table: pd.DataFrame, chance: float) -> pd.DataFrame:
    """Means over the pruned networks at chance of each method (index), which share their parent and mostly their masks.

    table: one row per network, with top1_low, the lower end of Top-1's 95 % interval over images.
    """
    broken = averaged(table[(table.top1_low <= chance) & (table.rate > 0)].dropna(subset="mis_conv"))
    return broken.groupby("method", sort=False).mean(numeric_only=True)


def _trained(table: pd.DataFrame) -> pd.Series:
    """Which rows are of the dense network and retrained ones."""
    return (table.method != "random_init") & (table.schedule.isin(RETRAINED) | (table.rate == 0))


def _output_gaps(units: pd.DataFrame, convs: pd.Series, outputs: Iterable[int] | None = None) -> pd.DataFrame:
    """`statistics.output_gaps` by configuration. units: live ones; convs: which of them; outputs: None for all."""
    own = units[(units.kind == "fc") & (True if outputs is None else units.unit.isin(outputs))]
    return statistics.output_gaps(units[convs & (units.kind == "conv")], own, [*CONFIGURATION, "seed"], CONFIGURATION)


def _last_layer(units: pd.DataFrame, classes: pd.DataFrame) -> Verdict:
    trained = units[units.alive & _trained(units)]
    convs = trained.kind == "conv"
    gaps = _output_gaps(trained, convs, classes.logit)
    gap, lower = statistics.mean_interval(gaps.mean(axis=1)), int((gaps.mean() > 0).sum())
    why = f"{_why_outputs(gap, gaps, classes)}; lower in {lower} of them"
    everything = _output_gaps(trained, convs)
    if len(everything) > len(gaps):
        why += f"; over all {len(everything)} outputs {show(statistics.mean_interval(everything.mean(axis=1)))}"
    return Verdict("C6a", "the last layer has lower MIS than the convs", "lower in every network; no number given",
                   f"conv - fc = {show(gap)}", _sign(gap), why, "05_mis_by_layer")  # fmt: skip


def _why_outputs(gap: Interval, gaps: pd.DataFrame, classes: pd.DataFrame) -> str:
    over = f"{len(gaps)} classes, means of {_count(gaps.shape[1], 'configuration')} of one dense network"
    most = classes.own_class_most.mean()
    return f"{_reason(gap, over)}; at most {most:.0%} of an output unit's extreme images can be of its class"


def class_means(classes: pd.DataFrame) -> pd.DataFrame:
    """Per class (index: its logit) top1 and its live output unit's mis, averaged over dense and retrained networks.

    Networks of one dense parent are no independent draws, so that they are averaged, not counted. Both columns are
    centred within networks, so that a class whose unit is dead in some is not the mean of other networks.
    """
    chosen = classes[classes.alive & _trained(classes)]
    centred = chosen[["top1", "mis"]] - chosen.groupby("variant")[["top1", "mis"]].transform("mean")
    return centred.groupby(chosen.logit).mean()


def _class_accuracy(classes: pd.DataFrame) -> Verdict:
    table = class_means(classes)
    r = statistics.correlation(table.top1, table.mis)
    verdict, why = _absence(r, 1, "classes") if len(table) else ("not tested", NOTHING)
    statement, paper = "class accuracy does not correlate with its output unit's MIS", "no correlation; no number given"
    return Verdict("C6b", statement, paper,
                   f"{_show_r(r)} over {r.n} classes, networks averaged" if len(table) else "-", verdict, why,
                   "06_class_accuracy")  # fmt: skip


# --------------------------------------------------------------------------------------------------- open questions


def _truth(truth: pd.DataFrame | None) -> Verdict:
    """Thousands of units would make the smallest correlation differ from 0: it is compared with `SMALLEST_EFFECT`."""
    statement = f"within layers, units of higher MIS tell a known concept better (r > {SMALLEST_EFFECT})"
    question = "Q1", statement, "left open"
    if truth is None:
        return Verdict(*question, "no concepts are known in these images", "not tested", "needs a known concept", "-")
    both = truth[["layer", "mis", "concept_selectivity"]].dropna()
    ranks = both.groupby("layer").rank(pct=True).assign(layer=both.layer)
    r = statistics.within_group_correlation(ranks, "mis", "concept_selectivity", "layer")
    over = Interval(*(value - SMALLEST_EFFECT for value in (r.r, r.low, r.high)))
    why = _reason(over, f"{r.n} units of one network", str(SMALLEST_EFFECT))
    return Verdict(*question, _show_r(r), _sign(over), why, "07_truth")


def _best_schedule(accuracy: pd.DataFrame, chance: float) -> Verdict:
    """One-shot is best if it beats every other schedule, and is not if a single one beats it."""
    found = _against_one_shot(accuracy, ["iterative", "rewound"], chance)
    lead = {
        name: each._replace(gap=Interval(-each.gap.mean, -each.gap.high, -each.gap.low)) for name, each in found.items()
    }
    verdict = _all_hold([each.verdict for each in lead.values()])
    best = max(found, key=lambda name: found[name].gap.mean, default=None)
    ours = f"best other: {best} {show(found[best].gap)}" if best else "-"
    why = _decisive(lead, verdict) + (f"; {_count(len(lead), 'comparison')}, each at 95 %" if best else "")
    return Verdict("Q2", "one-shot is the best schedule at equal epochs, method and rate", "left open", ours, verdict,
                   why, "03_pareto")  # fmt: skip


def _last_block(units: pd.DataFrame, classes: pd.DataFrame) -> Verdict:
    """Is the fc layer low of itself, or are all late layers? Against the convs of the block before it."""
    trained = units[units.alive & _trained(units)]
    block = trained.layer.str.split(".").str[0]
    last = block[trained.kind == "conv"].iloc[-1] if (trained.kind == "conv").any() else "-"
    gaps = _output_gaps(trained, block == last, classes.logit)
    gap = statistics.mean_interval(gaps.mean(axis=1))
    return Verdict("Q3", f"the last layer is low of itself: lower than the convs of {last}", "left open",
                   f"{last} - fc = {show(gap)}", _sign(gap), _why_outputs(gap, gaps, classes),
                   "05_mis_by_layer")  # fmt: skip


# ------------------------------------------------------------------------------------------- differences of accuracy


def difference(
    accuracy: pd.DataFrame,
    left: tuple[str, float],
    right: tuple[str, float],
    schedules: tuple[str, str] = ("one_shot", "one_shot"),
) -> Interval:
    """Top-1 of one (method, rate) minus another's, of the given schedules; NaN where the profile lacks one.

    With several seeds Student's interval over the seeds' paired differences. With one seed, or where all seeds differ
    by the same (networks at chance often do) and would give an interval of no width, Newcombe's over images.
    """
    paired = differences(accuracy, left, right, schedules)
    if len(paired) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    if _vary(paired):
        return statistics.mean_interval(paired.difference)
    one = paired.mean()
    return Interval(one.difference, *statistics.difference_interval(one.left, one.right, int(one.n)))


def iterative_advantage(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of iterative minus one-shot networks retrained for the same epochs (C3), at each number of epochs.

    accuracy: as `Study.iterative_by_epochs`. Returns: method, rate, epochs, mean, low, high (`difference`), seeds (the
    single seeds' differences).
    """
    rows = []
    iterative = accuracy[accuracy.schedule == "iterative"]
    for (method, rate, epochs), _ in iterative.groupby(["method", "rate", "epochs"], sort=False):
        compared = (accuracy[accuracy.epochs == epochs], (method, rate), (method, rate), ("iterative", "one_shot"))
        seeds = differences(*compared).difference.tolist()
        rows.append(
            {"method": method, "rate": rate, "epochs": epochs, **difference(*compared)._asdict(), "seeds": seeds}
        )
    return pd.DataFrame(rows, columns=["method", "rate", "epochs", "mean", "low", "high", "seeds"])


def _vary(paired: pd.DataFrame) -> bool:
    return bool(paired.difference.max() - paired.difference.min() > 1e-9)


def differences(
    accuracy: pd.DataFrame,
    left: tuple[str, float],
    right: tuple[str, float],
    schedules: tuple[str, str] = ("one_shot", "one_shot"),
) -> pd.DataFrame:
    """The same seed by seed: a row per seed that both have: left, right (Top-1), difference, n (images)."""
    a, b = (
        accuracy[(accuracy.method == method) & (accuracy.rate == rate) & (accuracy.schedule == schedule)].set_index(
            "seed"
        )
        for (method, rate), schedule in zip((left, right), schedules, strict=True)
    )
    table = pd.DataFrame({"left": a.top1, "right": b.top1, "n": a.n}).dropna()
    return table.assign(difference=table.left - table.right)


def _settled(retrained: pd.DataFrame, epochs: pd.DataFrame, *sides: tuple[str, float]) -> Compared:
    """The difference of two one-shot networks, with what retraining's last epoch still brought them."""
    one_shot = epochs[epochs.schedule == "one_shot"].sort_values("epoch")
    last = one_shot.groupby(["method", "rate", "seed"]).top1.agg(lambda top1: top1.diff().iloc[-1])
    gains = {side: statistics.mean_interval(seeds) for side, seeds in last.groupby(["method", "rate"])}
    rising = [f"{method}{f' at {rate:g}' if rate else ''} {show(gains[method, rate])}"
              for method, rate in sides if (method, rate) in gains and gains[method, rate].mean > SETTLED]  # fmt: skip
    return Compared(difference(retrained, *sides), _over(differences(retrained, *sides)), ", ".join(rising))


# ------------------------------------------------------------------------------------------------ the paper's numbers

PAPER_RATE = 0.8


def _paper(measure: str, method: str, schedule: str = "one_shot", optimizer: str = "sgd") -> pd.DataFrame:
    """Rows of `published.headlines`."""
    table = published.headlines()
    return table[(table.measure == measure) & (table.method == method) & (table.schedule == schedule)
                 & (table.optimizer == optimizer)]  # fmt: skip


def _paper_top1(method: str) -> float:
    table = _paper("top1", method)
    return table.value[table.rate == PAPER_RATE].item()


def _paper_gain() -> str:
    dense = _paper("top1", "dense", "none", "none").value.item()
    epochs = _paper("top1", "connection_l1_unmasked").epochs.max()
    return f"{_paper_top1('connection_l1_unmasked'):.3f} against {dense:.3f} dense, {epochs} epochs without masks"


def _paper_iterative() -> str:
    last = [_paper("top1", "unstructured_global", schedule).nlargest(1, "conv_sparsity").iloc[0]
            for schedule in ("iterative", "one_shot")]  # fmt: skip
    return " against ".join(f"{row.value:.3f} ({row.epochs} epochs, {row.conv_sparsity:.0%} zeros)" for row in last)


def _paper_pooled_r() -> str:
    row = published.headlines().query("measure == 'rate_mis_r'").iloc[0]
    return f"r = {row.value:.2f} ({row.note})"


def _paper_broken() -> str:
    """The paper's networks that are not retrained and have a Top-1 of less than .2 % (chance: .1 %)."""
    table = published.headlines()
    table = table[(table.schedule == "none") & (table.source == "arXiv 2409.19727")]
    rows = table.pivot_table(index=["method", "rate"], columns="measure", values="value")
    mis = rows.mean_mis[rows.top1 < 0.002].dropna()
    return f"{mis.min():.2f} to {mis.max():.2f}, unpruned {rows.mean_mis['tf_inceptionv1', 0.0]:.2f}"


# --------------------------------------------------------------------------------------------------------- in words

NOTHING = "the profile has no networks for it"


def _over(paired: pd.DataFrame) -> str:
    if len(paired) and not _vary(paired):
        return f"{paired.n.iloc[0]:.0f} images, {'one seed' if len(paired) == 1 else f'{len(paired)} equal seeds'}"
    return f"{len(paired)} seeds"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("s" if n != 1 else "")


def _all_hold(verdicts: list[str]) -> str:
    """A claim about several comparisons fails with any of them and holds with all; about none it is not tested."""
    return next(
        (v for v in ("does not hold", "not tested", "cannot be told") if v in verdicts),
        "holds" if verdicts else "not tested",
    )


def _decisive(found: dict[str, Compared], verdict: str) -> str:
    """The reason that goes with `_all_hold`: the comparisons that have the verdict."""
    names = [name for name, each in found.items() if each.verdict == verdict]
    if verdict == "not tested" or not names:
        return NOTHING
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(found[name].why, []).append(name)
    if len(alike) == 1 and len(names) == len(found):
        return found[names[0]].why
    return "; ".join(f"{why}: {', '.join(same)}" for why, same in alike.items())


def _sign(interval: Interval) -> str:
    if interval.mean != interval.mean:
        return "not tested"
    if interval.low > 0:
        return "holds"
    return "does not hold" if interval.high < 0 else "cannot be told"


def _reason(interval: Interval, over: str, bound: str = "0") -> str:
    """Why `_sign` says what it says; over: what the interval is over."""
    if interval.mean != interval.mean:
        return NOTHING
    if interval.low != interval.low:
        return f"no interval from {over}"
    place = {"holds": "above", "does not hold": "below"}.get(_sign(interval), "on both sides of")
    return f"interval over {over} is {place} {bound}"


def _absence(r: Correlation, groups: int, rows: str) -> tuple[str, str]:
    """Verdict and reason on the claim that there is no correlation."""
    test = statistics.equivalence(r.r, r.n, SMALLEST_EFFECT, groups=groups)
    verdict = {"equivalent": "holds", "related": "does not hold", "undecided": "cannot be told"}[test.verdict]
    if verdict == "holds":
        return verdict, f"|r| < {SMALLEST_EFFECT} is shown (p = {test.p:.2g}, {r.n} {rows})"
    if verdict == "does not hold":
        return verdict, f"r differs from 0 (Fisher's z over {r.n} {rows})"
    needed = statistics.networks_needed(SMALLEST_EFFECT, groups=groups)
    return verdict, f"{r.n} {rows} decide nothing: to see r = {SMALLEST_EFFECT} takes {needed}"


def _show_r(r: Correlation) -> str:
    return f"r = {show(Interval(r.r, r.low, r.high), '.2f')}"


def show(interval: Interval, form: str = "+.3f") -> str:
    """A value with its interval in words, that there is none said; "-" for no value."""
    mean, low, high = (format(value, form) for value in interval)
    if interval.mean != interval.mean:
        return "-"
    return f"{mean} (no interval)" if interval.low != interval.low else f"{mean} ({low} to {high})"


def by_profile(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per claim: claim, statement, paper, per profile (the keys of `tables`) its verdict, our numbers and the
    reason, and where, the figure that shows it.

    The statement is that of the first profile; another profile's highest rate may differ.
    """
    names = list(tables)
    first = tables[names[0]][["claim", "statement", "paper", "where"]]
    for name in names:
        said = tables[name]
        column = said.verdict + " (" + said.ours + "): " + said.why
        first = first.merge(said[["claim"]].assign(**{name: column}), on="claim", how="left")
    return first[[*first.columns.drop("where"), "where"]]


def answer(row: Verdict | pd.Series) -> str:
    """One verdict with its reason, as a sentence in Markdown."""
    return f"**{row.statement[0].upper()}{row.statement[1:]}: {row.verdict}.** {row.ours} ({row.why})."


def summary(table: pd.DataFrame) -> Iterable[str]:
    """One line of text per verdict."""
    return (f"{row.claim}, {row.statement}: **{row.verdict}** ({row.ours})" for row in table.itertuples())


if __name__ == "__main__":
    judge_again(Path(sys.argv[1])).to_csv(Path(sys.argv[1]) / "08_verdicts.csv", index=False)
