"""Galleries show the images they say they show: every image is one gray level that tells it apart."""

import re

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from prunelens import figures, galleries
from prunelens.datasets import ImageSet
from prunelens.galleries import Task

WHITE = 255


@pytest.fixture(autouse=True)
def close_all():
    yield
    plt.close("all")


def flat(levels: range, size: int = 4) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def image_set(labels: list[int], names: tuple[str, ...] = ("brick", "grass", "cloth")) -> ImageSet:
    """Image i has the gray level i."""
    return ImageSet(
        flat(range(len(labels))), np.array(labels, np.int64), [f"{names[label]}/{i}" for i, label in enumerate(labels)],
        list(names), np.arange(len(names)),
    )  # fmt: skip


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


def inside(figure: Figure) -> bool:
    figure.canvas.draw()
    page = figure.bbox.padded(1)
    boxes = [axis.get_tightbbox(figure.canvas.get_renderer()) for axis in figure.axes]
    return all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)


def test_strip_fills_rows_from_left_to_right_and_the_rest_with_white() -> None:
    assert levels(galleries.strip(flat(range(1, 6)), 3)) == [[1, 2, 3], [4, 5, WHITE]]
    assert levels(galleries.strip(flat(range(1, 4)), 3)) == [[1, 2, 3]]
    assert levels(galleries.strip(flat(range(1, 4)), 1, gap=4), gap=4) == [[1], [2], [3]]


def test_strip_keeps_images_whole_and_apart() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)  # neither square nor symmetric
    picture = galleries.strip(np.concatenate([image, image + 100]), 2, gap=1)
    assert picture.shape == (3, 8, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[1:, 1:4], image[0])
    assert np.array_equal(picture[1:, 5:], image[0] + 100)
    assert (picture[0] == WHITE).all() and (picture[:, [0, 4]] == WHITE).all()


def test_image_samples_are_each_classs_first_images_under_its_name() -> None:
    figure = galleries.image_samples(image_set([1, 0, 1, 2, 1, 0, 1]), per_class=3)
    assert [axis.get_ylabel() for axis in figure.axes] == ["brick", "grass", "cloth"]
    assert [levels(picture) for picture in pictures(figure)] == [[[1, 5, WHITE]], [[0, 2, 4]], [[3, WHITE, WHITE]]]


def test_image_samples_stop_at_the_number_of_classes() -> None:
    figure = galleries.image_samples(image_set([0, 1, 2]), per_class=1, classes=2)
    assert [axis.get_ylabel() for axis in figure.axes] == ["brick", "grass"]


def test_a_class_without_images_is_an_empty_row() -> None:
    figure = galleries.image_samples(image_set([0, 2]), per_class=2)
    assert [levels(picture) for picture in pictures(figure)] == [[[0, WHITE]], [[WHITE, WHITE]], [[1, WHITE]]]


def test_task_gallery_shows_one_explanation_per_bin_and_the_first_query_behind_them() -> None:
    """N = 5, K = 4: bins begin at ranks 0, 5, 10, 15, queries at rank 20."""
    figure = galleries.task_gallery([task(5, 4)], 5, 4, seed=0)
    top, queries, bottom = pictures(figure)
    assert levels(top) == [[0, 5], [10, 15]]
    assert sorted(levels(queries, gap=4)) == [[20], [120]]
    assert levels(bottom) == [[100, 105], [110, 115]]


def test_task_gallery_under_the_outer_rule_asks_for_the_most_extreme() -> None:
    """N = 5, K = 4: the query at rank 0, bins begin at ranks 5, 10, 15, 20."""
    top, queries, bottom = pictures(galleries.task_gallery([task(5, 4)], 5, 4, seed=0, queries="outer"))
    assert levels(top) == [[5, 10], [15, 20]]
    assert sorted(levels(queries, gap=4)) == [[0], [100]]
    assert levels(bottom) == [[105, 110], [115, 120]]


def test_task_gallery_of_the_papers_nine_explanations_is_a_square() -> None:
    top, _, _ = pictures(galleries.task_gallery([task(2, 9)], 2, 9, seed=0))
    assert levels(top) == [[0, 2, 4], [6, 8, 10], [12, 14, 16]]


def test_task_gallery_has_a_row_per_unit_with_its_heading_and_one_title_per_column() -> None:
    figure = galleries.task_gallery([task(2, 4, "first"), task(2, 4, "second")], 2, 4, seed=0)
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["first", "second"]
    titles = [axis.get_title("left") or axis.get_title() for axis in figure.axes]
    assert titles == ["", "excite the unit", "queries", "do not excite it", "", "", "", ""]
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


def test_nothing_leaves_the_figures() -> None:
    names = ("brick", "grass", "a class with quite a long name")
    for figure in (
        galleries.image_samples(image_set([0, 1, 2] * 12, names)),
        galleries.task_gallery([task(6, 4), task(6, 4)], 6, 4, seed=0),
    ):
        assert figure.get_figwidth() == figures.WIDTH
        assert inside(figure)


def test_bare_takes_away_ticks_and_frame() -> None:
    _, axis = plt.subplots()
    galleries.bare(axis)
    assert not len(axis.get_xticks()) and not len(axis.get_yticks())
    assert not any(spine.get_visible() for spine in axis.spines.values())
