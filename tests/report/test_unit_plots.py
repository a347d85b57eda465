"""What the plots of units draw is what their tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report_examples import DESCRIPTIONS, TITLE, check_layout, make_accuracies

from prunelens.analysis import units as analysis
from prunelens.report import style, unit_plots
from prunelens.variants import Variant


def units() -> pd.DataFrame:
    """Ten units in two layers of each network, the last one dead in structured networks."""
    table = make_accuracies(1).merge(pd.DataFrame({"unit": range(10)}), how="cross")
    alive = ~((table.method == "structured_l1") & (table.unit == 9))
    block = np.where(table.unit < 5, "inception3a", "inception5b")
    noise = np.random.default_rng(0).normal(0, 0.01, len(table))
    mis = np.where(alive, 0.5 + 0.04 * table.unit + 0.1 * table.rate + noise, np.nan)
    return table.assign(
        layer=block, block=block, position=table.unit // 5, kind="conv", own_class=True, alive=alive, mis=mis
    )


def classes() -> pd.DataFrame:
    """Three classes in the dense network and in a pruned one of two seeds; the second seed adds .1."""
    variants = [Variant("dense"), *(Variant("connection_l1", 0.8, "one_shot", seed, epochs=2) for seed in (0, 1))]
    rows = [
        {**v.fields(), "class_name": f"c{i}", "output": i, "top1": i / 4 + 0.1 * v.seed, "mis": 0.5 + i / 10}
        for v in variants
        for i in range(3)
    ]
    return pd.DataFrame(rows)


def same_units() -> tuple[pd.DataFrame, pd.DataFrame]:
    followed = analysis.followed(units(), "mis")
    return followed, analysis.followed_summary(followed, "mis")


def differences() -> pd.DataFrame:
    return analysis.block_differences(units().query("schedule != 'none' or rate == 0"), "mis")


ALL = {
    "by accuracy": lambda: unit_plots.by_accuracy(make_accuracies().assign(mis=0.6), "mis", title=TITLE),
    "blocks": lambda: unit_plots.blocks(differences(), "mis", title=TITLE),
    "same units": lambda: unit_plots.same_units(*same_units(), "mis", title=TITLE),
    "classes": lambda: unit_plots.class_scatter(classes(), "mis", title=TITLE),
}


@pytest.mark.parametrize("name", ALL)
def test_nothing_leaves_the_figure_and_no_legend_covers_data(name: str) -> None:
    check_layout(ALL[name]())


def test_by_accuracy_is_hollow_without_retraining_and_larger_at_higher_rates() -> None:
    table = make_accuracies(1).assign(mis=0.6)
    axis = unit_plots.by_accuracy(table, "mis").axes[0]
    points = [line for line in axis.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in points) == len(table)
    hollow = [line for line in points if line.get_markerfacecolor() == "white" and line.get_ydata()[0] == 0.6]
    assert len(hollow) == 8  # two methods at three rates as pruned, one iterative at two
    half = [line for line in hollow if line.get_fillstyle() == "bottom"]
    assert len(half) == 6  # those that are not retrained: iterative ones are hollow as everywhere
    sizes = [line.get_markersize() for line in points if line.get_marker() == "s"]
    assert sizes[0] < sizes[1] < sizes[2]


def test_blocks_draw_every_difference_at_its_block() -> None:
    table = differences()
    figure = unit_plots.blocks(table, "mis")
    assert figure.get_supylabel() == "MIS, minus dense"
    for axis, (name, rows) in zip(figure.axes, table.groupby(style.names(table), sort=False), strict=False):
        assert axis.get_title("left").replace("\n", " ") == name
        (bar,) = [one for one in axis.collections if isinstance(one, LineCollection)]
        ends = [segment[:, 1].tolist() for segment in bar.get_segments()]
        assert ends == [pytest.approx(list(pair)) for pair in zip(rows.low, rows.high, strict=True)]
    lowest = [axis for axis in figure.axes if axis.get_visible()][-1]
    assert [tick.get_text() for tick in lowest.get_xticklabels()] == ["3a", "5b"]


def test_same_units_have_a_column_per_method_with_the_last_network_below() -> None:
    followed, summary = same_units()
    figure = unit_plots.same_units(followed, summary, "mis")
    above, below = figure.axes[:3], figure.axes[3:]
    assert [[tick.get_text() for tick in axis.get_xticklabels()] for axis in above] == [
        ["before", "after"], ["0", "0.2", "0.4", "0.8"], ["0", "0.2", "0.4", "0.8"],
    ]  # fmt: skip
    rows = summary[summary.method == "structured_l1"]
    median, mean = above[1].lines[:2]
    assert median.get_ydata().tolist() == rows.q50.tolist()
    assert to_hex(median.get_color()) == DESCRIPTIONS["structured_l1"].color.lower()
    assert mean.get_ydata().tolist() == rows.value.tolist()
    last = followed[(followed.method == "structured_l1") & (followed.rate == 0.8)]
    np.testing.assert_allclose(below[1].collections[0].get_offsets(), last[["dense", "mis"]])
    assert below[1].get_title("left").endswith("\n9 units")
    assert below[1].get_title("left").startswith(f"r = {rows.r.iloc[-1]:.2f}")


def test_class_scatter_has_one_point_per_class_in_its_networks_panel() -> None:
    figure: Figure = unit_plots.class_scatter(classes(), "mis")
    assert [axis.get_title("left") for axis in figure.axes] == ["dense", "connection, L1, 0.8"]
    points = [np.ma.getdata(axis.collections[0].get_offsets()) for axis in figure.axes]
    np.testing.assert_allclose(points[0], [[0.5, 0], [0.6, 0.25], [0.7, 0.5]])
    np.testing.assert_allclose(points[1], [[0.5, 0.05], [0.6, 0.3], [0.7, 0.55]])
    assert figure.get_supxlabel() == "MIS of the output unit"


def test_panels_wrap_and_those_left_over_are_hidden() -> None:
    table = pd.concat([classes().assign(method=f"m{i}") for i in range(5)])
    axes = unit_plots.class_scatter(table, "mis").axes
    assert [axis.get_visible() for axis in axes] == [True] * 10 + [False] * 2
