"""Every network has one look and one name everywhere."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from prunelens.registry import Description
from prunelens.report import style
from prunelens.variants import Variant

CONTROLS = [
    {"method": "dense", "schedule": "none"},
    {"method": "dense"},
    {"method": "dense", "schedule": "none", "weights": "random"},
]


def named(*variants: Variant, **options: bool) -> list[str]:
    return style.names(pd.DataFrame([variant.fields() for variant in variants]), **options)


def test_controls_are_three_greys() -> None:
    looks = [style.look(fields) for fields in CONTROLS]
    assert [look.label for look in looks] == ["dense", "dense, retrained", "random weights"]
    assert len({look.color for look in looks}) == 3
    assert all(len(set(to_rgb(look.color))) == 1 for look in looks)


def test_methods_without_a_color_get_free_ones_in_order_of_registration() -> None:
    taken = next(iter(style.FREE))
    own = {"mine.b": Description("b"), "known": Description("k", taken, "s"), "mine.a": Description("a")}
    style.register(own)
    first, second = (style.look({"method": name}) for name in ("mine.b", "mine.a"))
    assert [first.color, second.color] == list(style.FREE)[1:3] and first.marker != second.marker
    style.register({f"mine.m{i}": Description(f"{i}") for i in range(20)})  # more than there are colors
    assert style.look({"method": "mine.m19"}).color in style.FREE


def test_an_unknown_name_is_its_own_label() -> None:
    assert style.look({"method": "elsewhere.keep_first"}).label == "keep first"
    assert style.label("mis") == "MIS" and style.label("odd_column") == "odd column"


def test_unmasked_is_paler() -> None:
    usual, unmasked = (style.look({"method": "connection_l1", **more}) for more in ({}, {"masked": False}))
    assert sum(to_rgb(unmasked.color)) > sum(to_rgb(usual.color)) and unmasked.marker == usual.marker
    assert unmasked.label == "connection, L1, unmasked"


@pytest.mark.parametrize("schedule", ["iterative", "recalibrated"])
def test_other_schedules_are_dashed_and_hollow(schedule: str) -> None:
    look = style.look({"method": "structured_l1", "schedule": schedule})
    assert look.line != "-" and look.marks["markerfacecolor"] == "white"
    assert style.look({"method": "structured_l1"}).line == "-"


def test_names_say_what_sets_networks_apart() -> None:
    shared = {"schedule": "one_shot", "epochs": 2}
    found = named(
        Variant("dense"), Variant("dense", 0.0, **shared), Variant("structured_l1", 0.8),
        Variant("structured_l1", 0.8, **shared), Variant("structured_l1", 0.8, "iterative", epochs=2),
        Variant("connection_l1", 0.4, masked=False, **shared),
    )  # fmt: skip
    assert found == [
        "dense", "dense, retrained", "structured, L1, 0.8, not retrained", "structured, L1, 0.8",
        "structured, L1, 0.8, iterative", "connection, L1, 0.4, unmasked",
    ]  # fmt: skip


def test_names_are_as_short_as_the_table_allows() -> None:
    assert named(Variant("structured_l1", 0.8)) == ["structured, L1, 0.8"]  # nothing is retrained
    both = [Variant("structured_l1", 0.8, "one_shot", epochs=epochs) for epochs in (2, 8)]
    assert named(*both) == ["structured, L1, 0.8, 2 epochs", "structured, L1, 0.8, 8 epochs"]
    assert named(both[0], seeds=True) == ["structured, L1, 0.8, seed 0"]
    assert style.names(pd.DataFrame({"method": ["structured_l1"]})) == ["structured, L1"]


def test_series_come_in_order_of_registration_whatever_the_table_has(accuracies: pd.DataFrame) -> None:
    labels = [look.label for look, _ in style.series(accuracies.sample(frac=1, random_state=0))]
    assert labels == [
        "dense", "random weights", "dense, retrained", "structured, L1", "structured, L1", "structured, L1, iterative",
        "connection, L1", "connection, L1", "connection, L1, unmasked",
    ]  # fmt: skip
    assert sum(len(rows) for _, rows in style.series(accuracies)) == len(accuracies)


def test_missing_columns_and_empty_tables_are_named(accuracies: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="lacks loss; it has method"):
        style.need(accuracies, "top1", "loss")
    with pytest.raises(ValueError, match="empty"):
        style.need(accuracies[:0], "top1")


@pytest.mark.parametrize(("limits", "level", "drawn"), [((0.6, 0.9), 0.5, True), ((0.8, 0.9), 0.5, False)])
def test_chance_is_drawn_where_it_does_not_flatten_the_data(
    limits: tuple[float, float], level: float, drawn: bool
) -> None:
    _, axis = plt.subplots()
    axis.set_ylim(limits)
    (entry,) = style.frame([axis], "mis")
    assert entry.get_label() == ("chance, 0.5" if drawn else "chance, 0.5, outside the panels")
    assert (axis.get_ylim()[0] <= level) == drawn and bool(axis.lines) == drawn


def test_axes_stay_within_the_limits_of_a_measure() -> None:
    _, axis = plt.subplots()
    axis.plot([0, 1], [0.4, 1.0])
    style.frame([axis], "mis")
    assert axis.get_ylim()[1] == 1
    assert style.frame([axis], "margin") == []


def test_block_ticks_are_where_blocks_begin_and_apart() -> None:
    layers = [
        "conv1.conv",
        "conv2.conv",
        *[f"inception3a.{i}" for i in range(9)],
        *[f"inception5b.{i}" for i in range(9)],
    ]
    table = pd.DataFrame({"layer": layers, "position": range(20)})
    assert style.block_ticks(table.sample(frac=1, random_state=0)) == ([0, 2, 11], ["conv1", "3a", "5b"])
    table["block"] = ["stem"] * 2 + ["layer1.0"] * 9 + ["layer1.1"] * 9
    assert style.block_ticks(table) == ([0, 2, 11], ["stem", "1.0", "1.1"])
