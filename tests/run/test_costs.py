"""Costs of made-up work add up, and seconds are extended along a line."""

import math
from types import SimpleNamespace

import pytest

from prunelens.run import costs
from prunelens.run.costs import Guess

WORK = {"scratch": [None], "retrained": ["a", "b", "c", "d"], "alive": []}


def known(stage: str, subject: str | None) -> dict | None:
    return {"seconds": 7.0, "bytes": 1_000_000} if (stage, subject) in {("scratch", None), ("retrained", "d")} else None


def test_costs_add_up() -> None:
    found = costs.costs(WORK, known, lambda stage, subject: Guess(30.0, 2e6), 2)
    assert found == [
        costs.Cost("scratch", 1, 1, 7.0, 0.0, 0.0),
        costs.Cost("retrained", 4, 1, 30.0, 1.0, 6.0),  # three, two at once
        costs.Cost("alive", 0, 0, 0.0, 0.0, 0.0),
    ]


def test_what_is_done_once_has_one_process() -> None:
    nothing = costs.costs({"scratch": [None]}, lambda *unit: None, lambda *unit: Guess(60.0, 0), 8)
    assert nothing[0].minutes == 1.0


@pytest.mark.parametrize(
    ("seconds", "processes", "wall"),
    [([], 2, 0), ([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([3, 3, 3], 8, 3), ([1, 1, 8], 2, 9), ([8, 1, 1], 2, 8)],
)
def test_the_last_process_says_when_all_is_done(seconds: list[float], processes: int, wall: float) -> None:
    assert costs.makespan(seconds, processes) == wall


def test_seconds_follow_the_line_through_two_studies_where_it_rises() -> None:
    study = SimpleNamespace()
    small, large = (10.0, 3.0, 1.0, study), (30.0, 5.0, 1.0, study)
    assert costs._line([small, large], 130.0) == pytest.approx(15.0)  # two seconds whatever is done, and a tenth each
    assert costs._line([large], 60.0) == pytest.approx(10.0)
    assert costs._line([(10.0, 3.0, 1.0, study), (30.0, 2.7, 1.0, study)], 60.0) == pytest.approx(5.4)


def test_a_stage_of_which_nothing_is_known_costs_nobody_knows_what() -> None:
    guesses = costs.Guesses.__new__(costs.Guesses)
    profile = SimpleNamespace(interpretability=None, sensitivity=None, visualization=None)
    guesses.planned, guesses._points = SimpleNamespace(profile=profile, train=[], validation=[]), [{}]
    assert math.isnan(guesses("layers", None).seconds)
    assert guesses.missing({"layers": [None]}, lambda *unit: None)
    assert not guesses.missing({"layers": [None]}, lambda *unit: {})
