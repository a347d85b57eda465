"""Every verdict on hand-made tables: each claim forced to hold, to fail, to stay open and to go untested."""

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from prunelens import claims, statistics
from prunelens.statistics import networks_needed, within_group_correlation

N = 1000  # validation images: a Top-1 difference of .1 is decided, one of .01 is not
CLASSES = 8  # chance is .125
METHODS = ("connection_l1", "unstructured_global", "structured_l1")

Configuration = tuple[str, float, str]

# Top-1 of every (method, rate, schedule), one entry per seed.
GRID: dict[Configuration, list[float]] = {
    ("dense", 0.0, "none"): [0.80],
    ("random_init", 0.0, "none"): [0.12],
    ("dense_retrained", 0.0, "one_shot"): [0.80],
    ("connection_l1", 0.4, "one_shot"): [0.90],
    ("connection_l1", 0.8, "one_shot"): [0.90],
    ("connection_l1_unmasked", 0.8, "one_shot"): [0.82],
    ("unstructured_global", 0.4, "one_shot"): [0.80],
    ("unstructured_global", 0.8, "one_shot"): [0.80],
    ("structured_l1", 0.4, "one_shot"): [0.70],
    ("structured_l1", 0.8, "one_shot"): [0.60],
    ("structured_l1", 0.8, "iterative"): [0.70],
}


def accuracy(changes: dict[Configuration, list[float]] | None = None, n: int = N) -> pd.DataFrame:
    """One row per network of GRID after changes; an empty list takes a configuration out."""
    rows = [
        (f"{method}-{rate}-{schedule}-{seed}", method, rate, schedule, seed, top1)
        for (method, rate, schedule), values in (GRID | (changes or {})).items()
        for seed, top1 in enumerate(values)
    ]
    table = pd.DataFrame(rows, columns=["variant", "method", "rate", "schedule", "seed", "top1"])
    return table.assign(
        n=float(n),
        conv_sparsity=table.rate.where(~table.method.str.endswith("unmasked"), 0.0123),
        top1_low=proportion_confint(table.top1 * n, n, method="wilson")[0],
    )


def epochs(accuracies: pd.DataFrame, rises: dict[tuple[str, float], float] | None = None) -> pd.DataFrame:
    """Two epochs of every retrained network of a table of accuracies; the last one raises Top-1 by `rises`."""
    last = accuracies[accuracies.schedule == "one_shot"].assign(epoch=2)
    before = last.assign(epoch=1, top1=[
        top1 - (rises or {}).get((method, rate), 0.0)
        for method, rate, top1 in zip(last.method, last.rate, last.top1, strict=True)
    ])  # fmt: skip
    return pd.concat([last, before], ignore_index=True)


def means(table: pd.DataFrame, mis_conv: float | pd.Series = 0.8, mis_fc: float | pd.Series = 0.7) -> pd.DataFrame:
    return table[["variant", "method", "rate", "schedule", "seed"]].assign(mis_conv=mis_conv, mis_fc=mis_fc)


def by_class(top1: np.ndarray, mis: np.ndarray, **columns: object) -> pd.DataFrame:
    names = [f"class {i}" for i in range(len(top1))]
    network = {"variant": "a", "method": "dense", "schedule": "none", "rate": 0.0, "alive": True}
    network["own_class_most"] = 0.4
    return pd.DataFrame({"class_name": names, "logit": range(len(names)), "top1": top1, "mis": mis}).assign(
        **{**network, **columns}
    )


def unrelated(n: int) -> pd.DataFrame:
    """n classes, a multiple of four, whose accuracy and MIS correlate exactly 0."""
    return by_class(np.tile([0.2, 0.4, 0.2, 0.4], n // 4), np.tile([0.5, 0.5, 0.7, 0.7], n // 4))


def judge(
    claim: str,
    accuracies: pd.DataFrame | None = None,
    networks: pd.DataFrame | None = None,
    classes: pd.DataFrame | None = None,
    units: pd.DataFrame | None = None,
    rises: dict[tuple[str, float], float] | None = None,
) -> pd.Series:
    """The row of one claim; tables that do not matter to it are GRID's."""
    accuracies = accuracy() if accuracies is None else accuracies
    networks = means(accuracies) if networks is None else networks
    units = single_units() if units is None else units
    classes = unrelated(CLASSES) if classes is None else classes
    return verdicts(accuracies, networks, classes, units, rises).set_index("claim").loc[claim]


def verdicts(
    accuracies: pd.DataFrame,
    networks: pd.DataFrame,
    classes: pd.DataFrame,
    units: pd.DataFrame,
    rises: dict[tuple[str, float], float] | None = None,
) -> pd.DataFrame:
    return claims.verdicts(accuracies, epochs(accuracies, rises), units, networks, classes)


def whole() -> pd.DataFrame:
    return verdicts(accuracy(), means(accuracy()), unrelated(CLASSES), single_units())


def questions(
    accuracies: pd.DataFrame | None = None, units: pd.DataFrame | None = None, truth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The open questions on GRID's tables, where no other is given."""
    accuracies = accuracy() if accuracies is None else accuracies
    return claims.open_questions(accuracies, single_units() if units is None else units, unrelated(CLASSES), truth)


def newcombe(first: float, second: float, n: int) -> tuple[float, float]:
    """Newcombe (1998), method 10, from two Wilson intervals."""
    (low1, high1), (low2, high2) = (proportion_confint(p * n, n, method="wilson") for p in (first, second))
    return (
        first - second - math.hypot(first - low1, high2 - second),
        first - second + math.hypot(high1 - first, second - low2),
    )


def shown(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def students(values: list[float]) -> tuple[float, float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(np.mean(values) - half), float(np.mean(values) + half)


# -------------------------------------------------------------------------------------------- the whole table


def test_one_row_per_claim_in_the_papers_order() -> None:
    table = whole()
    assert list(table.claim) == ["C1a", "C1b", "C2", "C3", "C4", "C5", "C6a", "C6b"]
    assert list(table.columns) == ["claim", "statement", "paper", "ours", "verdict", "why", "where"]
    assert set(table.verdict) <= {"holds", "does not hold", "cannot be told", "not tested"}
    assert table.map(lambda cell: isinstance(cell, str) and cell != "").all(axis=None)


def test_every_figure_named_is_drawn_by_a_notebook() -> None:
    notebooks = Path(__file__).parents[2] / "notebooks"
    text = "".join(path.read_text() for path in notebooks.glob("*.ipynb"))
    table = pd.concat([whole(), questions()])
    for where in table["where"][table["where"] != "-"]:
        assert f'\\"{where}\\"' in text


def test_summary_is_one_line_per_claim_with_its_verdict() -> None:
    table = whole()
    lines = list(claims.summary(table))
    assert len(lines) == len(table)
    for line, row in zip(lines, table.itertuples(), strict=True):
        assert line == f"{row.claim}, {row.statement}: **{row.verdict}** ({row.ours})"


# --------------------------------------------------------------------------------------- C1, and one difference


@pytest.mark.parametrize(
    ("top1", "verdict"),
    [([0.90], "holds"), ([0.70], "does not hold"), ([0.81], "cannot be told"), ([], "not tested")],
)
def test_c1a_with_one_seed_is_newcombes_interval_over_images(top1: list[float], verdict: str) -> None:
    row = judge("C1a", accuracy({("connection_l1", 0.8, "one_shot"): top1}))
    assert row.verdict == verdict
    if top1:
        assert row.ours.startswith(shown(top1[0] - 0.80, *newcombe(top1[0], 0.80, N)) + " against dense, retrained")


def test_c1a_depends_on_the_number_of_images() -> None:
    one_percent = {("connection_l1", 0.8, "one_shot"): [0.81]}
    assert judge("C1a", accuracy(one_percent, n=1000)).verdict == "cannot be told"
    assert judge("C1a", accuracy(one_percent, n=50_000)).verdict == "holds"


def test_c1a_is_about_the_highest_rate_and_the_retrained_control() -> None:
    others = {("structured_l1", 0.95, "none"): [0.1], ("structured_l1", 0.9, "iterative"): [0.1]}
    table = accuracy({("connection_l1", 0.4, "one_shot"): [0.99], ("dense", 0.0, "none"): [0.10]} | others)
    row = judge("C1a", table)
    assert "at 0.8" in row.statement
    assert row.ours.startswith("+0.100 ")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.019, 0.020, 0.021], "holds"),
        ([-0.019, -0.020, -0.021], "does not hold"),
        ([0.01, 0.02, 0.03], "cannot be told"),  # t(.975, 2) = 4.3: 0.02 - 0.025 < 0
    ],
)
def test_c1a_with_several_seeds_is_students_interval_over_pairs(differences: list[float], verdict: str) -> None:
    """Seeds differ far more than the methods: only their pairing decides, and 100 images alone would not."""
    control = [0.60, 0.70, 0.80]
    pruned = [base + difference for base, difference in zip(control, differences, strict=True)]
    table = accuracy({("dense_retrained", 0.0, "one_shot"): control, ("connection_l1", 0.8, "one_shot"): pruned}, n=100)
    row = judge("C1a", table)
    assert row.verdict == verdict
    assert row.ours.startswith(shown(*students(differences)))
    assert judge("C1a", table.sample(frac=1, random_state=0)).ours == row.ours  # pairs are by seed, not by place


def test_seeds_that_all_differ_alike_are_no_proof() -> None:
    """Three networks at chance, of one accuracy: an interval over them would have no width."""
    same = {("dense_retrained", 0.0, "one_shot"): [0.13] * 3, ("connection_l1", 0.8, "one_shot"): [0.125] * 3}
    row = judge("C1a", accuracy(same))
    assert row.verdict == "cannot be told" and row.ours.startswith(shown(-0.005, *newcombe(0.125, 0.13, N)))
    assert row.why == "interval over 1000 images, 3 equal seeds is on both sides of 0"


def test_seeds_that_only_one_side_has_are_left_out() -> None:
    both = {("dense_retrained", 0.0, "one_shot"): [0.60, 0.70], ("connection_l1", 0.8, "one_shot"): [0.62, 0.73, 0.1]}
    assert judge("C1a", accuracy(both)).ours.startswith(shown(*students([0.02, 0.03])))
    one = both | {("dense_retrained", 0.0, "one_shot"): [0.60]}
    assert judge("C1a", accuracy(one)).ours.startswith(shown(0.02, *newcombe(0.62, 0.60, N)))


@pytest.mark.parametrize(
    ("top1", "verdict"),
    [([0.90], "holds"), ([0.70], "does not hold"), ([0.81], "cannot be told"), ([], "not tested")],
)
def test_c1b_is_the_same_without_masks_and_says_what_stays_zero(top1: list[float], verdict: str) -> None:
    table = accuracy({("connection_l1_unmasked", 0.8, "one_shot"): top1})
    row = judge("C1b", table)
    assert row.verdict == verdict
    assert ("conv weights are zero" in row.ours) == bool(top1)
    if top1:
        difference = shown(top1[0] - 0.80, *newcombe(top1[0], 0.80, N))
        assert row.ours == f"{difference} against dense, retrained; 1.2% of the conv weights are zero"
    masked = judge("C1a", table)
    assert masked.verdict == "holds" and masked.ours.endswith("; 80.0% of the conv weights are zero")


# ---------------------------------------------------------------------------------------------------------- C2


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({("connection_l1", 0.8, "one_shot"): [0.70]}, "does not hold"),
        ({("structured_l1", 0.8, "one_shot"): [0.90]}, "does not hold"),
        ({("unstructured_global", 0.8, "one_shot"): [0.61]}, "cannot be told"),
        ({("unstructured_global", 0.8, "one_shot"): []}, "not tested"),
        ({("connection_l1", 0.4, "one_shot"): [0.10], ("unstructured_global", 0.4, "one_shot"): []}, "holds"),
    ],
)
def test_c2_holds_only_if_both_pairs_hold_at_the_highest_rate(changes: dict, verdict: str) -> None:
    assert judge("C2", accuracy(changes)).verdict == verdict


def test_c2_fails_by_one_pair_even_if_the_other_was_not_tested() -> None:
    changes = {("connection_l1", rate, "one_shot"): [] for rate in (0.4, 0.8)}
    assert judge("C2", accuracy(changes)).verdict == "not tested"
    assert judge("C2", accuracy(changes | {("structured_l1", 0.8, "one_shot"): [0.9]})).verdict == "does not hold"


def test_c2_shows_the_tables_differences() -> None:
    table = accuracy()
    top1 = table[table.schedule == "one_shot"].set_index(["method", "rate"]).top1
    row = judge("C2", table)
    found = re.findall(r"(\w+) - (\w+): (.+? \(.+?\))", row.ours)
    assert [(better, worse) for better, worse, _ in found] == list(pairwise(METHODS))
    for better, worse, text in found:
        a, b = top1[better, 0.8], top1[worse, 0.8]
        assert text == shown(a - b, *newcombe(a, b, N))
    assert row.statement.endswith(" at 0.8")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "interval over 1000 images, one seed is above 0; the order holds at 2 of 2 rates"),
        (
            {("connection_l1", 0.8, "one_shot"): [0.70]},
            "interval over 1000 images, one seed is below 0: connection_l1 - unstructured_global; "
            "the order holds at 1 of 2 rates",
        ),
        (
            {("unstructured_global", 0.8, "one_shot"): [0.61]},
            "interval over 1000 images, one seed is on both sides of 0: unstructured_global - structured_l1; "
            "the order holds at 1 of 2 rates",
        ),
        ({("unstructured_global", 0.8, "one_shot"): []}, claims.NOTHING),
        (
            {("unstructured_global", 0.4, "one_shot"): []},  # a rate without this pair is no rate of the order
            "interval over 1000 images, one seed is above 0; the order holds at 1 of 1 rates",
        ),
    ],
)
def test_c2_names_the_pair_that_decides_and_at_how_many_rates_the_order_holds(changes: dict, why: str) -> None:
    assert judge("C2", accuracy(changes)).why == why


def test_c2_without_a_single_pruned_network_is_not_tested() -> None:
    assert judge("C2", accuracy({key: [] for key in GRID if key[1] > 0})).verdict == "not tested"


# ------------------------------------------------------------------------------------- retraining that has not settled


@pytest.mark.parametrize("risen", [("connection_l1", 0.8), ("dense_retrained", 0.0)])
def test_c1_cannot_be_told_of_networks_that_the_last_epoch_still_raised(risen: tuple[str, float]) -> None:
    lost = accuracy({("connection_l1", 0.8, "one_shot"): [0.5]})
    assert judge("C1a", lost, rises={risen: 0.009}).verdict == "does not hold"
    row = judge("C1a", lost, rises={risen: 0.05})
    assert row.verdict == "cannot be told" and row.ours == judge("C1a", lost).ours
    name = "connection_l1 at 0.8" if risen[1] else "dense_retrained"
    assert row.why.endswith(
        f"is below 0, and retraining is not seen to have settled: its last epoch brought {name} +0.050 (no interval)"
    )
    assert judge("C1a", lost, rises={("structured_l1", 0.8): 0.05}).verdict == "does not hold"


def test_c2_cannot_be_told_where_the_pair_that_decides_has_not_settled() -> None:
    assert judge("C2", rises={("connection_l1", 0.8): 0.05}).verdict == "cannot be told"
    reversed_ = accuracy({("connection_l1", 0.8, "one_shot"): [0.70]})
    assert judge("C2", reversed_, rises={("structured_l1", 0.8): 0.05}).verdict == "does not hold"
    row = judge("C2", reversed_, rises={("connection_l1", 0.8): 0.05})
    assert row.verdict == "cannot be told" and "brought connection_l1 at 0.8 +0.050" in row.why


# ---------------------------------------------------------------------------------------------------------- C3


def test_networks_at_chance_are_not_compared() -> None:
    lost = {("structured_l1", 0.8, schedule): [0.1] for schedule in ("one_shot", "iterative")}
    assert judge("C3", accuracy(lost)).verdict == "not tested"
    assert questions(accuracy(lost)).iloc[1].verdict == "not tested"
    one = {("structured_l1", 0.8, "one_shot"): [0.1]}
    assert judge("C3", accuracy(one)).verdict == "holds"


@pytest.mark.parametrize(
    ("top1", "verdict"),
    [([0.70], "holds"), ([0.50], "does not hold"), ([0.61], "cannot be told"), ([], "not tested")],
)
def test_c3_compares_iterative_with_one_shot_of_the_same_method_and_rate(top1: list[float], verdict: str) -> None:
    row = judge("C3", accuracy({("structured_l1", 0.8, "iterative"): top1}))
    assert row.verdict == verdict
    expected = f"structured_l1 at 0.8: {shown(top1[0] - 0.60, *newcombe(top1[0], 0.60, N))}" if top1 else "-"
    assert row.ours == expected


def test_c3_without_the_one_shot_network_is_not_tested() -> None:
    assert judge("C3", accuracy({("structured_l1", 0.8, "one_shot"): []})).verdict == "not tested"


def test_c3_needs_every_iterative_network_to_be_better() -> None:
    other = ("unstructured_global", 0.4, "iterative")
    assert judge("C3", accuracy({other: [0.90]})).verdict == "holds"
    assert judge("C3", accuracy({other: [0.81]})).verdict == "cannot be told"
    assert judge("C3", accuracy({other: [0.70]})).verdict == "does not hold"


def test_c3_with_several_seeds_counts_a_network_once() -> None:
    seeds = {
        ("structured_l1", 0.8, "one_shot"): [0.50, 0.60, 0.70],
        ("structured_l1", 0.8, "iterative"): [0.519, 0.62, 0.721],
    }
    row = judge("C3", accuracy(seeds))
    assert row.ours == f"structured_l1 at 0.8: {shown(*students([0.019, 0.02, 0.021]))}"
    assert row.verdict == "holds"


def test_the_iterative_advantage_compares_networks_of_the_same_epochs() -> None:
    short = {("structured_l1", 0.8, "one_shot"): [0.5, 0.6], ("structured_l1", 0.8, "iterative"): [0.4, 0.7]}
    long = {("structured_l1", 0.8, "one_shot"): [0.6, 0.6], ("structured_l1", 0.8, "iterative"): [0.69, 0.71]}
    table = pd.concat([accuracy(long).assign(epochs=8), accuracy(short).assign(epochs=2)])
    found = claims.iterative_advantage(table)
    assert found[["method", "rate", "epochs"]].to_numpy().tolist() == [
        ["structured_l1", 0.8, 8],
        ["structured_l1", 0.8, 2],
    ]
    for row, seeds in zip(found.itertuples(), ([0.09, 0.11], [-0.1, 0.1]), strict=True):
        assert row.seeds == pytest.approx(seeds)
        assert (row.mean, row.low, row.high) == pytest.approx(students(seeds))
    assert claims.iterative_advantage(table[table.schedule != "iterative"]).empty


# ---------------------------------------------------------------------------------------------------------- C4


def by_rate(slope: float, methods: int = 12, rates: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)) -> pd.DataFrame:
    """Retrained networks of many methods: mean MIS is slope * rate, a level by method, a part that has no slope."""
    values = {(f"method {i}", rate, "one_shot"): [0.5] for i in range(methods) for rate in rates}
    table = accuracy({key: [] for key in GRID} | values)
    place, method = table.rate.rank(method="dense") - 1, table.method.str.split().str[1].astype(int)
    return means(table, slope * table.rate + 0.03 * method + 0.01 * place.isin([1, 2]))


@pytest.mark.parametrize(
    ("units", "verdict"),
    [
        (by_rate(0), "holds"),
        (by_rate(0.2), "does not hold"),
        (by_rate(-0.2), "does not hold"),
        (by_rate(0, methods=5), "cannot be told"),  # r = 0, yet 20 networks cannot show its absence
    ],
)
def test_c4(units: pd.DataFrame, verdict: str) -> None:
    row = judge("C4", networks=with_others(units))
    assert row.verdict == verdict
    r = within_group_correlation(units, "rate", "mis_conv", "method")
    assert row.ours == f"r = {r.r:.2f} ({r.low:.2f} to {r.high:.2f}) within methods, n = {len(units)}"


def with_others(units: pd.DataFrame) -> pd.DataFrame:
    """The same networks, and those that C4 is not about: controls, not retrained, unmasked, of a single rate."""
    table = accuracy()
    controls = means(table[(table.schedule == "none") | (table.method == "dense_retrained")], 0.9)
    steep = means(pd.concat([table[:1]] * 3), [0.1, 0.5, 0.9]).assign(rate=[0.2, 0.4, 0.8])
    return pd.concat(
        [
            controls,
            steep.assign(method="method 0", schedule="none"),
            steep.assign(method="connection_l1_unmasked", schedule="one_shot"),
            *(steep[-1:].assign(method=f"single {i}", schedule="one_shot") for i in range(20)),
            units,
        ],
        ignore_index=True,
    )


def test_c4_looks_within_methods() -> None:
    """Methods with a higher MIS that were pruned at higher rates make no correlation."""
    low, high = by_rate(0, rates=(0.1, 0.2, 0.3, 0.4)), by_rate(0, rates=(0.6, 0.7, 0.8, 0.9))
    high = high.assign(method="other " + high.method, mis_conv=high.mis_conv + 1)
    both = pd.concat([low, high], ignore_index=True)
    assert both[["rate", "mis_conv"]].corr().iloc[0, 1] > 0.5
    assert judge("C4", networks=both).verdict == "holds"


def test_c4_counts_the_seeds_of_one_configuration_once() -> None:
    units = by_rate(0, methods=5)
    seeds = pd.concat(
        [units.assign(seed=seed, mis_conv=units.mis_conv + shift) for seed, shift in enumerate([0, 0.1, -0.1])]
    )
    assert judge("C4", networks=seeds).ours == judge("C4", networks=units).ours


def test_c4_has_to_be_there_without_networks_at_chance() -> None:
    units = by_rate(0)
    units["mis_conv"] = 0.5 + 0.01 * (units.rate == 0.4) - 0.3 * (units.rate == 0.8)
    scores = accuracy(
        {(row.method, row.rate, "one_shot"): [0.1 if row.rate == 0.8 else 0.6] for row in units.itertuples()}
    )
    row = judge("C4", accuracies=scores, networks=units)
    assert row.verdict == "cannot be told"
    assert row.ours.startswith("r = -0.7") and "; without networks at chance r = 0.00 (" in row.ours
    assert row.ours.endswith(f"n = {36}")
    assert row.why.startswith("does not hold over all, but without networks at chance: 36 configurations decide")
    working = claims.correlations(units.merge(scores[["variant", "top1_low"]]), "rate", chance=0.1).set_index("row")
    assert working.loc["within methods, above chance", "r"] == pytest.approx(0, abs=1e-9)
    assert working.loc["within methods", "r"] < -0.7


def test_c4_keeps_the_schedules_of_one_method_apart() -> None:
    units = by_rate(0)
    other = units.assign(schedule="iterative", mis_conv=units.mis_conv + 1)
    found = claims.rate_series(pd.concat([units, other[other.rate > 0.5]], ignore_index=True))
    assert len(found) == 12 * 4 + 12 * 2 and found.series.nunique() == 24
    assert set(found.series[found.schedule == "iterative"]) == {f"method {i}, iterative" for i in range(12)}


def test_c4_without_two_rates_of_one_method_is_not_tested() -> None:
    assert judge("C4", networks=with_others(by_rate(0)[:0])).verdict == "not tested"
    row = judge("C4", networks=means(accuracy())[:3])
    assert (row.verdict, row.ours, row.why) == ("not tested", "-", claims.NOTHING)


# ---------------------------------------------------------------------------------------------------------- C5


def broken(*mis: float, top1: float = 0.13, seeds: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods of Top-1 ``top1`` with a given MIS, beside a dense network at .8 and a random one at .6."""
    table = accuracy({(f"broken {i}", 0.9, "none"): [top1] * seeds for i in range(len(mis))})
    units = means(table, 0.8)
    units.loc[units.method == "random_init", "mis_conv"] = 0.6
    for i, value in enumerate(mis):
        units.loc[units.method == f"broken {i}", "mis_conv"] = value
    return table, units


@pytest.mark.parametrize(
    ("mis", "verdict", "shares"),
    [
        ((0.79, 0.78, 0.77), "holds", [0.95, 0.90, 0.85]),
        ((0.63, 0.62, 0.61), "does not hold", [0.15, 0.10, 0.05]),
        ((0.69, 0.70, 0.71), "cannot be told", [0.45, 0.50, 0.55]),
    ],
)
def test_c5_is_the_share_of_the_way_from_random_to_dense(
    mis: tuple[float, ...], verdict: str, shares: list[float]
) -> None:
    row = judge("C5", *broken(*mis))
    mean, low, high = students(shares)
    assert row.verdict == verdict
    assert row.ours == f"{mean:.0%} ({low:.0%} to {high:.0%}) of the way from random to dense"
    place = {"holds": "above", "does not hold": "below"}.get(verdict, "on both sides of")
    assert row.why == f"interval over 3 methods and 1 random network is {place} half of the way"


def test_c5_counts_the_seeds_of_one_configuration_once() -> None:
    one, three = judge("C5", *broken(0.79, 0.78, 0.77)), judge("C5", *broken(0.79, 0.78, 0.77, seeds=3))
    assert (one.ours, one.why) == (three.ours, three.why)
    assert judge("C5", *broken(0.79, seeds=3)).verdict == "cannot be told"


def test_c5_counts_the_rates_of_one_method_once() -> None:
    """They share their parent and mostly their masks."""
    table, units = broken(0.79, 0.78, 0.77)
    names = {"broken 1": ("broken 0", 0.91), "broken 2": ("broken 0", 0.92)}
    for one in (table, units):
        for name, (method, rate) in names.items():
            one.loc[one.method == name, ["method", "rate"]] = method, rate
    assert judge("C5", table, units).why == "no interval from 1 method and 1 random network"


def test_c5_is_about_pruned_networks_whose_interval_reaches_chance() -> None:
    """Of 1000 images and a chance of .125, Wilson's interval reaches down to it from .145 and not from .146."""
    assert judge("C5", *broken()).verdict == "not tested"  # the random network is at chance, but not pruned
    assert judge("C5", *broken(0.79, 0.78, 0.77, top1=0.146)).verdict == "not tested"
    assert judge("C5", *broken(0.79, 0.78, 0.77, top1=0.145)).verdict == "holds"
    assert judge("C5", *broken(0.79, 0.78, 0.77, top1=0.145), unrelated(16)).verdict == "not tested"  # chance 1/16
    assert judge("C5", *broken()).ours == "no network is at chance"


def test_c5_with_one_network_has_no_interval() -> None:
    row = judge("C5", *broken(0.79))
    assert row.verdict == "cannot be told" and row.why == "no interval from 1 method and 1 random network"


def test_c5_knows_the_random_networks_no_better_than_their_number_lets_it() -> None:
    table, networks = broken(0.79, 0.78, 0.77)
    random = networks[networks.method == "random_init"]
    for mis, verdict in (((0.59, 0.60, 0.61), "holds"), ((0.2, 0.60, 1.0), "cannot be told")):
        drawn = [random.assign(variant=f"random {seed}", seed=seed, mis_conv=one) for seed, one in enumerate(mis)]
        several = pd.concat([networks[networks.method != "random_init"], *drawn])
        scores = pd.concat(
            [table, *(table[table.method == "random_init"].assign(variant=f"random {i}") for i in (0, 1, 2))]
        )
        row = judge("C5", scores, several)
        assert row.verdict == verdict and "3 random networks" in row.why
        assert row.ours.startswith("90% (")


@pytest.mark.parametrize("dense", [0.5, 0.6])
def test_c5_cannot_be_told_where_the_dense_network_is_no_better_than_the_random_one(dense: float) -> None:
    table, units = broken(0.49, 0.48, 0.47)  # below both
    units.loc[units.method == "dense", "mis_conv"] = dense
    row = judge("C5", table, units)
    assert row.verdict == "cannot be told"
    assert "(0.600)" in row.ours and f"({dense:.3f})" in row.ours


# --------------------------------------------------------------------------------------------------------- C6a


def outputs(*mis: float, conv: float = 0.8) -> pd.DataFrame:
    """The units of GRID's networks, all convs of one MIS, and one output unit per class of the given MIS, in turn."""
    units = single_units()
    fc = units.kind == "fc"
    units["mis"] = np.where(fc, np.resize(mis, CLASSES + 1)[units.unit % (CLASSES + 1)], conv)
    return units.assign(alive=True)


TRAINED = len([key for key in GRID if key[0] != "random_init"])


@pytest.mark.parametrize(
    ("mis", "verdict", "lower"),
    [([0.69, 0.71], "holds", TRAINED), ([0.89, 0.91], "does not hold", 0), ([0.1, 1.49], "cannot be told", TRAINED)],
)
def test_c6a_is_over_classes_however_many_networks_there_are(mis: list[float], verdict: str, lower: int) -> None:
    units = outputs(*mis)
    units.loc[units.method == "random_init", "mis"] = -100.0  # would hide everything else
    row = judge("C6a", units=units)
    assert row.verdict == verdict
    gaps = 0.8 - np.resize(mis, CLASSES)
    assert row.ours == f"conv - fc = {shown(*students(list(gaps)))}"
    assert f"over {CLASSES} classes, means of {TRAINED} configurations of one dense network" in row.why
    assert f"; at most 40% of an output unit's extreme images can be of its class; lower in {lower} of them" in row.why
    again = units.assign(seed=1, variant=units.variant + " again")
    twice = pd.concat([units, again])  # the same networks again are no more classes
    assert judge("C6a", units=twice).ours == row.ours
    everything = students(list(0.8 - np.resize(mis, CLASSES + 1)))
    assert row.why.endswith(f"; over all {CLASSES + 1} outputs {shown(*everything)}")


def test_c6a_leaves_out_dead_units_and_networks_at_chance() -> None:
    units = outputs(0.69, 0.71)
    units.loc[(units.kind == "fc") & (units.method == "structured_l1"), "alive"] = False
    assert f"means of {TRAINED - 3} configurations" in judge("C6a", units=units).why
    low = accuracy({("structured_l1", 0.8, "one_shot"): [0.1]})
    assert f"means of {TRAINED - 1} configurations" in judge("C6a", low, units=outputs(0.69, 0.71)).why
    assert judge("C6a", units=units[units.kind == "conv"]).verdict == "not tested"


# --------------------------------------------------------------------------------------------------------- C6b


def related(n: int) -> pd.DataFrame:
    return unrelated(n).assign(mis=lambda table: table.mis + table.top1)


@pytest.mark.parametrize(
    ("classes", "verdict"),
    [(unrelated(200), "holds"), (related(200), "does not hold"), (unrelated(8), "cannot be told")],
)
def test_c6b(classes: pd.DataFrame, verdict: str) -> None:
    row = judge("C6b", classes=classes)
    assert row.verdict == verdict
    r = classes[["top1", "mis"]].corr().iloc[0, 1]
    assert (
        row.ours.replace("-0.00", "0.00", 1).startswith(f"r = {r:.2f} (".replace("-0.00", "0.00"))
        and f" over {len(classes)} classes" in row.ours
    )


def test_c6b_leaves_dead_units_random_and_unretrained_networks_out() -> None:
    slope = np.linspace(0, 1, 200)
    others = [
        by_class(slope, slope, alive=False),
        by_class(slope, slope, variant="random", method="random_init"),
        by_class(slope, slope, variant="pruned", method="structured_l1", rate=0.8),
    ]
    classes = pd.concat([unrelated(200), *others], ignore_index=True)
    assert judge("C6b", classes=classes).ours == judge("C6b", classes=unrelated(200)).ours
    assert judge("C6b", classes=classes).verdict == "holds"


@pytest.mark.parametrize("live", [200, 100])
def test_c6b_looks_within_networks(live: int) -> None:
    """A network with a higher accuracy and a higher MIS says nothing about its classes, dead or alive."""
    one = unrelated(200)
    other = one[:live].assign(variant="b", top1=one.top1 + 0.5, mis=one.mis + 0.5)
    assert judge("C6b", classes=pd.concat([one, other], ignore_index=True)).verdict == "holds"


def test_c6b_without_live_units_is_not_tested() -> None:
    assert judge("C6b", classes=unrelated(8).assign(alive=False)).verdict == "not tested"


@pytest.mark.parametrize("make", [unrelated, lambda n: related(n).assign(mis=[0.5, 0.6, 0.6, 0.7, 0.5, 0.5, 0.7, 0.7])])
def test_c6b_the_same_classes_in_more_networks_are_no_more_classes(make) -> None:
    one = make(8)
    copies = pd.concat([one.assign(variant=f"copy {i}") for i in range(40)], ignore_index=True)
    assert judge("C6b", classes=one).verdict == "cannot be told"
    assert judge("C6b", classes=copies).verdict == "cannot be told"


# ------------------------------------------------------------------------------------------- reasons, every verdict


@pytest.mark.parametrize(
    ("top1", "why"),
    [
        ([0.90], "interval over 1000 images, one seed is above 0"),
        ([0.70], "interval over 1000 images, one seed is below 0"),
        ([0.81], "interval over 1000 images, one seed is on both sides of 0"),
        ([], claims.NOTHING),
    ],
)
def test_the_reason_says_where_the_interval_is_and_what_it_is_over(top1: list[float], why: str) -> None:
    assert judge("C1a", accuracy({("connection_l1", 0.8, "one_shot"): top1})).why == why
    assert judge("C3", accuracy({("structured_l1", 0.8, "iterative"): [x - 0.2 for x in top1]})).why == why


def test_the_reason_counts_the_seeds_that_both_have() -> None:
    both = {("dense_retrained", 0.0, "one_shot"): [0.60, 0.70], ("connection_l1", 0.8, "one_shot"): [0.7, 0.82, 0.1]}
    assert judge("C1a", accuracy(both)).why.startswith("interval over 2 seeds")


def test_an_absent_correlation_is_shown_or_refuted_or_asks_for_more_networks() -> None:
    assert judge("C4", networks=by_rate(0)).why.startswith("|r| < 0.3 is shown (p = ")
    assert judge("C4", networks=by_rate(0.2)).why == "r differs from 0 (Fisher's z over 48 configurations)"
    few = judge("C4", networks=by_rate(0, methods=5)).why
    assert few == f"20 configurations decide nothing: to see r = 0.3 takes {networks_needed(0.3, groups=5)}"
    assert judge("C6b", classes=unrelated(8)).why == "8 classes decide nothing: to see r = 0.3 takes 85"


# ------------------------------------------------------------------------------------- the correlations behind C4


def test_rate_series_has_sparse_retrained_networks_of_several_rates_only() -> None:
    """Networks of every schedule and suffix: BatchNorm measured anew is no retraining, three seeds are one rate."""
    table = by_rate(0.2, methods=1)
    extra = [
        table.assign(schedule="recalibrated"),
        table.assign(schedule="none"),
        table.assign(method="method 0_unmasked"),
        table[:1].assign(method="other", seed=0),
        table[:1].assign(method="other", seed=1),
        table.assign(schedule="rewound"),
    ]
    found = claims.rate_series(pd.concat([table, *extra], ignore_index=True))
    assert set(found.series) == {"method 0", "method 0, rewound"} and len(found) == 8


def networks(seeds: int = 3) -> pd.DataFrame:
    """Within each of two retrained methods MIS falls with the rate; the methods' levels and rates hide it (Simpson).
    Seeds add noise of mean 0; networks not retrained are alike at all rates."""
    rows = [("dense", 0.0, "none", 0, 0.3)]
    for method, first, level in (("structured_l1", 0.1, 0.5), ("connection_l1", 0.6, 0.8)):
        for i in range(4):
            rate, shift = first + 0.1 * i, 0.001 * (-1) ** i
            for seed in range(seeds):
                noise = 0.03 * (seed - (seeds - 1) / 2)
                rows.append((method, rate, "one_shot", seed, level - 0.1 * rate + shift + noise))
            rows.append((method, rate, "none", 0, 0.7 + shift))
    return pd.DataFrame(rows, columns=["method", "rate", "schedule", "seed", "mis_conv"])


def test_correlations_within_methods_and_pooled_disagree_where_they_should() -> None:
    found = claims.correlations(networks(), "rate", n_resamples=50).set_index("row")
    assert list(found.index) == [
        "structured_l1",
        "connection_l1",
        "within methods",
        "within methods, single networks",
        "retrained, pooled",
        "not retrained, pooled",
        "all, pooled as in the paper",
    ]
    assert found.n.tolist() == [12, 12, 8, 24, 8, 8, 17]
    assert found.r["within methods"] < -0.95 and found.r["retrained, pooled"] > 0.8
    assert -0.6 < found.r["within methods, single networks"] < found.r["structured_l1"] / 2 < 0  # noise of the seeds
    assert abs(found.r["not retrained, pooled"]) < 0.3
    assert found.method.tolist() == ["structured_l1", "connection_l1", "", "", "", "", ""]
    assert set(found.resamples) == {"nothing (Fisher's z)"}


def test_correlations_of_one_seed_have_no_row_of_single_networks() -> None:
    one, three = (claims.correlations(networks(n), "rate", n_resamples=50).set_index("row") for n in (1, 3))
    assert "within methods, single networks" not in one.index
    assert one.r["within methods"] == pytest.approx(three.r["within methods"])  # noise has mean 0
    ranks = claims.correlations(networks(1), "rate", method="spearman", n_resamples=50).set_index("row")
    assert ranks.r["structured_l1"] == -1


def test_correlations_of_large_tables_resample_networks() -> None:
    units = by_rate(0)
    assert set(claims.correlations(units, "rate", n_resamples=20).resamples) >= {"networks", "nothing (Fisher's z)"}


# --------------------------------------------------------------------------------------------- slopes of same units


def single_units(slope: float = 0.0, seeds: int = 1, fc: float = 0.7) -> pd.DataFrame:
    """Ten units of two convs and the fc units of the classes, for the networks of GRID; MIS .8 + slope * rate in the
    convs that live on. The weakest half of the convs (MIS .3 lower) is dead at the highest rate: live means rise."""
    rows = pd.DataFrame(
        [(f"inception{block}.branch1.conv", "conv", unit) for block in ("5a", "5b") for unit in range(10)]
        + [("fc", "fc", unit) for unit in range(CLASSES + 1)],
        columns=["layer", "kind", "unit"],
    )
    table = accuracy({key: [GRID[key][0]] * seeds for key in GRID}).merge(rows, how="cross")
    weak = (table.kind == "conv") & (table.unit < 5)
    mis = (0.8 + slope * table.rate - 0.3 * weak).where(table.kind == "conv", fc) + 0.01 * (
        table.seed - (seeds - 1) / 2
    )
    mis = mis.where(table.unit < CLASSES, 0.0) if fc != 0.7 else mis  # an output without a class
    return table.assign(mis=mis, alive=~(weak & (table.rate == 0.8)))


def test_unit_trends_are_those_of_the_units_that_live_on() -> None:
    found = claims.unit_trends(single_units(0.25), n_resamples=20)
    assert found.series.tolist() == ["connection_l1", "unstructured_global", "structured_l1"]
    assert found.slope.to_numpy() == pytest.approx(0.25)  # live means would rise by .15 / .4 more
    assert (found.units == 10).all() and (found.layers == 2).all() and (found.networks == 2).all()
    assert found.seeds_low.isna().all()  # one seed says nothing of others


def test_unit_trends_have_a_slope_per_seed() -> None:
    units = single_units(0.25, seeds=2)
    units.loc[(units.seed == 1) & (units.rate == 0.8), "mis"] += 0.04
    row = claims.unit_trends(units, n_resamples=20).iloc[0]
    assert row.seeds == pytest.approx([0.25, 0.35]) and row.slope == pytest.approx(0.30)
    mean, low, high = students([0.25, 0.35])
    assert (row.seeds_low, row.seeds_high) == pytest.approx((low, high)) and mean == pytest.approx(row.slope)


def test_unit_trends_of_seeds_are_over_the_same_units() -> None:
    """A unit that dies in the second seed is left out of the first seed's slope too."""
    units = single_units(0.25, seeds=2)
    unit = (units.layer == "inception5b.branch1.conv") & (units.unit == 9) & (units.rate == 0.8)
    units.loc[unit, "mis"] += 0.3
    units.loc[unit & (units.seed == 1), "alive"] = False
    assert claims.unit_trends(units, n_resamples=20).iloc[0].seeds == pytest.approx([0.25, 0.25])


def test_rate_slopes_are_of_the_measure_that_is_named_same_units_first() -> None:
    units = single_units(0.25)
    between = units[units.rate == 0.4].assign(rate=0.6, variant=lambda t: t.variant + "+", mis=lambda t: t.mis + 0.05)
    units = pd.concat([units, between], ignore_index=True)
    units["clarity"] = 2 * units.mis  # the weakest half dies at .8, where the mean of what is left is .3 higher
    found = claims.rate_slopes(units, n_resamples=20, measure="clarity").set_index("estimate")
    assert found.loc["same units, layers equal"].slope.to_numpy() == pytest.approx(0.5)
    assert found.loc["all live units, mixed model"].slope.to_numpy() == pytest.approx(0.5 + 0.3 * 0.2 / 0.08, abs=1e-3)
    assert len(claims.rate_slopes(units.query("rate == 0"))) == 0


def test_rate_slopes_of_series_without_values_are_missing() -> None:
    units = single_units(0.25)
    dead = units[units.method != "structured_l1"]
    dead = pd.concat([dead, units[units.method == "structured_l1"].assign(alive=False)])
    assert claims.rate_slopes(dead, n_resamples=20).set_index("method").loc["structured_l1"].slope.isna().all()
    assert claims.rate_slopes(units.assign(mis=float("nan")), n_resamples=20).slope.isna().all()


def test_unit_trends_of_nothing_is_an_empty_table_and_stands_beside_c4() -> None:
    empty = claims.unit_trends(single_units().query("rate == 0"))
    assert len(empty) == 0 and "slope" in empty
    assert empty.columns.tolist() == claims.unit_trends(single_units()).columns.tolist()


def slopes(**by_method: tuple[float, float, float]) -> pd.DataFrame:
    """The units of GRID's networks, with the slope of MIS against the rate of each method and seed."""
    units = single_units(seeds=3)
    nothing = dict.fromkeys(METHODS, (-0.01, 0.0, 0.01))
    for method, of_seeds in (nothing | by_method).items():
        moved = (units.method == method) & (units.kind == "conv")
        units.loc[moved, "mis"] += np.array(of_seeds)[units.seed[moved]] * units.rate[moved]
    return units


def on_scale(networks: pd.DataFrame) -> pd.DataFrame:
    """With a dense network at .7 and a random one at .6: slopes below .01 count as none."""
    ends = means(accuracy()).query("method in ['dense', 'random_init']")
    return pd.concat([networks, ends.assign(mis_conv=ends.method.map({"dense": 0.7, "random_init": 0.6}))])


def test_c4_fails_by_methods_whose_trends_cancel_out() -> None:
    down, up = (-0.050, -0.049, -0.051), (0.050, 0.049, 0.051)
    networks = on_scale(by_rate(0))
    assert judge("C4", networks=networks, units=slopes()).verdict == "holds"
    row = judge("C4", networks=networks, units=slopes(connection_l1=down, unstructured_global=up))
    assert row.verdict == "does not hold"
    intervals = [claims.show(statistics.mean_interval(seeds, 1 - 0.05 / 3)) for seeds in (down, up)]
    assert row.why.startswith("MIS per unit of rate changes by more than 0.010, 10% of the way")
    assert row.why.endswith("Bonferroni over 3 methods)")
    moving = f"; per unit of rate connection_l1 {intervals[0]}, unstructured_global {intervals[1]}"
    assert row.ours == judge("C4", networks=networks).ours + moving


def test_c4_counts_small_slopes_as_none() -> None:
    small = (-0.0050, -0.0049, -0.0051)  # surely below 0, and surely above -.01
    assert judge("C4", networks=on_scale(by_rate(0)), units=slopes(connection_l1=small)).verdict == "holds"


def test_c4_corrects_the_slopes_of_methods_for_their_number() -> None:
    once = (0.030, 0.036, 0.045)
    assert statistics.mean_interval(once).low > 0.01 > statistics.mean_interval(once, 1 - 0.05 / 3).low
    assert judge("C4", networks=on_scale(by_rate(0)), units=slopes(connection_l1=once)).verdict == "holds"


def test_c4_asks_no_slope_of_networks_at_chance() -> None:
    units = slopes(connection_l1=(-0.050, -0.049, -0.051))
    lost = accuracy({("connection_l1", 0.8, "one_shot"): [0.1] * 3})
    assert judge("C4", networks=on_scale(by_rate(0)), units=units).verdict == "does not hold"
    assert judge("C4", lost, on_scale(by_rate(0)), units=units).verdict == "holds"


# --------------------------------------------------------------------------------------------------- open questions


def test_one_row_per_question() -> None:
    table = questions()
    assert list(table.claim) == ["Q1", "Q2", "Q3"] and list(table.columns) == list(claims.Verdict._fields)
    assert table.map(lambda cell: isinstance(cell, str) and cell != "").all(axis=None)


def test_q1_is_within_layers_and_untested_without_truth() -> None:
    """In both layers MIS follows the truth, while the layer of higher MIS has less of it."""
    generator = np.random.default_rng(0)
    mis = generator.uniform(size=60)
    layer = np.repeat(["a", "b"], 30)
    truth = pd.DataFrame(
        {
            "layer": layer,
            "mis": mis + 5 * (layer == "b"),
            "concept_selectivity": mis + 0.1 * generator.normal(size=60) - 5 * (layer == "b"),
        }
    )
    row = questions(truth=truth).iloc[0]
    assert row.verdict == "holds" and "60 units of one network" in row.why
    assert questions(truth=truth.assign(mis=-truth.mis)).iloc[0].verdict == "does not hold"
    assert questions().iloc[0].verdict == "not tested"


def test_q1_of_many_units_and_a_tiny_correlation_does_not_hold() -> None:
    x, noise = np.random.default_rng(0).normal(size=(2, 4000))
    truth = pd.DataFrame({"layer": "a", "mis": x, "concept_selectivity": 0.1 * x + noise})
    row = questions(truth=truth).iloc[0]
    assert row.verdict == "does not hold" and float(re.search(r"\((-?[\d.]+) to", row.ours)[1]) > 0
    assert row.why == "interval over 4000 units of one network is below 0.3"


@pytest.mark.parametrize(
    ("iterative", "rewound", "verdict", "best"),
    [
        ([0.50], [0.40], "holds", "iterative"),
        ([0.50], [0.70], "does not hold", "rewound"),
        ([0.61], [0.40], "cannot be told", "iterative"),
        ([], [], "not tested", None),
    ],
)
def test_q2_one_shot_is_best_if_it_beats_all_others(iterative: list, rewound: list, verdict: str, best: str) -> None:
    changes = {("structured_l1", 0.8, "iterative"): iterative, ("structured_l1", 0.8, "rewound"): rewound}
    row = questions(accuracy(changes)).iloc[1]
    assert row.verdict == verdict
    if best:
        top1 = (iterative if best == "iterative" else rewound)[0]
        gap = shown(top1 - 0.60, *newcombe(top1, 0.60, N))
        assert row.ours == f"best other: {best} structured_l1 at 0.8 {gap}"
        assert row.why.endswith("; 2 comparisons, each at 95 %")
        assert (": rewound structured_l1 at 0.8;" in row.why) == (verdict == "does not hold")
    else:
        assert row.ours == "-" and row.why == claims.NOTHING


@pytest.mark.parametrize(("low", "verdict"), [(0.4, "holds"), (0.9, "does not hold"), (0.5, "cannot be told")])
def test_q3_compares_the_classes_outputs_with_the_last_block(low: float, verdict: str) -> None:
    """Live convs of the last block have .8 on top and .5 below; the block before it does not count."""
    units = single_units(fc=low)
    last = (units.kind == "conv") & units.layer.str.startswith("inception5b")
    units.loc[(units.kind == "conv") & ~last, "mis"] = -9.0
    units.loc[last, "mis"] = 0.5 + 0.02 * (-1.0) ** (units.method == "connection_l1")[last]
    units.loc[(units.kind == "fc") & (units.unit < CLASSES), "mis"] += 0.05 * (-1.0) ** units.unit
    units.loc[units.method == "random_init", "mis"] = -9.0
    row = questions(units=units).iloc[2]
    assert row.verdict == verdict and row.statement.endswith("the convs of inception5b")
    of_networks = [
        0.5 + 0.02 * (1 if method != "connection_l1" else -1) for method, *_ in GRID if method != "random_init"
    ]
    gaps = np.mean(of_networks) - low - 0.05 * (-1.0) ** np.arange(CLASSES)
    assert row.ours == f"inception5b - fc = {shown(*students(list(gaps)))}"
    twice = pd.concat(
        [units, units.assign(seed=1, mis=units.mis)]
    )  # the same networks again are no more configurations
    assert questions(units=twice).iloc[2].ours == row.ours
    assert f"over {CLASSES} classes" in row.why


def test_by_profile_sets_the_verdicts_of_profiles_side_by_side():
    columns = ["claim", "statement", "paper", "ours", "verdict", "why", "where"]
    one = pd.DataFrame(
        [["C1", "gains", ".7", "+.1", "holds", "b", "f"], ["Q1", "open", "-", "r = 0", "not tested", "b", "g"]],
        columns=columns,
    )
    two = pd.DataFrame([["C1", "gains", ".7", "-.2", "does not hold", "c", "h"]], columns=columns)
    found = claims.by_profile({"quick": one, "real": two})
    assert found.columns.tolist() == ["claim", "statement", "paper", "quick", "real", "where"]
    assert found.quick.tolist() == ["holds (+.1): b", "not tested (r = 0): b"]
    assert found.real[0] == "does not hold (-.2): c" and pd.isna(found.real[1])


# ------------------------------------------------------------------------------------------------ followed units


def through_pruning() -> pd.DataFrame:
    """30 units in each of two layers; pruning adds the rate to the MIS of layer a and turns the order of layer b;
    unit 0 of layer a dies at .8. Retrained alone, nothing changes. There is a second seed, and an fc unit."""
    networks = [("dense", 0.0, "none", 0), ("random_init", 0.0, "none", 0), ("structured_l1", 0.4, "none", 0)]
    for seed in (0, 1):
        networks += [("structured_l1", rate, "one_shot", seed) for rate in (0.8, 0.4)]
        networks += [("dense_retrained", 0.0, "one_shot", seed), ("structured_l1", 0.8, "iterative", seed)]
    tables = []
    for method, rate, schedule, seed in networks:
        for layer in "ab":
            mis = np.linspace(0, 0.1, 30) + (layer == "b")
            mis = mis + rate if layer == "a" else mis[::-1] if rate else mis
            tables.append(
                pd.DataFrame({"variant": f"{method}-{rate}-{schedule}-{seed}", "method": method, "rate": rate,
                              "schedule": schedule, "seed": seed, "layer": layer, "kind": "conv", "unit": range(30),
                              "mis": mis, "alive": [not (rate == 0.8 and layer == "a"), *[True] * 29]})
            )  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    return pd.concat([table, table[table.layer == "a"].assign(layer="fc", kind="fc")], ignore_index=True)


def test_followed_units_are_alive_in_dense_and_all_one_shot_networks_of_the_seed() -> None:
    found = claims.followed_units(through_pruning())
    assert found.groupby("method", sort=False).variant.unique().map(list).to_dict() == {
        "dense_retrained": ["dense-0.0-none-0", "dense_retrained-0.0-one_shot-0"],
        "structured_l1": ["dense-0.0-none-0", "structured_l1-0.4-one_shot-0", "structured_l1-0.8-one_shot-0"],
    }
    counts = found.groupby(["method", "variant", "layer"]).unit.agg(["size", "min"])
    assert counts.loc["dense_retrained"].values.tolist() == [[30, 0]] * 4
    assert counts.loc["structured_l1"].values.tolist() == [[29, 1], [30, 0]] * 3  # layer a without its dead unit


def test_followed_summary_knows_how_far_units_moved_and_whether_they_kept_their_order() -> None:
    table = through_pruning()
    found = claims.followed_summary(claims.followed_units(table), n_resamples=200).set_index(["method", "rate"])
    control, (before, middle, after) = found.loc["dense_retrained"], found.loc["structured_l1"].itertuples()
    assert control.r.iloc[1] == pytest.approx(1) and np.isnan(before.r) and control["mean"].nunique() == 1
    assert before.units == after.units == 59 and (before.Index, middle.Index, after.Index) == (0, 0.4, 0.8)
    moved = 29 * 0.8 / 59  # layer a alone
    assert after.mean - before.mean == pytest.approx(moved) == pytest.approx(after.change)
    assert after.change_low < after.change < after.change_high and np.isnan(before.change)
    assert before.low < before.mean < before.high and before.q10 < before.q25 < before.q50 < before.q75 < before.q90
    # Ranks within layers: one layer keeps its order, the other is turned around.
    ranks = [np.arange(29) / 29, np.arange(30) / 30]
    sizes = [np.var(r) * len(r) for r in ranks]
    assert after.r == pytest.approx((sizes[0] - sizes[1]) / sum(sizes)) and after.r_low < after.r < after.r_high


def test_nothing_to_follow_is_an_empty_table() -> None:
    dense = through_pruning().query("method == 'dense'")
    assert claims.followed_units(dense).empty and claims.followed_summary(claims.followed_units(dense)).empty
