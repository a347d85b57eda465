"""Plots of units: how a measure is distributed, what becomes of the same units, blocks, classes, pictures.

Tables have the study's columns; `measure` is the column that is plotted, and its description gives label, limits and
the line at chance.
"""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunelens.analysis.estimates import mean
from prunelens.report import style
from prunelens.report.plots import estimates, per_network
from prunelens.report.style import INK, PALE, canvas, frame, interval, legend, need, panels
from prunelens.variants import CONFIGURATION, DENSE, FIELDS


def distribution(units: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """How a measure is distributed in each network: middle half, middle 80 %, median; the band is the dense network's.

    units: fields, unit, alive, `measure`; seeds of one configuration are pooled. Dead units are left out and counted.
    """
    units = need(units, *FIELDS, "unit", "alive", measure)
    names = pd.Series(style.names(units), units.index)
    figure, axes = canvas(1, 1, 0.6 + 0.24 * names.nunique(), title)
    axis, levels = axes[0, 0], (0.1, 0.25, 0.5, 0.75, 0.9)
    for y, (_, rows) in enumerate(units.groupby(names, sort=False)):
        values, look = rows.loc[rows.alive.astype(bool), measure].dropna(), style.look_of(rows.iloc[0])
        low, quarter, half, most, high = values.quantile(levels)
        if y == 0:
            axis.axvspan(quarter, most, color=INK, alpha=0.07, linewidth=0)
            axis.axvline(half, color=INK, linewidth=0.8, alpha=0.5)
        axis.plot([low, high], [y, y], color=look.color, linewidth=1.5)
        axis.plot([quarter, most], [y, y], color=look.color, linewidth=6, solid_capstyle="butt")
        axis.plot(half, y, "o", color="white", markeredgecolor=INK, markersize=4.5, zorder=4)
        dead = int((~rows.alive.astype(bool)).sum())
        axis.annotate(f"{len(values):,} units" + (f", {dead:,} dead" if dead else ""), (1.01, y), fontsize=7.5,
                      xycoords=("axes fraction", "data"), va="center", color=PALE)  # fmt: skip
    axis.set(xlabel=style.label(measure), ylim=(names.nunique() - 0.4, -0.6))
    axis.set_yticks(range(names.nunique()), [fill(name, 44) for name in names.unique()])
    axis.grid(False, axis="y")
    chance = style.described(measure).chance
    if chance is not None and axis.get_xlim()[0] < chance < axis.get_xlim()[1]:
        axis.axvline(chance, color=PALE, linewidth=1, linestyle=":", zorder=1)
        legend(figure, [Line2D([], [], color=PALE, linewidth=1, linestyle=":", label=f"chance, {chance:.3g}")])
    return figure


def by_accuracy(table: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """Mean of a measure over the units against Top-1, one point per network, larger at higher rates.

    table: fields, top1, `measure`; rows are networks, or units, which are averaged first. Hollow: not retrained.
    """
    table = per_network(need(table, *FIELDS, "top1", measure), measure, "top1")
    figure, axes = canvas(1, 1, 3.7, title)
    axis, handles = axes[0, 0], []
    for look, rows in style.series(table):
        if rows.method.iloc[0] != DENSE and rows.schedule.iloc[0] == "none":
            look = look._replace(face="white", label=f"{look.label}, not retrained")
        colors = {"color": look.color} if look.marker in "x+" else {"edgecolor": look.color, "facecolor": look.face or look.color}  # noqa: E501 # fmt: skip
        axis.scatter(rows.top1, rows[measure], s=18 + 60 * rows.rate, marker=look.marker, linewidths=1.1, alpha=0.85,
                     zorder=3, **colors)  # fmt: skip
        handles.append(look._replace(line="none"))
    axis.set(xlabel=style.label("top1"), ylabel=f"{style.label(measure)}, mean of units")
    legend(figure, handles + frame([axis], measure))
    return figure


def blocks(table: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """Difference of a measure to the dense network by block of the same units, a panel per configuration.

    table: fields but the seed, block (in order of the forward pass), value, low, high.
    """
    table = need(table, "method", "block", "value", "low", "high")
    order = list(table.block.unique())
    names = pd.Series(style.names(table), table.index)
    figure, axes = panels(names.nunique(), 3, 1.7, title, "block", f"{style.label(measure)}, minus dense")
    for axis, (name, rows) in zip(axes, table.groupby(names, sort=False), strict=True):
        look = style.look_of(rows.iloc[0])
        axis.axhline(0, color=PALE, linewidth=0.8, zorder=1)
        interval(axis, rows.block.map(order.index), rows, look, markersize=4)
        axis.set_title(fill(name, 30), color=look.color)
        axis.set_xticks(range(len(order)), style.short_blocks(order), fontsize=7)
        axis.grid(False, axis="x")
    return figure


def same_units(followed: pd.DataFrame, summary: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """A measure of the same units through pruning, a column of panels per method.

    Above: each network's median (line), middle half and middle 80 % (bands) of its units, and their mean with its
    interval. Below: each unit in the dense and in the last network, with the rank correlation within layers.
    followed, summary: of `analysis.units.followed` and `followed_summary`.
    """
    methods = list(summary.method.unique())
    figure, axes = canvas(2, len(methods), 2.3 + 8 / max(4, len(methods)), title, sharey="row", height_ratios=[1.25, 1])
    low, high = followed[measure].min() - 0.02, followed[measure].max() + 0.02
    for (above, below), method in zip(axes.T, methods, strict=True):
        rows, units = summary[summary.method == method], followed[followed.method == method]
        look, x = style.look(method), np.arange(len(rows))
        above.fill_between(x, rows.q10, rows.q90, color=look.color, alpha=0.15, linewidth=0)
        above.fill_between(x, rows.q25, rows.q75, color=look.color, alpha=0.3, linewidth=0)
        above.plot(x, rows.q50, color=look.color)
        above.errorbar(x, rows.value, [rows.value - rows.low, rows.high - rows.value], fmt="D", color=INK,
                       markerfacecolor="white", markersize=4)  # fmt: skip
        dense = method == DENSE
        above.set_xticks(x, ["before", "after"] if dense else [f"{rate:g}" for rate in rows.rate], fontsize=7.5)
        above.set_xlabel("retraining" if dense else "rate", fontsize=8)
        above.set_title(fill(look.label, 13), color=look.color, fontsize=8)
        below.axline((0.5, 0.5), slope=1, color=PALE, linewidth=0.8, linestyle=":")
        below.scatter(units.dense, units[measure], s=2, color=look.color, alpha=0.2, linewidths=0, rasterized=True)
        below.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes[0, 0].set_ylabel(f"{style.label(measure)} of the same units")
    axes[1, 0].set_ylabel("in the last network")
    figure.supxlabel(f"{style.label(measure)} in the dense network", fontsize=9)
    return figure


def class_scatter(classes: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """Accuracy of a class against its output unit's measure, one point per class and a panel per configuration.

    classes: fields, class_name, top1, `measure`; seeds are averaged.
    """
    classes = need(classes, *FIELDS, "class_name", "top1", measure)
    points = classes.groupby([*CONFIGURATION, "class_name"], sort=False, as_index=False)[["top1", measure]].mean()
    names = pd.Series(style.names(points), points.index)
    x = f"{style.label(measure)} of the output unit"
    figure, axes = panels(names.nunique(), 4, 1.7, title, x, "accuracy of the class")
    for axis, (name, rows) in zip(axes, points.groupby(names, sort=False), strict=True):
        look = style.look_of(rows.iloc[0])
        axis.scatter(rows[measure], rows.top1, s=14, color=look.color, alpha=0.6, linewidths=0, rasterized=True)
        axis.set_title(fill(name, 22), color=look.color, fontsize=8)
    return figure


def quality(table: pd.DataFrame, quantities: Mapping[str, tuple[str, str]], title: str = "") -> Figure:
    """What pictures are worth in numbers: means over live units, a row per network and a panel per quantity.

    table: fields, alive and the quantities. quantities: by title of the panel, a column and one that is subtracted from
    it, or "".
    """
    table = need(table, *FIELDS, "alive", *filter(None, sum(quantities.values(), ())))
    names, found = pd.Series(style.names(table), table.index), []
    for panel, (value, minus) in quantities.items():
        for name, rows in table[table.alive.astype(bool)].groupby(names, sort=False):
            level = mean((rows[value] - rows[minus] if minus else rows[value]).dropna(), "units")
            fields = rows.iloc[0][FIELDS].to_dict()
            found.append({**fields, "row": name, "panel": panel, "value": level.value, "low": level.low, "high": level.high})  # noqa: E501 # fmt: skip
    figure = estimates(pd.DataFrame(found), "mean over units", shared=False, title=title)
    figure.bars = "Bars: 95 % interval (Student's t) over units."
    return figure
