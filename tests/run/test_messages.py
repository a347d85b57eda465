"""Lines, times and paths of messages."""

from pathlib import Path

import pytest

from prunelens import paths
from prunelens.run import messages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (90000, "25:00:00")],
)
def test_clock(seconds: float, text: str) -> None:
    assert messages.clock(seconds) == text


def test_messages_are_one_line() -> None:
    assert messages.one_line(ValueError("a:\n  b\t c")) == "a: b c"
    assert messages.one_line(MemoryError()) == "MemoryError"
    assert messages.first_line("\n  \n  x = 1\ny = 2") == "x = 1" and messages.first_line(" \n") == ""


def test_paths_are_relative_to_the_project_inside_it() -> None:
    assert messages.display(paths.ROOT / "figures" / "quick") == "figures/quick"
    assert messages.display(Path("/elsewhere/figures")) == "/elsewhere/figures"
