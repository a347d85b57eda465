"""Plots of networks: accuracy, estimates with intervals, learning curves, sparsity, masks, compute and speed.

A plot takes a tidy table, and a title that says what to see, and returns the figure. A plot that computes its bars
itself says what they are in the figure's attribute `bars`, which reports add to the caption.
"""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from prunelens.analysis.estimates import Estimate, by, mean
from prunelens.analysis.units import network_means
from prunelens.report import style
from prunelens.report.style import INK, PALE, Look, canvas, frame, interval, legend, need
from prunelens.variants import DENSE, FIELDS, RETRAINED

SEEDS = "Bars: 95 % interval (Student's t) over seeds, where there are several."
LAYERS = "layer, labelled where a block begins"


def estimates(
    table: pd.DataFrame,
    xlabel: str,
    panel: str = "panel",
    zero: float = 0.0,
    margin: float = 0.0,
    form: str = "+.3f",
    shared: bool = True,
    title: str = "",
) -> Figure:
    """Estimates with their 95 % intervals, a row each: the plot of all differences, slopes and correlations.

    table: value, low, high; fields of networks, which give color and marker, and names where there is no column row.
    Further columns: `panel` (a panel for each of its values), against (what was subtracted), seeds (values of single
    seeds, dots where the interval is over seeds), n. A single panel has the numbers beside it.
    zero: where a line is; margin: half the width of a grey band around it. shared: one scale for all panels; else there
    is a line only where the data are.
    """
    table = need(need(table, "value", "low", "high").dropna(subset="value"))
    table = table.assign(_row=_rows(table), _panel=table[panel].map(style.label) if panel in table else "")
    rows, parts = list(table._row.unique()), list(table._panel.unique())
    labels = [fill(name, 40, break_on_hyphens=False) for name in rows]
    high = 0.65 + sum(0.13 + 0.14 * (1 + name.count("\n")) for name in labels)
    figure, axes = canvas(1, len(parts), high, title, sharey=True, sharex=shared)
    for axis, part in zip(axes[0], parts, strict=True):
        for _, one in table[table._panel == part].iterrows():
            y, look = rows.index(one._row), style.look(one) if one.get("method") else Look(INK, "D", "")
            interval(axis, [y], one.to_frame().T, look, across=True, clip_on=False)
            if "seed" in one.get("over", "") and len(dots := one.get("seeds", [])) > 1:
                axis.scatter(dots, [y + 0.27] * len(dots), s=7, color=look.color, alpha=0.55, linewidths=0)
            if len(parts) == 1:
                words = format(Estimate(one.value, one.low, one.high), form).removesuffix(" (no interval)")
                words = words.replace("-", "\N{MINUS SIGN}") + (f", n = {one.n:.0f}" if "n" in one else "")
                axis.annotate(words, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        if shared or axis.get_xlim()[0] < zero < axis.get_xlim()[1]:
            axis.axvspan(zero - margin, zero + margin, color="#EEEEEE", zorder=0, linewidth=0)
            axis.axvline(zero, color=PALE, linewidth=0.8, zorder=1)
        axis.set(ylim=(len(rows) - 0.4, -0.6), title=fill(part, 60 // len(parts)))
        axis.xaxis.set_major_locator(MaxNLocator(5 if len(parts) == 1 else 3, steps=[1, 2, 5, 10]))
        if form.endswith("%"):
            axis.xaxis.set_major_formatter(PercentFormatter(1))
        axis.grid(False, axis="y")
    axes[0, 0].set_yticks(range(len(rows)), labels)
    figure.supxlabel(xlabel, fontsize=9)
    return figure


def _rows(table: pd.DataFrame) -> list[str]:
    """Names of rows; names of methods and measures in them become labels."""
    if "row" not in table:
        usual = {"True": "masked", **style.SCHEDULES}
        minus = [usual.get(name, style.label(name)) for name in table.get("against", ())]
        names = style.names(table)
        return [f"{name} \N{MINUS SIGN} {other}" for name, other in zip(names, minus, strict=True)] if minus else names
    split = table["row"].str.partition(",")
    return [style.label(first) + comma + rest for first, comma, rest in split.itertuples(index=False)]


# ---------------------------------------------------------------------------------------------------- values by rate


def by_rate(table: pd.DataFrame, value: str, chance: float | None = None, title: str = "") -> Figure:
    """Means over seeds against the pruning rate, a panel for networks as pruned and one for retrained ones.

    table: fields and `value`; rows are networks, or units, whose means over live convs are drawn. Points are joined by
    lines where a method has three rates. Horizontal lines are dense networks, in the first panel also random ones.
    """
    table = network_means(table, value) if "unit" in need(table, *FIELDS, value) else table
    dense, retrained = table.method == DENSE, table.schedule.isin(RETRAINED)
    unpruned = dense & (table.schedule == "none") & (table.weights == "trained")
    parts = {"as pruned": ~retrained, "retrained": retrained | unpruned}
    parts = {part: chosen for part, chosen in parts.items() if (chosen & ~dense).any()}
    figure, axes = canvas(1, len(parts), 3.1, title, sharey=True)
    rates, handles = sorted(table.rate[~dense].unique()), []
    for axis, (part, chosen) in zip(axes[0], parts.items(), strict=True):
        for look, rows in style.series(table[dense & chosen]):
            level = mean(rows[value], "seeds")
            axis.axhline(level.value, color=look.color, linestyle=look.line, linewidth=1.4, zorder=2)
            axis.axhspan(level.low, level.high, color=look.color, alpha=0.12, linewidth=0)
            handles.append(Line2D([], [], color=look.color, linestyle=look.line, label=look.label))
        groups = [(look, over_seeds(rows, "rate", value)) for look, rows in style.series(table[~dense & chosen])]
        lines = any(len(means) > 2 for _, means in groups)
        wide = min(np.diff(rates), default=0.2) * (0.2 if lines else 0.4)
        for aside, (look, means) in zip(np.linspace(-wide, wide, len(groups) + 2)[1:-1] / 2, groups, strict=True):
            look = look if len(means) > 2 else look._replace(line="none")
            interval(axis, means.rate + aside, means, look, linestyle=look.line)  # aside: bars hide no bars
            handles.append(look)
        axis.set(title=part if len(parts) > 1 else "", xlabel=style.label("rate"))
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.set_xlim(rates[0] - 0.7 * wide, rates[-1] + 0.7 * wide)
        axis.grid(False, axis="x")
    axes[0, 0].set_ylabel(style.label(value))
    legend(figure, handles + frame(axes[0], value, chance))
    figure.bars = SEEDS
    return figure


def over_seeds(rows: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """Means over seeds with their intervals, in the order of the key: key, value, low, high, over."""
    return by(rows.sort_values(key, kind="stable"), [key], lambda same: mean(same[value], "seeds"))


def learning_curves(table: pd.DataFrame, title: str = "") -> Figure:
    """Course of retraining: Top-1 and training loss, a column of panels per rate; the dense network is in all.

    table: fields, epoch, top1, loss. Each seed is a thin line, their mean a thick one.
    """
    dense = need(table, *FIELDS, "epoch", "top1", "loss").method == DENSE
    rates, handles, few = sorted(table.rate[~dense].unique()) or [0.0], [], table.epoch.max() < 6
    figure, axes = canvas(2, len(rates), 4.4, title, sharex=True, sharey="row")
    for row, value in zip(axes, ("top1", "loss"), strict=True):
        for axis, rate in zip(row, rates, strict=True):
            for look, rows in style.series(table[dense | (table.rate == rate)]):
                for _, one in rows.groupby("seed") if rows.seed.nunique() > 1 else ():
                    axis.plot(one.epoch, one[value], look.line, color=look.color, linewidth=0.6, alpha=0.5)
                handles.append(look if few else look._replace(marker=""))
                axis.plot(rows.groupby("epoch")[value].mean().dropna(), look.line, **handles[-1].marks)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        row[0].set_ylabel(style.label(value))
    for axis, rate in zip(axes[0], rates, strict=True):
        axis.set_title(f"rate {rate:g}")
    figure.supxlabel(style.label("epoch"), fontsize=9)
    legend(figure, handles)
    return figure


# --------------------------------------------------------------------------------------------------- what is pruned


def sparsity_bars(table: pd.DataFrame, title: str = "") -> Figure:
    """Sparsity of prunable weights against the nominal rate (black line): as pruned (outline) and retrained (filled).

    table: fields, mask_sparsity, conv_sparsity. An outline without filling is a network whose weights grew back;
    hatched are schedules other than one-shot.
    """
    table = need(table, *FIELDS, "mask_sparsity", "conv_sparsity").query("rate > 0")
    rates, groups = sorted(table.rate.unique()), style.series(table)
    figure, axes = canvas(1, 1, 2.9, title)
    axis, wide = axes[0, 0], 0.8 / len(groups)
    for aside, (look, rows) in zip(np.arange(len(groups)) - (len(groups) - 1) / 2, groups, strict=True):
        means = rows.groupby("rate")[["conv_sparsity", "mask_sparsity"]].mean().reindex(rates)
        places = np.arange(len(rates)) + aside * wide
        axis.bar(places, means.conv_sparsity, wide * 0.84, **_filling(look))
        axis.bar(places, means.mask_sparsity, wide * 0.84, facecolor="none", edgecolor=look.color, linewidth=1.6)
    axis.hlines(rates, np.arange(len(rates)) - 0.45, np.arange(len(rates)) + 0.45, color=INK, linewidth=1.2)
    axis.set(ylabel="share of weights that are 0", xlabel=style.label("rate"), ylim=(0, 1))
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.grid(False, axis="x")
    outline = Patch(facecolor="none", edgecolor=PALE, label="as pruned")
    legend(figure, [*(Patch(**_filling(look), label=look.label) for look, _ in groups), outline])
    return figure


def _filling(look: Look) -> dict[str, object]:
    """Options of a bar, hatched where the marker would be hollow."""
    return {"facecolor": look.color, "edgecolor": "white", "linewidth": 0, "hatch": "///" if look.face else ""}


def sensitivity_maps(table: pd.DataFrame, title: str = "") -> Figure:
    """Share of the dense network's Top-1 that is left when one layer alone is pruned: a panel per method.

    table: method, layer, position, rate, kept.
    """
    scans = list(need(table, "method", "layer", "position", "rate", "kept").groupby("method", sort=False))
    figure, axes = canvas(1, len(scans), 5.6, title, sharey=True)
    for axis, (method, rows) in zip(axes[0], scans, strict=True):
        grid = rows.pivot_table(index="position", columns="rate", values="kept")
        picture = axis.imshow(grid, "viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(fill(style.label(method), 84 // len(scans)), fontsize=8)
        shown = range(0, grid.shape[1], -(-grid.shape[1] * len(scans) // 15))
        axis.set_xticks(shown, [f"{grid.columns[i]:g}" for i in shown], fontsize=7.5)
        axis.grid(False)
    places, blocks = style.block_ticks(table)
    axes[0, 0].set_yticks(grid.index.get_indexer(places), blocks)
    axes[0, 0].set_ylabel(LAYERS)
    figure.supxlabel("rate of the one layer that is pruned", fontsize=9)
    figure.colorbar(picture, ax=axes, label=style.label("kept"), shrink=0.5, aspect=30)
    return figure


# ---------------------------------------------------------------------------------------------------- what it costs


def speedups(table: pd.DataFrame, title: str = "") -> Figure:
    """Measured speed-up over the dense network of masked and compact networks, and what their MACs would allow.

    table: fields, form, batch_size, speedup, speedup_low and speedup_high (least and most of the rounds), allowed.
    """
    table = need(table, *FIELDS, "form", "batch_size", "speedup", "speedup_low", "speedup_high", "allowed")
    rows = [f"{name}, {form}" for name, form in zip(style.names(table), table.form, strict=True)]
    panel = "batch of " + table.batch_size.astype(str)
    measured = {"speedup": "value", "speedup_low": "low", "speedup_high": "high"}
    shown = table.assign(row=rows, panel=panel).rename(columns=measured)
    figure = estimates(shown, "speed-up over the dense network", zero=1.0, form=".2f", title=title)
    order = list(dict.fromkeys(rows))
    for axis, (_, same) in zip(figure.axes, shown.groupby("panel", sort=False), strict=True):
        axis.plot(same.allowed, [order.index(row) for row in same["row"]], "x", color=INK, zorder=4)
    legend(figure, [Look(INK, "x", "what the multiplications left would allow", "none")])
    figure.bars = "Bars: least and most of the rounds of timing."
    return figure
