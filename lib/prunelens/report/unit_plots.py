"""Plots of units: a measure against accuracy, by block, of the same units through pruning, and of classes.

`measure` is the column that is plotted; its description gives label, limits and the line at chance.
"""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prunelens.report import style
from prunelens.report.style import INK, PALE, canvas, frame, interval, legend, need, panels
from prunelens.variants import CONFIGURATION, DENSE, FIELDS


def by_accuracy(table: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """A measure against Top-1, one point per network, larger at higher rates; half-filled: not retrained.

    table: fields, top1, `measure` (mean of the network's units).
    """
    figure, axes = canvas(1, 1, 3.7, title)
    axis, handles = axes[0, 0], []
    for look, rows in style.series(need(table, *FIELDS, "top1", measure)):
        if rows.method.iloc[0] != DENSE and rows.schedule.iloc[0] == "none":
            look = look._replace(face="white", half=True, label=f"{look.label}, not retrained")
        for rate, same in rows.groupby("rate"):
            axis.plot(same.top1, same[measure], linestyle="none", **look.marks, markersize=4 + 5 * rate, alpha=0.9)
        handles.append(look._replace(line="none"))
    axis.set(xlabel=style.label("top1"), ylabel=style.label(measure))
    legend(figure, handles + frame([axis], measure))
    return figure


def blocks(table: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """Difference of a measure to the dense network by block, over the same units, a panel per configuration.

    table: of `prunelens.analysis.units.block_differences`.
    """
    table = need(table, "method", "block", "value", "low", "high")
    order, names = list(table.block.unique()), pd.Series(style.names(table), table.index)
    figure, axes = panels(names.nunique(), 3, 1.7, title, "block", f"{style.label(measure)}, minus dense")
    for axis, (name, rows) in zip(axes, table.groupby(names, sort=False), strict=True):
        look = style.look(rows.iloc[0])
        axis.axhline(0, color=PALE, linewidth=0.8, zorder=1)
        interval(axis, rows.block.map(order.index), rows, look, markersize=5)
        axis.set_title(fill(name, 30), color=look.color)
        turned = 90 if len(order) > 8 else 0
        axis.set_xticks(range(len(order)), style.short_blocks(order), fontsize=7, rotation=turned)
        axis.grid(False, axis="x")
    return figure


def same_units(followed: pd.DataFrame, summary: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """A measure of the same units through pruning, a column of panels per method.

    Above: each network's median (line), middle half and middle 80 % (bands) of its units, and their mean with its
    interval. Below: each unit in the dense and in the last network, with the rank correlation within layers.
    followed, summary: of `prunelens.analysis.units.followed` and `followed_summary`.
    """
    need(followed, "method", "rate", DENSE, measure)
    groups = list(need(summary, "method", "rate", "value", "r", "units").groupby(["method", "epochs"], sort=False))
    figure, axes = canvas(2, len(groups), 2.3 + 8 / max(4, len(groups)), title, sharey="row", height_ratios=[1.25, 1])
    low, high = followed[measure].min() - 0.02, followed[measure].max() + 0.02
    for (above, below), ((method, _), rows) in zip(axes.T, groups, strict=True):
        last, x, look = rows.iloc[-1], np.arange(len(rows)), style.look(rows.iloc[-1])
        above.fill_between(x, rows.q10, rows.q90, color=look.color, alpha=0.15, linewidth=0)
        above.fill_between(x, rows.q25, rows.q75, color=look.color, alpha=0.3, linewidth=0)
        above.plot(x, rows.q50, color=look.color)
        interval(above, x, rows, look._replace(color=INK, marker="D", face="white"), markersize=4)
        control = method == DENSE
        above.set_xticks(x, ["before", "after"] if control else [f"{rate:g}" for rate in rows.rate], fontsize=7.5)
        above.set_xlabel("retraining" if control else "rate", fontsize=8)
        above.set_title(fill(look.label, 56 // len(groups)), color=look.color, fontsize=8)
        keys = ["method", "epochs", "schedule", "rate"]
        units = followed[(followed[keys] == last[keys]).all(axis=1)]
        below.axline((0.5, 0.5), slope=1, color=PALE, linewidth=0.8, linestyle=":")
        below.scatter(units[DENSE], units[measure], s=2, color=look.color, alpha=0.2, linewidths=0, rasterized=True)
        agreement = f"r = {last.r:.2f}\n[{last.r_low:.2f}, {last.r_high:.2f}]".replace("-", "\N{MINUS SIGN}")
        below.set_title(f"{agreement}\n{last.units:,} units", fontsize=7.5)
        below.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes[0, 0].set_ylabel(f"{style.label(measure)} of the same units")
    axes[1, 0].set_ylabel("in the last network")
    figure.supxlabel(f"{style.label(measure)} in the dense network", fontsize=9)
    return figure


def class_scatter(scores: pd.DataFrame, measure: str, title: str = "") -> Figure:
    """Accuracy of a class against its output unit's measure, one point per class and a panel per configuration.

    scores: of `prunelens.analysis.correlations.class_scores`; seeds are averaged.
    """
    scores = need(scores, *FIELDS, "class_name", "top1", measure)
    points = scores.groupby([*CONFIGURATION, "class_name"], sort=False, as_index=False)[["top1", measure]].mean()
    names = pd.Series(style.names(points), points.index)
    x = f"{style.label(measure)} of the output unit"
    figure, axes = panels(names.nunique(), 4, 1.7, title, x, "accuracy of the class")
    for axis, (name, rows) in zip(axes, points.groupby(names, sort=False), strict=True):
        look = style.look(rows.iloc[0])
        axis.scatter(rows[measure], rows.top1, s=14, color=look.color, alpha=0.6, linewidths=0, rasterized=True)
        axis.set_title(fill(name, 22), color=look.color, fontsize=8)
    return figure
