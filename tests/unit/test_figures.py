"""What the plots draw is what the tables say; what is saved is complete and repeatable."""

import json
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.text import Text

from prunelens import figures, galleries
from prunelens.figures import LOOKS, METHOD_COLORS
from prunelens.galleries import Cell
from prunelens.statistics import mean_interval


@pytest.fixture(autouse=True)
def close_all():
    yield
    plt.close("all")


def accuracies(seeds: int = 3) -> pd.DataFrame:
    """Accuracies of controls and three methods; each seed adds .01."""
    rows = [("dense", 0.0, "none", 0, 0.9)]
    for seed in range(seeds):
        rows += [("dense_retrained", 0.0, "one_shot", seed, 0.91), ("random_init", 0.0, "none", seed, 0.1)]
        for method, slope in (
            ("structured_l1", 0.5),
            ("connection_l1", 0.3),
            ("connection_l1_unmasked", 0.05),
        ):
            for rate in (0.2, 0.4, 0.8):
                rows.append((method, rate, "one_shot", seed, 0.9 - slope * rate + 0.01 * seed))
                rows.append((method, rate, "none", seed, 0.1 + 0.01 * seed))
        rows += [("structured_l1", rate, "iterative", seed, 0.9 - 0.4 * rate) for rate in (0.4, 0.8)]
    table = pd.DataFrame(rows, columns=["method", "rate", "schedule", "seed", "top1"])
    return table.assign(conv_sparsity=0.95 * table.rate, total_sparsity=0.8 * table.rate)


def units() -> pd.DataFrame:
    """Ten units in each network of one seed, the last one dead in structured networks."""
    table = accuracies(1).merge(pd.DataFrame({"unit": range(10)}), how="cross")
    alive = ~((table.method == "structured_l1") & (table.unit == 9))
    return table.assign(alive=alive, mis=np.where(alive, 0.5 + 0.04 * table.unit + 0.1 * table.rate, np.nan))


def courses() -> pd.DataFrame:
    table = accuracies().query("schedule != 'none'").merge(pd.DataFrame({"epoch": [1, 2, 3]}), how="cross")
    return table.assign(loss=2 - table.top1 - 0.1 * table.epoch)


def sparsities() -> pd.DataFrame:
    table = accuracies(1).query("schedule == 'one_shot' and rate > 0")
    grown = table.assign(
        stage="retrained",
        conv_sparsity=table.conv_sparsity.where(table.method != "connection_l1_unmasked", 0.0),
    )
    return pd.concat([table.assign(stage="pruned"), grown])


def cells(dead: bool = True) -> list[list[Cell]]:
    image, strip = np.zeros((8, 8, 3), np.uint8), np.zeros((3, 4, 4, 3), np.uint8)
    return [[Cell(image, "MIS .8", strip, strip[:2]), Cell(None if dead else image)]]


def line(axis, color: str, dashes: str = "-"):
    found = [
        drawn
        for drawn in axis.lines
        if to_hex(drawn.get_color()) == color.lower() and drawn.get_linestyle() == dashes and len(drawn.get_xdata()) > 2
    ]
    assert len(found) == 1
    return found[0]


def layers() -> pd.DataFrame:
    """Two methods along the network, in an order that is not the network's; connection_l1 is .1 lower."""
    names = ["conv1.conv", "conv2.conv", "inception3a.branch1.conv", "inception3a.branch4.1.conv", "inception5b.branch1.conv", "fc"]  # noqa: E501 # fmt: skip
    rows = pd.DataFrame({"layer": names, "position": range(6), "mis": [0.1 * i for i in range(6)]})
    table = pd.concat([rows.assign(method="connection_l1", mis=rows.mis - 0.1), rows.assign(method="dense")])
    return table.sample(frac=1, random_state=0)


def net_gains() -> pd.DataFrame:
    rows = [
        ("structured_l1", "one_shot", 0.8, -0.20, -0.25, -0.15, [-0.20]),
        ("structured_l1", "iterative", 0.8, -0.10, -0.15, -0.05, [-0.10]),
        ("connection_l1", "one_shot", 0.4, 0.015, -0.01, 0.04, [0.01, 0.02]),
    ]
    return pd.DataFrame(rows, columns=["method", "schedule", "rate", "net_gain", "low", "high", "seeds"])


def advantages() -> pd.DataFrame:
    rows = [
        (method, 0.8, epochs, mean, mean - 0.02, mean + 0.02, [mean - 0.01, mean + 0.01])
        for method, at in (("structured_l1", 0.01), ("connection_l1", -0.03))
        for epochs, mean in ((8, at), (2, at - 0.1))
    ]
    return pd.DataFrame(rows, columns=["method", "rate", "epochs", "mean", "low", "high", "seeds"])


def scans() -> pd.DataFrame:
    """Two scans of two layers at two rates; the second scan lacks a row."""
    rows = [
        (scan, layer, rate, kept)
        for scan, factor in (("ours", 1.0), ("published", 0.5))
        for layer, rate, kept in (("inception3a.branch1.conv", 0.4, 1.0), ("inception3a.branch1.conv", 0.8, 0.6),
                                  ("inception5b.branch1.conv", 0.4, 0.8), ("inception5b.branch1.conv", 0.8, 0.2))
        if (scan, layer, rate) != ("published", "inception5b.branch1.conv", 0.8)
        for kept in [kept * factor]
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["scan", "layer", "rate", "kept"])


def courses_of_compute() -> pd.DataFrame:
    """The cheap method is beaten by the dear one at twice the compute; a third run is dear and bad."""
    rows = [
        ("connection_l1", "one_shot", 0.8, 1.0, 0.5), ("connection_l1", "one_shot", 0.8, 2.0, 0.6),
        ("structured_l1", "one_shot", 0.8, 1.0, 0.3), ("structured_l1", "iterative", 0.8, 2.0, 0.8),
        ("dense_retrained", "one_shot", 0.0, 1.0, 0.9), ("dense_retrained", "one_shot", 0.0, 2.0, 0.9),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "schedule", "rate", "pflops", "top1"])


def speeds() -> pd.DataFrame:
    rows = [
        ("structured_l1", 0.8, form, batch, speedup, speedup - 0.1, speedup + 0.2, allowed)
        for batch in (1, 32)
        for form, speedup, allowed in (("masked", 1.0, 1.0), ("compact", 2.1, 3.0))
    ]
    columns = ["method", "rate", "form", "batch_size", "speedup", "speedup_low", "speedup_high", "allowed"]
    return pd.DataFrame(rows, columns=columns)


def correlations() -> pd.DataFrame:
    """Two panels of three rows; one row has no value anywhere, one only in the first panel."""
    rows = [
        ("rate", "structured, L1", "structured_l1", 0.5, 0.1, 0.8, 9),
        ("rate", "connection, L1", "connection_l1", np.nan, np.nan, np.nan, 2),
        ("rate", "pooled", "", -0.2, -0.6, 0.3, 12),
        ("sparsity", "pooled", "", 0.7, 0.4, 0.9, 12),  # in another order than above
        ("sparsity", "structured, L1", "structured_l1", np.nan, np.nan, np.nan, 9),
        ("sparsity", "connection, L1", "connection_l1", np.nan, np.nan, np.nan, 2),
    ]
    return pd.DataFrame(rows, columns=["panel", "row", "method", "r", "low", "high", "n"])


def trends() -> pd.DataFrame:
    rows = [
        ("a", "structured_l1", "one_shot", "same units", 0.1, 0.05, 0.15, [0.09, 0.11]),
        ("a", "structured_l1", "one_shot", "all units", 0.3, np.nan, np.nan, []),
        ("b", "structured_l1", "iterative", "same units", -0.1, -0.2, 0.0, [-0.1]),
    ]
    return pd.DataFrame(rows, columns=["series", "method", "schedule", "estimate", "slope", "low", "high", "seeds"])


def class_table() -> pd.DataFrame:
    """Four classes in two networks; one output unit is dead."""
    table = pd.DataFrame({"top1": [0.1, 0.2, 0.3, 0.4], "mis": [0.5, 0.6, 0.7, np.nan]})
    pruned = table.assign(method="connection_l1", rate=0.8, schedule="one_shot", mis=table.mis - 0.2)
    return pd.concat([pruned, table.assign(method="dense", rate=0.0, schedule="none")], ignore_index=True)


def many_methods() -> pd.DataFrame:
    return pd.concat([class_table().query("method == 'dense'").assign(method=method) for method in list(LOOKS)[:6]])


def followed() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Three units of a control and of a method at two rates, with a summary that is not quite theirs."""
    networks = [("dense_retrained", "dense", 0.0), ("dense_retrained", "again", 0.0)]
    networks += [("structured_l1", "dense", 0.0), ("structured_l1", "s4", 0.4), ("structured_l1", "s8", 0.8)]
    rows = pd.DataFrame(networks, columns=["method", "variant", "rate"])
    units = rows.merge(pd.DataFrame({"layer": "a", "unit": range(3), "mis": [0.2, 0.4, 0.6]}), how="cross")
    units.loc[units.variant == "s8", "mis"] += 0.1
    steps = {"q10": 0.2, "q25": 0.3, "q50": 0.4, "q75": 0.5, "q90": 0.6, "mean": 0.42, "low": 0.38, "high": 0.46}
    summary = rows.assign(units=3, r=0.71, r_low=-0.05, r_high=0.9, **steps)
    summary.loc[summary.variant == "dense", ["r", "r_low", "r_high"]] = np.nan
    return units, summary


def two_networks() -> pd.DataFrame:
    rows = layers().query("method == 'dense'").assign(position=lambda t: t.position / 5)
    ours = rows.assign(network="ours, dense", low=rows.mis - 0.05, high=rows.mis + 0.02)
    return pd.concat([ours, ours.assign(network="theirs", mis=0.9 - ours.mis / 5, low=0.7, high=0.95)])


def drawn_anew(table: pd.DataFrame, **other: str) -> pd.DataFrame:
    """The table of the same methods, or of `other` ones, with weights drawn anew: the longest labels there are."""
    methods = {name: f"{other.get(name, name)}_reinitialised" for name in ("structured_l1", "connection_l1")}
    return table.replace({"method": methods})


def qualities() -> pd.DataFrame:
    """Two units in the dense network, in a pruned one, and in one where the second is dead."""
    rows = [
        ("dense", 0.0, 0, 0.8, 0.8), ("dense", 0.0, 1, 0.9, 0.9),
        ("connection_l1", 0.4, 0, 0.5, 0.8), ("connection_l1", 0.4, 1, 0.7, 0.9),
        ("connection_l1", 0.8, 0, 0.4, 0.8), ("connection_l1", 0.8, 1, np.nan, np.nan),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "rate", "unit", "like_dense", "dense_consistency"])


ANCHORS = {"planted unit": 0.9, "random": 0.5, "shuffled images": 0.501, "shuffled weights": 0.53}
LONG_PANELS = {"rate": "nominal rate", "sparsity": "sparsity that all convs really have", "top1": "Top-1"}


def all_plots() -> dict:
    mask = np.random.default_rng(0).random((6, 5, 3, 3)) > 0.5
    three = pd.concat([correlations(), correlations().query("panel == 'rate'").assign(panel="top1")])
    return {
        "accuracy": lambda: figures.accuracy_by_rate(accuracies(), chance=0.1),
        "sparsity as x": lambda: figures.accuracy_by_rate(accuracies(1), x="conv_sparsity"),
        "measure by rate": lambda: figures.measure_by_rate(units(), "mis"),
        "measure by rate, anchors": lambda: figures.measure_by_rate(units(), "mis", anchors=ANCHORS),
        "measure by accuracy": lambda: figures.measure_by_accuracy(units(), "mis", ANCHORS),
        "distribution": lambda: figures.distribution_by_network(units()),
        "curves": lambda: figures.learning_curves(courses()),
        "sparsity": lambda: figures.sparsity_bars(sparsities()),
        "masks": lambda: figures.mask_picture({"structured_l1": mask, "connection_l1": ~mask}),
        "masks of long names": lambda: figures.mask_picture(dict.fromkeys(list(LOOKS)[3:8], mask)),
        "sensitivity": lambda: figures.sensitivity_maps(scans()),
        "compute": lambda: figures.pareto(courses_of_compute()),
        "compute of long names": lambda: figures.pareto(
            drawn_anew(courses_of_compute(), structured_l1="unstructured_sensitivity")
        ),
        "quality": lambda: figures.quality_by_rate(qualities(), {"a\n(grey: b)": ("like_dense", "dense_consistency")}),
        "speed": lambda: figures.speedups(speeds()),
        "forest": lambda: figures.forest(correlations()),
        "forest of long names": lambda: figures.forest(three.replace({"panel": LONG_PANELS})),
        "forest of one panel": lambda: figures.forest(correlations().query("panel == 'rate'")),
        "slopes": lambda: figures.slopes(trends(), "MIS per unit of rate"),
        "layers": lambda: figures.layer_profile(layers(), "mis", ANCHORS),
        "gains": lambda: figures.gains(net_gains()),
        "advantage": lambda: figures.advantage_by_epochs(advantages()),
        "classes": lambda: figures.class_scatter(class_table(), ANCHORS),
        "classes of many methods": lambda: figures.class_scatter(many_methods()),
        "confusion": lambda: figures.confusion(np.eye(3), ["a", "b", "c"]),
        "units": lambda: galleries.unit_rows(cells(), ["conv1 3"], ["dense", "structured"]),
        "units of long names": lambda: galleries.unit_rows(cells(), ["conv1\n3"], ["dense\nTop-1 9 %", "a\nb\nc"]),
        "same units": lambda: figures.same_units(*followed(), ANCHORS),
        "layers of networks": lambda: figures.layers_of_networks(two_networks(), anchors=ANCHORS),
    }


@pytest.mark.parametrize("name", all_plots())
def test_nothing_leaves_the_figure_and_no_legend_covers_data(name):
    figure = all_plots()[name]()
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox.padded(1)
    for axis in figure.axes:
        inside = axis.get_tightbbox(renderer)
        assert page.x0 <= inside.x0 and inside.x1 <= page.x1 and page.y0 <= inside.y0 and inside.y1 <= page.y1
        assert not any(legend.get_window_extent(renderer).overlaps(axis.bbox) for legend in figure.legends)
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in legends)
    titles = [text for axis in figure.axes for text in axis.findobj(Text) if text.get_text() == axis.get_title("left")]
    assert apart([text for text in titles if text.get_text()])
    assert figure.get_figwidth() <= figures.WIDTH


def apart(texts: list[Text]) -> bool:
    """Whether no text of a drawn figure lies on another."""
    return not any(a.get_window_extent().overlaps(b.get_window_extent()) for a, b in combinations(texts, 2))


@pytest.mark.parametrize(
    "name", ["measure by rate, anchors", "measure by accuracy", "layers", "same units", "layers of networks"]
)
def test_anchors_are_lines_in_every_panel_of_a_row_with_names_apart(name):
    figure = all_plots()[name]()
    figure.canvas.draw()
    far = " .90 ↑"
    names = [text for axis in figure.axes for text in axis.texts if text.get_text().removesuffix(far) in ANCHORS]
    assert sorted(text.get_text().removesuffix(far) for text in names) == sorted(ANCHORS) and apart(names)
    shown = {ANCHORS[text.get_text()] for text in names if not text.get_text().endswith(far)}
    row = figure.axes[: {"measure by rate, anchors": 2, "same units": 2}.get(name, 1)]
    for axis in figure.axes:
        levels = {one.get_ydata()[0] for one in axis.lines if one.get_linestyle() == ":"} & set(ANCHORS.values())
        assert levels == (shown if axis in row else set())


def test_an_anchor_far_above_the_data_does_not_flatten_them():
    """Data and the anchor below them span .2, three quarters of what ends at .7667."""
    figure, [[axis]] = figures.canvas()
    axis.plot([0, 1], [0.6, 0.7])
    axis.margins(y=0)
    figures._anchored([axis], {"planted": 0.77, "near": 0.76, "random": 0.5})
    figure.canvas.draw()
    assert axis.get_ylim() == pytest.approx((0.5, 0.76))
    assert [one.get_ydata()[0] for one in axis.lines[1:]] == [0.5, 0.76]
    places = {text.get_text(): text.xy[1] for text in axis.texts}
    assert set(places) == {"planted .77 ↑", "near", "random"}
    assert places["planted .77 ↑"] == pytest.approx(0.76, abs=0.02) and places["random"] == 0.5


def test_methods_have_their_own_looks():
    assert len(set(METHOD_COLORS.values())) == len({look.label for look in LOOKS.values()}) == len(LOOKS)
    for control in figures.CONTROLS:
        red, green, blue = matplotlib.colors.to_rgb(METHOD_COLORS[control])
        assert red == green == blue


def test_a_new_method_gets_a_fixed_color_that_no_known_one_has():
    own = figures.look("taylor_first_order")
    assert own == figures.look("taylor_first_order") and own.label == "taylor first order"
    assert own.color not in METHOD_COLORS.values()
    table = accuracies().replace({"method": {"connection_l1": "taylor_first_order"}})
    assert line(figures.accuracy_by_rate(table).axes[1], own.color) is not None


def test_accuracy_by_rate_draws_means_and_intervals():
    axis = figures.accuracy_by_rate(accuracies(), chance=0.1).axes[1]
    drawn = line(axis, METHOD_COLORS["structured_l1"])
    assert drawn.get_ydata() == pytest.approx([0.9 - 0.5 * rate + 0.01 for rate in (0.2, 0.4, 0.8)])
    assert drawn.get_xdata() == pytest.approx([0.2, 0.4, 0.8], abs=0.03)  # set aside a little
    expected = mean_interval([0.8, 0.81, 0.82])
    bars = [drawn for drawn in axis.collections if hasattr(drawn, "get_segments")]
    own = [bar for bar in bars if to_hex(bar.get_color()[0]) == METHOD_COLORS["structured_l1"].lower()]
    segments = [segment for bar in own for segment in bar.get_segments()]
    assert any(segment[:, 1] == pytest.approx(expected[1:]) for segment in segments)


def test_accuracy_by_rate_panels_and_references():
    figure = figures.accuracy_by_rate(accuracies(), chance=0.1)
    before, after = figure.axes
    assert [before.get_title("left"), after.get_title("left")] == ["not retrained", "retrained"]
    levels = [{round(float(drawn.get_ydata()[0]), 3) for drawn in axis.lines} for axis in figure.axes]
    assert 0.9 in levels[0] and 0.91 not in levels[0]
    assert {0.9, 0.91, 0.1} <= levels[1]
    dashed = [drawn for drawn in after.lines if drawn.get_linestyle() == "--"]
    assert len(dashed) == 1 and to_hex(dashed[0].get_color()) == METHOD_COLORS["structured_l1"].lower()
    only = figures.accuracy_by_rate(accuracies().query("schedule != 'none'"))
    assert len(only.axes) == 1


def test_a_single_seed_has_no_interval():
    axis = figures.accuracy_by_rate(accuracies(1)).axes[1]
    assert not axis.collections


@pytest.mark.parametrize("schedule", ["iterative", "rewound"])
def test_a_single_point_of_another_schedule_is_hollow_as_its_legend(schedule):
    renamed = {"schedule": {"iterative": schedule}}
    by_rate = accuracies().query("schedule != 'iterative' or rate == 0.8").replace(renamed)
    for figure in (figures.accuracy_by_rate(by_rate), figures.pareto(courses_of_compute().replace(renamed))):
        squares = [one for one in figure.axes[-1].lines if one.get_marker() == "s"]
        (hollow,) = [one for one in squares if one.get_markerfacecolor() == "white"]
        assert len(squares) == 2 and len(hollow.get_xdata()) == 1
        assert to_hex(hollow.get_markeredgecolor()) == METHOD_COLORS["structured_l1"].lower()
        named = {one.get_label(): one for one in figure.legends[0].legend_handles}
        legend = named[figures.SCHEDULES[schedule]]
        assert legend.get_markerfacecolor() == "white" and legend.get_marker() == "o"
        assert named[LOOKS["structured_l1"].label].get_markerfacecolor() != "white"


def test_sparsity_axis_is_not_set_aside():
    axis = figures.accuracy_by_rate(accuracies(1), x="conv_sparsity").axes[1]
    assert line(axis, METHOD_COLORS["connection_l1"]).get_xdata() == pytest.approx([0.19, 0.38, 0.76])


def test_network_means_leave_dead_units_out():
    means = figures.network_means(units(), "mis").set_index(["method", "rate", "schedule"]).mis
    assert means["connection_l1", 0.2, "one_shot"] == pytest.approx(0.5 + 0.04 * 4.5 + 0.02)
    assert means["structured_l1", 0.2, "one_shot"] == pytest.approx(0.5 + 0.04 * 4.0 + 0.02)
    assert len(means) == len(accuracies(1))
    assert figures.network_means(accuracies(), "top1").equals(accuracies())


def test_distribution_counts_the_dead():
    axis = figures.distribution_by_network(units()).axes[0]
    counts = [text.get_text() for text in axis.texts]
    assert counts.count("9 units, 1 dead") == 8 and counts.count("10 units") == 15
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names[0] == "dense" and "structured, L1, 0.8 (iterative)" in names


def test_distribution_of_a_network_whose_units_are_all_dead():
    table = units().query("method == 'structured_l1' and unit == 9")
    texts = [text.get_text() for text in figures.distribution_by_network(table).axes[0].texts]
    assert set(texts) == {"0 units, 1 dead"}


def test_measure_by_accuracy_is_hollow_without_retraining():
    axis = figures.measure_by_accuracy(units(), "mis").axes[0]
    faces = [to_hex(points.get_facecolor()[0]) for points in axis.collections]
    assert faces.count("#ffffff") == 3  # three methods as pruned, controls stay filled
    assert sum(len(points.get_offsets()) for points in axis.collections) == len(accuracies(1))


def test_weights_drawn_anew_have_a_thin_line_and_a_marker_of_their_own():
    shown = pd.concat([courses_of_compute(), drawn_anew(courses_of_compute())])
    axis = figures.pareto(shown).axes[0]
    color = METHOD_COLORS["structured_l1"].lower()
    drawn = {one.get_marker(): one.get_linewidth() for one in axis.lines if to_hex(one.get_color()) == color}
    assert set(drawn) == {"s", "x"} and drawn["x"] < drawn["s"]
    (by_rate,) = figures.accuracy_by_rate(drawn_anew(accuracies()).query("schedule != 'none'")).axes
    assert line(by_rate, color).get_markeredgecolor() != "white"


def test_learning_curves_show_the_control_in_every_panel():
    figure = figures.learning_curves(courses())
    assert len(figure.axes) == 6  # two values, three rates
    for axis in figure.axes:
        grey = [drawn for drawn in axis.lines if to_hex(drawn.get_color()) == METHOD_COLORS["dense_retrained"].lower()]
        assert len(grey) == 4  # three seeds and their mean
    assert len(figures.learning_curves(courses().drop(columns="loss")).axes) == 3


def test_sparsity_bars_empty_where_weights_grew_back():
    axis = figures.sparsity_bars(sparsities()).axes[0]
    heights = {}
    for bar in axis.patches:
        filled = bar.get_facecolor()[3] > 0
        color = to_hex(bar.get_facecolor() if filled else bar.get_edgecolor())
        heights.setdefault((color, filled), []).append(bar.get_height())
    unmasked = METHOD_COLORS["connection_l1_unmasked"].lower()
    assert heights[unmasked, True] == [0, 0, 0]
    assert heights[unmasked, False] == pytest.approx([0.19, 0.38, 0.76])
    assert heights[METHOD_COLORS["connection_l1"].lower(), True] == pytest.approx([0.19, 0.38, 0.76])


def test_mask_picture_shows_the_kept_share():
    mask = np.zeros((2, 3, 2, 2), bool)
    mask[0, 1] = True
    mask[1, 2, 0] = True
    shown = figures.mask_picture({"structured_l1": mask}).axes[0].images[0].get_array()
    assert np.array_equal(shown, [[0, 1, 0], [0, 0, 0.5]])


def test_sensitivity_maps_put_every_share_in_its_place():
    figure = figures.sensitivity_maps(scans())
    ours, published = (axis.images[0].get_array() for axis in figure.axes[:2])
    assert np.array_equal(ours, [[1, 0.6], [0.8, 0.2]])
    assert np.array_equal(published.filled(np.nan), [[0.5, 0.3], [0.4, np.nan]], equal_nan=True)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["3a", "5b"]


def test_the_front_of_compute_is_what_nothing_cheaper_beats():
    axis = figures.pareto(courses_of_compute()).axes[0]
    front = next(drawn for drawn in axis.lines if drawn.get_drawstyle() == "steps-post")
    assert list(front.get_xdata()) == [1e15, 2e15] and list(front.get_ydata()) == [0.5, 0.8]


def test_speedups_show_both_forms_and_what_the_macs_allow():
    axis = figures.speedups(speeds()).axes[1]
    points = {
        (one.get_marker(), one.get_markerfacecolor()): one.get_xdata()[0]
        for one in axis.lines
        if len(one.get_xdata()) == 1
    }
    color = METHOD_COLORS["structured_l1"]
    assert points == {("s", "white"): 1.0, ("s", color): 2.1, ("x", "#222222"): 3.0}


def test_layer_profile_follows_the_network():
    axis = figures.layer_profile(layers(), "mis").axes[0]
    for method, offset in (("dense", 0.0), ("connection_l1", -0.1)):
        drawn = line(axis, METHOD_COLORS[method])
        assert list(drawn.get_xdata()) == list(range(6))
        assert drawn.get_ydata() == pytest.approx([0.1 * i + offset for i in range(6)])
    assert len(axis.lines) == 2 and axis.get_ylabel() == "MIS"


def test_layer_profile_labels_each_block_where_it_begins():
    axis = figures.layer_profile(layers(), "mis").axes[0]
    ticks = zip(axis.get_xticks(), (tick.get_text() for tick in axis.get_xticklabels()), strict=True)
    assert list(ticks) == [(0, "stem"), (2, "3a"), (4, "5b"), (5, "fc")]


def test_layer_profile_averages_networks_of_one_method():
    seeds = pd.concat([layers(), layers().assign(mis=lambda table: table.mis + 0.2)])
    drawn = line(figures.layer_profile(seeds, "mis").axes[0], METHOD_COLORS["dense"])
    assert drawn.get_ydata() == pytest.approx([0.1 * i + 0.1 for i in range(6)])
    with pytest.raises(ValueError, match="lacks sparsity"):
        figures.layer_profile(layers(), "sparsity")


def test_advantage_is_drawn_over_the_epochs_in_their_order():
    figure = figures.advantage_by_epochs(advantages())
    zero, structured, connection = figure.axes[0].lines
    assert list(zero.get_ydata()) == [0, 0]
    assert list(structured.get_ydata()) == pytest.approx([-0.09, 0.01])
    assert list(connection.get_ydata()) == pytest.approx([-0.13, -0.03])
    assert np.allclose(structured.get_xdata(), [2, 8], rtol=0.03)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["2", "8"]


def test_gains_draws_each_interval_and_its_seeds_in_the_row_of_the_configuration():
    axis = figures.gains(net_gains()).axes[0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == ["connection, L1, 0.4", "structured, L1, 0.8", "structured, L1, 0.8 (iterative)"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is the uppermost
    zero, *drawn = axis.lines
    assert list(zero.get_xdata()) == [0, 0]
    bars, points = drawn[::2], drawn[1::2]
    shown = net_gains().sort_values("rate", kind="stable")
    assert [tuple(bar.get_xdata()) for bar in bars] == list(zip(shown.low, shown.high, strict=True))
    assert [point.get_xdata()[0] for point in points] == list(shown.net_gain)
    assert [point.get_ydata()[0] for point in points] == [0, 1, 2]
    assert [dots.get_offsets()[:, 0].tolist() for dots in axis.collections] == shown.seeds.tolist()
    colors = [METHOD_COLORS[method].lower() for method in shown.method]
    assert [to_hex(one.get_color()) for one in bars] == [to_hex(one.get_color()) for one in points] == colors


def test_names_of_methods():
    anew = figures.look("connection_l1_reinitialised")
    assert anew.label == "connection, L1, weights drawn anew"
    assert anew.color == LOOKS["connection_l1"].color and anew.marker not in {look.marker for look in LOOKS.values()}
    assert figures.look("mine.methods.keep_first").label == "keep first"


def test_class_scatter_draws_a_point_per_class_and_network_in_its_methods_panel():
    dense, connection = figures.class_scatter(class_table()).axes[:2]
    for method, axis in (("dense", dense), ("connection_l1", connection)):
        (points,) = axis.collections
        rows = class_table().query("method == @method")
        assert np.array_equal(np.ma.getdata(points.get_offsets()), rows[["mis", "top1"]], equal_nan=True)
        assert to_hex(points.get_facecolor()[0]) == METHOD_COLORS[method].lower()
        assert axis.get_title("left") == LOOKS[method].label and axis.get_xlabel().startswith("MIS")
    assert dense.get_ylabel().startswith("accuracy")


def test_class_scatter_wraps_its_panels_and_labels_the_lowest():
    axes = figures.class_scatter(many_methods()).axes
    assert [bool(axis.get_xlabel()) for axis in axes] == [False, False, True, True, True, True, False, False]
    assert [axis.axison for axis in axes] == [True] * 6 + [False] * 2


def test_class_scatter_names_the_anchors_below():
    figure = figures.class_scatter(class_table(), ANCHORS)
    for axis in figure.axes[:2]:
        _smooth, *lines = axis.lines
        assert [one.get_xdata()[0] for one in lines] == list(ANCHORS.values())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ANCHORS)
    assert not figures.class_scatter(class_table()).legends


def test_class_scatter_needs_no_more_columns_than_it_says():
    figure = figures.class_scatter(class_table()[["method", "mis", "top1"]])
    assert [len(axis.collections) for axis in figure.axes] == [1, 1]


def test_class_scatter_smooths_each_network_alone():
    """Accuracy falls with MIS in one network and rises in the other: the smooths of straight lines are those lines."""
    mis = np.linspace(0.5, 0.9, 9)
    networks = [pd.DataFrame({"method": "dense", "variant": f"{slope}", "mis": mis, "top1": 0.5 + slope * mis}) for slope in (-0.5, 0.5)]  # noqa: E501 # fmt: skip
    for drawn, network in zip(figures.class_scatter(pd.concat(networks)).axes[0].lines, networks, strict=True):
        assert drawn.get_xdata() == pytest.approx(network.mis) and drawn.get_ydata() == pytest.approx(network.top1)
    pooled = figures.class_scatter(pd.concat(networks).drop(columns="variant")).axes[0].lines
    assert len(pooled) == 1


def test_class_scatter_smooths_no_accuracy_below_0():
    mis = np.linspace(0.5, 0.9, 9)
    steep = pd.DataFrame({"method": "dense", "mis": mis, "top1": np.maximum(0, 3 * (0.7 - mis))})
    assert figures._smooth(steep.mis, steep.top1)[:, 1].min() < 0
    assert figures.class_scatter(steep).axes[0].lines[0].get_ydata().min() == 0


def test_forest_draws_every_value_in_its_panel_and_leaves_out_rows_without_any():
    first, second = figures.forest(correlations()).axes
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["structured, L1  n = 9", "pooled  n = 12"]
    assert [text.get_text() for text in first.texts] == ["+0.50", "\N{MINUS SIGN}0.20"]
    assert [text.get_text() for text in second.texts] == ["no value", "+0.70"]
    assert [tuple(one.get_xdata()) for one in second.lines[1:]] == [(0.4, 0.9), (0.7,)]
    assert all(set(one.get_ydata()) == {1} for one in second.lines[1:])  # the row of its name
    assert to_hex(first.lines[1].get_color()) == METHOD_COLORS["structured_l1"].lower()
    assert (first.get_title("left"), second.get_title("left")) == ("rate", "sparsity")


def test_forest_shows_the_ends_of_an_interval_that_the_marker_would_hide():
    axis = figures.forest(correlations().replace({"low": {0.4: 0.68}, "high": {0.9: 0.72}})).axes[1]
    bar, point = axis.lines[1:]
    assert tuple(bar.get_xdata()) == (0.68, 0.72) and bar.get_marker() == "|"
    assert bar.get_markersize() > point.get_markersize() and not point.get_clip_on()


def test_quality_by_rate_names_the_anchors_of_their_panel_alone():
    panels = {"a": ("like_dense", ""), "b": ("dense_consistency", "")}
    level = qualities().dense_consistency.mean()
    without, anchored = figures.quality_by_rate(qualities(), panels, {"b": {"random": level}}).axes[:2]
    assert not without.texts and [text.get_text() for text in anchored.texts] == ["random"]


def test_quality_by_rate_draws_means_of_the_live_units_and_the_grey_of_its_panel():
    axis = figures.quality_by_rate(qualities(), {"panel": ("like_dense", "dense_consistency")}).axes[0]
    grey, drawn = axis.lines
    assert to_hex(drawn.get_color()) == METHOD_COLORS["connection_l1"].lower()
    assert list(drawn.get_ydata()) == pytest.approx([0.85, 0.6, 0.4])
    assert list(grey.get_ydata()) == pytest.approx([0.85, 0.85, 0.8])


def test_forest_of_one_panel_says_the_interval():
    axis = figures.forest(correlations().query("panel == 'rate'")).axes[0]
    assert [text.get_text() for text in axis.texts] == [
        "+0.50 [+0.10, +0.80], n = 9",
        "-0.20 [-0.60, +0.30], n = 12".replace("-", "\N{MINUS SIGN}"),
    ]


def test_slopes_draws_the_estimates_of_a_series_apart_and_its_seeds():
    axis = figures.slopes(trends(), "slope").axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["structured, L1", "structured, L1 (iterative)"]
    points = [one for one in axis.lines if len(one.get_xdata()) == 1]
    assert [(one.get_xdata()[0], round(one.get_ydata()[0], 2)) for one in points] == [(0.1, -0.15), (0.3, 0.15), (-0.1, 0.85)]  # noqa: E501 # fmt: skip
    assert [one.get_markerfacecolor() == "white" for one in points] == [False, True, False]
    assert [dots.get_offsets()[:, 0].tolist() for dots in axis.collections] == [[0.09, 0.11], [], [-0.1]]


def test_confusion_is_in_percent_of_the_true_class():
    axis = figures.confusion(np.array([[3, 1], [0, 0]]), ["brick", "grass"]).axes[0]
    assert np.array_equal(axis.images[0].get_array()[0], [75, 25])
    assert [text.get_text() for text in axis.texts] == ["75", "25"]  # a class without images stays empty
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        figures.confusion(np.eye(2), ["brick"])


def test_unit_rows_marks_the_dead():
    figure = galleries.unit_rows(cells(), ["conv1 3"], ["dense", "structured"])
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["dead"]
    assert len(figure.axes) == 4  # two pictures, top and bottom images of the one alive
    alive = galleries.unit_rows(cells(dead=False), ["conv1 3"], ["dense", "structured"])
    assert not [text for axis in alive.axes for text in axis.texts]
    with pytest.raises(ValueError, match="2 rows"):
        galleries.unit_rows(cells(), ["a", "b"], ["dense", "structured"])


def test_unit_rows_headings_stay_above_the_pictures():
    figure = all_plots()["units of long names"]()
    figure.canvas.draw()
    words = [text.get_window_extent() for text in figure.texts]
    assert min(box.x0 for box in words) > 0 and max(box.y1 for box in words) <= figure.bbox.y1
    assert not any(box.overlaps(axis.bbox) for box in words for axis in figure.axes)
    headings, others = words[::3], words[1::3] + words[2::3]  # network, then "top" and "bottom"
    assert not any(heading.overlaps(other) for heading in headings for other in others)
    assert apart(figure.texts)


def test_same_units_have_a_column_per_method_with_the_last_network_below():
    figure = figures.same_units(*followed())
    above, below = figure.axes[:2], figure.axes[2:]
    assert [[tick.get_text() for tick in axis.get_xticklabels()] for axis in above] == [
        ["before", "after"], ["0", ".4", ".8"],
    ]  # fmt: skip
    median, mean = above[1].lines
    assert (
        median.get_ydata().tolist() == [0.4] * 3 and to_hex(median.get_color()) == LOOKS["structured_l1"].color.lower()
    )
    assert mean.get_ydata().tolist() == [0.42] * 3
    bands = [band.get_paths()[0].get_extents() for band in above[1].collections[:2]]
    assert [(round(b.y0, 2), round(b.y1, 2)) for b in bands] == [(0.2, 0.6), (0.3, 0.5)]
    points = below[1].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[0.2, 0.3], [0.4, 0.5], [0.6, 0.7]])
    assert below[1].get_title("left") == "r = 0.71\n[\N{MINUS SIGN}0.05, 0.90]\n3 units"


def test_layers_of_networks_have_a_panel_and_a_scale_each():
    ours, theirs = figures.layers_of_networks(two_networks()).axes
    assert [axis.get_title("left") for axis in (ours, theirs)] == ["ours, dense", "theirs"]
    line, last = ours.lines
    np.testing.assert_allclose(line.get_xydata(), [[i / 5, i / 10] for i in range(6)])
    assert last.get_xydata().tolist() == [[1, 0.5]]
    assert ours.get_ylim() != theirs.get_ylim()
    assert [tick.get_text() for tick in theirs.get_xticklabels()] == ["stem", "3a", "5b", "fc"]
    np.testing.assert_allclose(theirs.get_xticks(), [0, 0.4, 0.8, 1])


def test_stack_keeps_the_images_in_order():
    images = np.stack([np.full((2, 2, 3), level, np.uint8) for level in (10, 20)])
    column = galleries._stack(images, 3)
    assert column.shape == (12, 4, 3)
    assert (column[1:3, 1:3] == 10).all() and (column[5:7, 1:3] == 20).all() and (column[8:] == 255).all()


def test_missing_columns_and_empty_tables_are_named():
    with pytest.raises(ValueError, match="lacks schedule, seed; it has method, rate, top1"):
        figures.accuracy_by_rate(accuracies()[["method", "rate", "top1"]])
    with pytest.raises(ValueError, match="empty"):
        figures.distribution_by_network(units()[:0])


def test_save_writes_picture_table_and_caption(tmp_path):
    table = accuracies()
    figure = figures.accuracy_by_rate(table)
    returned = figures.save(figure, "accuracy", table, "Accuracy – by rate", tmp_path / "new", {"seed": 3})
    assert returned is figure and not plt.fignum_exists(figure.number)
    folder = tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {f"accuracy.{end}" for end in ("png", "svg", "csv", "json")}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "accuracy.csv"), table)
    assert json.loads((folder / "accuracy.json").read_text()) == {"caption": "Accuracy – by rate", "seed": 3}
    height, width, _ = plt.imread(folder / "accuracy.png").shape
    assert width == 1050 and height == pytest.approx(150 * figure.get_figheight(), abs=1)


def test_save_gives_the_same_bytes_again(tmp_path):
    for folder in ("first", "second"):
        figures.save(figures.accuracy_by_rate(accuracies()), "a", accuracies(), "", tmp_path / folder)
    for ending in ("png", "svg", "csv", "json"):
        assert (tmp_path / "first" / f"a.{ending}").read_bytes() == (tmp_path / "second" / f"a.{ending}").read_bytes()


def test_save_cut_off_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    figure = figures.class_scatter(class_table())
    figures.save(figure, "w", class_table(), "old", tmp_path)
    old = (tmp_path / "w.csv").read_bytes()

    def fail(self, path, **options):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(figure, "w", class_table(), "new", tmp_path)
    assert (tmp_path / "w.csv").read_bytes() == old
    assert not list(tmp_path.glob(".*"))


def test_a_figure_of_photographs_is_a_jpeg(tmp_path):
    figures.save(plt.figure(), "photographs", pd.DataFrame({"a": [1]}), "A caption.", tmp_path, vector=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".jpg", ".csv", ".json"}
    assert (tmp_path / "photographs.jpg").read_bytes()[:2] == b"\xff\xd8"
