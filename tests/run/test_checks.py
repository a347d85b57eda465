"""What is asked for: notebooks by number, parameters, a study that is found and tried."""

import re
from pathlib import Path

import pytest

from prunelens import study as study_module
from prunelens.run import checks
from prunelens.run.checks import Request, UsageError

NAMES = ["00_setup", "01_pruning", "03_accuracy", "05_mis"]
PATHS = [Path(f"{name}.ipynb") for name in NAMES]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", NAMES),
        ("01", ["01_pruning"]),
        ("5,1", ["01_pruning", "05_mis"]),
        ("00, 03-05", ["00_setup", "03_accuracy", "05_mis"]),
        ("00-05", NAMES),
        ("03,03-03", ["03_accuracy"]),
    ],
)
def test_notebooks_are_selected_in_order(wanted: str, expected: list[str]) -> None:
    assert [path.stem for path in checks.select(PATHS, wanted)] == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("07", "no notebook 07; there are 00, 01, 03, 05"),
        ("01-04", "no notebook 04"),
        ("05-01", "the range 05-01 runs backwards"),
        ("mis", "'mis' is no number"),
        ("01,", "'' is no number"),
        ("1-2-3", "'1-2-3' is no number"),
        ("٣", "'٣' is no number"),
    ],
)
def test_a_bad_selection_says_what_is_there(wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        checks.select(PATHS, wanted)


def test_no_notebooks_at_all() -> None:
    with pytest.raises(UsageError, match=r"no notebooks in .*notebooks; expected NN_name.ipynb"):
        checks.select([], "")


def test_parameters_are_read_as_python() -> None:
    source = 'a: str = "x"  # such as ["y=4"]\nb, c = 1, 2\nd = {\n    "e": 3,\n}'
    assert checks.assigned(source) == ["a", "d"]
    assert checks.assigned("not python") == []


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_what_a_study_refuses_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    class Refused:
        def __init__(self, *asked: object) -> None:
            assert asked == ("mine", ["seed=1"], "auto", "")

        def check(self) -> None:
            raise kind("data.root:\n   found nothing,\texpected a folder")

    monkeypatch.setattr(study_module, "Study", Refused)
    with pytest.raises(UsageError, match=r"^data.root: found nothing, expected a folder$"):
        checks.study(Request("mine", ["seed=1"], "auto", ""))
