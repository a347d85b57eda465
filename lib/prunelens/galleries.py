"""Figures made of images: samples of the data, and the tasks behind MIS."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunelens import figures
from prunelens.datasets import ImageSet


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


def task_gallery(units: Sequence[Task], tasks: int, explanations: int, seed: int) -> Figure:
    """One 2-AFC task per unit: K explanations of each side, and between them a query of each kind, in random order.

    It is the first task under the "inner" query rule without shuffling: one explanation of each bin of N ranks, and
    the query of rank N K. Which query is the upper one depends on the seed and the unit's place; `task_answers` says.
    """
    shown = np.arange(explanations) * tasks
    columns = int(np.ceil(np.sqrt(explanations)))
    figure, axes = figures.canvas(len(units), 4, 1.55 * len(units), width_ratios=[0.9, 1, 0.5, 1])
    for (label, *row), unit, upper in zip(axes, units, _upper_excites(len(units), seed), strict=True):
        queries = [side[explanations * tasks] for side in (unit.top, unit.bottom)]
        row[0].imshow(strip(unit.top[shown], columns))
        row[1].imshow(strip(np.stack(queries if upper else queries[::-1]), 1, gap=4), interpolation="nearest")
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
