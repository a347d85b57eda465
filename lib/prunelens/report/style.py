"""The one style of all figures: colors, markers and names of networks, empty figures, legends.

A method has one color and one marker everywhere: those of its `@describe`. Networks retrained without masks are paler;
iterative and recalibrated ones have dashed lines and hollow markers. Dense networks, and those of random weights, are
grey.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunelens.registry import TOP1, Description
from prunelens.variants import DENSE, RETRAINED

STYLE = Path(__file__).parents[1] / "data" / "report.mplstyle"
WIDTH = 7.0  # inches, the width of the report
INK, PALE = "#222222", "#555555"
# Of methods that have no color: colors and markers.
FREE = {"#882255": "*", "#44AA99": "h", "#999933": "8", "#332288": "P", "#AA4499": "X", "#DDCC77": "d"}
SCHEDULES = {
    "none": "not retrained",
    "recalibrated": "BatchNorm recalibrated",
    "one_shot": "one-shot",
    "iterative": "iterative",
}
DASHES = {"iterative": "--", "recalibrated": "-."}
LOOK = {"method": DENSE, "schedule": "one_shot", "masked": True, "weights": "trained"}  # fields that give the look
# Of columns, for axes, headings and captions; methods and measures bring theirs in `@describe`, and a study that of its
# accuracy.
LABELS = {
    "rate": "nominal pruning rate",
    "conv_sparsity": "sparsity of the prunable conv weights",
    "total_sparsity": "sparsity of all parameters",
    "top1": TOP1,
    "kept": f"share of the dense network's {TOP1} that is left",
    "loss": "training loss (nats)",
    "epoch": "epoch of retraining",
    "reached": "activation reached",
    "like_top": "like the unit's top images, minus random ones",
    "like_dense": "like the dense network's picture",
    "consistency": "alike over starts",
}


class Look(NamedTuple):
    color: str
    marker: str
    label: str
    line: str = "-"
    face: str = ""  # of the marker; empty: the color
    half: bool = False  # only the lower half has the face

    @property
    def marks(self) -> dict[str, Any]:
        """Options of lines with markers."""
        edge = self.color if self.face or self.marker in "x+" else "white"
        wide = {"markeredgewidth": 1.1 if edge == self.color else 0.5, "markerfacecolor": self.face or self.color}
        half = {"fillstyle": "bottom", "markerfacecoloralt": self.color} if self.half else {}
        return {"color": self.color, "marker": self.marker, "markeredgecolor": edge, **wide, **half}


_known: dict[str, Description] = {}


def register(descriptions: Mapping[str, Description]) -> None:
    """Set labels and looks of methods and measures; those without a color get the next free one, in order."""
    _known.clear()
    free = cycle(color for color in FREE if color not in {each.color for each in descriptions.values()})
    for name, each in descriptions.items():
        color = each.color or next(free)
        _known[name] = replace(each, color=color, marker=each.marker or FREE.get(color, "o"))


def described(name: str) -> Description:
    """The registered description of a method or measure; an unknown one has its name as label and is grey."""
    return _known.get(name) or Description(name.rpartition(".")[2].replace("_", " "), color="#888888", marker="o")


def label(column: str) -> str:
    """Axis label of a table's column; also the label of a registered method or measure."""
    return _known[column].label if column in _known else LABELS.get(column, column.replace("_", " "))


def look(row: Mapping[str, Any]) -> Look:
    """How a table's row is drawn; fields that it does not have are those of a masked one-shot network."""
    method, schedule, masked, weights = (row.get(name, usual) for name, usual in LOOK.items())
    words, line, face = ", ".join(_words(row)), DASHES.get(schedule, "-"), "white" if schedule in DASHES else ""
    if method == DENSE:
        grey = "#B0B0B0" if weights == "random" else "#767676" if schedule in RETRAINED else INK
        return Look(grey, "o", words, line, face)
    known = described(method)
    color = known.color if masked else to_hex(0.45 * np.array(to_rgb(known.color)) + 0.55)
    return Look(color, known.marker, words, line, face)


def _words(row: Mapping[str, Any]) -> list[str]:
    method, schedule, masked, weights = (row.get(name, usual) for name, usual in LOOK.items())
    if method == DENSE:
        how = {"none": [], "one_shot": ["retrained"]}.get(schedule, [SCHEDULES[schedule]])
        return ["dense" if weights == "trained" else f"{weights} weights", *how]
    more = [SCHEDULES[schedule] * (schedule in DASHES), "unmasked" * (not masked)]
    return [described(method).label, *filter(None, more)]


def names(table: pd.DataFrame, seeds: bool = False) -> list[str]:
    """What the networks of a table are called: method, rate and what sets them apart from masked one-shot networks.

    Epochs are named where networks differ in nothing else; seeds where asked for.
    """
    retrained = "schedule" in table and bool(table.schedule.isin(RETRAINED).any())
    found = []
    for row in table.to_dict("records"):
        first, *more = _words(row)
        if row["method"] != DENSE:
            raw = retrained and row.get("schedule") == "none"
            more = ([f"{row['rate']:g}"] if "rate" in row else []) + ["not retrained"] * raw + more
        found.append(", ".join([first, *more, *([f"seed {row['seed']}"] if seeds else [])]))
    if "epochs" in table and table.assign(found=found).groupby("found").epochs.nunique().max() > 1:
        return [f"{name}, {n} epochs" if n else name for name, n in zip(found, table.epochs, strict=True)]
    return found


def series(table: pd.DataFrame) -> list[tuple[Look, pd.DataFrame]]:
    """Rows that look alike (rates and seeds together): dense networks first, then methods as they were registered."""
    orders = {"method": [DENSE, *_known, *table.method], "schedule": [*SCHEDULES], "masked": [True, False],
              "weights": ["trained", "random"]}  # fmt: skip
    groups = [rows for _, rows in table.groupby([name for name in orders if name in table])]
    groups.sort(key=lambda rows: [order.index(rows[name].iloc[0]) for name, order in orders.items() if name in rows])
    return [(look(rows.iloc[0]), rows) for rows in groups]


# ------------------------------------------------------------------------------------------------------------ figures


def canvas(rows: int, columns: int, height: float, title: str, width: float = WIDTH, **more: Any) -> tuple[Figure, Any]:
    """An empty figure: figure and axes (rows, columns). height: inches without title; title: what to see."""
    plt.style.use(STYLE)
    title = fill(title, int(11 * width))
    size = (width, height + (0.1 + 0.17 * (1 + title.count("\n")) if title else 0))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **more)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, weight="bold")
    return figure, axes


def panels(count: int, columns: int, height: float, title: str, x: str, y: str) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels, in rows of one height and with at most so many columns; x, y: axis labels."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = canvas(rows, columns, 0.4 + height * rows, title, sharex=True, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for axis in axes.flat[count - columns : count]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    return figure, list(axes.flat[:count])


def need(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table itself. Raises ValueError where it is empty or lacks a column, which it names."""
    if missing := [column for column in columns if column not in table]:
        found = ", ".join(map(str, table.columns))
        raise ValueError(f"table to plot lacks {', '.join(missing)}; it has {found}")
    if table.empty:
        raise ValueError("table to plot is empty")
    return table


def legend(figure: Figure, handles: Iterable[Look | Artist]) -> None:
    """A legend below the panels, each label once, in as many columns as fit; the figure grows by its height.

    Its title is the label of the horizontal axis, where the whole figure has one.
    """
    drawn = [Line2D([], [], linestyle=h.line, label=h.label, **h.marks) if isinstance(h, Look) else h for h in handles]
    shown = [*{str(handle.get_label()): handle for handle in drawn}.values()]
    x = figure.get_supxlabel()
    figure.supxlabel("")
    for ncols in (3, 2, 1):
        box = figure.legend(handles=shown, loc="outside lower center", ncols=ncols, title=x)
        if ncols == 1 or box.get_window_extent().width <= figure.bbox.width:
            break
        box.remove()
    figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(shown) // ncols))


def interval(axis: Axes, place: Any, table: pd.DataFrame, look: Look, across: bool = False, **options: Any) -> None:
    """Points with the intervals of columns value, low, high at places on the other axis; caps outreach the marker."""
    ends = np.abs([table.value - table.low, table.high - table.value]).astype(float)
    where = (table.value, place) if across else (place, table.value)
    bars = {"xerr" if across else "yerr": ends, "capthick": 1.1, "elinewidth": 1.3}
    axis.errorbar(*where, **bars, **{"linestyle": "none", "zorder": 3, **look.marks, **options})


def frame(axes: Sequence[Axes], measure: str, chance: float | None = None) -> list[Line2D]:
    """Keep panels within the measure's limits and draw a dotted line at chance; returns its legend entry.

    Where that would take up more than half of the panels there is no line, and the entry says so.
    """
    known, (low, high) = described(measure), axes[0].get_ylim()
    level, (least, most) = known.chance if chance is None else chance, known.limits or (-np.inf, np.inf)
    near = level is not None and 2 * low - high < level < 2 * high - low
    if near:
        low, high = min(low, level - 0.04 * (high - low)), max(high, level + 0.04 * (high - low))
        for axis in axes:
            axis.axhline(level, color=PALE, linewidth=1, linestyle=":", zorder=1)
    axes[0].set_ylim(max(low, least), min(high, most))
    if level is None:
        return []
    words = f"chance, {level:.3g}" + ("" if near else ", outside the panels")
    return [Line2D([], [], color=PALE, linestyle=":" if near else "none", label=words)]


def block_ticks(layers: pd.DataFrame) -> tuple[list[float], list[str]]:
    """Positions where blocks begin, and short names of these; blocks that begin too close to the one before have none.

    layers: position and layer, and block, or else the first part of the layer's name stands for it.
    """
    layers = layers.drop_duplicates("position").sort_values("position")
    blocks = layers.block if "block" in layers else layers.layer.str.split(".").str[0]
    first = blocks != blocks.shift()
    ticks: dict[float, str] = {}
    for place, name in zip(layers.position[first], short_blocks(blocks[first].tolist()), strict=True):
        if not ticks or place - max(ticks) > np.ptp(layers.position) / 14:
            ticks[place] = name
    return [*ticks], [*ticks.values()]


def short_blocks(blocks: Sequence[str]) -> list[str]:
    """Blocks without what several have in common: "inception3a", "inception3b", "fc" become "3a", "3b", "fc"."""
    kinds = ["".join(re.findall(r"^[A-Za-z_]+(?=\d+[a-z.])", block)) for block in blocks]
    return [b.removeprefix(kind) if kinds.count(kind) > 1 else b for b, kind in zip(blocks, kinds, strict=True)]
