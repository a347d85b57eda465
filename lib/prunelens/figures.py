"""The one style of the study's figures, the plots that several notebooks share, and how a figure is kept.

A method has one color and one marker everywhere; with weights drawn anew its marker is a cross and its line thin;
controls are grey. Over rates and over compute, iterative schedules are dashed and rewound or recalibrated ones dotted,
and the markers of all three are hollow, which tells them from one-shot where a single point has no line. Plots take
tidy tables, return the figure, and leave it to `save` to write it beside the table that it shows. A point or line is
the mean over seeds; its bar is the 95 % t interval over seeds (none with a single seed).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import NamedTuple
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from statsmodels.nonparametric.smoothers_lowess import lowess

from prunelens.artefacts import atomic
from prunelens.statistics import mean_interval
from prunelens.variants import CONTROLS

WIDTH = 7.0  # inches, the width of the report


class Look(NamedTuple):
    color: str
    marker: str
    label: str


# Okabe & Ito's palette, which readers with any color vision can tell apart; greys for the controls.
LOOKS = {
    "dense": Look("#222222", "o", "dense"),
    "dense_retrained": Look("#767676", "o", "dense, retrained"),
    "random_init": Look("#B0B0B0", "o", "random weights"),
    "unstructured_local": Look("#56B4E9", "v", "unstructured, equal per layer"),
    "unstructured_sensitivity": Look("#5E3C99", "<", "unstructured, per layer by sensitivity"),
    "unstructured_global": Look("#0072B2", "^", "unstructured, global"),
    "structured_l1": Look("#D55E00", "s", "structured, L1"),
    "connection_l1": Look("#009E73", "D", "connection, L1"),
    "connection_l1_unmasked": Look("#CC79A7", "d", "connection, L1, unmasked"),
    "connection_random": Look("#E69F00", "P", "connection, random"),
    "connection_random_unmasked": Look("#A6761D", "X", "connection, random, unmasked"),
    "connection_l1_shared": Look("#66A61E", "p", "connection, L1, shared by a tensor's readers"),
    "unstructured_random": Look("#A6CEE3", "v", "unstructured, random"),
    "unstructured_global_random": Look("#80B1D3", "^", "unstructured, random, layers as global"),
    "unstructured_global_paper": Look("#08306B", ">", "unstructured, global with fc"),
    "structured_l2": Look("#F4A582", "s", "structured, L2"),
    "structured_random": Look("#FDB863", "H", "structured, random"),
    "connection_l2": Look("#7FBC41", "D", "connection, L2"),
}
METHOD_COLORS = {method: look.color for method, look in LOOKS.items()}
REFERENCES = {
    "not retrained": ("dense", "random_init"),
    "retrained": ("dense", "dense_retrained"),
}  # by panel
OTHERS = ("#882255", "#44AA99", "#999933", "#332288", "#AA4499")  # for methods that a user adds

SCHEDULES = {
    "none": "not retrained",
    "recalibrated": "BatchNorm recalibrated",
    "one_shot": "one-shot",
    "iterative": "iterative",
    "rewound": "learning rate rewound",
}
LABELS = {
    "rate": "nominal pruning rate",
    "conv_sparsity": "sparsity of the conv weights",
    "total_sparsity": "sparsity of all parameters",
    "top1": "Top-1 accuracy",
    "loss": "loss (nats)",
    "epoch": "epoch of retraining",
    "mis": "MIS",
    "mean_mis": "mean MIS",
    "two_afc_accuracy": "2-AFC accuracy",
    "margin": "margin (similarity)",
}


def look(method: str) -> Look:
    """Color, marker and label of a method; an unknown one gets one that its name fixes."""
    if method in LOOKS:
        return LOOKS[method]
    kept = method.removesuffix("_reinitialised")
    if kept in LOOKS:
        return LOOKS[kept]._replace(marker="x", label=f"{LOOKS[kept].label}, weights drawn anew")
    own = OTHERS[crc32(method.encode()) % len(OTHERS)]
    return Look(own, "*", method.rpartition(".")[2].replace("_", " "))


def label(column: str) -> str:
    """Axis label, with the unit where there is one, of a table's column."""
    return LABELS.get(column, column.replace("_", " "))


# ---------------------------------------------------------------------------------------------------- style


def style() -> None:
    """Set the style of every figure that is drawn from now on: readable at 7 inches, light grid, no frame."""
    sns.set_theme(context="paper", style="whitegrid", palette=list(METHOD_COLORS.values())[3:])
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "svg.hashsalt": "prunelens",  # else the ids in an SVG differ from run to run
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
            "font.size": 9,
            "axes.labelsize": 9,
            "axes.titlesize": 9.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#444444",
            "axes.linewidth": 0.8,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.6,
            "lines.markersize": 5,
            "hatch.linewidth": 0.6,
        }
    )


def canvas(rows: int = 1, columns: int = 1, height: float = 3.2, **options) -> tuple[Figure, NDArray]:
    """An empty figure in the study's style, as wide as the report: figure and axes (rows, columns)."""
    style()
    return plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", squeeze=False, **options)


def save(
    figure: Figure,
    name: str,
    table: pd.DataFrame,
    caption: str,
    folder: Path,
    provenance: Mapping[str, object] | None = None,
    vector: bool = True,
) -> Figure:
    """Write NAME.png, NAME.svg, NAME.csv (the plotted table) and NAME.json (caption, provenance).

    Each file appears in `folder` whole or not at all; the same figure gives the same bytes. Returns the
    figure, closed, so that a notebook whose cell ends with this call shows it once. vector: False for a figure made of
    photographs and pictures, which is written as NAME.jpg instead: a tenth of the size.
    """
    drawn = {
        "png": lambda path: figure.savefig(path, format="png", metadata={"Software": None}),
        "svg": lambda path: figure.savefig(path, format="svg", metadata={"Date": None}),
    }
    photographed = {"jpg": lambda path: figure.savefig(path, format="jpg", pil_kwargs={"quality": 85})}
    writers = {
        **(drawn if vector else photographed),
        "csv": lambda path: table.to_csv(path, index=False, lineterminator="\n"),
        "json": lambda path: path.write_text(
            json.dumps({"caption": caption, **(provenance or {})}, indent=2, default=str) + "\n"
        ),
    }
    with plt.rc_context({"svg.hashsalt": "prunelens", "savefig.dpi": 150}):
        for ending, write in writers.items():
            with atomic(folder / f"{name}.{ending}") as draft:
                write(draft)
    plt.close(figure)
    return figure


# ----------------------------------------------------------------------------------- values over the rates


def accuracy_by_rate(table: pd.DataFrame, x: str = "rate", chance: float | None = None) -> Figure:
    """Top-1 over the pruning rate, one line per method; dense controls and chance as horizontal lines.

    Columns: method, rate, schedule, seed, top1 (and `x`, where that is conv_sparsity or total_sparsity). Rows
    of different epochs or optimizers would be averaged: choose before. `chance` is 1 / number of classes.
    """
    figure = measure_by_rate(table, "top1", x)
    for axis in figure.axes:
        axis.set_ylim(bottom=0)
        if chance is not None:
            _dotted(axis, chance, "chance")
    return figure


DOTTED = {"color": "#444444", "linewidth": 1, "linestyle": ":", "zorder": 2}


def _anchored(axes: Sequence[Axes], anchors: Mapping[str, float] | None) -> None:
    """Dotted lines in all panels of a row, named to the right of the last; names move apart where lines are close.

    An anchor above the data, with more than a quarter of the panels between it and them, has no line: its name, its
    level and an arrow stand at the upper edge. Call it when the panels show all else, as their limits place the names.
    """
    if not anchors:
        return
    named = sorted(anchors.items(), key=lambda anchor: anchor[1])
    bottom, top = axes[-1].get_ylim()
    highest = top + (top - min(bottom, named[0][1])) / 3  # with a quarter of the panels above the data
    for axis in axes:
        for _, level in named:
            if level <= highest:
                axis.axhline(level, **DOTTED)
    bottom, top = axes[-1].get_ylim()
    names = [name if level <= highest else f"{name} {_short(level, '.2f')} ↑" for name, level in named]
    # The places nearest to the lines that are a line of text apart (in a panel of two inches or more).
    apart = 0.075 * (top - bottom) * np.arange(len(named))
    places = isotonic_regression([min(level, top) for _, level in named] - apart).x + apart
    for name, place in zip(names, places, strict=True):
        axes[-1].annotate(
            name, (1.01, place), xycoords=("axes fraction", "data"), va="center", color="#555555", fontsize=8,
            annotation_clip=False,
        )  # fmt: skip


def _dotted(axis: Axes, level: float, name: str) -> None:
    axis.axhline(level, **DOTTED)
    axis.annotate(
        name, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2),
        textcoords="offset points", va="bottom", color="#555555", fontsize=8,
    )  # fmt: skip


def measure_by_rate(
    table: pd.DataFrame, value: str, x: str = "rate", anchors: Mapping[str, float] | None = None
) -> Figure:
    """Mean of a measure over the pruning rate, one panel for networks as pruned and one for retrained ones.

    Columns: method, rate, schedule, seed, `value`, `x`. A table with one row per unit is averaged over the
    alive units of each network first. Controls are horizontal lines, their 95 % t intervals over seeds bands; `anchors`
    are named dotted lines.
    """
    table = _need(table, "method", "rate", "schedule", "seed", value, x)
    height = label(value) + (", mean of the units" if "unit" in table else "")
    table = network_means(table, value, x)
    pruned = table[~table.method.isin(CONTROLS)]
    panels = {
        "not retrained": pruned[pruned.schedule.isin(["none", "recalibrated"])],
        "retrained": pruned[~pruned.schedule.isin(["none", "recalibrated"])],
    }
    panels = {title: rows for title, rows in panels.items() if len(rows)} or {"": pruned}
    figure, axes = canvas(1, len(panels), 3.6, sharey=True)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for method in REFERENCES.get(title, CONTROLS):
            _reference(axis, table.loc[table.method == method, value], method)
        groups = _by_method(rows)
        for i, ((method, schedule), series) in enumerate(groups):
            aside = 0.007 * (i - (len(groups) - 1) / 2) if x == "rate" else 0.0  # so that bars do not hide bars
            _series(axis, series.rate, series[x] + aside, series[value], method, schedule)
        axis.set(title=title, xlabel=label(x))
        if x == "rate":
            axis.set_xticks(sorted(rows.rate.unique()))
    axes[0, 0].set_ylabel(height)
    _anchored(axes[0], anchors)
    referred = {method for title in panels for method in REFERENCES.get(title, CONTROLS)}
    _legend(figure, table[table.method.isin(referred) | ~table.method.isin(CONTROLS)])
    return figure


def quality_by_rate(
    table: pd.DataFrame,
    panels: Mapping[str, tuple[str, str]],
    anchors: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Means over units against the rate, one panel per quantity, with 95 % t intervals over units.

    table: one row per network and unit: method, rate and the quantities, NaN for units that are dead. panels: title ->
    (quantity, the quantity drawn in grey to compare it with, or ""); the title says what is grey. Every method's line
    starts at the dense network. anchors: title -> named dotted lines of that panel, which is best in the last column.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = canvas(rows, columns, 0.5 + 2.2 * rows, sharex=True)
    dense, pruned = table[table.rate == 0], table[table.rate > 0]
    for axis, (title, (value, other)) in zip(axes.flat, panels.items(), strict=False):
        for i, method in enumerate(_order(pruned.method)):
            chosen = pd.concat([dense, pruned[pruned.method == method]])
            style = look(method)
            for column, color, width in ((other, "#AAAAAA", 0.8), (value, style.color, 1.4)):
                if not column:
                    continue
                means = [mean_interval(group) for _, group in chosen.groupby("rate")[column]]
                x = np.array(sorted(chosen.rate.unique())) + 0.012 * (i - 1)
                axis.plot(x, [m.mean for m in means], color=color, linewidth=width, marker=style.marker, markersize=4)
                axis.vlines(x, [m.low for m in means], [m.high for m in means], color=color, linewidth=width)
        axis.set_title(title, fontsize=9)
        _anchored([axis], (anchors or {}).get(title))
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel(LABELS["rate"])
    handles = [
        Line2D([], [], color=look(m).color, marker=look(m).marker, label=look(m).label) for m in _order(pruned.method)
    ]
    if any(other for _, other in panels.values()):
        handles.append(Line2D([], [], color="#AAAAAA", label="grey: as the panel's title says"))
    _below(figure, handles, len(handles))
    return figure


def measure_by_accuracy(table: pd.DataFrame, value: str, anchors: Mapping[str, float] | None = None) -> Figure:
    """Mean of a measure over Top-1, one point per network; hollow if not retrained, larger at higher rates.

    Columns: method, rate, schedule, seed, top1, `value`; rows per network, or per unit (averaged first). `anchors` are
    named dotted lines.
    """
    table = network_means(_need(table, "method", "rate", "schedule", "seed", "top1", value), value, "top1")
    figure, axes = canvas(height=4)
    axis = axes[0, 0]
    for (method, schedule), rows in _by_method(table):
        color, marker, _ = look(method)
        hollow = schedule == "none" and method not in CONTROLS
        paint = {"edgecolors": color, "facecolors": "white"} if hollow else {"color": color}
        area = 50 if method in CONTROLS else _area(rows.rate)
        axis.scatter(rows.top1, rows[value], s=area, marker=marker, linewidths=1.2, alpha=0.85, zorder=3, **paint)
    axis.set(xlabel=label("top1"), ylabel=f"{label(value)}, mean of the units")
    _anchored(axes[0], anchors)
    _legend(figure, table, lines=False)
    return figure


def network_means(table: pd.DataFrame, value: str, *more: str) -> pd.DataFrame:
    """One row per network: mean of `value` over its alive units. A table without units is returned as it is.

    Columns kept: method, rate, schedule, seed and `more`.
    """
    if "unit" not in table:
        return table
    keys = list(dict.fromkeys(["method", "rate", "schedule", "seed", *more]))
    return _alive(table, value).groupby(keys, sort=False, as_index=False, observed=True)[value].mean()


def distribution_by_network(
    table: pd.DataFrame, value: str = "mis", anchors: Mapping[str, float] | None = None
) -> Figure:
    """Distribution of a per-unit measure in each network: outline, quartiles (bar) and mean (diamond).

    Columns: method, rate, schedule, unit, alive, `value`; seeds of one configuration are pooled. Dead units
    are left out and counted beside. `anchors` are named dotted lines.
    """
    table = _need(table, "method", "rate", "schedule", "unit", "alive", value)
    groups = [
        (method, schedule, rate, rows)
        for (method, schedule), series in _by_method(table)
        for rate, rows in series.groupby("rate")
    ]
    figure, axes = canvas(height=0.75 + 0.3 * len(groups))
    axis = axes[0, 0]
    for y, (method, _schedule, _rate, rows) in enumerate(groups):
        values, color = _alive(rows, value)[value].to_numpy(float), look(method).color
        if values.size > 1 and np.ptp(values) > 0:
            violin = axis.violinplot(values, [y], orientation="horizontal", widths=0.85, showextrema=False)
            violin["bodies"][0].set(facecolor=color, edgecolor="none", alpha=0.4)
        if values.size:
            axis.plot(np.quantile(values, [0.25, 0.75]), [y, y], color=color, linewidth=5, solid_capstyle="butt")
            axis.plot(values.mean(), y, "D", color="white", markeredgecolor="#222222", markersize=4, zorder=4)
        dead = int((~rows.alive.astype(bool)).sum())
        axis.annotate(
            f"{values.size:,} units" + (f", {dead:,} dead" if dead else ""), (1.01, y),
            xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color="#555555",
        )  # fmt: skip
    for i, (name, level) in enumerate((anchors or {}).items()):
        axis.axvline(level, color="#444444", linewidth=1, linestyle=":", zorder=2)
        axis.annotate(
            name, (level, 1), xycoords=("data", "axes fraction"), xytext=(2, 2 + 9 * (i % 3)),
            textcoords="offset points", color="#555555", fontsize=7.5,
        )  # fmt: skip
    axis.set(xlabel=label(value), ylim=(len(groups) - 0.4, -0.6))
    axis.set_yticks(range(len(groups)), [_name(*group[:3]) for group in groups])
    axis.grid(False, axis="y")
    return figure


def learning_curves(table: pd.DataFrame, values: Sequence[str] = ("top1", "loss")) -> Figure:
    """Course of retraining: a row of panels per value, a panel per rate; dense, retrained, is in every panel.

    Columns: method, rate, schedule, seed, epoch and those of `values` that the table has. Each seed is a thin
    line, their mean a thick one.
    """
    values = [value for value in values if value in table]
    table = _need(table, "method", "rate", "schedule", "seed", "epoch", *values or ["top1"])
    control = table[table.method.isin(CONTROLS)]
    pruned = table[~table.method.isin(CONTROLS)]
    rates = sorted(pruned.rate.unique()) or [0.0]
    figure, axes = canvas(len(values), len(rates), 0.9 + 2.1 * len(values), sharex=True, sharey="row")
    for row, value in zip(axes, values, strict=True):
        for axis, rate in zip(row, rates, strict=True):
            shown = pd.concat([control, pruned[pruned.rate == rate]])
            for (method, schedule), series in _by_method(shown):
                options = {"color": look(method).color, "linestyle": _dashes(schedule)}
                if series.seed.nunique() > 1:
                    for _, one in series.groupby("seed"):
                        axis.plot(one.epoch, one[value], linewidth=0.6, alpha=0.5, **options)
                axis.plot(series.groupby("epoch")[value].mean(), marker=".", **options)
        row[0].set_ylabel(label(value))
    for axis, rate in zip(axes[0], rates, strict=True):
        axis.set_title(f"rate {rate:g}" if len(pruned) else "")
    for axis in axes[-1]:
        axis.set_xlabel(label("epoch"))
    _legend(figure, table, markers=False)
    return figure


# --------------------------------------------------------------------------------------- pruning and weights


def sparsity_bars(table: pd.DataFrame) -> Figure:
    """Sparsity after pruning (outline) and after retraining (filled) against the nominal rate (black).

    Columns: method, rate, stage ("pruned" or "retrained"), conv_sparsity, total_sparsity. An outline that is
    not filled is a network whose pruned weights have grown back.
    """
    table = _need(table, "method", "rate", "stage", "conv_sparsity", "total_sparsity")
    methods = [method for method in _order(table.method) if method not in CONTROLS]
    rates = sorted(table.loc[table.method.isin(methods), "rate"].unique())
    figure, axes = canvas(1, 2, 3.4, sharey=True)
    wide = 0.8 / max(len(methods), 1)
    for axis, value in zip(axes[0], ("conv_sparsity", "total_sparsity"), strict=True):
        for i, method in enumerate(methods):
            for stage in ("retrained", "pruned"):
                rows = table[(table.method == method) & (table.stage == stage)]
                heights = rows.groupby("rate")[value].mean().reindex(rates)
                places = np.arange(len(rates)) + (i - (len(methods) - 1) / 2) * wide
                color = look(method).color
                fill = {"color": color} if stage == "retrained" else {"facecolor": "none", "edgecolor": color}
                axis.bar(places, heights, wide * 0.86, linewidth=0 if stage == "retrained" else 1, **fill)
        for place, rate in enumerate(rates):
            axis.plot([place - 0.43, place + 0.43], [rate, rate], color="#222222", linewidth=1.2)
        axis.set(title=label(value), xlabel=label("rate"))
        axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axis.grid(False, axis="x")
    axes[0, 0].set(ylabel="share of weights that are 0", ylim=(0, 1))
    meaning = [
        Line2D([], [], color="#222222", linewidth=1.2, label="nominal rate"),
        Patch(facecolor="none", edgecolor="#555555", label="as pruned"),
        Patch(color="#555555", label="after retraining"),
    ]
    handles = [Patch(color=look(method).color, label=look(method).label) for method in methods]
    _below(figure, [*handles, *meaning])
    return figure


def mask_picture(masks: Mapping[str, NDArray[np.bool_]]) -> Figure:
    """Which kernels of one conv are kept: a panel per method, rows output channels, columns input channels.

    masks: method -> (C_out, C_in, k, k), True where a weight is kept; the grey level is the kept share of a
    kernel.
    """
    figure, axes = canvas(1, len(masks), 1.2 + WIDTH / max(len(masks), 2) * 0.9, sharey=True)
    for axis, (method, mask) in zip(axes[0], masks.items(), strict=True):
        kept = np.asarray(mask, float).mean((2, 3))
        picture = axis.imshow(kept, cmap="Greys", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axis.set_title(fill(look(method).label, 15), color=look(method).color, fontsize=8.5)
        axis.set_xlabel("input channel")
        axis.grid(False)
    axes[0, 0].set_ylabel("output channel")
    figure.colorbar(picture, ax=axes, label="kept share of the kernel", shrink=0.8)
    return figure


# ------------------------------------------------------------------------------------------ other plots


def layer_profile(table: pd.DataFrame, value: str, anchors: Mapping[str, float] | None = None) -> Figure:
    """A value per layer in order of the forward pass, one line per method.

    Columns: method, layer, position (0 is the first layer), `value`, and rate where controls are among the rows;
    low and high, where there, are drawn as a band, `anchors` as named dotted lines.
    """
    table = _need(table, "method", "layer", "position", value)
    figure, axes = canvas(height=3.6)
    axis = axes[0, 0]
    for method in _order(table.method):
        line = table[table.method == method].groupby("position").mean(numeric_only=True)
        color, marker, _ = look(method)
        axis.plot(line.index, line[value], color=color, marker=marker, markersize=3, linewidth=1.2)
        if {"low", "high"} <= set(line):
            axis.fill_between(line.index, line.low, line.high, color=color, alpha=0.15, linewidth=0)
    layers = table.drop_duplicates("position").set_index("position").layer.sort_index()
    blocks = layers.str.split(".").str[0].replace({"conv1": "stem", "conv2": "stem", "conv3": "stem"})
    first = blocks[blocks != blocks.shift()]
    axis.set_xticks(first.index, first.str.removeprefix("inception"), fontsize=8)
    axis.set(xlabel="layer, labelled where a block begins", ylabel=label(value))
    _anchored(axes[0], anchors)
    _legend(figure, table)
    return figure


def gains(table: pd.DataFrame, difference: str = "Top-1 minus dense, retrained for the same epochs") -> Figure:
    """Differences of accuracy with their intervals, one row per configuration; seeds that the interval is over as dots.

    Columns: method, schedule, rate, net_gain, low, high, and seeds: the differences of the single seeds.
    """
    table = _need(table, "method", "schedule", "rate", "net_gain", "low", "high", "seeds")
    rows = table.sort_values("rate", kind="stable")
    figure, axes = canvas(height=1 + 0.22 * len(rows))
    axis = axes[0, 0]
    axis.axvline(0, color="#444444", linewidth=0.8)
    for y, row in enumerate(rows.itertuples()):
        color, marker, _ = look(row.method)
        axis.plot([row.low, row.high], [y, y], color=color, linewidth=1.4)
        axis.plot(row.net_gain, y, marker, color=color, markersize=5)
        axis.scatter(row.seeds, [y] * len(row.seeds), s=6, color=color, alpha=0.45, linewidths=0)
    axis.set_yticks(range(len(rows)), [_name(row.method, row.schedule, row.rate) for row in rows.itertuples()])
    axis.invert_yaxis()
    axis.set_xlabel(difference)
    return figure


def advantage_by_epochs(table: pd.DataFrame) -> Figure:
    """Differences of accuracy over the epochs of retraining, a line per method, a panel per rate; seeds as dots.

    Columns: method, rate, epochs, mean, low, high (95 % interval), seeds: the differences of the single seeds.
    """
    table = _need(table, "method", "rate", "epochs", "mean", "low", "high", "seeds")
    rates, methods = sorted(table.rate.unique()), _order(table.method)
    figure, axes = canvas(1, len(rates), 3.4, sharey=True)
    for axis, rate in zip(axes[0], rates, strict=True):
        axis.axhline(0, color="#444444", linewidth=0.8)
        for i, method in enumerate(methods):
            rows = table[(table.method == method) & (table.rate == rate)].sort_values("epochs")
            color, marker, _ = look(method)
            x = rows.epochs * 1.03 ** (i - (len(methods) - 1) / 2)  # so that bars do not hide bars
            axis.plot(x, rows["mean"], color=color, marker=marker)
            axis.vlines(x, rows.low, rows.high, color=color, linewidth=1.1)
            for place, seeds in zip(x, rows.seeds, strict=True):
                axis.scatter([place] * len(seeds), seeds, s=6, color=color, alpha=0.45, linewidths=0)
        axis.set_xscale("log", base=2)
        ticks = sorted(table.epochs.unique())
        axis.set_xticks(ticks, ticks, minor=False)
        axis.set(title=f"rate {rate:g}", xlabel="epochs of retraining in all")
    axes[0, 0].set_ylabel("Top-1, iterative minus one-shot")
    _legend(figure, table)
    return figure


def sensitivity_maps(table: pd.DataFrame) -> Figure:
    """Share of the dense accuracy that is left when one layer alone is pruned: a panel per scan, layers downwards.

    Columns: scan (title of the panel), layer (in order of the forward pass), rate, kept (1: nothing is lost).
    """
    table = _need(table, "scan", "layer", "rate", "kept")
    scans, layers = table.scan.unique(), table.layer.unique()
    figure, axes = canvas(1, len(scans), 6.8, sharey=True)
    for axis, scan in zip(axes[0], scans, strict=True):
        grid = table[table.scan == scan].pivot_table(index="layer", columns="rate", values="kept").reindex(layers)
        picture = axis.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(scan, fontsize=7.5)
        shown = range(0, grid.shape[1], max(1, grid.shape[1] // 3))
        axis.set_xticks(shown, [f"{grid.columns[i]:g}" for i in shown], fontsize=7)
        axis.grid(False)
    blocks = pd.Series(layers).str.split(".").str[0]
    first = blocks[blocks != blocks.shift()]
    axes[0, 0].set_yticks(first.index, first.str.removeprefix("inception"))
    axes[0, 0].set_ylabel("layer, labelled where a block begins")
    figure.supxlabel("rate of the one layer that is pruned", fontsize=9)
    figure.colorbar(picture, ax=axes, label="share of the dense Top-1 that is left", shrink=0.5)
    return figure


def pareto(table: pd.DataFrame) -> Figure:
    """Top-1 against the compute of retraining; the steps join the networks that no cheaper one beats.

    Columns: method, rate, schedule, pflops (of retraining, per network), top1.
    """
    table = _need(table, "method", "rate", "schedule", "pflops", "top1")
    rates = sorted(table.rate[table.rate > 0].unique())
    figure, axes = canvas(1, len(rates), 4, sharey=True)
    for axis, rate in zip(axes[0], rates, strict=True):
        shown = table[(table.rate == rate) | (table.method == "dense_retrained")]
        for (method, schedule), rows in _by_method(shown):
            color, marker, _ = look(method)
            line = rows.groupby("pflops").top1.mean()
            options = {"marker": marker, "markersize": 4, "linewidth": _width(method), **_face(schedule)}
            axis.plot(1e15 * line.index, line, _dashes(schedule), color=color, **options)
        means = shown[shown.rate > 0].groupby(["method", "schedule", "pflops"]).top1.mean()
        front = means.groupby("pflops").max().cummax()
        axis.step(1e15 * front.index, front, where="post", color="#222222", linewidth=4, alpha=0.15, zorder=0)
        axis.set(title=f"rate {rate:g}", xlabel="compute of retraining")
        axis.xaxis.set_major_formatter(EngFormatter("FLOP"))
        axis.locator_params(axis="x", nbins=3)
    axes[0, 0].set_ylabel(label("top1"))
    _legend(figure, table)
    return figure


def speedups(table: pd.DataFrame) -> Figure:
    """Measured speed-up over the dense network, masked (hollow) and compact (filled); crosses: what the MACs allow.

    Columns: method, rate, form (masked, compact), batch_size, speedup, speedup_low, speedup_high (least and most of
    the rounds), allowed (MACs of the dense network over this one's).
    """
    table = _need(table, "method", "rate", "form", "batch_size", "speedup", "speedup_low", "speedup_high", "allowed")
    batches, rows = sorted(table.batch_size.unique()), table.drop_duplicates(["method", "rate"])
    figure, axes = canvas(1, len(batches), 1.2 + 0.3 * len(rows), sharey=True, sharex=True)
    for axis, batch in zip(axes[0], batches, strict=True):
        axis.axvline(1, color="#444444", linewidth=0.8)
        for y, key in enumerate(rows.itertuples()):
            same = table[(table.method == key.method) & (table.rate == key.rate) & (table.batch_size == batch)]
            for row in same.itertuples():
                color, marker, _ = look(row.method)
                paint = {"markerfacecolor": "white"} if row.form == "masked" else {}
                shift = -0.14 if row.form == "masked" else 0.14
                axis.plot([row.speedup_low, row.speedup_high], [y + shift] * 2, color=color, linewidth=1.2)
                axis.plot(row.speedup, y + shift, marker, color=color, **paint)
                if row.form == "compact":
                    axis.plot(row.allowed, y + shift, "x", color="#222222", markersize=5)
        axis.set(title=f"batch {batch}", xlabel="speed-up over dense", xlim=(0, None))
    axes[0, 0].set_yticks(range(len(rows)), [f"{look(row.method).label}, {row.rate:g}" for row in rows.itertuples()])
    axes[0, 0].invert_yaxis()
    options = {"color": "#555555", "linestyle": "none"}
    handles = [
        Line2D([], [], marker="o", markerfacecolor="white", label="masked", **options),
        Line2D([], [], marker="o", label="compact", **options),
        Line2D([], [], marker="x", label="MACs of dense / MACs of compact", **options),
    ]
    _below(figure, handles)
    return figure


def class_scatter(table: pd.DataFrame, anchors: Mapping[str, float] | None = None) -> Figure:
    """Accuracy of a class against the MIS of its output unit, a point per class and network, a panel per method.

    Lines are lowess smooths, clipped to [0, 1]. Columns: method, mis, top1, and variant where each network shall have a
    smooth of its own. `anchors`, levels of MIS, are named vertical lines.
    """
    table = _need(table, "method", "mis", "top1")
    methods = _order(table.method)
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = canvas(rows, columns, 0.9 + 1.9 * rows, sharex=True, sharey=True)
    dashes = dict(zip(anchors or {}, cycle([":", "--", "-.", (0, (1, 4)), (0, (6, 4))]), strict=False))
    lines = {name: {"color": "#777777", "linewidth": 0.9, "linestyle": dash} for name, dash in dashes.items()}
    for axis, method in zip(axes.flat, methods, strict=False):
        color, marker, text = look(method)
        chosen = table[table.method == method]
        for _, network in chosen.groupby("variant" if "variant" in chosen else "method", sort=False):
            smooth = _smooth(network.mis, network.top1)
            axis.plot(smooth[:, 0], smooth[:, 1].clip(0, 1), color=color, linewidth=0.7, alpha=0.8)
        points = {"s": 12, "alpha": 0.6, "linewidths": 0.5, "rasterized": True}
        axis.scatter(chosen.mis, chosen.top1, color=color, marker=marker, **points)
        for name, options in lines.items():
            axis.axvline(anchors[name], zorder=0, **options)
        axis.set_title(fill(text, 22), color=color, fontsize=8.5)
    for axis in axes.flat[len(methods) :]:
        axis.axis("off")
    for axis in axes.flat[max(0, len(methods) - columns) : len(methods)]:  # the lowest of each column
        axis.set_xlabel("MIS of the output unit")
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy of the class")
    if lines:
        _below(figure, [Line2D([], [], label=name, **options) for name, options in lines.items()], 5)
    return figure


def _smooth(x: pd.Series, y: pd.Series) -> NDArray:
    """Lowess of y over x (Cleveland 1979), as sorted points (n, 2); none of fewer than 5 points."""
    present = (x.notna() & y.notna()).to_numpy()
    if present.sum() < 5:
        return np.empty((0, 2))
    # No robust iterations: they take a class that differs from many at 0 or 1 for an outlier.
    return lowess(y[present], x[present], frac=1, it=0)


def confusion(matrix: NDArray, class_names: Sequence[str]) -> Figure:
    """Confusion matrix in percent of each true class: rows true classes, columns predicted ones.

    matrix: (C, C) counts; a class without images stays empty.
    """
    matrix = np.asarray(matrix, float)
    if matrix.shape != (len(class_names),) * 2:
        raise ValueError(f"confusion matrix has shape {matrix.shape}, for {len(class_names)} rows and columns")
    with np.errstate(invalid="ignore"):
        share = 100 * matrix / matrix.sum(1, keepdims=True)
    figure, axes = canvas(height=5.4)
    axis = axes[0, 0]
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if len(class_names) <= 20:
        for (i, j), percent in np.ndenumerate(share):
            if percent >= 0.5:
                axis.text(j, i, f"{percent:.0f}", ha="center", va="center", fontsize=7.5, color="white" if percent > 55 else "#222222")  # noqa: E501 # fmt: skip
    if len(class_names) <= 50:
        axis.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(class_names)), class_names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(False)
    figure.colorbar(picture, label="images of the true class (%)", shrink=0.8)
    return figure


# ----------------------------------------------------------------------------------- correlations and slopes


def forest(table: pd.DataFrame) -> Figure:
    """Correlations with their 95 % intervals: a row per `row`, a panel per `panel`, both in the order of the table.

    Columns: panel, row, method (its color and marker; empty: black), r, low, high, n. A single panel has r, interval
    and n beside it; several panels have r beside each, and n beside the row's name where all have the same. A row
    whose r is missing in all panels is left out.
    """
    table = _need(table, "panel", "row", "method", "r", "low", "high", "n")
    panels, shown = table.panel.unique(), table[table.groupby("row").r.transform("count") > 0]
    names = shown.drop_duplicates("row")
    figure, axes = canvas(1, len(panels), 1 + 0.27 * len(names), sharey=True)
    one_n = shown.groupby("row").n.nunique().max() == 1
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.axvline(0, color="#444444", linewidth=0.8)
        rows = shown[shown.panel == panel].set_index("row").reindex(names.row)
        for y, row in enumerate(rows.itertuples()):
            if np.isfinite(row.r):
                color, marker, _ = look(row.method) if row.method else Look("#222222", "D", "")
                # Its ends stand out above the marker: an interval near 1 is narrower than that.
                ends = {"marker": "|", "markersize": 8, "clip_on": False}
                axis.plot([row.low, row.high], [y, y], color=color, linewidth=1.4 if row.method else 2, **ends)
                axis.plot(row.r, y, marker, color=color, markersize=4, clip_on=False)
            axis.annotate(
                _correlation(row, alone=len(panels) == 1), (1.02, y), xycoords=("axes fraction", "data"),
                va="center", fontsize=8, annotation_clip=False,
            )  # fmt: skip
        axis.set(xlim=(-1.2, 1.2), ylim=(len(names) - 0.5, -0.5))
        axis.set_title(fill(panel, 42 // len(panels)) if len(panels) > 1 else "")
        axis.set_xticks([-1, 0, 1] if len(panels) > 1 else [-1, -0.5, 0, 0.5, 1])
        axis.grid(False, axis="y")
    counts = [f"  n = {n}" if len(panels) > 1 and one_n else "" for n in names.n]
    axes[0, 0].set_yticks(range(len(names)), [f"{row}{n}" for row, n in zip(names.row, counts, strict=True)])
    figure.supxlabel("correlation, 95 % interval", fontsize=9)
    return figure


def _correlation(row: tuple, alone: bool) -> str:
    if not np.isfinite(row.r):
        return "no value"
    text = f"{row.r:+.2f}" + (f" [{row.low:+.2f}, {row.high:+.2f}], n = {row.n}" if alone else "")
    return text.replace("-", "\N{MINUS SIGN}")


def slopes(table: pd.DataFrame, xlabel: str) -> Figure:
    """Slopes with their 95 % intervals, a row per series, its estimates below each other: first filled, second hollow.

    Columns: series, method, schedule, estimate (what the slope is of), slope, low, high, seeds (slopes of single seeds,
    drawn as dots). A slope or interval that is missing is not drawn.
    """
    table = _need(table, "series", "method", "schedule", "estimate", "slope", "low", "high", "seeds")
    table = table[table.slope.notna()]
    names, estimates = table.drop_duplicates("series"), list(table.estimate.unique())
    figure, axes = canvas(height=1.1 + 0.42 * len(names))
    axis = axes[0, 0]
    axis.axvline(0, color="#444444", linewidth=0.8)
    for y, series in enumerate(names.series):
        for row in table[table.series == series].itertuples():
            place = y + 0.3 * (estimates.index(row.estimate) - (len(estimates) - 1) / 2)
            color, marker, _ = look(row.method)
            hollow = {"markerfacecolor": "white"} if estimates.index(row.estimate) else {}
            axis.plot([row.low, row.high], [place] * 2, color=color, linewidth=1.4)
            axis.plot(row.slope, place, marker, color=color, **hollow)
            axis.scatter(row.seeds, [place] * len(row.seeds), s=6, color="#222222", linewidths=0, zorder=3)
    schedules = [f" ({SCHEDULES[one]})" if one != "one_shot" else "" for one in names.schedule]
    axis.set_yticks(range(len(names)), [look(m).label + s for m, s in zip(names.method, schedules, strict=True)])
    axis.set(ylim=(len(names) - 0.5, -0.5), xlabel=xlabel)
    axis.grid(False, axis="y")
    handles = [
        Line2D([], [], color="#555555", marker="o", markerfacecolor=face, linestyle="none", label=name)
        for name, face in zip(estimates, ("#555555", "white"), strict=False)
    ]
    _below(figure, handles, 2)
    return figure


# ---------------------------------------------------------------------------------------------------- parts


def _need(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    missing = [column for column in columns if column not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"table to plot lacks {', '.join(missing)}; it has {found}")
    if table.empty:
        raise ValueError("table to plot is empty")
    return table


def _alive(table: pd.DataFrame, value: str) -> pd.DataFrame:
    alive = table.alive.astype(bool) if "alive" in table else True
    return table[alive & table[value].notna()]


def _order(methods: pd.Series) -> list[str]:
    """Methods of a table in the order of `LOOKS`, unknown ones last."""
    found = [str(method) for method in methods.unique()]
    return sorted(found, key=lambda method: list(LOOKS).index(method) if method in LOOKS else len(LOOKS))


def _by_method(table: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Rows by (method, schedule), in the order of the legend."""
    return [
        ((method, schedule), rows)
        for method in _order(table.method)
        for schedule in SCHEDULES
        if len(rows := table[(table.method == method) & (table.schedule == schedule)])
    ]


def _area(rate):
    """Marker area in square points of a network pruned at `rate`."""
    return 14 + 70 * rate


DASHES = {"iterative": "--", "rewound": ":", "recalibrated": ":"}


def _dashes(schedule: str) -> str:
    return DASHES.get(schedule, "-")


def _face(schedule: str) -> dict[str, str]:
    """Hollow markers for what is not a solid line: one point alone shows no dashes."""
    return {"markerfacecolor": "white"} if schedule in DASHES else {}


def _width(method: str) -> float:
    return 0.8 if method.endswith("_reinitialised") else 1.6


def _short(number: float, form: str = "g") -> str:
    """A number without the zero before its point, where space is short."""
    return f"{number:{form}}".lstrip("0") or "0"


def _name(method: str, schedule: str, rate: float) -> str:
    if method in CONTROLS:
        return look(method).label
    return f"{look(method).label}, {rate:g}" + ("" if schedule == "one_shot" else f" ({SCHEDULES[schedule]})")


def _series(axis: Axes, rate: pd.Series, x: pd.Series, y: pd.Series, method: str, schedule: str) -> None:
    """One line through the means over seeds at each rate, with intervals and the single seeds as dots."""
    color, marker, _ = look(method)
    xs = x.groupby(rate).mean()
    intervals = [mean_interval(seeds) for _, seeds in y.groupby(rate)]
    means, lows, highs = np.array(intervals).T
    edge = {} if marker == "x" else {"markeredgecolor": "white", "markeredgewidth": 0.7}
    paint = _face(schedule) or edge
    axis.plot(xs, means, _dashes(schedule), color=color, marker=marker, linewidth=_width(method), zorder=3, **paint)
    if rate.duplicated().any():
        axis.vlines(xs, lows, highs, color=color, linewidth=1.1, zorder=2)
        axis.scatter(x, y, s=6, color=color, alpha=0.45, linewidths=0, zorder=2)


def _reference(axis: Axes, values: pd.Series, method: str) -> None:
    if values.notna().any():
        mean, low, high = mean_interval(values)
        axis.axhline(mean, color=look(method).color, linewidth=1.4, zorder=1)
        if np.isfinite(low):
            axis.axhspan(low, high, color=look(method).color, alpha=0.12, linewidth=0)


def _legend(figure: Figure, table: pd.DataFrame, lines: bool = True, markers: bool = True) -> None:
    """The methods of a table, and what dashes or hollow markers mean, below the panels."""
    handles = []
    for method in _order(table.method):
        color, marker, text = look(method)
        line = "-" if lines else "none"
        marker = "" if not markers or (lines and method in CONTROLS) else marker
        options = {"linewidth": _width(method), "marker": marker, "linestyle": line}
        handles.append(Line2D([], [], color=color, label=text, **options))
    schedules = set(table.schedule) if "schedule" in table else set()
    for schedule in DASHES:
        if lines and schedule in schedules:
            options = {"linestyle": DASHES[schedule], "marker": "o" if markers else "", **_face(schedule)}
            handles.append(Line2D([], [], color="#555555", label=SCHEDULES[schedule], **options))
    if not lines and len(schedules) > 1:
        handles.append(Line2D([], [], color="#555555", marker="o", markerfacecolor="white", linestyle="none", label="not retrained"))  # noqa: E501 # fmt: skip
    if not lines and "rate" in table:
        for rate in sorted({*table.rate[table.rate > 0].agg(["min", "max"]).dropna()}):
            options = {"marker": "o", "markersize": _area(rate) ** 0.5, "linestyle": "none"}
            handles.append(Line2D([], [], color="#999999", label=f"rate {rate:g}", **options))
    _below(figure, handles)


def _below(figure: Figure, handles: Sequence[Artist], columns: int = 3) -> None:
    """A legend below the panels, of as many columns as fit into the figure's width, but no more than `columns`."""
    for ncols in range(columns, 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=ncols)
        if legend.get_window_extent().width <= figure.bbox.width:
            return
        if ncols > 1:
            legend.remove()


# --------------------------------------------------------------------------- the same units, and another network


def same_units(followed: pd.DataFrame, summary: pd.DataFrame, anchors: Mapping[str, float] | None = None) -> Figure:
    """MIS of the same units through pruning, a column per method.

    Above: each network's median (line), middle half and middle 80 % (bands) of its units, and their mean with its
    interval. Below: each unit in the dense and in the last network, with the rank correlation within layers.
    followed, summary: of `claims.followed_units` and `claims.followed_summary`. `anchors` are named dotted lines above.
    """
    followed = _need(followed, "method", "variant", "mis", "layer", "unit")
    summary = _need(summary, "method", "rate", "mean", "low", "high", "q10", "q25", "q50", "q75", "q90", "r", "units")
    methods, limits = list(summary.method.unique()), (followed.mis.min() - 0.02, followed.mis.max() + 0.02)
    high = 2.4 + 2 * WIDTH / max(4, len(methods))
    figure, axes = canvas(2, len(methods), high, sharey="row", height_ratios=[1.25, 1])
    for (above, below), method in zip(axes.T, methods, strict=True):
        rows, color = summary[summary.method == method], look(method).color
        x = np.arange(len(rows))
        above.fill_between(x, rows.q10, rows.q90, color=color, alpha=0.15, linewidth=0)
        above.fill_between(x, rows.q25, rows.q75, color=color, alpha=0.3, linewidth=0)
        above.plot(x, rows.q50, color=color)
        above.vlines(x, rows.low, rows.high, color="#222222", linewidth=1.2, zorder=3)
        above.plot(x, rows["mean"], "D", color="white", markeredgecolor="#222222", markersize=4, zorder=4)
        control = method in CONTROLS
        above.set_xticks(x, ["before", "after"] if control else [_short(rate) for rate in rows.rate], fontsize=7)
        above.set_xlabel("retraining" if control else "rate", fontsize=8)
        above.set_title(fill(look(method).label, 13), color=color, fontsize=7.5)
        units = followed[followed.method == method]
        units = units.pivot(index=["layer", "unit"], columns="variant", values="mis")[list(units.variant.unique())]
        below.axline((0.5, 0.5), slope=1, color="#444444", linewidth=0.8, linestyle=":")
        below.scatter(units.iloc[:, 0], units.iloc[:, -1], s=2, color=color, alpha=0.2, linewidths=0, rasterized=True)
        last = rows.iloc[-1]
        agreement = f"r = {last.r:.2f}\n[{last.r_low:.2f}, {last.r_high:.2f}]".replace("-", "\N{MINUS SIGN}")
        below.set_title(f"{agreement}\n{last.units:,} units", fontsize=7, weight="normal")
        below.set(xlim=limits, ylim=limits, aspect="equal")
    _anchored(axes[0], anchors)
    axes[0, 0].set_ylabel("MIS of the same units")
    axes[1, 0].set_ylabel("MIS in the last network")
    figure.supxlabel("MIS in the dense network", fontsize=9)
    return figure


def layers_of_networks(table: pd.DataFrame, value: str = "mis", anchors: Mapping[str, float] | None = None) -> Figure:
    """Layer means of several networks with their intervals, a panel with its own scale for each.

    Columns: network (the panel's title), layer (dotted name; the same layers in the same order in all), position (0
    the first layer, 1 the last), `value`, low, high. The last layer is drawn hollow. `anchors`, on the first network's
    scale, are named dotted lines in its panel.
    """
    table = _need(table, "network", "layer", "position", value, "low", "high")
    names = list(table.network.unique())
    figure, axes = canvas(len(names), 1, 0.6 + 1.9 * len(names), sharex=True)
    for axis, name in zip(axes[:, 0], names, strict=True):
        rows = table[table.network == name].sort_values("position")
        axis.fill_between(rows.position, rows.low, rows.high, color=LOOKS["dense"].color, alpha=0.18, linewidth=0)
        axis.plot(rows.position, rows[value], ".-", color=LOOKS["dense"].color, linewidth=1)
        axis.plot(*rows.iloc[-1][["position", value]], "o", color="white", markeredgecolor=LOOKS["dense"].color)
        axis.set(title=name, ylabel=label(value))
    _anchored(axes[0], anchors)
    blocks = rows.layer.str.split(".").str[0].replace({"conv1": "stem", "conv2": "stem", "conv3": "stem"})
    first = blocks != blocks.shift()
    axes[-1, 0].set_xticks(rows.position[first], blocks[first].str.removeprefix("inception"), fontsize=8)
    axes[-1, 0].set_xlabel("place in the network, labelled where a block begins")
    return figure
