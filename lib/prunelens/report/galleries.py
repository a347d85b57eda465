"""Figures made of images: samples of the data, the tasks behind the MIS, pictures of units. Images are (n, h, w, 3)."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prunelens.report.style import WIDTH, canvas

Image = np.ndarray  # (h, w, 3), uint8 or floats in [0, 1]


def _grid(
    images: Sequence[Sequence[Image | None]], rows: Sequence[str], columns: Sequence[str], side: float, title: str,
    captions: Sequence[Sequence[str]] = (), widths: Sequence[float] = (), below: float = 0.05,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """Images in rows and columns with their names.

    side: inches of a square image's side; widths: of columns, in sides; below: inches below a row.
    """
    widths = widths or [1] * max(len(row) for row in images)
    left = 0.15 + 0.065 * max(len(line) for name in rows for line in name.splitlines())
    width, height = left + sum(widths) * side + 0.03 * len(widths), 0.05 + len(images) * (side + below)
    height += 0.16 * max((1 + name.count("\n") for name in columns), default=0)
    figure, axes = canvas(len(images), len(widths), height, title, width, width_ratios=widths)
    for row, shown, name in zip(axes, images, rows, strict=True):
        for axis, image in zip(row, [*shown, *[None] * len(widths)], strict=False):
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


def strip(images: np.ndarray, columns: int, rows: int = 0, gap: int = 2) -> Image:
    """Images side by side in (at least so many) rows of so many columns, with white gaps."""
    rows = max(1, rows, -(-len(images) // columns))
    white = 255 if images.dtype == np.uint8 else 1.0
    padded = np.pad(images, ((0, rows * columns - len(images)), (gap, 0), (gap, 0), (0, 0)), constant_values=white)
    n, height, width, _ = padded.shape
    return padded.reshape(n // columns, columns, height, width, 3).swapaxes(1, 2).reshape(-1, columns * width, 3)


def image_samples(
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    per_class: int = 12,
    classes: int = 10,
    title: str = "",
) -> Figure:
    """The first images of the first classes, one row per class."""
    shown = [np.flatnonzero(labels == index)[:per_class] for index in range(len(names))][:classes]
    strips = [[strip(images[chosen], per_class)] for chosen in shown]
    return _grid(strips, names[:classes], (), (WIDTH - 1) / per_class, title, widths=[per_class])[0]


class Task(NamedTuple):
    """A unit's extreme images, most extreme first: top and bottom (N (K + 1), h, w, 3)."""

    heading: str
    top: np.ndarray
    bottom: np.ndarray


def task_gallery(units: Sequence[Task], tasks: int, explanations: int, seed: int, title: str = "") -> Figure:
    """One 2-AFC task per unit: K explanations of each side, and between them a query of each kind, in random order.

    It is the unit's first task without shuffling: one explanation of each bin of N ranks, and the first query. Which
    query is the upper one depends on the seed and the unit's place; `task_answers` says.
    """
    shown, asked = np.arange(explanations) * tasks, tasks * explanations
    columns, rows = int(np.ceil(np.sqrt(explanations))), []
    for unit, upper in zip(units, _upper_excites(len(units), seed), strict=True):
        queries = np.stack([unit.top[asked], unit.bottom[asked]][:: 1 if upper else -1])
        rows.append([strip(unit.top[shown], columns), strip(queries, 1, gap=4), strip(unit.bottom[shown], columns)])
    titles = ("excite the unit", "queries", "do not excite it")
    return _grid(rows, [unit.heading for unit in units], titles, 1.5, title, widths=[1, 0.5, 1])[0]


def task_answers(units: Sequence[Task], seed: int) -> str:
    """The answers to `task_gallery` of the same units and seed: HTML, folded until the reader opens it."""
    lines = [
        f"<li>{escape(unit.heading.splitlines()[0])}: the {'upper' if upper else 'lower'} one</li>"
        for unit, upper in zip(units, _upper_excites(len(units), seed), strict=True)
    ]
    return f"<details><summary>Answers: the query that excites the unit</summary><ol>{''.join(lines)}</ol></details>"


def _upper_excites(units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(units) < 0.5


class Cell(NamedTuple):
    """One unit in one network: its picture (None: dead), a short line below, its most and least activating images."""

    picture: Image | None
    caption: str = ""
    top: np.ndarray | None = None
    bottom: np.ndarray | None = None


def unit_rows(
    cells: Sequence[Sequence[Cell]], units: Sequence[str], networks: Sequence[str], title: str = ""
) -> Figure:
    """Units (rows) in several networks (columns): pictures, beside each its natural images; dead units are hatched."""
    if len(cells) != len(units) or any(len(row) != len(networks) for row in cells):
        raise ValueError(f"unit_rows needs {len(units)} rows (units) of {len(networks)} cells (networks)")
    tall = max((len(cell.top) for row in cells for cell in row if cell.top is not None), default=1)
    rows, captions = [], []
    for row in cells:
        natural = [[None if side is None else strip(side, 1, tall) for side in (c.top, c.bottom)] for c in row]
        rows.append([image for c, beside in zip(row, natural, strict=True) for image in (c.picture, *beside, None)])
        captions.append([words for cell in row for words in (cell.caption, "", "", "")])
    widths = [1, 1 / tall, 1 / tall, 0.06] * len(networks)
    columns = [name for network in networks for name in (network, "top", "low", "")]
    figure, axes = _grid(rows, units, columns, min(1.5, 11 / sum(widths)), title, captions, widths, 0.2)
    for axis in (*axes[0, 1::4], *axes[0, 2::4]):
        axis.title.set_fontsize(6)
    for axis, cell in zip(axes[:, ::4].flat, [cell for row in cells for cell in row], strict=True):
        if cell.picture is None:
            _dead(axis)
    return figure


def _dead(axis: Axes) -> None:
    axis.add_patch(Rectangle((0.01, 0.01), 0.98, 0.98, facecolor="#F4F4F4", edgecolor="#AAAAAA", hatch="////"))
    axis.text(0.5, 0.5, "dead", ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none"})
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def atlas(
    pictures: Sequence[np.ndarray], blocks: Sequence[str], captions: Sequence[Sequence[str]], title: str = ""
) -> Figure:
    """Blocks of a network as rows of its units' pictures: for each block (units, h, w, 3), and a caption each."""
    side = min(1.3, (WIDTH - 0.8) / max(len(row) for row in pictures))
    return _grid(pictures, blocks, (), side, title, captions, below=0.16)[0]


class Page(NamedTuple):
    """A unit's pictures and its most and least activating images, (n, h, w, 3)."""

    heading: str
    exciting: Image
    natural: Image
    inhibiting: Image
    top: np.ndarray
    bottom: np.ndarray


def atlas_page(units: Sequence[Page], columns: int = 3, title: str = "") -> Figure:
    """One row per unit: three pictures, and natural images in squares of `columns` a side."""
    rows = [[*unit[1:4], *(strip(side[: columns**2], columns) for side in unit[4:])] for unit in units]
    titles = ("excites", "excites, natural", "inhibits", "most activating", "least activating")
    return _grid(rows, [unit.heading for unit in units], titles, (WIDTH - 1) / 5, title)[0]


def seen_through(images: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Images (..., h, w, 3) uint8 on white, as transparent as the opacity (..., h, w) says, uint8."""
    share = opacity[..., None] / 255
    return (images * share + 255 * (1 - share)).round().astype(np.uint8)
