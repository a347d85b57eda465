"""A right reproduction agrees; whatever is really different is found and named."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prunelens.analysis import estimates, example, reproduction, verdicts
from prunelens.analysis.estimates import Estimate

Tables = dict[str, pd.DataFrame]
CLAIMS = ["c1a", "c2", "c6a"]


def run(tables: Tables) -> Tables:
    """What is compared of a run."""
    return {"claims": verdicts.findings(tables, CLAIMS), "numbers": reproduction.numbers(tables)}


@pytest.fixture(scope="module")
def reference() -> Tables:
    return run(example.tables(0))


def wrong(ours: Tables, reference: Tables) -> dict[str, str]:
    """What does not agree, by name."""
    found = reproduction.compare(ours, reference).set_index("name").outcome
    return found[~found.isin(["agrees", "no interval"])].to_dict()


def chosen(table: pd.DataFrame) -> pd.Series:
    return (table.method == "structured_l1") & (table.rate == 0.6) & (table.schedule == "one_shot")


def test_a_run_agrees_with_itself_and_with_one_of_other_draws(reference: Tables) -> None:
    assert wrong(run(example.tables(0)), reference) == {}
    compared = reproduction.compare(run(example.tables(1)), reference)
    assert set(compared.outcome) <= {"agrees", "no interval"}
    assert (compared.outcome == "agrees").sum() > 80 and set(compared.claim) == {"", "C1a", "C2", "C6a"}


def shift(column: str, table: str, by: float) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        rows = chosen(tables[table]) & (tables[table].epochs == example.EPOCHS)
        tables[table].loc[rows, column] += by

    return change


def forget_seed(tables: Tables) -> None:
    tables["accuracy"] = tables["accuracy"][~(chosen(tables["accuracy"]) & (tables["accuracy"].seed == 2))]


def forget_networks(tables: Tables) -> None:
    tables["accuracy"] = tables["accuracy"][~chosen(tables["accuracy"])]


NAME = f"structured_l1 0.60 one_shot {example.EPOCHS} epochs"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (shift("top1", "accuracy", -0.15), {f"{NAME} top1": "differs"}),
        (shift("mis", "units", 0.1), {f"{NAME} mis": "differs", f"{NAME} mis_output": "differs"}),
        (shift("mask_sparsity", "accuracy", 0.001), {f"{NAME} mask_sparsity": "differs"}),
        (shift("conv_sparsity", "accuracy", -0.5), {f"{NAME} conv_sparsity": "differs"}),
        (forget_seed, {"study, networks number": "differs"}),
    ],
)
def test_what_is_different_is_found(change: Callable[[Tables], None], found: dict[str, str], reference: Tables) -> None:
    tables = example.tables(1)
    change(tables)
    assert wrong(run(tables), reference).items() >= found.items()
    assert not [name for name in wrong(run(tables), reference) if name.startswith(("connection", "dense"))]


def test_missing_networks_are_found_and_further_ones_are_not_compared(reference: Tables) -> None:
    tables = example.tables(0)
    forget_networks(tables)
    found = wrong(run(tables), reference)
    assert found[f"{NAME} top1"] == found[f"{NAME} mask_sparsity"] == "missing"
    assert set(wrong(reference, run(tables))) == {"study, networks number"}


def claims(value: float, half: float, verdict: str) -> pd.DataFrame:
    """A claim of one comparison."""
    row = {"claim": "C1", "comparison": "", "verdict": verdict, "value": value, "low": value - half}
    return pd.DataFrame([{**row, "high": value + half, "over": "5 seeds", "parts": "[]", "undecided": "", "least": 0}])


def test_a_verdict_that_turns_round_is_found_but_not_one_that_is_open(reference: Tables) -> None:
    there = {**reference, "claims": claims(0.004, 0.003, "holds")}
    for verdict, found in {"does not hold": {"C1": "verdict"}, "undecided": {}, "holds": {}}.items():
        assert wrong({**reference, "claims": claims(0.001, 0.003, verdict)}, there) == found
    assert wrong({**reference, "claims": claims(math.nan, math.nan, "not tested")}, there) == {"C1": "missing"}


def test_of_a_single_seed_only_what_no_seed_changes_is_compared() -> None:
    def one_seed(seed: int) -> Tables:
        return {name: table[table.seed == 0] for name, table in example.tables(seed).items()}

    numbers = reproduction.numbers(one_seed(0))
    known = numbers[numbers.low.notna()]
    assert set(known.network) == {"dense 0.00 none"} and set(known.quantity) == {"top1", "mis", "mis_output"}
    several = reproduction.numbers(example.tables(0)).set_index(["network", "quantity"])
    assert not math.isnan(several.low["structured_l1 0.60 none", "top1"]), "it is the same for every seed"
    ours, there = ({"claims": claims(0, 1, "undecided"), "numbers": reproduction.numbers(one_seed(s))} for s in (0, 1))
    outcomes = reproduction.compare(ours, there).set_index("name").outcome
    assert outcomes[f"{NAME} top1"] == "no interval" and outcomes[f"{NAME} mask_sparsity"] == "agrees"


def test_the_interval_of_an_accuracy_is_over_seeds_and_images() -> None:
    """Also where all seeds agree, as networks at chance do."""
    tables = example.tables(0)
    tables["accuracy"].loc[chosen(tables["accuracy"]), "top1"] = 0.5
    row = reproduction.numbers(tables).set_index(["network", "quantity"]).loc[NAME, "top1"]
    half = np.subtract(*estimates.proportion_interval(0.5, example.IMAGES)[::-1]) / 2
    assert (row.high - row.low) / 2 == pytest.approx(half)


# ------------------------------------------------------------------------------------------------------ how often

DRAWS, SEEDS, NUMBERS = 200, 5, 30


def drawn(generator: np.random.Generator, shifted: float = 0.0) -> Tables:
    """A run of 30 numbers over five seeds each, the first of them shifted."""
    rows = []
    for i in range(NUMBERS):
        found = estimates.mean(generator.normal(shifted * (i == 0), 0.01 * (1 + i), SEEDS), "seeds")
        rows.append(reproduction._row(f"network {i}", "top1", found))
    return {"claims": claims(0, 1, "undecided"), "numbers": pd.DataFrame(rows)}


def test_a_run_that_differs_by_its_seeds_alone_fails_in_five_percent_of_cases_at_most() -> None:
    generator = np.random.default_rng(0)
    failed = np.mean([bool(wrong(drawn(generator), drawn(generator))) for _ in range(DRAWS)])
    assert failed <= stats.binom.ppf(0.999, DRAWS, 0.05) / DRAWS


def test_a_shift_of_eight_standard_deviations_is_seen() -> None:
    generator = np.random.default_rng(0)
    seen = [wrong(drawn(generator), drawn(generator, 0.08)) == {"network 0 top1": "differs"} for _ in range(20)]
    assert np.mean(seen) > 0.8


def test_parts_survive_a_table() -> None:
    found = estimates.mean([1.0, 2.0, 4.0], "seeds")
    row = reproduction._row("a", "top1", found)
    assert Estimate.of(pd.Series(row)).parts == found.parts
    assert reproduction._variance(found) == pytest.approx(np.var([1, 2, 4], ddof=1) / 3)
    assert math.isnan(reproduction._variance(Estimate(1.0)))
