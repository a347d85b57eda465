"""Known answers of every comparison of networks, and that networks of other epochs are never mixed."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from analysis_tables import IMAGES, networks, one_shot
from scipy import stats

from prunelens.analysis import comparisons
from prunelens.analysis.estimates import proportion_difference
from prunelens.analysis.example import tables
from prunelens.analysis.selection import pick
from prunelens.variants import CONFIGURATION, FIELDS, Variant

ENDS = ["value", "low", "high"]


def ends(found: Any) -> list[float]:
    """Value and interval of an estimate or of a table's row."""
    return [found.value, found.low, found.high]


def students(values: list[float]) -> list[float]:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return [float(np.mean(values)), float(np.mean(values) - half), float(np.mean(values) + half)]


def newcombe(first: float, second: float, n: int = IMAGES) -> list[float]:
    return ends(proportion_difference(first, second, n))


def seeds_of(variant: Variant, *top1: float) -> dict[Variant, float]:
    """The networks of seeds 0, 1, ... of one configuration."""
    return {replace(variant, seed=seed): value for seed, value in enumerate(top1)}


# ------------------------------------------------------------------------------------------------- one difference

LEFT, RIGHT = {"method": "m", "schedule": "one_shot"}, {"method": "dense", "schedule": "one_shot"}


def pair(left: list[float], right: list[float], n: int = IMAGES) -> pd.DataFrame:
    return networks(seeds_of(one_shot("m", 0.8), *left) | seeds_of(one_shot("dense", 0.0), *right), n=n)


def test_a_difference_is_over_the_pairs_of_seeds() -> None:
    """Seeds differ far more than the methods: only their pairing decides, and 100 images alone would not."""
    table = pair([0.619, 0.72, 0.821], [0.6, 0.7, 0.8], n=100)
    found = comparisons.difference(table, LEFT, RIGHT)
    assert ends(found) == pytest.approx(students([0.019, 0.020, 0.021])) and found.over == "3 seeds"
    assert found.above(0)
    shuffled = comparisons.difference(table.sample(frac=1, random_state=0), LEFT, RIGHT)
    assert ends(shuffled) == pytest.approx(ends(found))  # pairs are by seed, not by place
    assert ends(comparisons.difference(table, RIGHT, LEFT)) == pytest.approx(students([-0.019, -0.020, -0.021]))


@pytest.mark.parametrize(("n", "decided"), [(1000, False), (50_000, True)])
def test_a_difference_of_one_seed_is_over_images(n: int, decided: bool) -> None:
    found = comparisons.difference(pair([0.81], [0.80], n), LEFT, RIGHT)
    assert ends(found) == pytest.approx(newcombe(0.81, 0.80, n)) and found.over == f"{n:,} images, one seed"
    assert found.above(0) == decided


def test_seeds_that_all_differ_alike_are_no_proof() -> None:
    """Three networks at chance, of one accuracy: an interval over them would have no width."""
    found = comparisons.difference(pair([0.125] * 3, [0.13] * 3), LEFT, RIGHT)
    assert ends(found) == pytest.approx(newcombe(0.125, 0.13)) and found.over == "1,000 images, 3 equal seeds"
    assert not found.below(0)


def test_seeds_that_only_one_side_has_are_left_out() -> None:
    both = comparisons.difference(pair([0.62, 0.73, 0.1], [0.60, 0.70]), LEFT, RIGHT)
    assert ends(both) == pytest.approx(students([0.02, 0.03])) and both.over == "2 seeds"
    assert ends(comparisons.difference(pair([0.62, 0.73], [0.6]), LEFT, RIGHT)) == pytest.approx(newcombe(0.62, 0.6))
    assert math.isnan(comparisons.difference(pair([0.62], []), LEFT, RIGHT).value)


def test_a_difference_never_mixes_networks_of_several_epochs() -> None:
    table = pd.concat([pair([0.8], [0.7]), networks({one_shot("m", 0.8, epochs=8): 0.9})])
    with pytest.raises(ValueError, match="several networks of one seed, expected one; name more fields"):
        comparisons.difference(table, LEFT, RIGHT)
    named = comparisons.difference(table, LEFT | {"epochs": 8}, RIGHT)
    assert named.value == pytest.approx(0.2)
    assert comparisons.difference(pd.concat([table[:2], table[:2]]), LEFT, RIGHT).value == pytest.approx(0.1)


# ----------------------------------------------------------------------------------------------- tables of differences


def test_against_compares_with_the_dense_network_of_the_same_seed_and_epochs() -> None:
    values = {Variant("dense"): 0.65} | seeds_of(one_shot("dense", 0.0), 0.6, 0.7)
    values |= seeds_of(one_shot("dense", 0.0, epochs=8), 0.8, 0.8)
    values |= seeds_of(one_shot("m", 0.8), 0.5, 0.7) | seeds_of(one_shot("m", 0.8, epochs=8), 0.9, 0.92)
    values |= {one_shot("m", 0.8, masked=False): 0.71, one_shot("m", 0.8, epochs=2): 0.1, Variant("m", 0.8): 0.2}
    found = comparisons.against(networks(values))
    assert found.columns.tolist() == [*CONFIGURATION, "top1", *ENDS, "over", "seeds", "minus_dense"]
    assert found[["epochs", "masked"]].to_numpy().tolist() == [[4, True], [8, True], [4, False]]
    assert found.seeds.tolist() == [pytest.approx([-0.1, 0.0]), pytest.approx([0.1, 0.12]), pytest.approx([0.11])]
    assert ends(found.iloc[0]) == pytest.approx(students([-0.1, 0.0]))
    assert ends(found.iloc[1]) == pytest.approx(students([0.1, 0.12]))
    assert ends(found.iloc[2]) == pytest.approx(newcombe(0.71, 0.6))
    assert found.top1.tolist() == pytest.approx([0.6, 0.91, 0.71])
    assert found.minus_dense.tolist() == pytest.approx([-0.05, 0.26, 0.06])


def test_a_control_differs_in_one_field_from_what_it_controls() -> None:
    usual = one_shot("connection_l1", 0.8)
    others = {
        replace(usual, method="connection_random"): 0.5,
        replace(usual, method="connection_l1_shared"): 0.6,
        replace(usual, masked=False): 0.8,
        replace(usual, schedule="iterative"): 0.75,
        replace(usual, schedule="iterative", epochs=8): 0.99,  # has no one-shot network of as many epochs
        replace(usual, rate=0.4, masked=False): 0.99,  # nor of its rate
        one_shot("structured_random", 0.8): 0.99,  # nor the method that it controls
    }
    found = comparisons.controls(networks({usual: 0.7} | others))
    assert found.columns.tolist() == [*CONFIGURATION, "changed", "against", "top1", *ENDS, "over", "seeds"]
    assert found[["changed", "against", "top1"]].to_numpy().tolist() == [
        ["method", "connection_l1", 0.5],
        ["method", "connection_l1", 0.6],
        ["masked", "True", 0.8],
        ["schedule", "one_shot", 0.75],
    ]
    for row in found.itertuples():
        assert ends(row) == pytest.approx(newcombe(row.top1, 0.7))


def test_every_control_is_of_another_method_that_is_no_control() -> None:
    assert not set(comparisons.CONTROL_OF) & set(comparisons.CONTROL_OF.values())


def test_iterative_minus_one_shot_compares_networks_of_the_same_epochs() -> None:
    long, short = one_shot("structured_l1", 0.8, epochs=8), one_shot("structured_l1", 0.8, epochs=2)
    values = seeds_of(long, 0.6, 0.6) | seeds_of(replace(long, schedule="iterative"), 0.69, 0.71)
    values |= seeds_of(short, 0.5, 0.6) | seeds_of(replace(short, schedule="iterative"), 0.4, 0.7)
    values |= {replace(short, epochs=4, schedule="iterative"): 0.9}
    table = networks(values)
    found = comparisons.iterative_minus_one_shot(table)
    assert found[["method", "rate", "epochs"]].to_numpy().tolist() == [["structured_l1", 0.8, at] for at in (2, 8)]
    for row, seeds in zip(found.itertuples(), ([-0.1, 0.1], [0.09, 0.11]), strict=True):
        assert row.seeds == pytest.approx(seeds) and ends(row) == pytest.approx(students(seeds))
    assert comparisons.iterative_minus_one_shot(table[table.schedule != "iterative"]).empty


# ------------------------------------------------------------------------------------------------------ recalibration


def test_recalibration_brings_a_share_of_what_retraining_brings() -> None:
    values = {Variant("m", 0.8): 0.1, Variant("m", 0.8, "recalibrated"): 0.4}
    values |= {one_shot("m", 0.8): 0.7, one_shot("m", 0.8, epochs=8): 0.6}
    values |= {Variant("m", 0.4): 0.70, Variant("m", 0.4, "recalibrated"): 0.70, one_shot("m", 0.4): 0.71}
    values |= {Variant("m", 0.2): 0.8, Variant("m", 0.2, "recalibrated"): 0.7}  # never retrained
    values |= {one_shot("m", 0.8, masked=False): 0.9, one_shot("m", 0.8, weights="random"): 0.2}
    found = comparisons.recalibration(networks(values))
    names = [*FIELDS, "pruned", "recalibrated", "retrained", "retrained_epochs", "share", *ENDS, "over"]
    assert found.columns.tolist() == names
    shown = found[["rate", "pruned", "recalibrated", "retrained", "retrained_epochs"]]
    assert shown[:3].to_numpy().tolist() == [
        [0.8, 0.1, 0.4, 0.7, 4],
        [0.8, 0.1, 0.4, 0.6, 8],
        [0.4, 0.7, 0.7, 0.71, 4],
    ]
    assert found.share[:2].tolist() == pytest.approx([0.5, 0.6])
    assert found.share[2:].isna().all() and len(found) == 4  # one point of 1000 images is not seen to be anything
    assert ends(found.iloc[0]) == pytest.approx(newcombe(0.4, 0.1)) and found.over[0] == "1,000 images"
    assert found.schedule.eq("recalibrated").all() and math.isnan(found.retrained[3])


def test_without_recalibrated_networks_there_is_an_empty_table() -> None:
    assert comparisons.recalibration(tables()["accuracy"]).columns[-1] == "over"
    assert comparisons.recalibration(tables()["accuracy"]).empty


# -------------------------------------------------------------------------------------------- courses, sparsity, cost


def course_of(variant: Variant, top1: list[float], step_rates: list[float] | None = None) -> pd.DataFrame:
    """Top-1 by epoch of a network, from epoch 0 on."""
    rows = networks({variant: top1[-1]}).merge(pd.DataFrame({"epoch": range(len(top1)), "at": top1}), how="cross")
    return rows.assign(top1=rows.pop("at"), step_rate=step_rates or variant.rate, seconds=10.0 * (rows.epoch > 0))


def test_a_course_is_the_mean_over_seeds_at_each_epoch_and_step() -> None:
    two, three = one_shot("m", 0.75, epochs=2), one_shot("m", 0.75, epochs=3)
    iterative = Variant("m", 0.75, "iterative", epochs=2)
    found = comparisons.course(
        pd.concat([
            course_of(two, [0.1, 0.5, 0.6]),
            course_of(replace(two, seed=1), [0.3, 0.7, 0.6]),
            course_of(three, [0.2, 0.4, 0.5, 0.9]),
            course_of(iterative, [0.4, 0.6, 0.5], [0.5, 0.50000001, 0.75]),
        ])
    )  # fmt: skip
    assert found.columns.tolist() == [*CONFIGURATION, "step_rate", "0", "1", "2", "3"]
    rows = {(row.schedule, row.epochs, row.step_rate): list(row[-4:]) for row in found.itertuples(index=False)}
    nan = math.nan
    assert rows.keys() == {("one_shot", 2, 0.75), ("one_shot", 3, 0.75), ("iterative", 2, 0.5), ("iterative", 2, 0.75)}
    assert rows["one_shot", 2, 0.75] == pytest.approx([0.2, 0.6, 0.6, nan], nan_ok=True)
    assert rows["one_shot", 3, 0.75] == pytest.approx([0.2, 0.4, 0.5, 0.9])
    assert rows["iterative", 2, 0.5] == pytest.approx([0.4, 0.6, nan, nan], nan_ok=True)
    assert rows["iterative", 2, 0.75] == pytest.approx([nan, nan, 0.5, nan], nan_ok=True)


def test_sparsity_is_the_mean_over_seeds_and_says_what_grew_back() -> None:
    masked, free = one_shot("m", 0.8), one_shot("m", 0.8, masked=False)
    table = networks(seeds_of(masked, 0.5, 0.7) | {free: 0.9, Variant("dense"): 0.8, Variant("m", 0.8): 0.1})
    table = table.assign(
        mask_sparsity=[0.7, 0.8, 0.8, 0, 0.8],
        conv_sparsity=[0.7, 0.7, 0.05, 0, 0.8],
        total_sparsity=[0.6, 0.7, 0.04, 0, 0.7],
    )
    found = comparisons.sparsity(pd.concat([table, table]))  # a network is counted once
    assert found[["schedule", "masked", "networks"]].to_numpy().tolist() == [
        ["one_shot", True, 2],
        ["one_shot", False, 1],
        ["none", True, 1],
    ]
    assert found.mask_sparsity.tolist() == pytest.approx([0.75, 0.8, 0.8])
    assert found.conv_sparsity.tolist() == pytest.approx([0.7, 0.05, 0.8])
    assert found.total_sparsity.tolist() == pytest.approx([0.65, 0.04, 0.7])
    assert found.top1.tolist() == pytest.approx([0.6, 0.9, 0.1])
    assert found.regrown.tolist() == pytest.approx([0.1, 0.75, 0])  # the largest, not the mean


def test_the_speed_up_that_macs_allow() -> None:
    costs = pd.DataFrame({"form": ["dense", "masked", "compact"] * 2, "macs": [100, 100, 25, 100, 100, 50]})
    found = comparisons.speedups(costs)
    assert found.form.tolist() == ["masked", "compact"] * 2 and found.allowed.tolist() == [1, 4, 1, 2]


# ------------------------------------------------------------------------------------------- tables of a whole study


def test_comparisons_of_a_study_pair_every_configuration_with_its_own_epochs() -> None:
    accuracy = tables()["accuracy"]
    accuracy = accuracy[accuracy.epochs <= accuracy.epochs.mode().max()]
    differences, controls = comparisons.against(accuracy), comparisons.controls(accuracy)
    assert len(differences) == 9 + 1 + 1 and differences.seeds.map(len).eq(3).all()
    assert controls.groupby("changed").size().to_dict() == {"masked": 1, "schedule": 1}
    assert len(comparisons.iterative_minus_one_shot(accuracy)) == 1
    doubled = pd.concat([accuracy, accuracy.assign(epochs=2 * accuracy.epochs, top1=0.5)])
    again = pick(comparisons.against(doubled), epochs=accuracy.epochs.max())
    pd.testing.assert_frame_equal(again.drop(columns="minus_dense"), differences.drop(columns="minus_dense"))


def test_differences_by_class_have_the_mean_of_the_difference_over_images() -> None:
    """Classes of different sizes; one without images, and a seed that one side lacks, are left out."""
    rows = [
        (seed, output, n, 0.5 + 0.1 * output + 0.01 * seed) for seed in (0, 1) for output, n in enumerate((10, 30, 0))
    ]
    right = pd.DataFrame(rows, columns=["seed", "output", "n", "top1"])
    left = right.assign(top1=right.top1 + right.output.map({0: 0.2, 1: 0.0, 2: 9.0}))
    found = comparisons.by_class(left, right[right.seed == 1])
    assert found.index.tolist() == [1] and found.columns.tolist() == [0, 1]
    assert found.to_numpy().mean() == pytest.approx(0.2 * 10 / 40)
