"""Rules against known intervals, how often they are wrong, reasons in words, and claims of a user's own."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prunelens.analysis import estimates, verdicts
from prunelens.analysis.estimates import Estimate
from prunelens.analysis.verdicts import Claim, Finding, Margins

Row = dict[str, object]


def judged(rule: str, found: object, margin: float = 0.1, **more: object) -> Row:
    """The row of a claim whose function finds this."""
    return Claim("X", "it is so", rule, margin, **more).row(lambda tables: found, {}, Margins())


def between(low: float, high: float, over: str = "5 seeds") -> Estimate:
    return Estimate((low + high) / 2, low, high, over)


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        ("positive", 0.01, 0.5, "holds"),
        ("positive", -0.5, 0.09, "does not hold"),  # a true zero can be told
        ("positive", -0.01, 0.11, "undecided"),
        ("positive", 0.01, 0.09, "holds"),  # and the reason says how small
        ("above", 0.11, 0.5, "holds"),
        ("above", -0.5, 0.09, "does not hold"),
        ("above", 0.05, 0.15, "undecided"),
        ("equivalent", -0.09, 0.09, "holds"),
        ("equivalent", 0.02, 0.09, "holds"),
        ("equivalent", 0.15, 0.25, "does not hold"),
        ("equivalent", -0.25, -0.15, "does not hold"),
        ("equivalent", -0.15, 0.05, "undecided"),
        ("unrelated", -0.09, 0.09, "holds"),
        ("unrelated", 0.05, 0.15, "does not hold"),
        ("unrelated", -0.15, -0.05, "does not hold"),
        ("unrelated", -0.05, 0.15, "undecided"),
        ("positive", math.nan, math.nan, "not tested"),
    ],
)
def test_the_interval_decides(rule: str, low: float, high: float, verdict: str) -> None:
    row = judged(rule, between(low, high))
    assert row["verdict"] == verdict
    assert (row["low"], row["high"], row["over"]) == pytest.approx((low, high, "5 seeds"), nan_ok=True) or not row[
        "over"
    ]


def test_all_comparisons_have_to_hold_and_one_that_fails_is_enough() -> None:
    holds, fails, undecided = between(0.2, 0.4), between(-0.4, -0.2), between(-0.2, 0.2)
    several = {
        ("holds", "holds"): "holds",
        ("holds", "undecided"): "undecided",
        ("undecided", "fails"): "does not hold",
        ("missing", "holds"): "not tested",
        ("missing", "fails"): "does not hold",
    }
    found = {"holds": holds, "fails": fails, "undecided": undecided, "missing": estimates.NONE}
    for names, verdict in several.items():
        chosen = {f"{i} {name}": found[name] for i, name in enumerate(names)}
        assert judged("positive", chosen)["verdict"] == verdict
    assert judged("positive", {})["verdict"] == "not tested"


def test_a_row_has_the_first_comparison_with_the_verdict_and_names_it() -> None:
    row = judged("positive", {"a - b": between(0.2, 0.4), "b - c": between(-0.4, -0.2, "3 seeds")}, form="+.1%")
    assert list(row) == [
        "claim", "statement", "paper", "estimate", "verdict", "why", "figure", "value", "low", "high", "over"
    ]  # fmt: skip
    assert row["estimate"] == "a - b: +30.0% (+20.0% to +40.0%); b - c: -30.0% (-40.0% to -20.0%)"
    assert (row["value"], row["low"], row["high"]) == pytest.approx((-0.3, -0.4, -0.2)) and row["over"] == "3 seeds"
    assert row["why"] == "b - c: interval over 3 seeds is below 10.0%"


@pytest.mark.parametrize(
    ("rule", "found", "why"),
    [
        ("positive", between(0.2, 0.4), "interval over 5 seeds is above 0"),
        ("positive", between(0.02, 0.04), "interval over 5 seeds is above 0, though below 0.100, which counts as "
                                          "practically none"),
        ("positive", between(-0.3, 0.3), "interval over 5 seeds is neither above 0 nor below 0.100; about 9.0 times as "
                                         "many would do"),
        ("above", between(0.0, 0.2), "interval over 5 seeds is on both sides of 0.100; over 100 times as many "
                                     "would do"),
        ("unrelated", between(-0.2, 0.2), "interval over 5 seeds is around 0 but not within ±0.100; about 4.0 times as "
                                          "many would do"),
        ("positive", Estimate(0.3, over="1 seed"), "no interval from 1 seed"),
        ("positive", Finding({"": between(0.2, 0.4)}, {"": "3 classes; 100 are needed"}), "3 classes; 100 are needed"),
        ("positive", Finding({"": between(0.2, 0.4)}, note="at 0.8"), "interval over 5 seeds is above 0; at 0.8"),
        ("positive", Finding({}), "there are no networks for it"),
    ],
)  # fmt: skip
def test_the_reason_says_where_the_interval_is_and_what_would_decide(rule: str, found: object, why: str) -> None:
    assert judged(rule, found)["why"] == why


def test_what_is_said_to_decide_decides() -> None:
    """With as many more seeds, at the same spread and mean, the interval is just decided."""
    few = between(-0.3, 0.3)
    more = Estimate(0, *(end / math.sqrt(9.1) for end in (few.low, few.high)), over="45 seeds")
    assert judged("positive", few)["verdict"] == "undecided" and judged("positive", more)["verdict"] == "does not hold"


def test_a_comparison_that_cannot_be_decided_is_undecided_though_another_fails_the_claim() -> None:
    found = {"a": between(0.2, 0.4), "b": between(-0.4, -0.2)}
    assert judged("positive", Finding(found, {"a": "not settled"}))["verdict"] == "does not hold"
    assert judged("positive", Finding(found, {"b": "not settled"}))["why"] == "b: not settled"


def test_equivalence_corrects_for_the_number_of_comparisons() -> None:
    """One of five methods just outside the margin may be chance; far outside it is not."""
    inside = {f"m{i}": between(-0.05, 0.05) for i in range(4)}
    just, far = between(0.101, 0.301), between(0.15, 0.35)
    assert judged("equivalent", {"m": just})["verdict"] == "does not hold"
    assert judged("equivalent", {**inside, "m": just})["verdict"] == "undecided"
    row = judged("equivalent", {**inside, "m": far})
    assert row["verdict"] == "does not hold" and row["why"] == "m: interval over 5 seeds is outside ±0.100 (Holm)"
    assert judged("equivalent", Finding({**inside, "m": far}, freedom=2))["verdict"] == "undecided"


# ------------------------------------------------------------------------------------------ how often rules are wrong

DRAWS = 400
ALLOWED = stats.binom.ppf(0.999, DRAWS, 0.05) / DRAWS  # what a rule that is wrong in 5 % of the cases stays below


def seeds(center: float, n: int, generator: np.random.Generator, spread: float = 0.01) -> Estimate:
    return estimates.mean(generator.normal(center, spread, n), "seeds")


def accuracies(difference: float, generator: np.random.Generator, runs: float = 0.01, each: float = 0.05) -> Estimate:
    """Of four seeds and 100 classes, which all seeds share."""
    by_seed, by_class = generator.normal(difference, runs, (4, 1)), generator.normal(0, each, 100)
    return estimates.crossed_mean(by_seed + by_class + generator.normal(0, each, (4, 100)), "seeds", "classes")


def pairs(rho: float, n: int, generator: np.random.Generator) -> Estimate:
    x, noise = generator.normal(size=(2, n))
    found = stats.pearsonr(x, rho * x + math.sqrt(1 - rho**2) * noise)
    return Estimate(found.statistic, *found.confidence_interval(), "classes")


def methods(slope: float, generator: np.random.Generator) -> Finding:
    return Finding({f"method {i}": seeds(slope, 5, generator, 0.02) for i in range(3)}, freedom=4)


def shares(center: float, generator: np.random.Generator) -> Estimate:
    """Of four methods, each the mean of its two rates; rates of one method are alike."""
    drawn = generator.normal(0.6 + 0.1 * center, 0.015, (4, 1)) + generator.normal(0, 0.01, (4, 2))
    return estimates.share_between(drawn.mean(axis=1), generator.normal(0.6, 0.005, 4), 0.7, "methods")


CASES: dict[str, tuple[str, float, Callable[[np.random.Generator], object], set[str]]] = {
    # C1, C3: a difference of none, and of the margin
    "C1 at none": ("positive", 0.005, lambda g: accuracies(0.0, g), {"holds"}),
    "C1 at the margin": ("positive", 0.005, lambda g: accuracies(0.005, g), {"does not hold"}),
    "C1 of seeds that differ at none": ("positive", 0.005, lambda g: accuracies(0.0, g, each=0.001), {"holds"}),
    "C1 of classes that differ at none": ("positive", 0.005, lambda g: accuracies(0.0, g, runs=0.0), {"holds"}),
    "C2 at none": ("positive", 0.005, lambda g: {"a": accuracies(0.0, g), "b": accuracies(0.3, g)}, {"holds"}),
    "C2 at the margin": ("positive", 0.005, lambda g: {n: accuracies(0.005, g) for n in "ab"}, {"does not hold"}),
    "C4 at none": ("equivalent", 0.1, lambda g: methods(0.0, g), {"does not hold"}),
    "C4 at the margin": ("equivalent", 0.1, lambda g: methods(0.1, g), {"does not hold", "holds"}),
    "C5 half way": ("above", 0.5, lambda g: shares(0.5, g), {"does not hold", "holds"}),
    "C6a at none": ("positive", 0.01, lambda g: seeds(0.0, 100, g, 0.05), {"holds"}),
    "C6a at the margin": ("positive", 0.01, lambda g: seeds(0.01, 100, g, 0.05), {"does not hold"}),
    "C6b at none": ("unrelated", 0.3, lambda g: pairs(0.0, 93, g), {"does not hold"}),
    "C6b at the margin": ("unrelated", 0.3, lambda g: pairs(0.3, 93, g), {"holds"}),
    "Q1 at the margin": ("above", 0.3, lambda g: pairs(0.3, 200, g), {"does not hold", "holds"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rules_are_wrong_in_five_percent_of_cases_at_most(case: str) -> None:
    rule, margin, draw, wrong = CASES[case]
    generator = np.random.default_rng(0)
    found = [judged(rule, draw(generator), margin)["verdict"] for _ in range(DRAWS)]
    assert np.mean([verdict in wrong for verdict in found]) <= ALLOWED


@pytest.mark.parametrize(
    ("case", "draw", "verdict"),
    [
        ("C1 at none", lambda g: accuracies(0.04, g), "holds"),
        ("C1 at none", lambda g: accuracies(0.0, g, 0.001, 0.01), "does not hold"),
        ("C4 at none", lambda g: methods(0.0, g), "holds"),
        ("C4 at none", lambda g: methods(0.3, g), "does not hold"),
        ("C5 half way", lambda g: shares(0.9, g), "holds"),
        ("C6b at none", lambda g: pairs(0.0, 400, g), "holds"),
        ("C6b at none", lambda g: pairs(0.6, 93, g), "does not hold"),
    ],
)
def test_rules_decide_where_there_is_something_to_see(case: str, draw: Callable, verdict: str) -> None:
    rule, margin, *_ = CASES[case]
    generator = np.random.default_rng(0)
    assert np.mean([judged(rule, draw(generator), margin)["verdict"] == verdict for _ in range(50)]) > 0.8


# --------------------------------------------------------------------------------------------- claims of a user's own

OWN = """
from prunelens.analysis.claims import claim
from prunelens.analysis.estimates import mean

@claim("U1", "the dense network is good", rule="positive", margin="accuracy", needs=("accuracy",), form="+.1%")
def good(tables):
    accuracy = tables["accuracy"]
    return mean(accuracy.top1[accuracy.schedule == "one_shot"], "networks")

@claim("U2", "wrong type", rule="above", margin=0.5)
def number(tables):
    return 3

@claim("U3", "asks for what is not there", rule="above", margin=0.5)
def missing(tables):
    return tables["accuracy"].nothing_of_this_name

@claim("U4", "changes its tables", rule="above", margin=0.5)
def spoils(tables):
    tables["accuracy"]["top1"] = 0.0
    return mean([1, 2, 3], "networks")

def bare(tables):
    return mean([1, 2, 3], "networks")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_claims.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_claims", None)


def test_a_claim_of_ones_own_is_judged_beside_the_others(own: None) -> None:
    verdicts.check_claim("own_claims.good")
    table = verdicts.judge(verdicts.example.tables(), ["c1a", "own_claims.good"])
    assert table.claim.tolist() == ["C1a", "U1"] and table.verdict[1] == "holds"
    assert verdicts.judge({}, ["own_claims.good"]).verdict.tolist() == ["not tested"]


def test_a_claim_of_ones_own_changes_no_table(own: None) -> None:
    tables = verdicts.example.tables()
    verdicts.judge(tables, ["own_claims.spoils"])
    pd.testing.assert_frame_equal(tables["accuracy"], verdicts.example.tables()["accuracy"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "found no decorator, expected @claim"),
        ("number", r"fails on example tables \(TypeError: found a int, expected an Estimate"),
        ("missing", r"fails on example tables \(AttributeError: .*nothing_of_this_name"),
    ],
)
def test_check_claim_says_in_one_line_what_is_wrong(own: None, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^claim own_claims.{name}: {message}") as raised:
        verdicts.check_claim(f"own_claims.{name}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("rule", "margin"), [("nearly", 0.1), ("positive", "nearly")])
def test_a_claim_of_no_rule_or_margin_is_refused(rule: str, margin: object) -> None:
    with pytest.raises(ValueError, match=r"claim X: found rule .* expected one of positive, above, .* accuracy, slope"):
        Claim("X", "it is so", rule, margin)


def test_margins_may_be_another_object_with_their_names() -> None:
    """Such as a profile's section."""
    margins = SimpleNamespace(accuracy=0.5, slope=0.1, correlation=0.3, mis=0.01)
    row = Claim("X", "it is so", "above", "accuracy").row(lambda tables: between(0.3, 0.4), {}, margins)
    assert row["verdict"] == "does not hold"


def test_judging_again_what_was_kept_gives_the_same(tmp_path: Path, own: None) -> None:
    tables, claims = verdicts.example.tables(), ["c1a", "c4", "c6b", "q1", "own_claims.good"]
    margins = Margins(accuracy=0.02)
    verdicts.keep(tables, tmp_path, claims, margins)
    again = verdicts.judge_folder(tmp_path)
    pd.testing.assert_frame_equal(again, verdicts.judge(tables, claims, margins))
    verdicts.keep(tables, tmp_path / "built_in", claims[:-1], margins)
    pd.testing.assert_frame_equal(verdicts.judge_folder(tmp_path / "built_in"), again[:-1])
    kept = pd.read_parquet(tmp_path / "built_in" / "evidence" / "units.parquet")
    pruned = kept.method != "dense"
    assert kept.clarity[pruned].isna().all() and kept.mis[pruned].notna().any() and kept.clarity[~pruned].notna().any()
    with pytest.raises(FileNotFoundError, match="evidence"):
        verdicts.judge_folder(tmp_path / "nowhere")


def test_claims_of_ones_own_are_judged_again_by_all_measures(tmp_path: Path) -> None:
    tables, margins = verdicts.example.tables(), Margins()
    verdicts.keep(tables, tmp_path / "built_in", ["c4"], margins)
    verdicts.keep(tables, tmp_path / "own", ["c4", "mine.claim"], margins)
    units = {name: pd.read_parquet(tmp_path / name / "evidence" / "units.parquet") for name in ("built_in", "own")}
    measure = "clarity"
    pruned = tables["units"].method != "dense"
    assert tables["units"][measure][pruned].notna().any() and units["built_in"][measure][pruned].isna().all()
    pd.testing.assert_frame_equal(units["own"], tables["units"])


@pytest.mark.parametrize("damage", ["[]", "{", '{"claims": ["c4"]}'])
def test_damaged_evidence_is_named(damage: str, tmp_path: Path) -> None:
    verdicts.keep(verdicts.example.tables(), tmp_path, ["c4"], Margins())
    (tmp_path / "evidence" / "claims.json").write_text(damage)
    with pytest.raises(ValueError, match=r"claims\.json is damaged, run notebook 08 again"):
        verdicts.judge_folder(tmp_path)


def test_missing_evidence_is_named(tmp_path: Path) -> None:
    verdicts.keep(verdicts.example.tables(), tmp_path, ["c4"], Margins())
    (tmp_path / "evidence" / "units.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no .*units\.parquet"):
        verdicts.judge_folder(tmp_path)
