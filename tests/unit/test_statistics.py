"""Known answers, planted effects and the coverage of the intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols

from prunelens import statistics
from prunelens.statistics import (
    bootstrap_interval,
    correlation,
    difference_interval,
    equivalence,
    grouped_correlations,
    holm,
    mean_interval,
    networks_needed,
    within_group_correlation,
)


def networks(
    seed: int, slope: float, noise: float, groups: int = 5, rows: int = 4, offset: float = 1.0
) -> pd.DataFrame:
    """`groups` methods at `rows` rates: y = slope * rate + a level of the method + noise."""
    generator = np.random.default_rng(seed)
    rate = np.tile(np.linspace(0.2, 0.8, rows), groups)
    method = np.repeat([f"method {g}" for g in range(groups)], rows)
    level = np.repeat(generator.normal(0, offset, groups), rows)
    return pd.DataFrame(
        {"method": method, "rate": rate, "y": slope * rate + level + generator.normal(0, noise, rate.size)}
    )


def simpson() -> pd.DataFrame:
    """Three groups, each falling exactly, whose centres rise."""
    x = np.concatenate([np.arange(5.0) + 20 * g for g in range(3)])
    y = np.concatenate([20.0 * g - np.arange(5.0) for g in range(3)])
    return pd.DataFrame({"group": np.repeat(list("abc"), 5), "x": x, "y": y})


def test_mean_interval_known_answer():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])  # t(.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


def test_mean_interval_of_one_none_and_missing_values():
    assert mean_interval([0.7]).mean == 0.7 and math.isnan(mean_interval([0.7]).low)
    assert math.isnan(mean_interval([]).mean)
    assert mean_interval([1.0, math.nan, 3.0]) == mean_interval([1.0, 3.0])


def test_mean_interval_covers():
    generator = np.random.default_rng(0)
    intervals = [mean_interval(generator.normal(5, 2, 3)) for _ in range(1000)]
    assert 0.93 < np.mean([i.low <= 5 <= i.high for i in intervals]) < 0.97


def test_bootstrap_interval_agrees_with_t_interval_and_is_seeded():
    values = np.random.default_rng(0).normal(3, 1, 200)
    low, high = bootstrap_interval(values, np.mean, seed=1)
    assert (low, high) == pytest.approx(mean_interval(values)[1:], abs=0.02)
    assert (low, high) == bootstrap_interval(values, np.mean, seed=1)
    assert (low, high) != bootstrap_interval(values, np.mean, seed=2)
    assert all(map(math.isnan, bootstrap_interval([1.0], np.mean)))


def test_bootstrap_interval_covers():
    generator = np.random.default_rng(0)
    samples = generator.exponential(1, (300, 40))
    hits = [low <= math.log(2) <= high for low, high in (bootstrap_interval(s, np.median, 300) for s in samples)]
    assert 0.90 < np.mean(hits) < 0.98


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0.9, 0.3, (0.1705, 0.8090)), (0.0, 0.0, (-0.2775, 0.2775)), (1.0, 0.0, (0.6075, 1.0))],
)
def test_difference_interval_is_the_published_one(first, second, expected):
    """Newcombe (1998), Statistics in Medicine 17, table II, method 10, examples (b), (f) and (h), ten each."""
    assert difference_interval(first, second, 10) == pytest.approx(expected, abs=5e-5)


def test_difference_interval_turns_round_with_its_sides_and_widens_with_its_level():
    low, high = difference_interval(0.82, 0.8, 400)
    assert difference_interval(0.8, 0.82, 400) == pytest.approx((-high, -low))
    wider = difference_interval(0.82, 0.8, 400, level=0.99)
    assert wider[0] < low < 0.02 < high < wider[1]


def test_difference_interval_counts_whole_images():
    """.29 x 100 is 28.999999999999996 in floating point; cut off, an image would be lost."""
    assert difference_interval(0.5, 0.29, 100) == difference_interval(0.5, 0.29 + 1e-12, 100)


def test_difference_interval_covers():
    generator = np.random.default_rng(0)
    shares = generator.binomial(200, [[0.8], [0.7]], (2, 500)) / 200
    intervals = [difference_interval(first, second, 200) for first, second in shares.T]
    assert 0.92 < np.mean([low <= 0.1 <= high for low, high in intervals]) < 0.98


@pytest.mark.parametrize(("method", "r"), [("pearson", 0.8), ("spearman", 0.8), ("kendall", 0.6)])
def test_correlation_known_answers(method, r):
    found = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], method)
    assert found.r == pytest.approx(r)
    assert found.n == 5 and found.interval == "Fisher z"
    assert found.low < r < found.high


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_bootstrapped_coefficients_are_scipys(method):
    x, y = np.random.default_rng(3).integers(0, 6, (2, 50)).astype(float)  # with ties
    coefficient, test = statistics.COEFFICIENTS[method]
    assert coefficient(x, y) == pytest.approx(float(test(x, y).statistic))


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_correlation_of_a_planted_slope(method):
    generator = np.random.default_rng(0)
    x = generator.normal(size=80)
    found = correlation(x, x + generator.normal(size=80), method, n_resamples=300)
    assert found.interval == "bootstrap"
    assert 0 < found.low < found.r < found.high < 1
    assert found.p < 1e-6


def test_fisher_interval_is_scipys():
    x, y = np.random.default_rng(1).normal(size=(2, 12))
    expected = stats.pearsonr(x, y).confidence_interval(0.95)
    assert correlation(x, y)[1:3] == pytest.approx((expected.low, expected.high))


def test_correlation_without_an_answer_says_why():
    assert correlation([1, 2], [1, 2]).interval == "none: fewer than 3 pairs"
    assert correlation([0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4]).interval == "none: x is constant"
    assert correlation([1, 2, 3, 4], [7, 7, 7, 7]).interval == "none: y is constant"
    assert math.isnan(correlation([1, 2, 3, 4], [7, 7, 7, 7]).r)
    assert correlation([1, 2, 3, math.nan], [3, 1, 2, 4]).n == 3


def test_correlation_of_three_pairs_has_no_bounds():
    assert correlation([1, 2, 3], [1, 3, 2])[1:3] == (-1.0, 1.0)


def test_correlation_rejects_bad_input():
    with pytest.raises(ValueError, match="pearson, spearman, kendall"):
        correlation([1, 2, 3], [1, 2, 3], "cosine")
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        correlation([1, 2, 3], [1, 2, 3, 4])


@pytest.mark.parametrize("n", [10, 40])
def test_correlation_covers(n):
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        x = generator.normal(size=n)
        found = correlation(x, 0.6 * x + 0.8 * generator.normal(size=n), n_resamples=200)
        hits.append(found.low <= 0.6 <= found.high)
    assert 0.91 < np.mean(hits) < 0.985


def test_simpsons_paradox():
    table = simpson()
    rows = grouped_correlations(table, "x", "y", "group").set_index("group")
    assert rows.r["pooled"] > 0.9
    assert rows.r["within"] == pytest.approx(-1)
    assert list(rows.index) == ["a", "b", "c", "pooled", "within"]
    assert rows.r[["a", "b", "c"]].to_numpy() == pytest.approx(-1)
    assert rows.n.tolist() == [5, 5, 5, 15, 15]


def test_within_group_p_is_that_of_the_linear_model():
    table = networks(0, 0.5, 0.2)
    found = within_group_correlation(table, "rate", "y", "method")
    model = ols("y ~ rate + C(method)", table).fit()
    assert found.p == pytest.approx(model.pvalues["rate"])
    t, freedom = model.tvalues["rate"], model.df_resid
    assert found.r == pytest.approx(t / math.sqrt(t**2 + freedom))


def test_within_group_interval_pays_for_the_groups():
    """Fisher's z of a partial correlation given k = groups - 1 indicators: variance 1 / (n - k - 3)."""
    found = within_group_correlation(networks(0, 0.5, 0.2), "rate", "y", "method")
    half = stats.norm.ppf(0.975) / math.sqrt(20 - 4 - 3)
    expected = [math.tanh(math.atanh(found.r) + side * half) for side in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(expected)


def test_within_group_does_not_depend_on_levels_or_order():
    table = networks(0, 0.5, 0.2)
    moved = table.assign(y=table.y + 100 * (table.method == "method 2")).sample(frac=1, random_state=0)
    before, after = (within_group_correlation(t, "rate", "y", "method") for t in (table, moved))
    assert after.r == pytest.approx(before.r) and after.p == pytest.approx(before.p)


def test_within_group_ignores_single_rows_and_missing_values():
    table = networks(0, 0.5, 0.2)
    extra = pd.DataFrame({"method": ["dense", "method 1"], "rate": [0.0, 0.3], "y": [9.0, math.nan]})
    assert within_group_correlation(pd.concat([table, extra]), "rate", "y", "method") == within_group_correlation(
        table, "rate", "y", "method"
    )


def test_within_group_without_an_answer_says_why():
    table = pd.DataFrame({"g": list("aabb"), "x": [1, 1, 2, 2], "y": [1, 2, 3, 5]})
    assert within_group_correlation(table, "x", "y", "g").interval == "none: x is constant"
    assert within_group_correlation(table[:2], "x", "y", "g").interval == "none: too few rows per group"
    assert within_group_correlation(table[:0], "x", "y", "g").n == 0


@pytest.mark.parametrize(("rows", "interval"), [(4, "Fisher z"), (30, "bootstrap")])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_within_group_interval_covers(slope, rows, interval):
    spread = np.linspace(0.2, 0.8, rows).std()
    truth = slope * spread / math.hypot(slope * spread, 0.2)
    found = [
        within_group_correlation(networks(s, slope, 0.2, rows=rows), "rate", "y", "method", n_resamples=150)
        for s in range(100)
    ]
    assert {f.interval for f in found} == {interval}
    assert 0.88 < np.mean([f.low <= truth <= f.high for f in found]) <= 0.99
    if slope == 0:
        assert np.mean([f.p < 0.05 for f in found]) < 0.11
    else:
        assert np.mean([f.p < 0.05 for f in found]) > 0.85


def test_within_group_bootstrap_keeps_groups_apart():
    """Rows are drawn from their own group only: exact lines inside groups stay exact in every resample."""
    table = pd.concat([simpson()] * 5)  # 25 rows a group
    found = within_group_correlation(table, "x", "y", "group", n_resamples=50)
    assert found.interval == "bootstrap"
    assert (found.low, found.high) == pytest.approx((-1, -1))


def test_equivalence_verdicts():
    assert equivalence(0.0, 1000, 0.2).verdict == "equivalent"
    assert equivalence(0.0, 20, 0.2).verdict == "undecided"
    assert equivalence(0.75, 20, 0.2).verdict == "related"
    assert equivalence(0.1, 10_000, 0.2).verdict == "equivalent"  # differs from 0, yet smaller than the bound
    assert equivalence(math.nan, 20, 0.2).verdict == "undecided"
    assert equivalence(0.1, 3, 0.2).verdict == "undecided"


def test_equivalence_known_answer():
    n, edge = 103, math.atanh(0.3)  # standard error 1/10
    found = equivalence(0.1, n, 0.3)
    assert found.p == pytest.approx(stats.norm.cdf(10 * (math.atanh(0.1) - edge)))
    assert equivalence(-0.1, n, 0.3).p == pytest.approx(found.p)
    assert equivalence(0.1, n + 4, 0.3, groups=5).p == pytest.approx(found.p)
    with pytest.raises(ValueError, match="bound"):
        equivalence(0.1, 20, 0)


def test_equivalence_errs_at_the_bound_as_often_as_alpha():
    generator = np.random.default_rng(0)
    verdicts = []
    for _ in range(1000):
        x = generator.normal(size=200)
        y = 0.3 * x + math.sqrt(1 - 0.09) * generator.normal(size=200)
        verdicts.append(equivalence(float(np.corrcoef(x, y)[0, 1]), 200, 0.3).verdict == "equivalent")
    assert 0.025 < np.mean(verdicts) < 0.08


def test_networks_needed():
    assert networks_needed(0.3) == 85  # Cohen's table, Fisher z
    assert networks_needed(-0.3) == 85
    assert networks_needed(0.1) == 783
    assert networks_needed(0.5, power=0.95) > networks_needed(0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        networks_needed(0.0)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(adjusted[1])
    assert holm([]).size == 0
