"""Means, slopes and the same units through pruning, on units made by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from analysis_tables import one_shot, units

from prunelens.analysis import units as analysis
from prunelens.analysis.estimates import Estimate, mean, unit_mean
from prunelens.analysis.selection import pick
from prunelens.variants import CONFIGURATION, FIELDS, Variant

METHODS = ("connection_l1", "structured_l1")


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def grid(slope: float = 0.0, seeds: int = 1, noise: float = 0.0) -> pd.DataFrame:
    """Dense, random and retrained networks of two methods; MIS .8 + slope * rate in the convs.

    Units 0 to 4 of each conv layer are weak (.3 lower) and dead at the highest rate: the means of what lives on rise.
    Seeds add .01 each, around 0.
    """
    pruned = [one_shot(method, rate, seed) for method in METHODS for rate in (0.4, 0.8) for seed in range(seeds)]
    retrained = [one_shot("dense", 0.0, seed) for seed in range(seeds)]
    table = units([Variant("dense"), Variant("dense", weights="random"), *retrained, *pruned])
    conv, weak = table.kind == "conv", (table.kind == "conv") & (table.unit < 5)
    generator = np.random.default_rng(0)
    mis = (0.8 + slope * table.rate - 0.3 * weak).where(conv, 0.7) + 0.01 * (table.seed - (seeds - 1) / 2)
    return table.assign(mis=mis + generator.normal(0, noise, len(table)), alive=~(weak & (table.rate == 0.8)))


# ----------------------------------------------------------------------------------------------------------- means


def test_same_units_are_alive_and_have_a_value_in_every_network() -> None:
    table = units([Variant("m", 0.2), Variant("m", 0.8)], {"a.conv": 5})
    table.loc[(table.rate == 0.8) & (table.unit < 3), "alive"] = False
    table.loc[(table.rate == 0.2) & (table.unit == 3), "mis"] = math.nan
    assert analysis.same_units(table, "mis").unit.tolist() == [4, 4]
    assert analysis.same_units(table.assign(alive=False), "mis").empty


def test_network_means_take_live_units_in_all_ways_that_matter() -> None:
    table = units([Variant("dense"), Variant("m", 0.8)], {"a.conv": 3, "b.conv": 1, "fc": 9})
    first = table.method == "dense"
    table.loc[first, "mis"] = [0.1, 0.3, 0.9, 0.8, *[0.5] * 8, 0.0]
    table.loc[first & (table.layer == "a.conv") & (table.unit == 2), ["alive", "mis"]] = [False, math.nan]
    table["other"] = table.mis + 1
    found = analysis.network_means(table, "mis", "other")
    row = found.iloc[0]
    assert list(found.columns[: len(FIELDS) + 1]) == [*FIELDS, "dead"] and found.dead.tolist() == [1, 0]
    assert row.mis == pytest.approx(0.4) and row.mis_output == pytest.approx(0.5)
    assert row.mis_all_outputs == pytest.approx(4 / 9) and row.mis_all == pytest.approx(5.2 / 12)
    assert row.mis_layers == pytest.approx((0.2 + 0.8 + 4 / 9) / 3)
    assert found.other.tolist() == pytest.approx((found.mis + 1).tolist())


def test_network_means_of_a_network_whose_units_are_all_dead_are_missing() -> None:
    table = units([Variant("dense"), Variant("m", 0.8)])
    table.loc[table.method == "m", "alive"] = False
    found = analysis.network_means(table, "mis")
    assert found.mis.isna().tolist() == [False, True] and found.dead[1] == 29


def test_layer_means_average_seeds_first_and_leave_outputs_without_a_class_out() -> None:
    table = grid(seeds=3, noise=0.05)
    found = analysis.layer_means(table, "mis")
    keys = [*CONFIGURATION, "layer", "block", "position", "kind"]
    assert list(found.columns) == [*keys, "value", "low", "high", "over"]
    rows = pick(table, method="structured_l1", rate=0.8, layer="fc", own_class=True)
    expected = unit_mean(rows.groupby("unit").mis.mean(), ["fc"] * 8)
    row = pick(found, method="structured_l1", rate=0.8, layer="fc")
    assert ends(Estimate.of(row.squeeze())) == pytest.approx(ends(expected)) and row.over.item() == "8 units"
    assert pick(found, method="structured_l1", rate=0.8, layer="a.conv").over.item() == "5 units"


def test_block_differences_are_of_units_that_live_in_both() -> None:
    """The means of what is alive rise by .15, though the units change by the slope alone."""
    found = analysis.block_differences(grid(slope=0.25, seeds=2).sample(frac=1, random_state=0), "mis")
    assert list(found.columns) == [*CONFIGURATION, "block", "value", "low", "high", "over"]
    assert set(found.weights) == {"trained"} and "none" not in set(found.schedule)
    shown = pick(found, method="structured_l1", rate=0.8)
    assert shown.block.tolist() == ["a", "b", "fc"] and shown.over.tolist() == ["5 units", "5 units", "8 units"]
    assert shown.value.tolist() == pytest.approx([0.2 + 0.005, 0.2 + 0.005, 0.005])  # the dense seed is .005 below
    assert pick(found, method="dense").value.tolist() == pytest.approx([0.005] * 3)


def test_output_gaps_have_a_row_per_output_and_a_column_per_configuration() -> None:
    table = grid(seeds=2)
    table.loc[(table.kind == "output") & (table.unit == 1) & (table.rate == 0.8), "alive"] = False
    table.loc[(table.kind == "output") & (table.unit == 2), "mis"] -= 0.1
    gaps = analysis.output_gaps(table, "mis")
    assert gaps.index.tolist() == list(range(8)) and gaps.columns.names == CONFIGURATION
    assert gaps.shape[1] == 2 + 1 + 4  # dense, random, dense retrained, two methods at two rates
    live = gaps.xs(0.8, axis=1, level="rate")
    assert live.loc[1].isna().all() and live.loc[0].tolist() == pytest.approx([0.1, 0.1])
    weak = gaps.xs(0.4, axis=1, level="rate")  # where weak units live
    assert weak.loc[0].tolist() == pytest.approx([0.65 - 0.7] * 2)
    np.testing.assert_allclose(gaps.loc[2] - gaps.loc[0], 0.1)


def test_output_gaps_to_the_last_block_leave_the_others_out() -> None:
    table = grid()
    table.loc[table.layer == "a.conv", "mis"] = -9.0
    gaps = analysis.output_gaps(table.sample(frac=1, random_state=0), "mis", last_block=True)
    assert gaps.min().min() > -1 and analysis.output_gaps(table, "mis").max().max() < -1
    assert analysis.output_gaps(table[table.kind == "conv"], "mis", last_block=True).empty
    assert analysis.output_gaps(table[table.kind == "output"], "mis", last_block=True).empty


# ---------------------------------------------------------------------------------------------------------- slopes


def test_slopes_are_those_of_the_units_that_live_on() -> None:
    found = analysis.slopes(grid(0.25), "mis")
    assert found.series.tolist() == list(METHODS)
    assert found.value.to_numpy() == pytest.approx(0.25)  # live means would rise by .15 / .4 more
    assert (found.units == 10).all() and (found.layers == 2).all() and (found.networks == 2).all()
    assert set(found.over) == {"10 units"} and found.seeds_low.isna().all()  # one seed says nothing of others


def test_a_slope_is_that_of_layer_balanced_means() -> None:
    variants = [one_shot("m", rate) for rate in (0.2, 0.4, 0.8)]
    table, generator = units(variants, {"a.conv": 30, "b.conv": 5}), np.random.default_rng(0)
    table["mis"] = 0.5 * table.rate + (table.layer == "b.conv") + generator.normal(0, 0.1, len(table))
    means = table.groupby(["rate", "layer"]).mis.mean().groupby("rate").mean()
    row = analysis.slopes(table.sample(frac=1, random_state=0), "mis").iloc[0]
    assert row.value == pytest.approx(np.polyfit(means.index, means, 1)[0]) and row.low < row.value < row.high
    wide = table.pivot(index=["layer", "unit"], columns="rate", values="mis")
    each = np.polyfit(wide.columns, wide.to_numpy().T, 1)[0]
    assert ends(Estimate.of(row)) == pytest.approx(ends(unit_mean(each, wide.index.get_level_values(0), balanced=True)))


def test_every_seed_has_a_slope() -> None:
    table = grid(0.25, seeds=2)
    table.loc[(table.seed == 1) & (table.rate == 0.8), "mis"] += 0.04
    row = analysis.slopes(table, "mis").iloc[0]
    assert row.seeds == pytest.approx([0.25, 0.35]) and row.value == pytest.approx(0.30)
    over = mean([0.25, 0.35], "seeds")
    assert (row.seeds_low, row.seeds_high) == pytest.approx((over.low, over.high))


def test_slopes_of_seeds_are_over_the_same_units() -> None:
    """A unit that dies in the second seed is left out of the first seed's slope too."""
    table = grid(0.25, seeds=2)
    unit = (table.layer == "b.conv") & (table.unit == 9) & (table.rate == 0.8)
    table.loc[unit, "mis"] += 0.3
    table.loc[unit & (table.seed == 1), "alive"] = False
    assert analysis.slopes(table, "mis").seeds[0] == pytest.approx([0.25, 0.25])


def test_slopes_see_through_composition() -> None:
    """Weak units die as the rate grows: the mean over the living rises though no unit changes."""
    table = units([one_shot("m", rate) for rate in (0.1, 0.4, 0.8)], {"a.conv": 50})
    table["mis"] = table.unit / 100
    table["alive"] = table.groupby("rate").mis.rank(pct=True) > table.rate
    living = table[table.alive].groupby("rate").mis.mean()
    assert living.is_monotonic_increasing and living.iloc[-1] - living.iloc[0] > 0.1
    row = analysis.slopes(table, "mis").iloc[0]
    assert row.value == pytest.approx(0) and row.units == 10


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_slopes_cover(slope: float) -> None:
    found = []
    for seed in range(60):
        table = units([one_shot("m", rate) for rate in (0.2, 0.5, 0.8)], {"a.conv": 20, "b.conv": 15})
        table["mis"] = slope * table.rate + np.random.default_rng(seed).normal(0, 0.1, len(table))
        found.append(Estimate.of(analysis.slopes(table, "mis").iloc[0]))
    assert 0.88 < np.mean([one.low <= slope <= one.high for one in found]) <= 1
    if slope == 0:
        assert np.mean([one.above(0) or one.below(0) for one in found]) < 0.12


def test_slopes_without_an_answer() -> None:
    table = grid(0.25)
    nothing = analysis.slopes(table[table.rate != 0.4], "mis")
    assert nothing.empty and list(nothing.columns) == list(analysis.slopes(table, "mis").columns)
    table.loc[(table.method == "structured_l1") & (table.rate == 0.8), "alive"] = False
    found = analysis.slopes(table, "mis").set_index("method")
    assert math.isnan(found.value["structured_l1"]) and found.units["structured_l1"] == 0
    assert found.value["connection_l1"] == pytest.approx(0.25)
    assert analysis.slopes(table.assign(mis=math.nan), "mis").value.isna().all()


def test_networks_of_other_epochs_are_another_series() -> None:
    longer = grid(0.5)
    longer = longer[longer.rate > 0].assign(epochs=8)
    found = analysis.slopes(pd.concat([grid(0.25), longer], ignore_index=True), "mis").set_index("epochs")
    assert found.value[4].tolist() == pytest.approx([0.25] * 2) and found.value[8].tolist() == pytest.approx([0.5] * 2)
    assert found.series[8].tolist() == [f"{method}, 8 epochs" for method in METHODS]


def test_the_way_is_from_the_mean_of_random_networks_to_the_dense_network() -> None:
    variants = [Variant("dense"), *(Variant("dense", weights="random", seed=seed) for seed in (0, 1))]
    table = units([*variants, one_shot("dense", 0.0), one_shot("m", 0.8)])
    conv = table.kind == "conv"
    table.loc[conv & (table.weights == "random"), "mis"] = 0.6 + 0.1 * table.seed
    table.loc[~conv, "mis"] = -9.0
    table.loc[table.schedule == "one_shot", "mis"] = 9.0
    assert analysis.way(table, "mis") == pytest.approx(0.8 - 0.65)
    assert analysis.way(table.assign(mis=-table.mis), "mis") == pytest.approx(-0.15)
    published = table.copy()
    published.attrs["way"] = 0.2
    assert analysis.way(published, "mis") == 0.2
    assert math.isnan(analysis.way(table[table.weights == "trained"], "mis"))


def test_slopes_of_measures_are_in_standard_deviations_of_the_dense_network() -> None:
    table = grid(0.25, seeds=3, noise=0.02)
    table = table.assign(large=100 * table.mis, constant=1.0)
    found = analysis.measure_slopes(table, ["mis", "large", "constant"])
    spread = pick(table, method="dense", schedule="none", weights="trained", kind="conv").mis.std()
    of_mis, of_large = pick(found, measure="mis"), pick(found, measure="large")
    assert list(found.columns[:2]) == ["measure", "method"] and set(found.measure) == {"mis", "large"}
    assert of_mis.value.to_numpy() == pytest.approx(analysis.slopes(table, "mis").value.to_numpy() / spread)
    assert of_large.value.to_numpy() == pytest.approx(of_mis.value.to_numpy())
    assert found.seeds.map(len).eq(3).all() and len(analysis.measure_slopes(grid(0.25), ["mis"])) == 2
    assert analysis.measure_slopes(table[table.rate == 0], ["mis"]).empty


# --------------------------------------------------------------------------------------------------- the same units


def through_pruning() -> pd.DataFrame:
    """30 units in each of two layers; pruning adds the rate to the MIS of layer a and turns the order of layer b.

    Unit 0 of layer a dies at .8. Retrained alone, nothing changes. There are a second seed and other kinds of networks.
    """
    variants = [Variant("dense"), Variant("dense", weights="random"), Variant("structured_l1", 0.4)]
    for seed in (0, 1):
        variants += [one_shot("structured_l1", rate, seed) for rate in (0.8, 0.4)]
        variants += [one_shot("dense", 0.0, seed), Variant("structured_l1", 0.8, "iterative", seed, epochs=4)]
        variants += [one_shot("structured_l1", 0.8, seed, masked=False)]
    table = units(variants, {"a.conv": 30, "b.conv": 30, "fc": 9})
    first = table.layer == "a.conv"
    turned = ~first & (table.rate > 0)
    mis = table.unit.where(~turned, 29 - table.unit) / 290 + (table.layer == "b.conv") + table.rate * first
    return table.assign(mis=mis, alive=~(first & (table.rate == 0.8) & (table.unit == 0)))


def test_followed_units_are_alive_in_dense_and_all_one_shot_networks_of_the_seed() -> None:
    found = analysis.followed(through_pruning(), "mis")
    networks = found.groupby("method", sort=False)[["schedule", "rate"]].apply(
        lambda rows: rows.drop_duplicates().to_numpy().tolist()
    )
    assert networks.to_dict() == {
        "dense": [["none", 0.0], ["one_shot", 0.0]],
        "structured_l1": [["none", 0.0], ["one_shot", 0.4], ["one_shot", 0.8]],
    }
    counts = found.groupby(["method", "schedule", "rate", "layer"]).unit.agg(["size", "min"])
    assert counts.loc["dense"].values.tolist() == [[30, 0]] * 4
    assert counts.loc["structured_l1"].values.tolist() == [[29, 1], [30, 0]] * 3  # layer a without its dead unit
    last = pick(found, method="structured_l1", rate=0.8, layer="a.conv")
    np.testing.assert_allclose(last.mis - last.dense, 0.8)


def test_the_summary_knows_how_far_units_moved_and_whether_they_kept_their_order() -> None:
    found = analysis.followed_summary(analysis.followed(through_pruning(), "mis"), "mis").set_index(["method", "rate"])
    control, (before, middle, after) = found.loc["dense"], found.loc["structured_l1"].itertuples()
    assert control.r.iloc[1] == pytest.approx(1) and math.isnan(before.r) and control.value.nunique() == 1
    assert before.units == after.units == 59 and (before.Index, middle.Index, after.Index) == (0, 0.4, 0.8)
    moved = 29 * 0.8 / 59  # layer a alone
    assert after.value - before.value == pytest.approx(moved) == pytest.approx(after.change)
    assert after.change_low < after.change < after.change_high and math.isnan(before.change)
    assert before.low < before.value < before.high and before.q10 < before.q25 < before.q50 < before.q75 < before.q90
    # Ranks within layers: one layer keeps its order, the other is turned around.
    sizes = [np.var(ranks) * len(ranks) for ranks in (np.arange(29) / 29, np.arange(30) / 30)]
    assert after.r == pytest.approx((sizes[0] - sizes[1]) / sum(sizes)) and after.r_low < after.r < after.r_high


def test_nothing_to_follow_is_an_empty_table() -> None:
    found = analysis.followed(units([Variant("dense")]), "mis")
    assert found.empty and {"method", "dense", "mis"} <= set(found)
    assert analysis.followed_summary(found, "mis").empty


def test_examples_are_the_highest_the_median_and_the_lowest_units() -> None:
    table = units([Variant("dense"), one_shot("m", 0.8)], {"a.conv": 11, "fc": 9})
    table["mis"] = table.unit / 10
    table.loc[table.unit == 10, "alive"] = False
    found = analysis.examples(table, "mis")
    assert (
        found.unit.tolist() == [9, 8, 4, 3, 1, 0] and set(found.layer) == {"a.conv"} and set(found.method) == {"dense"}
    )
    assert analysis.examples(table[table.unit < 2], "mis").unit.tolist() == [1, 0]
