"""What a run says: lines, times and paths."""

import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TextIO

from prunelens import paths


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, also into a pipe."""
    print(line, file=stream or sys.stdout, flush=True)


def one_line(error: BaseException) -> str:
    """The message of an exception in one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def count(notebooks: list[Path]) -> str:
    """ "1 notebook", "9 notebooks"."""
    return f"{len(notebooks)} notebook{'s' if len(notebooks) != 1 else ''}"


def clock(seconds: float) -> str:
    """0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def display(path: Path) -> str:
    """A path, relative to the project where it is inside."""
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def first_line(source: str) -> str:
    """The first line that is not empty, cut to 100 characters."""
    return next((line.strip() for line in source.splitlines() if line.strip()), "")[:100]


def columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Rows of cells as lines in which columns stand below each other; those of the numbers in `right` end together."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:>{w}}" if i in right else f"{cell:<{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
