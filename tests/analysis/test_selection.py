"""Which rows of a table are meant."""

import pandas as pd
import pytest
from analysis_tables import networks, one_shot

from prunelens.analysis.selection import above_chance, average_seeds, dense, pick, retrained, series, working
from prunelens.variants import CONFIGURATION, Variant


def every_kind() -> pd.DataFrame:
    """One network of every kind, its top1 telling its place."""
    kinds = [
        Variant("dense"),
        Variant("dense", weights="random"),
        one_shot("dense", 0.0),
        Variant("m", 0.8),
        Variant("m", 0.8, "recalibrated"),
        one_shot("m", 0.4),
        one_shot("m", 0.8),
        one_shot("m", 0.8, masked=False),
        Variant("m", 0.8, "iterative", epochs=4),
    ]
    return networks({variant: 0.05 * place for place, variant in enumerate(kinds, 1)})


def test_pick_takes_values_and_lists_of_them() -> None:
    table = every_kind()
    assert pick(table, method="m", rate=0.8, masked=False).index.tolist() == [7]
    assert pick(table, schedule=["iterative", "none"]).index.tolist() == [0, 1, 3, 8]
    assert pick(table, schedule=("recalibrated",)).index.tolist() == [4]
    assert len(pick(table)) == len(table) and pick(table, method="other").empty
    with pytest.raises(KeyError, match="nmethod"):
        pick(table, nmethod="m")


def test_kinds_of_networks() -> None:
    table = every_kind()
    assert dense(table).index.tolist() == [0]
    assert retrained(table).index.tolist() == [2, 5, 6, 7, 8]
    assert working(table).index.tolist() == [0, 2, 5, 6, 7, 8]


def test_series_are_masked_and_retrained_and_of_several_rates() -> None:
    """Recalibration is no retraining, three seeds are one rate, an unmasked network is less sparse than its rate."""
    table = pd.concat([every_kind(), networks({one_shot("single", 0.8, seed): 0.5 for seed in range(3)})])
    found = series(table)
    assert found[["method", "rate", "series"]].to_numpy().tolist() == [["m", 0.4, "m"], ["m", 0.8, "m"]]
    assert series(table[:0]).empty and "series" in series(table[:0])


def test_series_keep_schedules_and_epochs_apart() -> None:
    rates = (0.4, 0.8)
    table = networks(
        {one_shot("m", rate): 0.5 for rate in rates}
        | {Variant("m", rate, "iterative", epochs=4): 0.5 for rate in rates}
    )
    assert series(table).series.unique().tolist() == ["m", "m, iterative"]
    longer = networks({one_shot("m", rate, epochs=8): 0.5 for rate in rates})
    names = series(pd.concat([table, longer])).series.unique().tolist()
    assert names == ["m, 4 epochs", "m, iterative", "m, 8 epochs"]


def test_seeds_are_averaged_and_epochs_are_not() -> None:
    table = networks(
        {one_shot("m", 0.8, seed, epochs): 0.01 * seed + epochs / 10 for seed in range(3) for epochs in (2, 4)}
    )
    found = average_seeds(table)
    assert found[["epochs", "top1"]].to_numpy().tolist() == [[2, pytest.approx(0.21)], [4, pytest.approx(0.41)]]
    assert "seed" not in found and list(found.columns[: len(CONFIGURATION)]) == CONFIGURATION
    by_epoch = pd.concat([table.assign(epoch=1), table.assign(epoch=2, top1=0.0)])
    assert average_seeds(by_epoch, "epoch").top1.tolist() == pytest.approx([0.21, 0.41, 0, 0])


def test_networks_at_chance_are_those_whose_interval_reaches_down_to_it() -> None:
    """Of 1000 images and a chance of .125, Wilson's interval reaches down to it from .145 and not from .146."""
    accuracy = networks({one_shot("m", 0.8, seed): top1 for seed, top1 in enumerate((0.13, 0.145, 0.146))})
    table = pd.concat([accuracy.assign(unit=unit) for unit in range(2)])
    assert above_chance(accuracy, table, 0.125).seed.tolist() == [2, 2]
    other = table.assign(epochs=9)  # a network that the accuracies do not have
    assert len(above_chance(accuracy, other, 0.125)) == len(other)
