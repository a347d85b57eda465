"""Known answers, what is said without a value or an interval, and the coverage of the intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from prunelens.analysis.estimates import (
    NONE,
    Estimate,
    by,
    counted,
    crossed_mean,
    holm,
    mean,
    proportion_difference,
    share_between,
    table,
    unit_mean,
)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


@pytest.mark.parametrize(
    ("estimate", "form", "text"),
    [
        (Estimate(-0.044, -0.136, 0.048, "seeds"), "+.1%", "-4.4% (-13.6% to +4.8%)"),
        (Estimate(0.5, 0.25, 0.75), "", "0.500 (0.250 to 0.750)"),
        (Estimate(0.12), "+.1%", "+12.0% (no interval)"),
        (Estimate(0.12, -math.inf, math.inf), ".2f", "0.12 (no interval)"),
        (NONE, "+.1%", "-"),
        (Estimate(math.inf), ".0%", "-"),
    ],
)
def test_an_estimate_formats_itself_and_never_says_nan_or_inf(estimate: Estimate, form: str, text: str) -> None:
    assert format(estimate, form) == text
    assert form or str(estimate) == text


def test_where_an_estimate_lies_is_where_its_whole_interval_lies() -> None:
    estimate = Estimate(0.02, 0.01, 0.03)
    assert estimate.above(0) and not estimate.above(0.02)
    assert estimate.below(0.05) and not estimate.below(0.02)
    assert estimate.within(0.04) and not estimate.within(0.02)
    assert not Estimate(-0.02, -0.05, 0.01).within(0.04)
    alone = Estimate(5.0)
    assert not (alone.above(0) or alone.below(9) or alone.within(9))


def test_a_table_has_keys_and_estimates_and_an_empty_one_their_columns() -> None:
    made = table([({"method": "a"}, Estimate(1.0, 0.0, 2.0, "3 seeds")), ({"method": "b"}, NONE)])
    assert list(made.columns) == ["method", "value", "low", "high", "over"]
    assert Estimate.of(made.iloc[0]) == Estimate.of(next(made.itertuples())) == Estimate(1.0, 0.0, 2.0, "3 seeds")
    assert list(table([], ["method"]).columns) == list(made.columns)


def test_an_estimate_of_each_group_in_order_of_appearance() -> None:
    rows = pd.DataFrame({"a": ["y", "y", "x"], "b": [1, 1, 2], "v": [1.0, 3.0, 5.0]})
    found = by(rows, ["a", "b"], lambda group: mean(group.v, "rows"))
    assert found[["a", "b", "value", "over"]].to_numpy().tolist() == [["y", 1, 2.0, "2 rows"], ["x", 2, 5.0, "1 row"]]
    assert list(by(rows[:0], ["a", "b"], lambda group: NONE).columns) == ["a", "b", "value", "low", "high", "over"]


def test_counted_knows_the_singular() -> None:
    assert [counted(1, "seeds"), counted(1, "classes"), counted(1000, "images")] == [
        "1 seed",
        "1 class",
        "1,000 images",
    ]


# ------------------------------------------------------------------------------------------------------------ means


def test_mean_is_students() -> None:
    values = [1.0, 2.0, 3.0]  # t(.975, 2) = 4.302653, standard error 1 / sqrt(3)
    found, expected = mean(values, "seeds"), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert ends(found) == pytest.approx((2, *expected)) and found.over == "3 seeds"
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_mean_of_one_none_equal_and_missing_values() -> None:
    alone = mean([0.7], "seeds")
    assert alone.value == 0.7 and math.isnan(alone.low) and math.isnan(alone.high) and alone.over == "1 seed"
    assert format(mean([], "seeds"), ".1%") == "-"
    assert mean([1.0, math.nan, 3.0], "seeds") == mean([1.0, 3.0], "seeds")
    assert ends(mean([0.5, 0.5], "seeds")) == (0.5, 0.5, 0.5)


def test_mean_covers() -> None:
    generator = np.random.default_rng(0)
    found = [mean(generator.normal(5, 2, 3), "seeds") for _ in range(1000)]
    assert 0.93 < np.mean([one.low <= 5 <= one.high for one in found]) < 0.97


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0.9, 0.3, (0.1705, 0.8090)), (0.0, 0.0, (-0.2775, 0.2775)), (1.0, 0.0, (0.6075, 1.0))],
)
def test_the_difference_of_proportions_is_the_published_one(
    first: float, second: float, expected: tuple[float, float]
) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table II, method 10, examples (b), (f) and (h), ten each."""
    assert ends(proportion_difference(first, second, 10))[1:] == pytest.approx(expected, abs=5e-5)


def test_the_difference_of_proportions_is_that_of_statsmodels_and_turns_round() -> None:
    found = proportion_difference(0.82, 0.8, 400)
    expected = confint_proportions_2indep(328, 400, 320, 400, method="newcomb", compare="diff")
    assert ends(found) == pytest.approx((0.02, *expected)) and found.over == "400 images"
    assert ends(proportion_difference(0.8, 0.82, 400)) == pytest.approx((-0.02, -found.high, -found.low))


def test_the_difference_of_proportions_counts_whole_images() -> None:
    """.29 x 100 is 28.999999999999996 in floating point; cut off, an image would be lost."""
    found, expected = proportion_difference(0.5, 0.29, 100), proportion_difference(0.5, 0.29 + 1e-12, 100)
    assert ends(found) == pytest.approx(ends(expected))


def test_the_difference_of_proportions_covers() -> None:
    generator = np.random.default_rng(0)
    shares = generator.binomial(200, [[0.8], [0.7]], (2, 500)) / 200
    found = [proportion_difference(first, second, 200) for first, second in shares.T]
    assert 0.92 < np.mean([one.low <= 0.1 <= one.high for one in found]) < 0.98


# ------------------------------------------------------------------------------------------------------------ units


def test_unit_mean_known_answers() -> None:
    values, layers = [1.0, 3.0, 10.0, math.nan], ["a", "a", "b", "b"]
    assert unit_mean(values, layers).value == pytest.approx(14 / 3) and unit_mean(values, layers).over == "3 units"
    assert unit_mean(values, layers, balanced=True).value == pytest.approx(6)
    assert math.isnan(unit_mean([math.nan], ["a"]).value)
    with pytest.raises(ValueError, match=r"found shapes \(2,\) and \(1,\)"):
        unit_mean([1.0, 2.0], ["a"])


def test_unit_mean_of_one_layer_and_of_layers_of_one_unit_are_ordinary_means() -> None:
    values = [1.0, 2.0, 4.0]
    assert unit_mean(values, ["a"] * 3) == mean(values, "units")
    assert unit_mean(values, list("abc"), balanced=True) == mean(values, "units")


def test_unit_mean_has_the_variance_within_layers_only() -> None:
    """Layers whose units are all alike leave no variance, however far apart the layers are."""
    assert ends(unit_mean([0.0] * 20 + [100.0] * 5, [0] * 20 + [1] * 5)) == (20.0, 20.0, 20.0)
    assert ends(unit_mean([0.0, 100.0] * 10, ["a", "b"] * 10, balanced=True)) == (50.0, 50.0, 50.0)


def test_unit_mean_gives_a_layer_of_one_unit_the_variance_of_the_others() -> None:
    found = unit_mean([1.0, 3.0, 5.0], ["a", "a", "b"], balanced=True)
    variance = 0.25 * (2 / 2 + 2)  # of (mean of a + b) / 2, units having variance 2
    assert (found.high - found.value) == pytest.approx(
        stats.t.ppf(0.975, variance**2 / (0.25**2 + 0.5**2)) * math.sqrt(variance)
    )


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("sizes", [(60, 30), (6, 3), (20, 1)])
def test_unit_mean_covers(balanced: bool, sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    layers = np.repeat([0, 1], sizes)
    truth = 1.5 if balanced else (sizes[0] + 2 * sizes[1]) / sum(sizes)
    found = [unit_mean(generator.normal(layers + 1.0, 0.5), layers, balanced) for _ in range(600)]
    assert 0.92 < np.mean([one.low <= truth <= one.high for one in found]) < 0.98


# ------------------------------------------------------------------------------------------------- shares and tests


def test_share_between_known_answers() -> None:
    values, way = np.array([0.6, 0.7, 0.8]), 0.4
    known = share_between(values, [0.5], 0.9, "methods")
    assert ends(known) == pytest.approx(ends(mean((values - 0.5) / way, "methods"))) and known.over == "3 methods"
    several = share_between(values, [0.5, 0.5], 0.9, "methods")
    assert ends(several) == pytest.approx(ends(known))  # all variance is that of the values
    assert ends(share_between([0.9, 0.9], [0.4, 0.6], 0.9, "methods")) == (1.0, 1.0, 1.0)  # `low` does not matter there
    at_bottom = share_between([0.5, 0.5], [0.4, 0.6], 0.9, "methods")
    assert ends(at_bottom) == pytest.approx(ends(mean([-0.25, 0.25], "methods")), abs=1e-12)
    alone = share_between([0.7], [0.4, 0.6], 0.9, "methods")
    assert alone.value == pytest.approx(0.5) and math.isnan(alone.low)


def test_there_is_no_share_where_there_is_no_way() -> None:
    for found in (share_between([0.7], [0.9], 0.9, "methods"), share_between([], [0.5], 0.9, "methods")):
        assert format(found, ".0%") == "-"
    assert format(share_between([0.7], [], 0.9, "methods"), ".0%") == "-"


def test_share_between_covers() -> None:
    generator = np.random.default_rng(0)
    low, values = generator.normal(0.57, 0.01, (2000, 3)), generator.normal(0.61, 0.02, (2000, 6))
    found = [share_between(v, anchors, 0.65, "methods") for v, anchors in zip(values, low, strict=True)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(adjusted[1])
    assert holm([]).size == 0
    p_values = np.random.default_rng(0).uniform(0, 0.2, 30)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_crossed_mean_adds_the_variances_over_rows_and_columns() -> None:
    rows, columns = np.array([-0.1, 0.0, 0.1]), np.linspace(-1, 1, 50)
    one = crossed_mean(0.5 + rows[:, None] + np.zeros(50), "seeds", "classes")
    expected = mean(0.5 + rows, "seeds")
    assert (one.low, one.high) == pytest.approx((expected.low, expected.high)) and one.over == "3 seeds and 50 classes"
    both = crossed_mean(0.5 + rows[:, None] + columns, "seeds", "classes")
    parts = np.array([rows.var(ddof=1) / 3, columns.var(ddof=1) / 50])
    freedom = parts.sum() ** 2 / (parts**2 / [2, 49]).sum()  # Satterthwaite's
    assert both.high - 0.5 == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum()))
    single = crossed_mean(columns[None], "seeds", "classes")
    expected = mean(columns, "classes")
    assert (single.low, single.high) == pytest.approx((expected.low, expected.high))
    assert str(crossed_mean(np.ones((1, 1)), "seeds", "classes")) == "1.000 (no interval)"
    with pytest.raises(ValueError, match="missing values"):
        crossed_mean([[1.0, np.nan]], "seeds", "classes")


def test_intervals_of_crossed_means_cover_the_truth() -> None:
    """Data with effects of rows, of columns and of both: at least 93 % of the intervals hold the true mean."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        values = generator.normal(0, 1, (5, 1)) + generator.normal(0, 2, (1, 60)) + generator.normal(0, 2, (5, 60))
        found = crossed_mean(values, "seeds", "classes")
        hits += found.low < 0 < found.high
    assert hits >= 930
