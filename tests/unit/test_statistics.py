"""Known answers, planted effects and the coverage of the intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols

from prunelens import statistics
from prunelens.statistics import (
    correlation,
    difference_interval,
    equivalence,
    holm,
    mean_interval,
    mixed_model,
    networks_needed,
    same_units,
    unit_mean,
    unit_trend,
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


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_a_perfect_correlation_of_few_pairs_has_no_interval(method):
    line = pd.DataFrame({"x": [1.0, 2, 3, 4] * 2, "g": [0] * 4 + [1] * 4})
    line["y"] = -2 * line.x + line.g
    for found in (correlation(line.x[:4], line.y[:4], method), within_group_correlation(line, "x", "y", "g", method)):
        assert found.r == pytest.approx(-1)
        assert all(math.isnan(value) for value in (found.low, found.high, found.p))
        assert found.interval == statistics.PERFECT


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
    assert correlation(table.x, table.y).r > 0.9
    for method in ("pearson", "spearman", "kendall"):
        within = within_group_correlation(table, "x", "y", "group", method)
        assert within.r == pytest.approx(-1) and within.n == 15


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_ranks_within_groups_are_those_of_centred_values(method):
    table = networks(0, 0.5, 0.2)
    centred = table[["rate", "y"]] - table.groupby("method")[["rate", "y"]].transform("mean")
    centred = centred.round(12)  # ties of the rate
    expected = correlation(centred.rate, centred.y, method)
    found = within_group_correlation(table, "rate", "y", "method", method)
    assert found.r == pytest.approx(expected.r) and found.n == expected.n == 20
    alone = within_group_correlation(table.assign(method="all")[:15], "rate", "y", "method", method)
    single = correlation(table.rate[:15], table.y[:15], method)
    assert (alone.r, alone.low, alone.high) == pytest.approx((single.r, single.low, single.high))
    z, width = math.atanh(found.r), math.atanh(found.high) - math.atanh(found.low)
    error = width / (2 * stats.norm.ppf(0.975))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z) / error))  # p and interval are of one z
    assert found.high - found.low > expected.high - expected.low  # groups cost degrees of freedom


def test_ranks_within_groups_keep_the_ties_of_centred_values():
    """Centred, .1 .2 .3 and .7 .8 .9 are the same three values, but for their last bits."""
    table = pd.DataFrame(
        {"x": [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], "y": [1.0, 2.0, 3.0, 7.0, 8.0, 9.0], "g": list("aaabbb")}
    )
    assert within_group_correlation(table, "x", "y", "g", "kendall").r == pytest.approx(1)


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


@pytest.mark.parametrize("groups", [1, 5])
def test_networks_needed_have_the_power(groups):
    """At that many networks a true r = .3 is seen in about 80 % of simulated studies, not in 70 or 90."""
    n = networks_needed(0.3, groups=groups)
    assert n == 85 + groups - 1
    group = np.arange(n) % groups
    seen = []
    for s in range(400):
        generator = np.random.default_rng(s)
        x = generator.normal(size=n)
        y = 0.3 * x + math.sqrt(1 - 0.09) * generator.normal(size=n) + 2.0 * group
        table = pd.DataFrame({"x": x, "y": y, "group": group})
        if groups == 1:
            seen.append(stats.pearsonr(x, y).pvalue < 0.05)
        else:
            seen.append(within_group_correlation(table, "x", "y", "group", n_resamples=2).p < 0.05)
    assert 0.74 < np.mean(seen) < 0.86


# ---------------------------------------------------------------------------------------- units of networks


def units_of(networks: list[float], layers: tuple[int, ...] = (30, 5), slope: float = 0.0, seed: int = 0, noise=0.1):
    """One series: networks at the given rates, the same units in all, each unit with its own level."""
    generator = np.random.default_rng(seed)
    tables = []
    for layer, size in enumerate(layers):
        level = generator.normal(layer, 0.2, size)
        for number, rate in enumerate(networks):
            y = level + slope * rate + generator.normal(0, noise, size)
            tables.append(
                pd.DataFrame(
                    {"layer": layer, "unit": range(size), "variant": number, "rate": rate, "y": y, "alive": True}
                )
            )
    return pd.concat(tables, ignore_index=True)


def test_unit_mean_known_answers():
    values, layers = [1.0, 3.0, 10.0, math.nan], ["a", "a", "b", "b"]
    assert unit_mean(values, layers).mean == pytest.approx(14 / 3)
    assert unit_mean(values, layers, layers_equal=True).mean == pytest.approx(6)
    assert unit_mean(values, layers) == mean_interval([1.0, 3.0, 10.0]), "a bootstrap of three values is too short"
    assert math.isnan(unit_mean([math.nan], ["a"]).mean)
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        unit_mean([1.0, 2.0], ["a"])


def test_unit_mean_resamples_within_layers():
    """Layers whose units are all alike leave nothing to resample, however far apart the layers are."""
    found = unit_mean([0.0] * 20 + [100.0] * 5, [0] * 20 + [1] * 5)
    assert found == (20.0, 20.0, 20.0)
    assert unit_mean([0.0, 100.0] * 10, ["a", "b"] * 10, layers_equal=True) == (50.0, 50.0, 50.0)


@pytest.mark.parametrize("layers_equal", [False, True])
def test_unit_mean_covers(layers_equal):
    generator = np.random.default_rng(0)
    layers = np.repeat([0, 1], [60, 30])
    truth = 1.5 if layers_equal else 4 / 3
    found = [
        unit_mean(generator.uniform(0, 2 * layers + 2.0), layers, layers_equal, n_resamples=150, seed=s)
        for s in range(200)
    ]
    assert 0.90 < np.mean([i.low <= truth <= i.high for i in found]) < 0.98


def test_same_units_are_alive_in_every_network():
    units = units_of([0.2, 0.8], (4,))
    units.loc[(units.variant == 1) & (units.unit < 3), "alive"] = False
    assert same_units(units).unit.tolist() == [3, 3]


def test_unit_trend_is_the_slope_of_layer_balanced_means():
    units = units_of([0.2, 0.4, 0.8], slope=0.5)
    means = units.groupby(["rate", "layer"]).y.mean().groupby("rate").mean()
    found = unit_trend(units, "y")
    assert found.slope == pytest.approx(np.polyfit(means.index, means, 1)[0])
    assert found.low < found.slope < found.high
    assert found[3:] == (3, 35, 2, "bootstrap of units within layers")
    assert found == unit_trend(units.sample(frac=1, random_state=0), "y")


def test_unit_trend_sees_through_composition():
    """Weak units die as the rate grows: the mean over the living rises though no unit changes."""
    units = units_of([0.0, 0.4, 0.8], (50,), noise=0.0)
    units["alive"] = units.groupby("variant").y.rank(pct=True) > units.rate
    alive = units[units.alive].groupby("rate").y.mean()
    assert alive.is_monotonic_increasing and alive.iloc[-1] - alive.iloc[0] > 0.1
    found = unit_trend(units, "y")
    assert (found.slope, found.units) == (pytest.approx(0), 10)


def test_unit_trend_without_an_answer_says_why():
    units = units_of([0.2, 0.8], (4,))
    assert unit_trend(units[units.variant == 0], "y").interval == "none: fewer than 2 rates"
    dead = units.assign(alive=(units.unit < 2) == (units.variant == 0))
    found = unit_trend(dead, "y")
    assert found.interval == "none: no unit is alive in all networks" and math.isnan(found.slope)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_unit_trend_covers(slope):
    found = [unit_trend(units_of([0.2, 0.5, 0.8], (40, 30), slope, s), "y", n_resamples=150) for s in range(120)]
    assert 0.88 < np.mean([f.low <= slope <= f.high for f in found]) < 0.99
    if slope == 0:
        assert np.mean([f.low > 0 or f.high < 0 for f in found]) < 0.12


# ---------------------------------------------------------------------------------------------- mixed model


def layer_means(seed: int, slopes: list[float], rates: int = 4, layers: int = 5, network_sd: float = 0.1):
    """Layer means of networks: a slope and a level per method, an effect per network and per layer, noise."""
    generator = np.random.default_rng(seed)
    per_layer = generator.normal(0, 0.3, layers)
    rows = []
    for number, slope in enumerate(slopes):
        level = generator.normal(0, 1)
        for rate in np.linspace(0.2, 0.8, rates):
            network = level + slope * rate + generator.normal(0, network_sd)
            y = network + per_layer + generator.normal(0, 0.05, layers)
            names = {"method": f"method {number}", "rate": rate, "variant": f"{number} at {rate:.2f}"}
            rows.append(pd.DataFrame({**names, "layer": range(layers), "y": y}))
    return pd.concat(rows, ignore_index=True)


def test_mixed_model_is_regression_over_network_means():
    """On complete tables layers and networks drop out: slopes and intervals are those of ordinary regression."""
    table = layer_means(0, [0.5, -0.5])
    means = table.groupby(["method", "variant", "rate"]).y.mean().reset_index()
    ordinary = ols("y ~ 0 + C(method) + C(method):rate", means).fit()
    found = mixed_model(table, "y")
    assert found.converged.all() and found.networks.tolist() == [4, 4]
    assert found.slope.to_numpy() == pytest.approx(ordinary.params.iloc[2:].to_numpy(), abs=1e-3)
    assert found[["low", "high"]].to_numpy() == pytest.approx(ordinary.conf_int().iloc[2:].to_numpy(), abs=5e-3)
    assert found.p.to_numpy() == pytest.approx(ordinary.pvalues.iloc[2:].to_numpy(), abs=2e-3)


def test_mixed_model_does_not_depend_on_the_scale():
    table = layer_means(1, [0.5, 0.0])
    one, other = mixed_model(table, "y"), mixed_model(table.assign(y=1e-3 * table.y), "y")
    assert other.slope.to_numpy() == pytest.approx(1e-3 * one.slope.to_numpy(), rel=1e-3)
    assert other.note.tolist() == one.note.tolist()


@pytest.mark.parametrize("slope", [0.0, 0.4])
def test_mixed_model_covers(slope):
    tables = [mixed_model(layer_means(s, [slope, 0.2], layers=4), "y") for s in range(60)]
    found = pd.concat(table[table.method == "method 0"] for table in tables)
    assert 0.88 < ((found.low <= slope) & (slope <= found.high)).mean() <= 1
    if slope == 0:
        assert (found.p < 0.05).mean() < 0.12


def test_mixed_model_does_not_take_layers_for_networks():
    """Twenty layers a network are no twenty networks: noise between networks alone is no trend."""
    tables = [mixed_model(layer_means(s, [0.0], layers=20, network_sd=0.5), "y") for s in range(40)]
    assert (pd.concat(tables).p < 0.05).mean() < 0.15


def test_mixed_model_sees_through_simpsons_paradox():
    """Every method falls; the methods that were pruned harder stand higher."""
    table = layer_means(0, [-1.0, -1.0, -1.0], network_sd=0.02)
    number = table.method.str[-1].astype(int)
    table = table.assign(rate=table.rate + number, y=table.y + 5 * number)
    assert correlation(table.rate, table.y).r > 0.5
    found = mixed_model(table, "y")
    assert (found.high < 0).all() and found.slope.to_numpy() == pytest.approx(-1, abs=0.3)


def test_mixed_model_without_an_answer_says_why():
    table = layer_means(0, [0.5, 0.5])
    few = mixed_model(table[table.rate.isin(table.rate.unique()[:2])], "y")
    assert few.slope.isna().all() and few.note.str.startswith("none: no more networks than").all()
    single = table[(table.method == "method 0") | (table.rate < 0.3)]
    found = mixed_model(single, "y").set_index("method")
    assert found.note["method 1"] == "none: fewer than 2 rates" and math.isfinite(found.slope["method 0"])
    constant = mixed_model(table.assign(y=1.0), "y")
    assert constant.note.tolist() == ["none: the measure is constant"] * 2 and not constant.converged.any()
    assert mixed_model(table[:0], "y").empty


def test_mixed_model_keeps_a_warning_beside_its_numbers():
    """No noise at all: the variances cannot be told apart, the slope can."""
    table = layer_means(0, [0.5], network_sd=0.0)
    table["y"] = 0.5 * table.rate
    found = mixed_model(table, "y")
    assert found.slope.item() == pytest.approx(0.5) and found.note.item()


def test_mixed_model_survives_a_failing_fit(monkeypatch):
    def fail(*_, **__):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(statistics.MixedLM, "fit", fail)
    found = mixed_model(layer_means(0, [0.5]), "y")
    assert found.note.tolist() == ["none: the fit failed (Singular matrix)"] and math.isnan(found.slope.item())


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(adjusted[1])
    assert holm([]).size == 0


# ------------------------------------------------------------------------------------------------ shares and tests


def test_share_between_known_answers():
    values, way = np.array([0.6, 0.7, 0.8]), 0.4
    known = statistics.share_between(values, [0.5], 0.9)
    assert known == pytest.approx(statistics.mean_interval((values - 0.5) / way))
    assert statistics.share_between(values, [0.5, 0.5], 0.9) == pytest.approx(known, rel=0.2)  # df: 2, all from values
    assert statistics.share_between([0.9, 0.9], [0.4, 0.6], 0.9) == (1.0, 1.0, 1.0)  # at the top `low` does not matter
    at_bottom = statistics.share_between([0.5, 0.5], [0.4, 0.6], 0.9)
    assert at_bottom == pytest.approx(statistics.mean_interval([-0.25, 0.25]), abs=1e-12)
    assert math.isnan(statistics.share_between([0.7], [0.4, 0.6], 0.9).low)


def test_share_between_covers_the_true_share():
    rng = np.random.default_rng(0)
    low, values = rng.normal(0.57, 0.01, (2000, 3)), rng.normal(0.61, 0.02, (2000, 6))
    found = [statistics.share_between(v, anchors, 0.65) for v, anchors in zip(values, low, strict=True)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


def test_correlation_lead_is_the_difference_of_two_correlations():
    rng = np.random.default_rng(0)
    layer = np.repeat(np.arange(4), 100)
    truth = rng.normal(size=400)
    table = pd.DataFrame({"layer": layer, "truth": truth, "near": truth + 0.5 * rng.normal(size=400) + layer})
    table["far"] = truth + 2 * rng.normal(size=400) - layer
    near, far = (statistics.within_group_correlation(table, name, "truth", "layer").r for name in ("near", "far"))
    lead = statistics.correlation_lead(table, ("near", "far"), "truth", "layer", 500)
    assert lead.mean == pytest.approx(near - far) and 0 < lead.low < lead.mean < lead.high
    back = statistics.correlation_lead(table, ("far", "near"), "truth", "layer", 500)
    assert (back.mean, back.low, back.high) == pytest.approx((-lead.mean, -lead.high, -lead.low))
    same = statistics.correlation_lead(table.assign(other=table.near), ("near", "other"), "truth", "layer", 50)
    assert same.mean == same.low == same.high == 0
