"""What the plots of networks draw is what their tables say."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from report_examples import DESCRIPTIONS, TITLE, check_layout, make_accuracies

from prunelens.analysis.estimates import mean
from prunelens.report import plots, style
from prunelens.variants import Variant

RED, GREEN = (DESCRIPTIONS[name].color.lower() for name in ("structured_l1", "connection_l1"))


def courses() -> pd.DataFrame:
    table = make_accuracies().query("schedule != 'none'").merge(pd.DataFrame({"epoch": [0, 1, 2]}), how="cross")
    return table.assign(loss=(2 - table.top1 - 0.1 * table.epoch).where(table.epoch > 0))


def differences(over: str = "3 seeds") -> pd.DataFrame:
    rows = [
        (Variant("structured_l1", 0.8, "one_shot"), -0.20, -0.25, -0.15, [-0.22, -0.20, -0.18]),
        (Variant("structured_l1", 0.8, "iterative"), -0.10, -0.15, -0.05, [-0.10]),
        (Variant("connection_l1", 0.4, "one_shot"), 0.015, -0.01, 0.04, [0.01, 0.02]),
        (Variant("connection_l1", 0.8, "one_shot"), np.nan, np.nan, np.nan, []),
    ]
    columns = ["value", "low", "high", "seeds"]
    return pd.DataFrame([{**v.fields(), **dict(zip(columns, rest, strict=True)), "over": over} for v, *rest in rows])


def correlations() -> pd.DataFrame:
    """Two panels of two rows in another order, one row without a value in the second."""
    rows = [
        ("rate", "structured_l1, iterative", "structured_l1", 0.7, 0.68, 0.72, 9),
        ("rate", "within methods", "", -0.2, -0.6, 0.3, 12),
        ("top1", "within methods", "", 0.7, 0.4, 0.9, 12),
        ("top1", "structured_l1, iterative", "structured_l1", np.nan, np.nan, np.nan, 2),
    ]
    return pd.DataFrame(rows, columns=["x", "row", "method", "value", "low", "high", "n"])


def scans() -> pd.DataFrame:
    """Scans of two layers at two rates with two methods; the second lacks a row."""
    rows = [
        (method, layer, position, rate, kept * factor)
        for method, factor in (("structured_l1", 1.0), ("connection_l1", 0.5))
        for layer, position, rate, kept in (
            ("inception3a.branch1.conv", 0.0, 0.4, 1.0), ("inception3a.branch1.conv", 0.0, 0.8, 0.6),
            ("inception5b.branch1.conv", 1.0, 0.4, 0.8), ("inception5b.branch1.conv", 1.0, 0.8, 0.2),
        )
        if (method, position, rate) != ("connection_l1", 1.0, 0.8)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "layer", "position", "rate", "kept"])


def speeds() -> pd.DataFrame:
    rows = [
        {**Variant("structured_l1", 0.8).fields(), "form": form, "batch_size": batch, "speedup": speedup,
         "speedup_low": speedup - 0.1, "speedup_high": speedup + 0.2, "allowed": allowed}
        for form, speedup, allowed in (("masked", 1.0, 1.0), ("compact", 2.1, 3.0)) for batch in (1, 32)
    ]  # fmt: skip
    return pd.DataFrame(rows)


ALL: dict[str, Callable[[], Figure]] = {
    "by rate": lambda: plots.by_rate(make_accuracies(), "top1", chance=0.1, title=TITLE),
    "by two rates": lambda: plots.by_rate(make_accuracies(1).query("rate != .2"), "top1", title=TITLE),
    "curves": lambda: plots.learning_curves(courses(), title=TITLE),
    "sparsity": lambda: plots.sparsity_bars(make_accuracies().query("epochs > 0"), title=TITLE),
    "sensitivity": lambda: plots.sensitivity_maps(scans(), title=TITLE),
    "speed": lambda: plots.speedups(speeds(), title=TITLE),
    "differences": lambda: plots.estimates(differences(), "Top-1 minus dense", margin=0.01, form="+.1%", title=TITLE),
    "correlations": lambda: plots.estimates(correlations(), "correlation", panel="x", title=TITLE),
    "long names": lambda: plots.estimates(differences().assign(method="connection_l1_shared", weights="random"), "x"),
}


@pytest.mark.parametrize("name", ALL)
def test_nothing_leaves_the_figure_and_no_legend_covers_data(name: str) -> None:
    check_layout(ALL[name]())


def points(axis: Axes, color: str, hollow: bool = False) -> Line2D:
    """The markers of that color in a panel."""
    found = [line for line in axis.lines if to_hex(line.get_color()) == color and line.get_marker() in "sDox"]
    (line,) = [line for line in found if (line.get_markerfacecolor() == "white") == hollow]
    return line


def bars(axis: Axes, color: str) -> list[list[float]]:
    """The intervals (low, high) of that color in a panel of vertical bars."""
    lines = [one for one in axis.collections if isinstance(one, LineCollection) and to_hex(one.get_color()[0]) == color]
    return [segment[:, 1].tolist() for one in lines for segment in one.get_segments() if len(segment)]


def test_by_rate_draws_means_and_intervals_over_seeds(accuracies: pd.DataFrame) -> None:
    axis = plots.by_rate(accuracies, "top1", chance=0.1).axes[1]
    drawn = points(axis, RED)
    assert drawn.get_ydata() == pytest.approx([0.9 - 0.5 * rate + 0.01 for rate in (0.2, 0.4, 0.8)])
    assert drawn.get_xdata() == pytest.approx([0.2, 0.4, 0.8], abs=0.03)  # set aside a little
    expected = mean([0.8, 0.81, 0.82], "seeds")
    assert any(bar == pytest.approx([expected.low, expected.high]) for bar in bars(axis, RED))


def test_by_rate_has_the_controls_of_each_panel(accuracies: pd.DataFrame) -> None:
    figure = plots.by_rate(accuracies, "top1", chance=0.1)
    assert [axis.get_title("left") for axis in figure.axes] == ["as pruned", "retrained"]
    flat = [
        {round(float(line.get_ydata()[0]), 3) for line in axis.lines if len(line.get_xdata()) == 2}
        for axis in figure.axes
    ]
    assert flat[0] == {0.9, 0.1} and flat[1] >= {0.9, 0.92, 0.1}
    assert len(plots.by_rate(accuracies.query("schedule != 'none'"), "top1").axes) == 1


def test_by_rate_averages_the_live_convs_of_each_network(accuracies: pd.DataFrame) -> None:
    units = accuracies.merge(pd.DataFrame({"unit": range(3)}), how="cross").assign(layer="a", own_class=True)
    units = units.assign(kind=np.where(units.unit == 2, "output", "conv"), alive=units.unit > 0)
    units["mis"] = units.top1.where(units.unit == 1, 5.0)
    drawn = [
        points(plots.by_rate(table, "mis").axes[1], RED) for table in (units, accuracies.assign(mis=accuracies.top1))
    ]
    assert drawn[0].get_ydata() == pytest.approx(drawn[1].get_ydata())


def test_lines_join_three_rates_and_not_two(accuracies: pd.DataFrame) -> None:
    axis = plots.by_rate(accuracies, "top1").axes[1]
    assert points(axis, RED).get_linestyle() == "-"
    assert points(axis, RED, hollow=True).get_linestyle() == "None"  # iterative, at two rates
    two = plots.by_rate(accuracies.query("rate != .2"), "top1").axes[1]
    assert {points(two, color).get_linestyle() for color in (RED, GREEN)} == {"None"}
    places = [points(two, color).get_xdata() for color in (RED, GREEN)]
    assert np.abs(places[0] - places[1]).min() > 0.05  # side by side
    assert two.get_xlim()[0] < min(map(min, places)) and max(map(max, places)) < two.get_xlim()[1]


def test_a_single_seed_has_no_interval() -> None:
    axis = plots.by_rate(make_accuracies(1), "top1").axes[1]
    assert bars(axis, RED) == []


def test_a_measures_own_chance_is_drawn(accuracies: pd.DataFrame) -> None:
    figure = plots.by_rate(accuracies.rename(columns={"top1": "mis"}), "mis")
    assert figure.axes[0].get_ylabel() == "MIS"
    assert "chance, 0.5" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves_show_the_dense_network_in_every_panel() -> None:
    figure = plots.learning_curves(courses())
    assert len(figure.axes) == 6  # two values, three rates
    grey = style.look({"method": "dense"}).color
    for axis in figure.axes:
        assert len([line for line in axis.lines if line.get_color() == grey]) == 4  # three seeds and their mean
    figure.canvas.draw()
    ticks = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert ticks and not any("." in tick for tick in ticks)


def test_learning_curves_draw_the_mean_of_the_seeds() -> None:
    axis = plots.learning_curves(courses()).axes[2]  # rate .8
    drawn = [line for line in axis.lines if to_hex(line.get_color()) == RED and line.get_marker() == "s"]
    assert drawn[0].get_ydata() == pytest.approx([0.51] * 3) and list(drawn[0].get_xdata()) == [0, 1, 2]


def test_sparsity_bars_are_empty_where_weights_grew_back(accuracies: pd.DataFrame) -> None:
    axis = plots.sparsity_bars(accuracies.query("schedule == 'one_shot'")).axes[0]
    heights: dict[tuple[str, bool], list[float]] = {}
    for bar in axis.patches:
        filled = bar.get_facecolor()[3] > 0
        color = to_hex(bar.get_facecolor() if filled else bar.get_edgecolor())
        heights.setdefault((color, filled), []).append(bar.get_height())
    unmasked = style.look({"method": "connection_l1", "masked": False}).color
    assert heights[unmasked, True][2] == 0 and heights[unmasked, False][2] == pytest.approx(0.8)
    assert heights[GREEN, True] == pytest.approx([0.19, 0.38, 0.76])


def test_sparsity_bars_tell_iterative_from_one_shot(accuracies: pd.DataFrame) -> None:
    figure = plots.sparsity_bars(accuracies.query("method == 'structured_l1' and schedule != 'none'"))
    hatches = {patch.get_label(): patch.get_hatch() for patch in figure.legends[0].get_patches()}
    assert hatches["structured, L1"] in ("", None) and hatches["structured, L1, iterative"]
    assert sum(bool(bar.get_hatch()) for bar in figure.axes[0].patches) == 3  # rates .2, .4, .8


def test_sensitivity_maps_put_every_share_in_its_place() -> None:
    figure = plots.sensitivity_maps(scans())
    structured, connection = (axis.images[0].get_array() for axis in figure.axes[:2])
    assert np.array_equal(structured, [[1, 0.6], [0.8, 0.2]])
    assert np.array_equal(connection.filled(np.nan), [[0.5, 0.3], [0.4, np.nan]], equal_nan=True)
    assert [axis.get_title("left") for axis in figure.axes[:2]] == ["structured, L1", "connection, L1"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["3a", "5b"]


def test_speedups_show_both_forms_and_what_the_macs_allow() -> None:
    figure = plots.speedups(speeds())
    assert [axis.get_title("left") for axis in figure.axes] == ["batch of 1", "batch of 32"]
    axis = figure.axes[1]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "structured, L1, 0.8, masked",
        "structured, L1, 0.8, compact",
    ]
    measured = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "s"]
    (allowed,) = [line for line in axis.lines if line.get_marker() == "x"]
    assert measured == [1.0, 2.1]
    assert list(allowed.get_xdata()) == [1.0, 3.0] and list(allowed.get_ydata()) == [0, 1]


def test_estimates_draw_each_interval_and_its_seeds_in_its_row() -> None:
    axis = plots.estimates(differences(), "Top-1 minus dense", margin=0.01, form="+.1%").axes[0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == [
        "structured, L1, 0.8",
        "structured, L1, 0.8, iterative",
        "connection, L1, 0.4",
    ]  # not the missing one
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is the uppermost
    shown = differences()[:3]
    markers = [line for line in axis.lines if line.get_marker() in "sD"]
    assert [line.get_xdata()[0] for line in markers] == shown.value.tolist()
    assert [line.get_ydata()[0] for line in markers] == [0, 1, 2]
    intervals = [c.get_segments()[0][:, 0].tolist() for c in axis.collections if isinstance(c, LineCollection)]
    assert intervals == [pytest.approx(list(pair)) for pair in zip(shown.low, shown.high, strict=True)]
    dots = [c.get_offsets()[:, 0].tolist() for c in axis.collections if not isinstance(c, LineCollection)]
    assert dots == [shown.seeds[0], shown.seeds[2]]  # a single seed is the value itself
    assert [text.get_text() for text in axis.texts][2] == "+1.5% (\N{MINUS SIGN}1.0% to +4.0%)"


def test_seeds_are_not_drawn_where_the_interval_is_over_something_else() -> None:
    axis = plots.estimates(differences("12 units"), "x").axes[0]
    assert all(isinstance(one, LineCollection) for one in axis.collections)


def test_estimates_in_panels_share_rows_and_have_labels() -> None:
    figure = plots.estimates(correlations(), "correlation", panel="x")
    assert [axis.get_title("left") for axis in figure.axes] == ["nominal pruning rate", "Top-1 accuracy"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "structured, L1, iterative",
        "within methods",
    ]
    second = [line for line in figure.axes[1].lines if line.get_marker() in "sD"]
    assert [line.get_ydata()[0] for line in second] == [1]  # the other has no value
    assert not any(axis.texts for axis in figure.axes)


def test_an_interval_that_a_marker_would_hide_has_ends_that_stand_out() -> None:
    axis = plots.estimates(correlations().query("x == 'rate'"), "correlation").axes[0]
    caps = [line for line in axis.lines if line.get_marker() == "|"][:2]
    (point,) = [line for line in axis.lines if line.get_marker() == "s"]
    assert {line.get_xdata()[0] for line in caps} == {0.68, 0.72}
    assert min(line.get_markersize() for line in caps) > point.get_markersize() and not point.get_clip_on()
    assert axis.texts[0].get_text() == "+0.700 (+0.680 to +0.720), n = 9"


def test_what_was_subtracted_is_named_in_the_row() -> None:
    table = differences()[:3].assign(against=["structured_l1", "one_shot", "True"])
    names = [tick.get_text() for tick in plots.estimates(table, "x").axes[0].get_yticklabels()]
    assert [" ".join(name.split()).split("\N{MINUS SIGN} ")[1] for name in names] == [
        "structured, L1",
        "one-shot",
        "masked",
    ]


def test_zero_does_not_squeeze_panels_of_their_own_scale() -> None:
    table = correlations().query("row == 'within methods'").assign(low=[-0.6, 0.6], high=[0.3, 0.8])
    with_zero, far = plots.estimates(table, "x", panel="x", shared=False).axes
    assert with_zero.get_xlim()[0] < 0 < with_zero.get_xlim()[1] and far.get_xlim()[0] > 0
    assert plots.estimates(table.query("x == 'top1'"), "x").axes[0].get_xlim()[0] < 0


def test_a_table_without_any_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        plots.estimates(differences()[3:], "x")
