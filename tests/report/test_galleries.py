"""Galleries show the images they say they show: every image is one gray level that tells it apart."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_examples import check_layout

from prunelens.report import galleries
from prunelens.report.galleries import Column

WHITE = 255
NAMES = ["brick", "grass", "a class with quite a long name"]


def flat(levels: range, size: int = 4) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def samples(labels: list[int]) -> Figure:
    """Image i has the gray level i."""
    return galleries.image_samples(flat(range(len(labels))), np.array(labels), NAMES)


def tasks(n_tasks: int, n_explanations: int, headings: list[str], seed: int = 0, **more: str) -> Figure:
    """The task gallery of units whose rank r has the gray level r at the top and 100 + r at the bottom."""
    n = n_tasks * (n_explanations + 1)
    top, bottom = (np.stack([flat(range(low, low + n))] * len(headings)) for low in (0, 100))
    return galleries.task_gallery(headings, top, bottom, n_tasks, n_explanations, seed, **more)


def levels(picture: np.ndarray, gap: int = 2, size: int = 4) -> list[list[int]]:
    """The gray levels of a strip's images, rows of columns, read at each image's first pixel."""
    step = size + gap
    assert picture.shape[0] % step == 0 and picture.shape[1] % step == 0
    return picture[gap::step, gap::step, 0].tolist()


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


UNITS = [("inception3a.branch1.conv", 5), ("conv1.conv", 3)]


def column(alive: bool = True, excited: bool = True, name: str = "dense, retrained") -> Column:
    """Two units of gray levels 7 and 8; the first may be dead."""
    pictures = {
        "images": flat(range(7, 9), 8)[:, None],
        "excited": np.array([[excited], [True]]),
        "alive": np.array([alive, True]),
    }
    top, bottom = (np.stack([flat(range(low, low + 3))] * 2) for low in (0, 100))
    return Column(name, pictures, [0.8, 0.7], top, bottom)


def test_strip_fills_rows_from_left_to_right_and_the_rest_with_white() -> None:
    assert levels(galleries.strip(flat(range(1, 6)), 3)) == [[1, 2, 3], [4, 5, WHITE]]
    assert levels(galleries.strip(flat(range(1, 3)), 1, gap=4), gap=4) == [[1], [2]]
    assert (galleries.strip(np.zeros((1, 2, 2, 3)), 1)[0] == 1).all()  # floats are in [0, 1]


def test_strip_keeps_images_whole_and_apart() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)  # neither square nor symmetric
    picture = galleries.strip(np.concatenate([image, image + 100]), 2, gap=1)
    assert picture.shape == (3, 8, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[1:, 1:4], image[0])
    assert np.array_equal(picture[1:, 5:], image[0] + 100)
    assert (picture[0] == WHITE).all() and (picture[:, [0, 4]] == WHITE).all()


def test_image_samples_are_each_classs_first_images_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galleries, "SAMPLES", 3)
    figure = samples([1, 0, 1, 2, 1, 0, 1])
    assert [axis.get_ylabel() for axis in figure.axes] == NAMES
    assert [levels(picture) for picture in pictures(figure)] == [[[1, 5, WHITE]], [[0, 2, 4]], [[3, WHITE, WHITE]]]
    without = [levels(picture) for picture in pictures(samples([0, 2]))]
    assert without == [[[0, WHITE, WHITE]], [[WHITE] * 3], [[1, WHITE, WHITE]]], "a class without images is empty"
    monkeypatch.setattr(galleries, "CLASSES", 2)
    assert [axis.get_ylabel() for axis in samples([0, 1, 2]).axes] == [NAMES[0], NAMES[-1]], "not from first to last"


def test_task_gallery_shows_one_explanation_per_bin_and_the_first_query_behind_them() -> None:
    """N = 5, K = 4: bins begin at ranks 0, 5, 10, 15, queries at rank 20."""
    top, queries, bottom = pictures(tasks(5, 4, ["a"]))
    assert levels(top) == [[0, 5], [10, 15]]
    assert sorted(levels(queries, gap=4)) == [[20], [120]]
    assert levels(bottom) == [[100, 105], [110, 115]]


def test_task_gallery_of_the_papers_nine_explanations_is_a_square() -> None:
    top, _, _ = pictures(tasks(2, 9, ["a"]))
    assert levels(top) == [[0, 2, 4], [6, 8, 10], [12, 14, 16]]


def test_task_gallery_has_a_row_per_unit_with_its_heading_and_one_title_per_column() -> None:
    figure = tasks(2, 4, ["first", "second"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["first", "", "", "second", "", ""]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["excite the unit", "queries", "do not excite it"]
    assert len(pictures(figure)) == 6


def exciting_is_above(seed: int, units: int = 8) -> list[bool]:
    """What the pictures show: whether the upper query of each unit is of its top images."""
    shown = pictures(tasks(2, 1, ["unit"] * units, seed))[1::3]
    return [levels(queries, gap=4) == [[2], [102]] for queries in shown]


def test_the_order_of_the_queries_varies_over_units_and_seeds() -> None:
    orders = [exciting_is_above(seed) for seed in range(3)]
    assert all(0 < sum(order) < 8 for order in orders) and len({tuple(order) for order in orders}) == 3
    assert exciting_is_above(1) == orders[1]


def test_the_answers_are_folded_away_and_agree_with_the_pictures() -> None:
    headings = [f"4a {i} <b>\nMIS .8" for i in range(8)]
    found = galleries.task_answers(headings, seed=2)
    assert found.startswith("<details><summary>") and " open" not in found  # closed until it is opened
    answers = re.findall(r"<li>4a (\d) &lt;b&gt;: the (upper|lower) one</li>", found)
    assert [int(unit) for unit, _ in answers] == list(range(8))
    assert [place == "upper" for _, place in answers] == exciting_is_above(2)


def test_headings_are_short_names_with_scores() -> None:
    assert galleries.headings(UNITS, [0.812, 0.7], "MIS") == ["3a.branch1 5\nMIS 0.81", "conv1 3\nMIS 0.70"]


def test_units_through_pruning_mark_the_dead_and_the_unexcited() -> None:
    figure = galleries.through_pruning([column(), column(alive=False), column(excited=False)], UNITS, [0], "MIS")
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["dead"]
    picture, top, low, *others = pictures(figure)
    assert (picture == 7).all() and len(others) == 3
    assert levels(top) == [[0], [1], [2]] and levels(low) == [[100], [101], [102]]
    captions = [axis.get_xlabel() for axis in figure.axes[::4]]
    assert captions == ["MIS 0.80", "", "MIS 0.80, not excited"]
    assert figure.axes[0].get_ylabel() == "3a.branch1\n5" and figure.axes[0].get_title() == "dense\nretrained"


def test_units_through_pruning_are_those_asked_for() -> None:
    figure = galleries.through_pruning([column(alive=False)], UNITS, [1], "MIS")
    assert (pictures(figure)[0] == 8).all() and figure.axes[0].get_xlabel() == "MIS 0.70"


@pytest.mark.parametrize("networks", [2, 8])
def test_nothing_leaves_the_figures(networks: int) -> None:
    long = "the title of a gallery that has only a few columns has to be broken into lines"
    columns = [column(name=f"connection, L1, 0.{i}, Top-1 97 %") for i in range(networks)]
    for figure in (
        samples([0, 1, 2] * 12),
        tasks(6, 4, ["4a 7\nMIS .80"] * 2, title=long),
        galleries.through_pruning(columns, UNITS, [0, 1], "MIS", title=long),
    ):
        check_layout(figure)
