"""Widths that a small run predicts for a large one, and what would decide a claim."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from prunelens.analysis import estimates, example, power, verdicts
from prunelens.analysis.estimates import Estimate, Part


def half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def seeds(generator: np.random.Generator, n: int, center: float = 0.0, spread: float = 0.01) -> Estimate:
    return estimates.mean(generator.normal(center, spread, n), "seeds")


@pytest.mark.parametrize(("pilot", "planned"), [(3, 12), (2, 5), (12, 3), (5, 5)])
def test_pilots_predict_the_half_widths_of_other_numbers_of_seeds_on_average(pilot: int, planned: int) -> None:
    generator = np.random.default_rng(0)
    expected = [half(power.rescale(seeds(generator, pilot), {"seeds": planned})) for _ in range(3000)]
    found = [half(seeds(generator, planned)) for _ in range(3000)]
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.04)


def test_the_same_numbers_give_the_same_interval() -> None:
    found = seeds(np.random.default_rng(0), 5)
    assert power.rescale(found, {"seeds": 5}) == found == power.rescale(found, {"classes": 7})
    bare = Estimate(0.1, 0.0, 0.3, "5 seeds")
    assert power.rescale(bare, {"seeds": 50}) == bare, "what it is over is not known"


def test_each_sample_shrinks_its_own_part() -> None:
    both = (Part("seeds", 5, 1.0, 4), Part("classes", 100, 1.0, 99))
    found = Estimate(0.0, -3.0, 3.0, parts=both)
    assert power.rescale(found, {"seeds": 500, "classes": 100}).high == pytest.approx(
        3 * estimates.critical(math.inf) / power._half(both), rel=0.02
    )
    assert power.rescale(found, {"classes": 10_000}).over == "5 seeds and 10,000 classes"


def test_a_correlation_keeps_its_lopsided_interval() -> None:
    found = power.rescale(Estimate(0.8, 0.4, 0.95, parts=(Part("classes", 8, 0.2),)), {"classes": 32})
    assert (found.low, found.high) == pytest.approx((0.6, 0.875))


def test_no_interval_stays_none() -> None:
    alone = estimates.mean([0.5], "seeds")
    assert math.isnan(power.rescale(alone, {"seeds": 12}).low)


# ------------------------------------------------------------------------------------------------------------ claims


def finding(estimate: Estimate, undecided: str = "", least: int = 0, claim: str = "C1a") -> pd.DataFrame:
    row = {"claim": claim, "comparison": "", "verdict": "undecided", **estimate.columns()}
    return pd.DataFrame([{**row, "parts": json.dumps(estimate.parts), "undecided": undecided, "least": least}])


def around(value: float, half: float, n: int = 5, sample: str = "seeds") -> Estimate:
    variance = (half / estimates.critical(n - 1)) ** 2
    return Estimate(value, value - half, value + half, f"{n} {sample}", (Part(sample, n, variance, n - 1),))


def expected(findings: pd.DataFrame, sizes: dict[str, int], claim: str = "c1a") -> pd.Series:
    return power.expect(findings, [claim], sizes).iloc[0]


def test_the_number_that_decides_is_the_smallest_that_does() -> None:
    found = finding(around(0.02, 0.05))
    decides = expected(found, {"seeds": 5}).decides
    n = int(decides.removesuffix(" seeds"))
    assert 5 < n < 40
    assert expected(found, {"seeds": n}).verdict == "holds"
    assert expected(found, {"seeds": n - 1}).verdict == expected(found, {}).verdict == "undecided"


def test_a_value_on_the_margin_is_decided_by_no_number() -> None:
    assert expected(finding(around(0.0, 0.05)), {"seeds": 5}).decides.endswith("seeds")
    assert expected(finding(around(0.3, 0.001), claim="Q1"), {}, "q1").decides == "no number: too near to the margin"


def test_too_few_classes_are_enough_once_there_are_enough() -> None:
    found = finding(around(0.05, 0.02, 8, "classes"), "8 classes, at least 100 are needed", 100, "C6a")
    assert expected(found, {"classes": 8}, "c6a")[["verdict", "decides"]].tolist() == ["undecided", "100 classes"]
    assert expected(found, {"classes": 100}, "c6a").verdict == "holds"


def test_what_no_number_mends_is_said() -> None:
    row = expected(finding(around(0.05, 0.01), "not settled, the last epoch brought 5 %"), {"seeds": 50})
    assert row.verdict == "undecided" and row.decides == "not settled, the last epoch brought 5 %"


def test_claims_without_an_earlier_run_expect_nothing() -> None:
    none = verdicts.findings({})
    table = power.expect(none, ["c1a", "c4"], {"seeds": 5})
    assert table.verdict.tolist() == ["no earlier run"] * 2 and set(table.expected) == {"-"}


def test_an_earlier_run_of_the_same_size_expects_its_own_verdicts() -> None:
    tables = example.tables()
    judged = verdicts.judge(tables).set_index("claim").verdict
    table = power.expect(verdicts.findings(tables), verdicts.registry.built_ins("claim"), {"seeds": 3})
    tested = table[table.verdict != "no earlier run"].drop_duplicates("claim").set_index("claim").verdict
    assert len(tested) > 8 and tested.to_dict() == judged[tested.index].to_dict()
