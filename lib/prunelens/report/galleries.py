"""Figures made of images: samples of the data, the tasks behind the MIS, pictures of units. Images are (n, h, w, 3).

A unit is (layer, index). Pictures are arrays as the study has them: "images" (units, starts, h, w, 3) uint8, "excited"
(units, starts) and, in several networks, "alive" (units,).
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prunelens.report.style import WIDTH, canvas

SAMPLES, CLASSES = 12, 10  # that are shown of the data: images of a class, and classes

Image = np.ndarray  # (h, w, 3), uint8 or floats in [0, 1]
Arrays = Mapping[str, np.ndarray]
Unit = tuple[str, int]


def _grid(
    images: Sequence[Sequence[Image | None]], rows: Sequence[str], columns: Sequence[str], widths: Sequence[float],
    side: float, title: str, captions: Sequence[Sequence[str]] = (), below: float = 0.05,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """Images in rows and columns with their names.

    widths: of columns, in sides; side: inches of a square image's side; below: inches below a row.
    """
    left = 0.15 + 0.065 * max(len(line) for name in rows for line in name.splitlines())
    width, height = left + sum(widths) * side + 0.03 * len(widths), 0.05 + len(images) * (side + below)
    height += 0.16 * max((1 + name.count("\n") for name in columns), default=0)
    figure, axes = canvas(len(images), len(widths), height, title, width, width_ratios=widths)
    for row, shown, name in zip(axes, images, rows, strict=True):
        for axis, image in zip(row, shown, strict=True):
            axis.set(xticks=[], yticks=[], anchor="W")  # else labels at the left lie outside their margin
            axis.grid(False)
            axis.spines[:].set_visible(False)
            if image is not None:
                axis.imshow(image, interpolation="nearest")
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for row, words in zip(axes, captions, strict=False):
        for axis, caption in zip(row, words, strict=False):
            axis.set_xlabel(caption, fontsize=6.5, labelpad=2)
    for axis, name in zip(axes[0], columns, strict=False):
        axis.set_title(name, fontsize=8, loc="center")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    return figure, axes


def strip(images: np.ndarray, columns: int, gap: int = 2) -> Image:
    """Images side by side in rows of so many columns, with white gaps."""
    rows = max(1, -(-len(images) // columns))
    white = 255 if images.dtype == np.uint8 else 1.0
    padded = np.pad(images, ((0, rows * columns - len(images)), (gap, 0), (gap, 0), (0, 0)), constant_values=white)
    n, height, width, _ = padded.shape
    return padded.reshape(n // columns, columns, height, width, 3).swapaxes(1, 2).reshape(-1, columns * width, 3)


def image_samples(images: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str = "") -> Figure:
    """The first `SAMPLES` images of `CLASSES` classes from first to last, one row per class."""
    classes = np.unique(np.linspace(0, len(names) - 1, CLASSES).round().astype(int))
    strips = [[strip(images[labels == index][:SAMPLES], SAMPLES)] for index in classes]
    return _grid(strips, [names[index] for index in classes], (), [SAMPLES], (WIDTH - 1) / SAMPLES, title)[0]


def _name(unit: Unit, between: str = " ") -> str:
    """A unit without what the names of all layers share."""
    return f"{unit[0].removeprefix('inception').removesuffix('.conv')}{between}{unit[1]}"


# ------------------------------------------------------------------------------------------------ tasks of the MIS


def task_gallery(
    headings: Sequence[str], top: np.ndarray, bottom: np.ndarray, tasks: int, explanations: int, seed: int,
    title: str = "",
) -> Figure:  # fmt: skip
    """One 2-AFC task per unit: K explanations of each side, and between them a query of each kind, in random order.

    top, bottom: the units' extreme images (units, N (K + 1), h, w, 3), most extreme first. It is the unit's first task
    without shuffling: one explanation of each bin of N ranks, and the first query. Which query is the upper one depends
    on the seed and the unit's place; `task_answers` says.
    """
    shown, asked = np.arange(explanations) * tasks, tasks * explanations
    columns, rows = int(np.ceil(np.sqrt(explanations))), []
    for most, least, upper in zip(top, bottom, _upper_excites(len(headings), seed), strict=True):
        queries = np.stack([most[asked], least[asked]][:: 1 if upper else -1])
        rows.append([strip(most[shown], columns), strip(queries, 1, gap=4), strip(least[shown], columns)])
    titles = ("excite the unit", "queries", "do not excite it")
    return _grid(rows, headings, titles, [1, 0.5, 1], 1.5, title)[0]


def task_answers(headings: Sequence[str], seed: int) -> str:
    """The answers to `task_gallery` of the same units and seed: HTML, folded until the reader opens it."""
    lines = [
        f"<li>{escape(heading.splitlines()[0])}: the {'upper' if upper else 'lower'} one</li>"
        for heading, upper in zip(headings, _upper_excites(len(headings), seed), strict=True)
    ]
    return f"<details><summary>Answers: the query that excites the unit</summary><ol>{''.join(lines)}</ol></details>"


def _upper_excites(units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(units) < 0.5


def headings(units: Sequence[Unit], scores: Sequence[float], label: str) -> list[str]:
    """Names of units with their scores below."""
    return [f"{_name(unit)}\n{label} {score:.2f}" for unit, score in zip(units, scores, strict=True)]


# ------------------------------------------------------------------------------------------------ pictures of units


def _lost(pictures: Arrays, unit: int) -> str:
    return "" if pictures["excited"][unit, 0] else ", not excited"


class Column(NamedTuple):
    """What is shown of one network: its name, the units' pictures and scores, and their most and least activating
    images (units, n, h, w, 3)."""

    name: str
    pictures: Arrays
    scores: Sequence[float]
    top: np.ndarray
    bottom: np.ndarray


def through_pruning(
    columns: Sequence[Column], units: Sequence[Unit], rows: Sequence[int], label: str, title: str = ""
) -> Figure:
    """Some of the units (by their place) in several networks: a picture, beside it natural images; dead: hatched."""
    shown: list[list[Image | None]] = [[] for _ in rows]
    captions: list[list[str]] = [[] for _ in rows]
    for column in columns:
        for line, words, i in zip(shown, captions, rows, strict=True):
            alive, images = column.pictures["alive"][i], column.pictures["images"]
            cell = (images[i, 0], strip(column.top[i], 1), strip(column.bottom[i], 1)) if alive else (None,) * 3
            line += [*cell, None]
            words += [f"{label} {column.scores[i]:.2f}{_lost(column.pictures, i)}" if alive else "", "", "", ""]
    thin = 1 / columns[0].top.shape[1]
    widths = [1, thin, thin, 0.06] * len(columns)
    titles = [name for column in columns for name in (column.name.replace(", ", "\n"), "top", "low", "")]
    names = [_name(units[i], between="\n") for i in rows]
    figure, axes = _grid(shown, names, titles, widths, min(1.5, 11 / sum(widths)), title, captions, 0.2)
    for axis in (*axes[0, 1::4], *axes[0, 2::4]):
        axis.title.set_fontsize(6)
    for axis, line in zip(axes, shown, strict=True):
        for place in range(0, len(line), 4):
            if line[place] is None:
                _dead(axis[place])
    return figure


def _dead(axis: Axes) -> None:
    axis.add_patch(Rectangle((0.01, 0.01), 0.98, 0.98, facecolor="#F4F4F4", edgecolor="#AAAAAA", hatch="////"))
    axis.text(0.5, 0.5, "dead", ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none"})
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
