"""Known answers, planted effects and the coverage of the intervals; what is pooled and what is kept apart."""

import math

import numpy as np
import pandas as pd
import pytest
from analysis_tables import classes, networks, one_shot, units
from scipy import stats
from statsmodels.formula.api import ols

from prunelens.analysis.correlations import (
    class_correlation,
    class_scores,
    concept_agreement,
    correlation,
    rate_correlations,
    within,
)
from prunelens.variants import FIELDS, Variant


def methods(seed: int, slope: float, noise: float, groups: int = 5, rows: int = 4) -> pd.DataFrame:
    """`groups` methods at `rows` rates: y = slope * rate + a level of the method + noise."""
    generator = np.random.default_rng(seed)
    rate = np.tile(np.linspace(0.2, 0.8, rows), groups)
    level = np.repeat(generator.normal(0, 1, groups), rows)
    y = slope * rate + level + generator.normal(0, noise, rate.size)
    return pd.DataFrame({"method": np.repeat([f"method {g}" for g in range(groups)], rows), "rate": rate, "y": y})


def simpson() -> pd.DataFrame:
    """Three groups, each falling exactly, whose centers rise."""
    x = np.concatenate([np.arange(5.0) + 20 * g for g in range(3)])
    y = np.concatenate([20.0 * g - np.arange(5.0) for g in range(3)])
    return pd.DataFrame({"group": np.repeat(list("abc"), 5), "x": x, "y": y})


# ------------------------------------------------------------------------------------------------------ one group


def test_correlation_known_answers() -> None:
    found = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], "rows")
    assert found.value == pytest.approx(0.8) and found.n == 5 and found.over == "5 rows"
    assert found.low < 0.8 < found.high


def test_correlation_is_scipys() -> None:
    x, y = np.random.default_rng(3).integers(0, 6, (2, 50)).astype(float)
    found, expected = correlation(x, y, "rows"), stats.pearsonr(x, y)
    assert found.value == pytest.approx(expected.statistic) and found.p == pytest.approx(expected.pvalue)


def test_fishers_interval_is_scipys() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 12))
    expected, found = stats.pearsonr(x, y).confidence_interval(0.95), correlation(x, y, "rows")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_correlation_without_an_answer_says_why() -> None:
    assert correlation([1, 2], [1, 2], "networks").over == "2 networks: too few"
    assert correlation([], [], "networks").over == "0 networks: too few"
    constant = correlation([0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4], "networks")
    assert constant.over == "4 networks: x is constant" and format(constant, ".2f") == "-"
    assert correlation([1, 2, 3, 4], [7, 7, 7, 7], "networks").over == "4 networks: y is constant"
    assert correlation([1, 2, 3, math.nan], [3, 1, 2, 4], "networks").n == 3
    assert correlation([1, 2, 3], [1, 3, 2], "networks").low == -1


def test_a_perfect_correlation_of_few_rows_has_no_interval() -> None:
    line = pd.DataFrame({"x": [1.0, 2, 3, 4] * 2, "g": [0] * 4 + [1] * 4})
    line["y"] = -2 * line.x + line.g
    for found in (correlation(line.x[:4], line.y[:4], "rows"), within(line, "x", "y", "g", "rows")):
        assert found.value == pytest.approx(-1) and format(found, ".0f") == "-1 (no interval)" and math.isnan(found.p)


@pytest.mark.parametrize("n", [10, 40])
def test_correlation_covers(n: int) -> None:
    generator, hits = np.random.default_rng(0), []
    for _ in range(300):
        x = generator.normal(size=n)
        found = correlation(x, 0.6 * x + 0.8 * generator.normal(size=n), "rows")
        hits.append(found.low <= 0.6 <= found.high)
    assert 0.91 < np.mean(hits) < 0.985


# -------------------------------------------------------------------------------------------------- within groups


def test_simpsons_paradox() -> None:
    table = simpson()
    assert correlation(table.x, table.y, "rows").value > 0.9
    found = within(table, "x", "y", "group", "rows")
    assert found.value == pytest.approx(-1) and found.n == 15


def test_p_within_groups_is_that_of_the_linear_model() -> None:
    table = methods(0, 0.5, 0.2)
    found = within(table, "rate", "y", "method", "rows")
    model = ols("y ~ rate + C(method)", table).fit()
    assert found.p == pytest.approx(model.pvalues["rate"])
    t, freedom = model.tvalues["rate"], model.df_resid
    assert found.value == pytest.approx(t / math.sqrt(t**2 + freedom))


def test_the_interval_within_groups_pays_for_the_groups() -> None:
    """Fisher's z of a partial correlation given k = groups - 1 indicators: variance 1 / (n - k - 3)."""
    found = within(methods(0, 0.5, 0.2), "rate", "y", "method", "rows")
    half = stats.norm.ppf(0.975) / math.sqrt(20 - 4 - 3)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(half)
    assert math.atanh(found.value) - math.atanh(found.low) == pytest.approx(half)


def test_groups_of_one_row_and_missing_values_are_not_counted() -> None:
    table = methods(0, 0.5, 0.2)
    more = pd.DataFrame({"method": ["alone", "method 0"], "rate": [5.0, 0.5], "y": [9.0, math.nan]})
    assert within(pd.concat([table, more]), "rate", "y", "method", "rows") == within(
        table, "rate", "y", "method", "rows"
    )
    shuffled = within(table.sample(frac=1, random_state=0), "rate", "y", "method", "rows")
    assert shuffled.value == pytest.approx(within(table, "rate", "y", "method", "rows").value)


def test_too_few_rows_and_a_constant_within_groups() -> None:
    few = pd.DataFrame({"x": [1.0, 2, 1, 2], "y": [1.0, 3, 2, 5], "g": list("aabb")})
    assert within(few[:3], "x", "y", "g", "rows").over == "2 rows: too few"
    assert within(few[:0], "x", "y", "g", "rows").n == 0
    steps = pd.DataFrame({"x": [0.1] * 3 + [0.7] * 3, "y": [1.0, 2, 3, 1, 2, 4], "g": list("aaabbb")})
    assert within(steps, "x", "y", "g", "rows").over == "6 rows: x is constant", "constant within groups"


@pytest.mark.parametrize("rows", [4, 30])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_the_interval_within_groups_covers(slope: float, rows: int) -> None:
    spread = np.linspace(0.2, 0.8, rows).std()
    truth = slope * spread / math.hypot(slope * spread, 0.2)
    found = [within(methods(s, slope, 0.2, rows=rows), "rate", "y", "method", "rows") for s in range(150)]
    assert 0.9 < np.mean([f.low <= truth <= f.high for f in found]) <= 0.99
    if slope == 0:
        assert np.mean([f.p < 0.05 for f in found]) < 0.1
    else:
        assert np.mean([f.p < 0.05 for f in found]) > 0.85


# -------------------------------------------------------------------------------------------------- over networks


def two_methods(seeds: int = 3) -> pd.DataFrame:
    """Within each of two retrained methods MIS falls with the rate; the methods' levels and rates hide it (Simpson).

    Seeds add noise of mean 0; networks not retrained are alike at all rates.
    """
    values = {Variant("dense"): 0.3}
    for method, first, level in (("structured_l1", 0.1, 0.5), ("connection_l1", 0.6, 0.8)):
        for i in range(4):
            rate, shift = first + 0.1 * i, 0.001 * (-1) ** i
            for seed in range(seeds):
                noise = 0.03 * (seed - (seeds - 1) / 2)
                values[one_shot(method, rate, seed)] = level - 0.1 * rate + shift + noise
            values[Variant(method, rate)] = 0.7 + shift
    others = {Variant("dense", weights="random"): 9.0, one_shot("dense", 0.0): 9.0, one_shot("single", 0.5): 0.6}
    return networks(values | others, "mis").assign(top1_low=0.5)


def by_rate(table: pd.DataFrame, chance: float = 0.1) -> pd.DataFrame:
    return rate_correlations(table, ["rate"], "mis", chance).set_index("row")


def test_correlations_within_methods_and_pooled_disagree_where_they_should() -> None:
    table = two_methods()
    found = by_rate(table[table.method != "single"])
    names = ["structured_l1", "connection_l1", "within methods", "within methods, above chance"]
    assert list(found.index) == [*names, "all, pooled as in the paper"]
    assert found.n.tolist() == [12, 12, 8, 8, 17]
    assert found.value["within methods"] < -0.95 and found.value["all, pooled as in the paper"] > 0.4
    assert found.value["within methods"] == pytest.approx(by_rate(two_methods(1)).value["within methods"])  # noise: 0
    assert found.method.tolist() == ["structured_l1", "connection_l1", "", "", ""]
    assert found.groups.tolist() == [1, 1, 2, 2, 1]
    assert found.over.tolist()[:3] == ["12 networks", "12 networks", "8 configurations"]


def test_pooled_as_in_the_paper_has_unmasked_networks_and_those_of_single_rates() -> None:
    table = two_methods(1)
    unmasked = table[table.schedule == "one_shot"].assign(masked=False)
    found = by_rate(pd.concat([table, unmasked[unmasked.rate > 0]]))
    assert found.n["all, pooled as in the paper"] == 17 + 1 + 9 and found.n["within methods"] == 8


def test_a_correlation_has_to_be_there_without_networks_at_chance_too() -> None:
    table = two_methods(1)
    table.loc[(table.method == "structured_l1") & (table.rate > 0.35), ["mis", "top1_low"]] = [9.0, 0.1]
    found = by_rate(table)
    assert found.value["within methods"] > 0.3 and found.value["within methods, above chance"] < -0.95
    assert found.n["within methods, above chance"] == 7


def test_each_x_has_its_rows_and_those_without_a_correlation_are_left_out() -> None:
    table = two_methods().assign(sparsity=lambda t: t.rate, constant=1.0)
    found = rate_correlations(table, ["rate", "sparsity", "constant"], "mis", 0.1)
    rows = [part.drop(columns="x").reset_index(drop=True) for _, part in found.groupby("x")]
    assert found.x.unique().tolist() == ["rate", "sparsity"]
    pd.testing.assert_frame_equal(*rows)
    assert by_rate(two_methods(1)[:1]).empty


# ------------------------------------------------------------------------------------------------------- classes


def class_tables(mis: np.ndarray, top1: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    variants = [Variant("dense"), one_shot("m", 0.8), Variant("dense", weights="random"), Variant("m", 0.8)]
    table = units(variants, {"a.conv": 3, "fc": len(mis)})
    table.loc[table.kind == "output", "mis"] = mis[table.unit[table.kind == "output"]]
    return table, classes(variants, top1)


def test_class_scores_are_those_of_live_outputs_of_dense_and_retrained_networks() -> None:
    table, accuracies = class_tables(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.6, 0.7, math.nan]))
    table.loc[(table.kind == "output") & (table.unit == 1) & (table.method == "m"), "alive"] = False
    found = class_scores(table, accuracies, "mis")
    assert list(found.columns) == [*FIELDS, "class_name", "output", "top1", "mis"]
    assert found[["method", "output", "top1", "mis"]].to_numpy().tolist() == [
        ["dense", 0, 0.5, 0.1], ["dense", 1, 0.6, 0.2], ["dense", 2, 0.7, 0.3], ["m", 0, 0.5, 0.1], ["m", 2, 0.7, 0.3],
    ]  # fmt: skip


def test_the_class_correlation_is_over_classes_and_looks_within_networks() -> None:
    """A network with a higher accuracy and a higher MIS says nothing about its classes, nor do copies of one."""
    top1, mis = np.tile([0.2, 0.4, 0.2, 0.4], 10), np.tile([0.5, 0.5, 0.7, 0.7], 10)
    one = class_scores(*class_tables(mis, top1), "mis")
    one = one[one.method == "dense"]
    other = one[:25].assign(seed=1, top1=one.top1 + 0.5, mis=one.mis + 0.5)
    assert class_correlation(pd.concat([one, other]), "mis").value == pytest.approx(0, abs=0.02)
    copies = pd.concat([one.assign(seed=seed) for seed in range(9)])
    found, single = class_correlation(copies, "mis"), class_correlation(one, "mis")
    assert found.n == single.n == 40 and found.over == "40 classes" and found.low == pytest.approx(single.low)
    related = class_correlation(one.assign(mis=one.mis + one.top1), "mis")
    assert related.value == pytest.approx(np.corrcoef(top1, mis + top1)[0, 1])
    assert class_correlation(one[:0], "mis").n == 0


# ------------------------------------------------------------------------------------------------- known concepts


def concepts() -> pd.DataFrame:
    """`good` follows the truth within layers, while the layer of more of it has less truth; `bad` is noise."""
    variants = [
        Variant("dense"),
        *(Variant("dense", weights="random", seed=seed) for seed in range(2)),
        *(one_shot("m", rate, seed) for rate in (0.4, 0.8) for seed in range(2)),
        Variant("m", 0.8),
        one_shot("m", 0.8, masked=False),
        one_shot("dense", 0.0),
    ]
    table, generator = units(variants, {"a.conv": 30, "b.conv": 30}), np.random.default_rng(0)
    truth = generator.uniform(size=len(table))
    high = 5 * (table.layer == "b.conv")
    good = truth + 0.05 * generator.normal(size=len(table)) + high
    return table.assign(truth=truth - high, good=good, bad=generator.uniform(size=len(table)))


def test_agreement_is_of_ranks_within_layers_and_counts_a_unit_once() -> None:
    table = concepts()
    found = concept_agreement(table, ["good", "bad"], "truth").set_index(["panel", "measure"])
    panels = ["dense network", "random weights", "pruned, retrained"]
    assert found.index.get_level_values("panel").unique().tolist() == panels
    assert (found.n == 60).all() and set(found.over) == {"60 units"}
    good, bad = (found.xs(name, level="measure") for name in ("good", "bad"))
    assert (good.low > 0.9).all() and (bad.low < 0.3).all()
    one = table[: 2 * 30]
    ranks = one.groupby("layer")[["good", "truth"]].rank()
    expected = np.mean([np.corrcoef(ranks[one.layer == layer].T)[0, 1] for layer in ("a.conv", "b.conv")])
    assert good.value["dense network"] == pytest.approx(expected)  # equal layers, no ties: the mean of both
    only = concept_agreement(one, ["good"], "truth")
    assert only.panel.tolist() == ["dense network"] and only.value[0] == pytest.approx(expected)


def test_agreement_leaves_dead_units_out() -> None:
    table = concepts()
    table.loc[(table.unit < 10) & (table.method == "m"), "alive"] = False
    found = concept_agreement(table, ["good", "bad"], "truth").set_index(["panel", "measure"])
    assert found.n["pruned, retrained", "good"] == 40 and found.n["dense network", "good"] == 60
    assert found.value["pruned, retrained", "good"] > 0.9


def test_agreement_of_a_measure_without_values_has_none() -> None:
    found = concept_agreement(concepts().assign(none=math.nan), ["none"], "truth")
    assert found.value.isna().all() and (found.n == 0).all()
