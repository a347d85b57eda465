"""The paper's own published scores, analysed again: its conclusion as it was drawn, then one correction after another.

Every function takes what `published.full` returns and gives a table; every interval says what it resamples. The
published networks are single runs (no seeds), and all pruned ones come from one dense network, so no interval
here speaks of other dense networks. Source of the scores: von Rad & Seuffert, arXiv 2409.19727; of the InceptionV1
scores: Zimmermann, Klindt & Brendel, NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunelens import statistics
from prunelens.published import counterpart

IMAGES = 50_000  # of ImageNet's validation set, on which every published Top-1 is measured
BASELINE = "tf_inceptionv1"  # the network that the paper calls unpruned
SERIES = ["method", "schedule", "optimizer", "epochs"]
RUN = [*SERIES, "learning_rate", "rate"]
UNIT_SERIES = ["method", "optimizer", "epochs"]  # of the networks with unit scores, all one-shot
NETWORK = [*UNIT_SERIES, "rate"]
# One-shot global unstructured pruning went from rate to rate without a fresh start, 50 epochs each.
CHAINED = "unstructured_global"

Tables = Mapping[str, pd.DataFrame]


# ------------------------------------------------------------------------------- MIS against the pruning rate


def pooled_points(tables: Tables) -> pd.DataFrame:
    """The 40 points behind the paper's pooled correlation: series, schedule, rate, mean_mis, placeholder.

    Eight series of four rates, each with the value of the "unpruned" network as its point at rate 0.
    """
    means = _named(_need(tables, "mean_mis"), SERIES)
    plotted = means[means.in_pooled_plot]
    value = means.loc[means.method == BASELINE, "mean_mis"].item()
    zeros = plotted.drop_duplicates("series").assign(rate=0.0, mean_mis=value, placeholder=False)
    return pd.concat([zeros, plotted])[["series", "schedule", "rate", "mean_mis", "placeholder"]].reset_index(drop=True)


def corrections(tables: Tables, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Correlation of a network's mean MIS with its rate: as published, then with one more correction per row.

    Columns: step, changed, r, low, high, p, n (networks), groups (series centred apart; 1 is pooled), resamples.
    The first rows need the network means, the rest (from "with unit scores" on) the per-unit scores and hold the
    networks fixed that have them: six series' 24 networks, retrained for 10 and 50 epochs. Rows without their
    table are left out. Intervals resample networks, or nothing where they are few (`statistics.correlation`).
    """
    points = pooled_points(tables)
    pruned = points[points.rate > 0]
    scored = pruned[~pruned.placeholder]
    retrained = scored[scored.schedule == "one_shot"]
    steps = [
        ("as published", "eight series pooled, each with the unpruned network at rate 0", points, False),
        ("wrong baseline out", "the unpruned network, which is another network (InceptionV1), left out", pruned, False),
        ("no placeholders", "three values filled in by hand left out", scored, False),
        ("retrained only", "networks not retrained and the one iterative network left out", retrained, False),
        ("method as a factor", "each series against its own mean", retrained, True),
    ]
    if "unit_mis" in tables:
        means = _named(network_means(tables), UNIT_SERIES)
        values = {
            "with unit scores": ("mis", "the 24 networks whose units are published, means as published (dead dropped)"),
            "dead units kept": ("mis_with_dead", "constant units, which score near 1, counted: not a correction"),
            "conv units only": ("mis_conv", "the fc units, whose share grows with the rate, left out"),
            "layers equal": ("mis_conv_layers", "conv layers weighted equally"),
            "same units": ("mis_same_units", "only units alive at every rate, conv layers weighted equally"),
        }
        steps += [(s, what, means.assign(mean_mis=means[column]), True) for s, (column, what) in values.items()]
    return pd.DataFrame([_correction(*step, n_resamples, seed) for step in steps])


def _correction(step: str, changed: str, table: pd.DataFrame, factor: bool, n_resamples: int, seed: int) -> dict:
    if factor:
        found = statistics.within_group_correlation(
            table, "rate", "mean_mis", "series", n_resamples=n_resamples, seed=seed
        )
    else:
        found = statistics.correlation(table.rate, table.mean_mis, "pearson", n_resamples, seed)
    groups = table.series.nunique() if factor else 1
    resamples = {"bootstrap": "networks", "Fisher z": "nothing (Fisher's z over networks)"}
    row = {"step": step, "changed": changed, **found._asdict(), "groups": groups}
    return row | {"resamples": resamples.get(row.pop("interval"), "nothing")}


def unit_trends(tables: Tables, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Slope of MIS against the rate in each series with unit scores, over the conv units alive at every rate, layers
    weighted equally: method, optimizer, epochs and the fields of `statistics.Trend`."""
    conv = alive_units(tables).query("kind == 'conv'")
    rows = [
        dict(zip(UNIT_SERIES, name, strict=True))
        | statistics.unit_trend(units, "mis", "rate", "rate", n_resamples, seed)._asdict()
        for name, units in conv.groupby(UNIT_SERIES)
    ]
    return pd.DataFrame(rows)


def mixed_model(tables: Tables) -> pd.DataFrame:
    """`statistics.mixed_model` of the published layer means of alive conv units: an intercept and a slope per series
    (its method, optimizer and epochs), the column `series`."""
    conv = alive_units(tables).query("kind == 'conv' and alive")
    means = _named(conv.groupby([*NETWORK, "layer"], as_index=False).mis.mean(), UNIT_SERIES)
    return statistics.mixed_model(means.assign(variant=means.groupby(NETWORK).ngroup()), "mis", method="series")


# ------------------------------------------------------------------------------------------------- dead units


def alive_units(tables: Tables) -> pd.DataFrame:
    """The per-unit scores of the pruned networks' conv and fc units, with the column `alive`.

    The published files do not say which units structured pruning removed; the scores do. A removed unit is constant,
    so its extreme images are the first and last ones by file name, which are of single classes and easy to tell
    apart: it scores near 1. The L1 criterion sees the dense weights only, so networks of one rate share their
    removed units, and how many a layer loses is known (rate x units, rounded): they are the units with the highest
    mean score over those networks. Means over the others reproduce the published means, which were taken with the
    masks at hand, to six digits. Connection sparsity removes inputs, not units.
    """
    units = _need(tables, "unit_mis")
    units = units[(units.network == "torchvision_googlenet") & (units.kind != "batch_norm")].copy()
    text = ["network", "method", "optimizer", "layer", "kind"]
    units[text] = units[text].astype(str)
    units["mis"] = units.mis.astype(float)
    prunable = units.method.str.startswith("structured") & units.layer.str.startswith("inception")
    means = units[prunable].groupby(["rate", "layer", "unit"]).mis.mean().reset_index()
    by_layer = means.groupby(["rate", "layer"])
    means["removed"] = (
        by_layer.mis.rank(ascending=False, method="first") <= (by_layer.mis.transform("size") * means.rate).round()
    )
    removed = means[means.removed].set_index(["rate", "layer", "unit"]).index
    units["alive"] = ~(prunable & pd.MultiIndex.from_frame(units[["rate", "layer", "unit"]]).isin(removed))
    return units.reset_index(drop=True)


def network_means(tables: Tables, n_resamples: int = 0, seed: int = 0) -> pd.DataFrame:
    """Means over the units of every pruned network with unit scores, in all the ways that matter.

    Columns: method, optimizer, epochs, rate; mis (alive conv and fc units, as the paper averages) and published
    (its printed value, NaN where there is none); mis_with_dead; mis_conv (alive conv units); mis_fc (fc units);
    mis_conv_layers (as mis_conv, layers weighted equally); mis_same_units (the same over units alive at every rate of
    the series); dead (units); fc_share (of the averaged units). With n_resamples also low and high of `mis`, which
    resample units within layers.
    """
    units = alive_units(tables)
    rows = []
    for _, series in units.groupby(UNIT_SERIES):
        same = statistics.same_units(series[series.kind == "conv"], "rate")
        for rate, network in series.groupby("rate"):
            alive = network[network.alive]
            conv = alive[alive.kind == "conv"]
            row = network.iloc[0][UNIT_SERIES].to_dict() | {"rate": rate}
            row |= {
                "mis": alive.mis.mean(),
                "mis_with_dead": network.mis.mean(),
                "mis_conv": conv.mis.mean(),
                "mis_fc": alive[alive.kind == "fc"].mis.mean(),
                "mis_conv_layers": _layer_balanced(conv),
                "mis_same_units": _layer_balanced(same[same.rate == rate]),
                "dead": int((~network.alive).sum()),
                "fc_share": float((alive.kind == "fc").mean()),
            }
            if n_resamples:
                found = statistics.unit_mean(alive.mis, alive.layer, n_resamples=n_resamples, seed=seed)
                row |= {"low": found.low, "high": found.high}
            rows.append(row)
    printed = _need(tables, "mean_mis").query("schedule == 'one_shot'").rename(columns={"mean_mis": "published"})
    return pd.DataFrame(rows).merge(printed[[*NETWORK, "published"]], on=NETWORK, how="left")


def output_gaps(tables: Tables) -> pd.DataFrame:
    """`statistics.output_gaps` of the published networks, a column each."""
    units = alive_units(tables).query("alive")
    return statistics.output_gaps(units[units.kind == "conv"], units[units.kind == "fc"], NETWORK, NETWORK)


# ------------------------------------------------------------------------------------------------ InceptionV1


def inceptionv1_layers(tables: Tables, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Layer means of the MIS authors' scores of the TensorFlow InceptionV1, in order of the forward pass.

    Columns: layer, counterpart (torchvision's name of the layer that does the same work), position (0 the first, 1
    the last layer), units, two_afc_accuracy, mis, low, high. The interval of mis resamples units of the layer.
    """
    scores = _need(tables, "inceptionv1_mis")
    rows = []
    for layer, units in scores.groupby(scores.layer.astype(str), sort=False):
        mean = statistics.unit_mean(units.mis, units.layer.astype(str), n_resamples=n_resamples, seed=seed)
        rows.append(
            {"layer": layer, "counterpart": counterpart(layer), "units": len(units),
             "two_afc_accuracy": float(units.two_afc_accuracy.mean()), "mis": mean.mean, "low": mean.low,
             "high": mean.high}
        )  # fmt: skip
    table = pd.DataFrame(rows).sort_values("counterpart", key=lambda names: names.replace("fc", "z"))
    table.insert(2, "position", np.linspace(0, 1, len(table)))
    return table.reset_index(drop=True)


# --------------------------------------------------------------------------------------------------- accuracy


def order_of_methods(tables: Tables, epochs: int = 50) -> pd.DataFrame:
    """C2 in the published curves: at each rate the one-shot series from best to worst after `epochs` epochs.

    Columns: rate, rank, method, optimizer, learning_rate, conv_sparsity, top1 (last epoch), behind_best with low and
    high (Newcombe's interval over the 50,000 images, NaN for the best itself; it resamples nothing and leaves out
    that another run would differ). Methods ending in `_unmasked` are as sparse as said only before their first
    step of retraining.
    """
    last = _last_epochs(tables).query("schedule == 'one_shot' and epochs == @epochs")
    last = last.sort_values(["rate", "top1"], ascending=[True, False])
    last["rank"] = last.groupby("rate").cumcount() + 1
    last["behind_best"] = last.groupby("rate").top1.transform("first") - last.top1
    limits = [statistics.difference_interval(row.top1 + row.behind_best, row.top1, IMAGES) for row in last.itertuples()]
    last[["low", "high"]] = np.where(last[["rank"]] > 1, limits, np.nan)
    columns = ["rate", "rank", "method", "optimizer", "learning_rate", "conv_sparsity", "top1", "behind_best"]
    return last[[*columns, "low", "high"]].reset_index(drop=True)


def iterative_against_one_shot(tables: Tables) -> pd.DataFrame:
    """C3 in the published curves: each iterative network beside the one-shot network of nearest sparsity.

    Columns: method, then for both sides conv_sparsity, epochs (of retraining, in all) and top1 (last epoch);
    difference (iterative - one_shot) with low and high (Newcombe, over images; another run is left out);
    one_shot_as_long (Top-1 of the one-shot network after as many epochs as the iterative one had on its last mask).
    The published runs never have both sparsity and epochs in common, so no row settles C3.
    """
    curves = _need(tables, "retraining_curves")
    last = _last_epochs(tables)
    rows = []
    for method, steps in last[last.schedule == "iterative"].groupby("method"):
        others = last[(last.schedule == "one_shot") & (last.method == method) & (last.optimizer == "sgd")]
        for number, step in enumerate(steps.sort_values("rate").itertuples(), 1):
            if others.empty:
                continue
            other = others.loc[(others.conv_sparsity - step.conv_sparsity).abs().idxmin()]
            course = _course(curves, other)
            low, high = statistics.difference_interval(step.top1, other.top1, IMAGES)
            rows.append(
                {"method": method, "sparsity_iterative": step.conv_sparsity,
                 "epochs_iterative": number * step.epochs, "top1_iterative": step.top1,
                 "sparsity_one_shot": other.conv_sparsity, "epochs_one_shot": _epochs_in_all(other),
                 "top1_one_shot": other.top1, "difference": step.top1 - other.top1, "low": low, "high": high,
                 "one_shot_as_long": course[course.epoch <= step.epoch].top1.iloc[-1]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _epochs_in_all(run: pd.Series) -> int:
    chained = run.method == CHAINED and run.epochs == 50
    return int(run.epochs * round(run.rate / 0.2)) if chained else int(run.epochs)


def _last_epochs(tables: Tables) -> pd.DataFrame:
    curves = _need(tables, "retraining_curves")
    return curves.sort_values("epoch").groupby(RUN, sort=False).tail(1).reset_index(drop=True)


def _course(curves: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    return curves[(curves[RUN] == run[RUN]).all(axis=1)].sort_values("epoch")


# ------------------------------------------------------------------------------------------------ sensitivity


def rank_agreement(ours: pd.DataFrame, theirs: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Do two scans rank the layers alike? Spearman's correlation, per method, of how well each layer bears pruning.

    Args:
        ours, theirs: columns method, layer, rate, top1 (network with one layer pruned; ``Study.sensitivity`` and the
            published table "sensitivity"). How well a layer bears pruning is its mean Top-1 over the rates that both
            scans have; layers of inception blocks that both scans have are compared.

    Returns: method, r, low, high, p, n (layers), rates (in common), resamples. Layers are resampled: the interval
    speaks of other layers of such networks, not of other networks. Raises ValueError where no method, or no rate of
    a method, is in both.
    """
    ours, theirs = (table[table.layer.str.startswith("inception")] for table in (ours, theirs))
    methods = [method for method in ours.method.unique() if method in set(theirs.method)]
    if not methods:
        raise ValueError(f"scans of {sorted(ours.method.unique())} and of {sorted(theirs.method.unique())}, expected "
                         "a method in both")  # fmt: skip
    rows = []
    for method in methods:
        a, b = (table[table.method == method] for table in (ours, theirs))
        a, b = (table.pivot_table(index="layer", columns=table.rate.round(6), values="top1") for table in (a, b))
        rates = a.columns.intersection(b.columns)
        if rates.empty:
            raise ValueError(f"{method}: rates {list(a.columns)} and {list(b.columns)}, expected one in both")
        layers = a.index.intersection(b.index)
        a, b = (table.loc[layers, rates].mean(axis=1) for table in (a, b))
        found = statistics.correlation(a, b, "spearman", n_resamples, seed)._asdict()
        resamples = {"bootstrap": "layers", "Fisher z": "nothing (Fisher's z over layers)"}
        how = resamples.get(found.pop("interval"), "nothing")
        rows.append({"method": method, **found, "rates": len(rates), "resamples": how})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------ parts


def _need(tables: Tables, name: str) -> pd.DataFrame:
    if name not in tables:
        raise KeyError(f"published table {name!r} is not among {', '.join(tables) or 'none'}")
    return tables[name]


def _named(means: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return means.assign(series=means[columns].astype(str).agg(", ".join, axis=1))


def _layer_balanced(units: pd.DataFrame) -> float:
    return float(units.groupby("layer").mis.mean().mean())
