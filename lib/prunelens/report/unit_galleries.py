"""Galleries of a study's units: what is drawn of them, beside the images that excite them and their scores.

A unit is (layer, index). Pictures are arrays as the study has them: "exciting/images", "inhibiting/images" (units,
starts, h, w, 3) uint8, "exciting/excited" (units, starts), "alive" (units,).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prunelens.report import galleries
from prunelens.report.galleries import Cell, Page, Task, seen_through, task_answers, task_gallery

__all__ = ["Column", "atlas", "atlas_page", "pages", "task_answers", "task_gallery", "tasks", "through_pruning"]

Arrays = Mapping[str, np.ndarray]
Unit = tuple[str, int]


class Column(NamedTuple):
    """What is shown of one network: its name, the units' pictures and scores, and their most and least activating
    images (units, n, h, w, 3)."""

    name: str
    pictures: Arrays
    scores: Sequence[float]
    top: np.ndarray
    bottom: np.ndarray


def short(layer: str) -> str:
    """A layer's name without what all layers share."""
    return layer.removeprefix("inception").removesuffix(".conv")


def _name(unit: Unit, block: str = "") -> str:
    return f"{short(unit[0].removeprefix(f'{block}.'))} {unit[1]}"


def atlas(drawn: Mapping[str, Arrays], units: Mapping[str, Sequence[Unit]], title: str = "") -> Figure:
    """What excites units of the dense network, one row per block."""
    pictures = [drawn[block]["exciting/images"][:, 0] for block in units]
    captions = [
        [
            _name(unit, block) + ("" if ok else ", not excited")
            for unit, ok in zip(chosen, drawn[block]["exciting/excited"][:, 0], strict=True)
        ]
        for block, chosen in units.items()
    ]
    return galleries.atlas(pictures, [short(block) for block in units], captions, title)


def atlas_page(
    drawn: Arrays,
    units: Sequence[Unit],
    scores: pd.Series,
    label: str,
    top: np.ndarray,
    bottom: np.ndarray,
    title: str = "",
) -> Figure:
    """Units of one block: three pictures of each, and its most and least activating images."""
    natural = seen_through(drawn["natural/images"][:, 0], drawn["natural/opacity"][:, 0])
    shown = [
        Page(
            f"{short(layer)}\n{unit}\n{label} {score:.2f}",
            drawn["exciting/images"][i, 0],
            natural[i],
            drawn["inhibiting/images"][i, 0],
            top[i],
            bottom[i],
        )
        for i, ((layer, unit), score) in enumerate(zip(units, scores, strict=True))
    ]
    return galleries.atlas_page(shown, title=title)


def pages(units: Sequence[Unit], n: int) -> Iterator[range]:
    """The places of the units, ``n`` at a time."""
    for start in range(0, len(units), n):
        yield range(start, min(start + n, len(units)))


def through_pruning(
    columns: Sequence[Column], units: Sequence[Unit], rows: Sequence[int], label: str, title: str = ""
) -> Figure:
    """Some of the units (by their place) in several networks; dead ones are hatched."""
    cells = [[_cell(column, i, label) for column in columns] for i in rows]
    names = [f"{short(units[i][0])}\n{units[i][1]}" for i in rows]
    return galleries.unit_rows(cells, names, [column.name.replace(", ", "\n") for column in columns], title)


def _cell(column: Column, i: int, label: str) -> Cell:
    if not column.pictures["alive"][i]:
        return Cell(None)
    lost = "" if column.pictures["exciting/excited"][i, 0] else ", not excited"
    caption = f"{label} {column.scores[i]:.2f}{lost}"
    return Cell(column.pictures["exciting/images"][i, 0], caption, column.top[i], column.bottom[i])


def tasks(
    units: Sequence[Unit], scores: Sequence[float], label: str, top: np.ndarray, bottom: np.ndarray
) -> list[Task]:
    """The 2-AFC tasks of some units; top, bottom: their extreme images (units, n, h, w, 3)."""
    return [
        Task(f"{_name(unit)}\n{label} {score:.2f}", top[i], bottom[i])
        for i, (unit, score) in enumerate(zip(units, scores, strict=True))
    ]
