"""Galleries show the images they say they show: every image is one gray level that tells it apart."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_examples import check_layout

from prunelens.report import galleries
from prunelens.report.galleries import Cell, Page, Task

WHITE = 255
NAMES = ["brick", "grass", "a class with quite a long name"]


def flat(levels: range, size: int = 4) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def samples(labels: list[int], **options: int) -> Figure:
    """Image i has the gray level i."""
    return galleries.image_samples(flat(range(len(labels))), np.array(labels), NAMES, **options)


def task(n_tasks: int, n_explanations: int, heading: str = "4a 7\nMIS .80") -> Task:
    """Rank r has the gray level r at the top and 100 + r at the bottom."""
    ranks = range(n_tasks * (n_explanations + 1))
    return Task(heading, flat(ranks), flat(range(100, 100 + len(ranks))))


def levels(picture: np.ndarray, gap: int = 2, size: int = 4) -> list[list[int]]:
    """The gray levels of a strip's images, rows of columns, read at each image's first pixel."""
    step = size + gap
    assert picture.shape[0] % step == 0 and picture.shape[1] % step == 0
    return picture[gap::step, gap::step, 0].tolist()


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def cells(dead: bool = True) -> list[list[Cell]]:
    picture = np.full((8, 8, 3), 7, np.uint8)
    alive = Cell(picture, "MIS .8", flat(range(3)), flat(range(100, 102)))
    return [[alive, Cell(None) if dead else alive]]


def test_strip_fills_rows_from_left_to_right_and_the_rest_with_white() -> None:
    assert levels(galleries.strip(flat(range(1, 6)), 3)) == [[1, 2, 3], [4, 5, WHITE]]
    assert levels(galleries.strip(flat(range(1, 3)), 1, rows=3, gap=4), gap=4) == [[1], [2], [WHITE]]
    assert (galleries.strip(np.zeros((1, 2, 2, 3)), 1)[0] == 1).all()  # floats are in [0, 1]


def test_strip_keeps_images_whole_and_apart() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)  # neither square nor symmetric
    picture = galleries.strip(np.concatenate([image, image + 100]), 2, gap=1)
    assert picture.shape == (3, 8, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[1:, 1:4], image[0])
    assert np.array_equal(picture[1:, 5:], image[0] + 100)
    assert (picture[0] == WHITE).all() and (picture[:, [0, 4]] == WHITE).all()


def test_image_samples_are_each_classs_first_images_under_its_name() -> None:
    figure = samples([1, 0, 1, 2, 1, 0, 1], per_class=3)
    assert [axis.get_ylabel() for axis in figure.axes] == NAMES
    assert [levels(picture) for picture in pictures(figure)] == [[[1, 5, WHITE]], [[0, 2, 4]], [[3, WHITE, WHITE]]]


def test_image_samples_stop_at_the_number_of_classes() -> None:
    assert [axis.get_ylabel() for axis in samples([0, 1, 2], per_class=1, classes=2).axes] == NAMES[:2]


def test_a_class_without_images_is_an_empty_row() -> None:
    found = [levels(picture) for picture in pictures(samples([0, 2], per_class=2))]
    assert found == [[[0, WHITE]], [[WHITE, WHITE]], [[1, WHITE]]]


def test_task_gallery_shows_one_explanation_per_bin_and_the_first_query_behind_them() -> None:
    """N = 5, K = 4: bins begin at ranks 0, 5, 10, 15, queries at rank 20."""
    top, queries, bottom = pictures(galleries.task_gallery([task(5, 4)], 5, 4, seed=0))
    assert levels(top) == [[0, 5], [10, 15]]
    assert sorted(levels(queries, gap=4)) == [[20], [120]]
    assert levels(bottom) == [[100, 105], [110, 115]]


def test_task_gallery_of_the_papers_nine_explanations_is_a_square() -> None:
    top, _, _ = pictures(galleries.task_gallery([task(2, 9)], 2, 9, seed=0))
    assert levels(top) == [[0, 2, 4], [6, 8, 10], [12, 14, 16]]


def test_task_gallery_has_a_row_per_unit_with_its_heading_and_one_title_per_column() -> None:
    figure = galleries.task_gallery([task(2, 4, "first"), task(2, 4, "second")], 2, 4, seed=0)
    assert [axis.get_ylabel() for axis in figure.axes] == ["first", "", "", "second", "", ""]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["excite the unit", "queries", "do not excite it"]
    assert len(pictures(figure)) == 6


def exciting_is_above(seed: int, units: int = 8) -> list[bool]:
    """What the pictures show: whether the upper query of each unit is of its top images."""
    shown = pictures(galleries.task_gallery([task(2, 1)] * units, 2, 1, seed))[1::3]
    return [levels(queries, gap=4) == [[2], [102]] for queries in shown]


def test_the_order_of_the_queries_varies_over_units_and_seeds() -> None:
    orders = [exciting_is_above(seed) for seed in range(3)]
    assert all(0 < sum(order) < 8 for order in orders) and len({tuple(order) for order in orders}) == 3
    assert exciting_is_above(1) == orders[1]


def test_the_answers_are_folded_away_and_agree_with_the_pictures() -> None:
    units = [task(2, 1, f"4a {i} <b>\nMIS .8") for i in range(8)]
    found = galleries.task_answers(units, seed=2)
    assert found.startswith("<details><summary>") and " open" not in found  # closed until it is opened
    answers = re.findall(r"<li>4a (\d) &lt;b&gt;: the (upper|lower) one</li>", found)
    assert [int(unit) for unit, _ in answers] == list(range(8))
    assert [place == "upper" for _, place in answers] == exciting_is_above(2)


def test_unit_rows_mark_the_dead() -> None:
    figure = galleries.unit_rows(cells(), ["conv1 3"], ["dense", "structured"])
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["dead"]
    picture, top, low = pictures(figure)
    assert (picture == 7).all()
    assert levels(top) == [[0], [1], [2]] and levels(low) == [[100], [101], [WHITE]]
    alive = galleries.unit_rows(cells(dead=False), ["conv1 3"], ["dense", "structured"])
    assert not [text for axis in alive.axes for text in axis.texts] and len(pictures(alive)) == 6


def test_unit_rows_refuse_cells_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 rows"):
        galleries.unit_rows(cells(), ["a", "b"], ["dense", "structured"])


def test_atlas_has_a_row_per_block_of_as_many_pictures_as_it_has() -> None:
    figure = galleries.atlas([flat(range(3)), flat(range(5, 7))], ["3a", "5b"], [["a", "b", "c"], ["d", "e"]])
    assert [int(picture[0, 0, 0]) for picture in pictures(figure)] == [0, 1, 2, 5, 6]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["3a", "5b"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["a", "b", "c", "d", "e", ""]


def test_atlas_page_shows_pictures_and_squares_of_images() -> None:
    page = Page("4a\n3", *flat(range(1, 4)), flat(range(10, 20)), flat(range(20, 30)))
    shown = pictures(galleries.atlas_page([page], columns=2))
    assert [int(picture[0, 0, 0]) for picture in shown[:3]] == [1, 2, 3]
    assert levels(shown[3]) == [[10, 11], [12, 13]] and levels(shown[4]) == [[20, 21], [22, 23]]


def test_seen_through_puts_images_on_white() -> None:
    images, opacity = flat(range(100, 102), size=1), np.array([[[0]], [[255]]], np.uint8)
    assert galleries.seen_through(images, opacity)[:, 0, 0, 0].tolist() == [255, 101]


@pytest.mark.parametrize("networks", [2, 8])
def test_nothing_leaves_the_figures(networks: int) -> None:
    long = "the title of a gallery that has only a few columns has to be broken into lines"
    captions = [["branch3.1 117"] * networks] * 2
    row = cells(dead=False)[0] * (networks // 2)
    headings = [f"connection, L1\n0.{i}\nTop-1 97 %" for i in range(networks)]
    for figure in (
        samples([0, 1, 2] * 12, per_class=12),
        galleries.task_gallery([task(6, 4), task(6, 4)], 6, 4, seed=0, title=long),
        galleries.unit_rows([row] * 2, ["3a.branch1\n17"] * 2, headings, title=long),
        galleries.atlas([flat(range(networks))] * 2, ["layer2.0", "5b"], captions, title=long),
    ):
        check_layout(figure)
