"""Figures made of images: samples of the data, the tasks behind MIS, and feature visualizations."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunelens import figures
from prunelens.datasets import ImageSet
from prunelens.interpretability import Queries


def image_samples(image_set: ImageSet, per_class: int = 12, classes: int = 10) -> Figure:
    """The first images of the first classes, one row per class."""
    rows = [np.flatnonzero(image_set.labels == label)[:per_class] for label in range(len(image_set.class_names))][
        :classes
    ]
    figure, axes = figures.canvas(len(rows), 1, 0.2 + len(rows) * figures.WIDTH / (per_class + 2))
    for axis, indices, name in zip(axes[:, 0], rows, image_set.class_names, strict=False):
        axis.imshow(strip(image_set.images[indices], per_class))
        bare(axis)
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def strip(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Images (n, h, w, 3) side by side in rows of ``columns`` images, with white gaps."""
    rows = max(1, -(-len(images) // columns))
    padded = np.pad(images, ((0, rows * columns - len(images)), (gap, 0), (gap, 0), (0, 0)), constant_values=255)
    n, height, width, _ = padded.shape
    return padded.reshape(n // columns, columns, height, width, 3).swapaxes(1, 2).reshape(-1, columns * width, 3)


class Task(NamedTuple):
    """A unit's extreme images, most extreme first: top and bottom (N (K + 1), h, w, 3)."""

    heading: str
    top: np.ndarray
    bottom: np.ndarray


def task_gallery(units: Sequence[Task], tasks: int, explanations: int, seed: int, queries: Queries = "inner") -> Figure:
    """One 2-AFC task per unit: K explanations of each side, and between them a query of each kind, in random order.

    It is the first task of the query rule (`interpretability.tasks`) without shuffling: one explanation of each bin
    of N ranks, and the first query. Which query is the upper one depends on the seed and the unit's place;
    `task_answers` says.
    """
    first_explained, first_asked = (0, tasks * explanations) if queries == "inner" else (tasks, 0)
    shown = first_explained + np.arange(explanations) * tasks
    columns = int(np.ceil(np.sqrt(explanations)))
    figure, axes = figures.canvas(len(units), 4, 1.55 * len(units), width_ratios=[0.9, 1, 0.5, 1])
    for (label, *row), unit, upper in zip(axes, units, _upper_excites(len(units), seed), strict=True):
        asked = [side[first_asked] for side in (unit.top, unit.bottom)]
        row[0].imshow(strip(unit.top[shown], columns))
        row[1].imshow(strip(np.stack(asked if upper else asked[::-1]), 1, gap=4), interpolation="nearest")
        row[2].imshow(strip(unit.bottom[shown], columns))
        for axis in row:
            bare(axis)
        label.axis("off")
        label.text(1, 0.5, unit.heading, ha="right", va="center", fontsize=8, transform=label.transAxes)
    for axis, title in zip(axes[0, 1:], ("excite the unit", "queries", "do not excite it"), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def task_answers(units: Sequence[Task], seed: int) -> str:
    """The answers to `task_gallery` of the same units and seed: HTML, folded until the reader opens it."""
    lines = [
        f"<li>{escape(unit.heading.splitlines()[0])}: the {'upper' if upper else 'lower'} one</li>"
        for unit, upper in zip(units, _upper_excites(len(units), seed), strict=True)
    ]
    return f"<details><summary>Answers: the query that excites the unit</summary><ol>{''.join(lines)}</ol></details>"


def _upper_excites(units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(units) < 0.5


def bare(axis: Axes) -> None:
    """No ticks, no frame."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


# ----------------------------------------------------------------------------------------- feature visualizations


class Cell(NamedTuple):
    """One unit in one network.

    picture: feature visualization (H, W, 3), or None for a dead unit; caption: a short line below; top and
    bottom: natural images (n, h, w, 3) of its strongest and weakest activation, or None.
    """

    picture: np.ndarray | None
    caption: str = ""
    top: np.ndarray | None = None
    bottom: np.ndarray | None = None


def unit_rows(
    cells: Sequence[Sequence[Cell]], units: Sequence[str], networks: Sequence[str], width: float = figures.WIDTH
) -> Figure:
    """Units (rows) in several networks (columns): what each unit shows, with natural images beside.

    cells: units x networks. A dead unit is a hatched box that says so. Images are uint8, or floats in [0, 1]. width: of
    the figure, in inches.
    """
    if len(cells) != len(units) or any(len(row) != len(networks) for row in cells):
        raise ValueError(f"unit_rows needs {len(units)} rows (units) of {len(networks)} cells (networks)")
    shown = max((len(c.top) for row in cells for c in row if c.top is not None), default=0)
    narrow = 1 / shown if shown else 0.0  # width of a column of natural images, in widths of a picture
    lines = [1 + max(name.count("\n") for name in names) for names in (units, networks)]
    left, above = 0.12 + 0.14 * lines[0], (0.27 if shown else 0.1) + 0.15 * lines[1]  # inches
    below, gap = 0.22, 0.1
    side = min(1.7, ((width - left) / len(networks) - gap) / (1 + 2 * narrow))
    step = side * (1 + 2 * narrow) + gap
    longest = max(len(line) for name in networks for line in name.splitlines())
    heading = min(9, (step - gap) / longest / 0.009)  # points; a bold letter is about .009 inches wide per point
    wide, high = left + step * len(networks), above + len(units) * (side + below)
    figures.style()
    figure = plt.figure(figsize=(wide, high))

    def axes(x: float, y: float, width: float) -> Axes:
        """Axes without frame, `width` pictures wide, one picture high; top left corner at (x, y) inches."""
        box = (x / wide, 1 - (y + side) / high, width * side / wide, side / high)
        return figure.add_axes(box, xticks=[], yticks=[], frame_on=False)

    def text(x: float, y: float, words: str, **options) -> None:
        figure.text(x / wide, 1 - y / high, words, ha="center", va="top", **options)

    for j, network in enumerate(networks):
        x = left + j * step
        beside = [x + side * (1 + k * narrow) + 0.03 for k in range(2)]
        text(x + (step - gap) / 2, 0.04, network, weight="bold", fontsize=heading)
        if shown:
            for start, name in zip(beside, ("top", "low"), strict=True):
                text(start + side * narrow / 2, above - 0.12, name, fontsize=min(6.5, 30 * side * narrow))
        for i, row in enumerate(cells):
            y, cell = above + i * (side + below), row[j]
            axis = axes(x, y, 1)
            _picture(axis, cell)
            if j == 0:
                axis.set_ylabel(units[i], fontsize=8)
            for start, images in zip(beside, (cell.top, cell.bottom), strict=True):
                if images is not None:
                    axes(start, y, narrow).imshow(_stack(images, shown), aspect="auto")
    return figure


def _picture(axis: Axes, cell: Cell) -> None:
    axis.set_xlabel(cell.caption, fontsize=7.5, labelpad=2)
    if cell.picture is not None:
        axis.imshow(cell.picture, interpolation="nearest")
        return
    box = plt.Rectangle((0.01, 0.01), 0.98, 0.98, facecolor="#F4F4F4", edgecolor="#AAAAAA", hatch="////")
    axis.add_patch(box)
    axis.text(0.5, 0.5, "dead", ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none"})
    axis.set(xlim=(0, 1), ylim=(0, 1))


def _stack(images: np.ndarray, rows: int) -> np.ndarray:
    """Images (n, h, w, 3) as one column of `rows` images with white gaps of two pixels."""
    images = np.asarray(images)
    white = 255 if images.dtype == np.uint8 else 1.0
    padded = np.pad(images, ((0, rows - len(images)), (0, 0), (0, 0), (0, 0)), constant_values=white)
    padded = np.pad(padded, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=white)
    return padded.reshape(-1, *padded.shape[2:])


def atlas(pictures: Sequence[np.ndarray], blocks: Sequence[str], captions: Sequence[Sequence[str]]) -> Figure:
    """Blocks of a network as rows of its units' pictures: pictures, for each block (units, h, w, 3); a caption each."""
    columns = max(len(row) for row in pictures)
    side = (figures.WIDTH - 0.6) / columns
    figure, axes = figures.canvas(len(blocks), columns, len(blocks) * (side + 0.14))
    for row, images, name, below in zip(axes, pictures, blocks, captions, strict=True):
        for axis in row:
            bare(axis)
        for axis, image, caption in zip(row, images, below, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_xlabel(caption, fontsize=6, labelpad=1)
        row[0].set_ylabel(name, fontsize=8)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    return figure


class Page(NamedTuple):
    """A unit's pictures, (h, w, 3) each, and its most and least activating images, (n, h, w, 3)."""

    heading: str
    exciting: np.ndarray
    natural: np.ndarray
    inhibiting: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def atlas_page(units: Sequence[Page], columns: int = 3) -> Figure:
    """One row per unit: three pictures, and natural images in squares of `columns` a side."""
    titles = (
        "excites",
        "excites,\nnatural spectrum",
        "inhibits",
        "most activating\nimages",
        "least activating\nimages",
    )
    side = (figures.WIDTH - 0.9) / 5
    figure, axes = figures.canvas(len(units), 5, 0.35 + len(units) * (side + 0.05))
    for row, unit in zip(axes, units, strict=True):
        squares = [strip(images[: columns**2], columns) for images in (unit.top, unit.bottom)]
        for axis, image in zip(row, (*unit[1:4], *squares), strict=True):
            axis.imshow(image, interpolation="nearest")
            bare(axis)
        row[0].set_ylabel(unit.heading, fontsize=7.5, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, loc="center")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    return figure


def in_block(layer: str) -> str:
    """The short name of a conv: "branch3.1" for "inception4d.branch3.1.conv"."""
    return layer.split(".", 1)[-1].removesuffix(".conv")


def seen_through(images: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Images (..., h, w, 3) uint8 on white, as transparent as the opacity (..., h, w) says, uint8."""
    share = opacity[..., None] / 255
    return (images * share + 255 * (1 - share)).round().astype(np.uint8)
