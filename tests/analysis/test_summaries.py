"""Tables as notebooks show them, on tables of a few rows."""

import math

import numpy as np
import pandas as pd
import pytest
from analysis_tables import networks, one_shot, units

from prunelens.analysis import published, summaries
from prunelens.analysis.estimates import Estimate, mean
from prunelens.analysis.selection import pick
from prunelens.analysis.units import network_means
from prunelens.variants import CONFIGURATION, FIELDS, Variant


def test_blocks_add_up_their_layers_in_order_of_the_forward_pass() -> None:
    layers = pd.DataFrame(
        [("stem", True, 8, 100), ("b", True, 4, 20), ("b", False, 2, 10), ("a", False, 3, 30)],
        columns=["block", "prunable", "units", "weights"],
    ).assign(layer=list("wxyz"))
    found = summaries.blocks(layers)
    assert list(found.columns) == ["block", "layers", "prunable", "units", "weights"]
    assert found.to_numpy().tolist() == [["stem", 1, 1, 8, 100], ["b", 2, 1, 6, 30], ["a", 1, 0, 3, 30]]


def test_values_of_chosen_units_are_in_the_order_chosen() -> None:
    variants = [one_shot("m", 0.8), one_shot("m", 0.8, seed=1), Variant("dense")]
    table = units(variants, {"a.conv": 3, "fc": 2})
    table["mis"] = table.unit / 10 + table.seed
    found = summaries.values(table, variants[1].fields(), "mis", [("fc", 1), ("a.conv", 2), ("a.conv", 0)])
    assert list(found.columns) == [*FIELDS, "layer", "block", "unit", "mis"]
    assert found[["layer", "block", "unit"]].to_numpy().tolist() == [
        ["fc", "fc", 1], ["a.conv", "a", 2], ["a.conv", "a", 0],
    ]  # fmt: skip
    assert found.mis.tolist() == pytest.approx([1.1, 1.2, 1.0]) and set(found.seed) == {1}
    with pytest.raises(KeyError, match="7"):
        summaries.values(table, variants[1].fields(), "mis", [("a.conv", 7)])


def test_networks_get_their_own_accuracy() -> None:
    """All fields count: the same network without masks, or from other weights, is another one."""
    first, accurate = one_shot("m", 0.8), networks({one_shot("m", 0.8): 0.6, one_shot("m", 0.8, masked=False): 0.7})
    accurate["conv_sparsity"] = [0.75, 0.0]
    means = networks({Variant("dense"): 0.9, one_shot("m", 0.8, masked=False): 0.8, first: 0.7}, "mis")
    found = summaries.with_accuracy(means, accurate)
    assert found[["masked", "mis", "top1", "conv_sparsity"]].to_numpy().tolist() == [
        [False, 0.8, 0.7, 0.0], [True, 0.7, 0.6, 0.75],
    ]  # fmt: skip
    assert (found.top1_low < found.top1).all()


# ---------------------------------------------------------------------------------------------- beside the paper


def side(variants: list[Variant]) -> pd.DataFrame:
    """`side_by_side` of variants whose Top-1 is .5 + seed / 10 and whose mean MIS is .8."""
    accuracy = networks({variant: 0.5 + variant.seed / 10 for variant in variants})
    accuracy = accuracy.assign(top1_all_outputs=accuracy.top1 - 0.1, conv_sparsity=0.7)
    return summaries.side_by_side(accuracy, network_means(units(variants), "mis"))


def test_configurations_stand_beside_the_papers_numbers_of_the_same_kind() -> None:
    variants = [one_shot("connection_l1", 0.8, seed, masked=False) for seed in (0, 1)]
    variants += [Variant("dense"), Variant("connection_l1", 0.8), one_shot("structured_l1", 0.8)]
    variants += [one_shot("connection_l1", 0.8), one_shot("structured_l1", 0.7)]
    found = side(variants)
    ours = ["conv_sparsity", "top1", "top1_all_outputs", "mis_all"]
    theirs = ["paper_epochs_top1", "paper_top1", "paper_epochs_mean_mis", "paper_mean_mis"]
    assert list(found.columns) == [*CONFIGURATION, *ours, *theirs] and len(found) == 6
    assert found[ours].iloc[0].tolist() == pytest.approx([0.7, 0.55, 0.45, 0.8])  # means over two seeds
    expected = [0.7051, 0.6994, 0.0010, 0.4434, math.nan, math.nan]  # Adam's .4498 is left out
    np.testing.assert_array_equal(found.paper_top1, expected)
    epochs = found.paper_epochs_top1.astype(float)  # ours are fewer: the longest of the paper's
    np.testing.assert_array_equal(epochs, [50, 0, 0, 50, math.nan, math.nan])
    assert found.paper_mean_mis[3] == 0.7496 and math.isnan(found.paper_mean_mis[1])  # none of the dense network


def test_of_several_runs_of_the_paper_the_longest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pick(published.headlines(), method="structured_l1", schedule="one_shot", optimizer="sgd", rate=0.8)
    longer, shorter = rows.assign(epochs=90, value=0.9), rows.assign(epochs=10, value=0.1)
    monkeypatch.setattr(summaries, "headlines", lambda: pd.concat([longer, rows, shorter]))
    found = side([one_shot("structured_l1", 0.8)])
    assert len(found) == 1 and found.paper_top1[0] == found.paper_mean_mis[0] == 0.9
    assert found.paper_epochs_top1[0] == 90


def test_networks_of_random_weights_have_no_number_of_the_paper() -> None:
    found = side([Variant("dense", weights="random"), one_shot("structured_l1", 0.8, weights="random")])
    assert len(found) == 2 and found.paper_top1.isna().all() and found.paper_mean_mis.isna().all()


# ------------------------------------------------------------------------------------------------------- pictures


def test_means_of_picture_quality_are_over_live_units() -> None:
    rows = pd.DataFrame(
        {
            "unit": range(3),
            "alive": [True, True, False],
            "excited": [1.0, 1.0, 9.0],
            "reached": [0.5, 0.7, 9.0],
            "like_top": [0.5, 0.6, 9.0],
            "consistency": [0.4, math.nan, 9.0],
            "like_dense": [math.nan, math.nan, 9.0],
        }
    )
    tables = [rows.assign(**variant.fields()) for variant in (Variant("dense"), one_shot("m", 0.8))]
    found = summaries.quality_means(pd.concat(tables, ignore_index=True))
    assert list(found.columns) == [*FIELDS, "panel", "value", "low", "high", "over"]
    one = pick(found, method="m")
    assert one.panel.tolist() == ["reached", "like_top", "consistency", "like_dense"] and len(found) == 8
    assert one.value.tolist()[:3] == pytest.approx([0.6, 0.55, 0.4]) and math.isnan(one.value.iloc[3])
    assert one.over.tolist()[:3] == ["2 units", "2 units", "1 unit"]
    row, expected = Estimate.of(one.iloc[1]), mean([0.5, 0.6], "units")
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    nothing = summaries.quality_means(tables[0][:0])
    assert nothing.empty and list(nothing.columns) == list(found.columns)
