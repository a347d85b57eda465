from collections.abc import Callable

import numpy as np
import pytest
import torch

from prunelens.units import extremes
from prunelens.units import mis as scoring
from prunelens.units.mis import Tasks, fit_temperature, gram, margins, mis, tasks, two_afc_accuracy


def unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_extremes(n_units: int, n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(n)[: 2 * k] for _ in range(n_units)])
    return ranked[:, :k], ranked[:, k:]


def defined_margin(
    chosen: Tasks, top: np.ndarray, bottom: np.ndarray, unit: int, i: int, f: Callable[[int, int], float]
) -> float:
    """The definition, pair by pair, with f the similarity of two images."""
    q_plus, q_minus = top[unit, chosen.queries[i]], bottom[unit, chosen.queries[i]]
    e_plus, e_minus = top[unit, chosen.top[unit, i]], bottom[unit, chosen.bottom[unit, i]]

    def s(q: int, explanations: np.ndarray) -> float:
        return np.mean([f(q, e) for e in explanations])

    return s(q_plus, e_plus) - s(q_plus, e_minus) - s(q_minus, e_plus) + s(q_minus, e_minus)


# ------------------------------------------------------------------------------------------------- tasks


def test_two_tasks_of_two_explanations():
    chosen = tasks(50, n_tasks=2, n_explanations=2)
    assert chosen.queries.tolist() == [4, 5]
    for ranks in (chosen.top, chosen.bottom):
        assert ranks.shape == (50, 2, 2)
        for unit in ranks:
            assert [set(unit[:, b]) for b in range(2)] == [{0, 1}, {2, 3}]  # each task takes one of each bin
    assert len({tuple(unit.ravel()) for unit in chosen.top}) == 4  # all shuffles occur


def test_tasks_of_a_unit_depend_on_seed_and_layer_only():
    chosen = tasks(6, 20, 9, seed=1, layer="a")
    same = tasks(3, 20, 9, seed=1, layer="a")
    np.testing.assert_array_equal(same.top, chosen.top[:3])
    np.testing.assert_array_equal(same.bottom, chosen.bottom[:3])
    assert not np.array_equal(tasks(6, 20, 9, seed=2, layer="a").top, chosen.top)
    assert not np.array_equal(tasks(6, 20, 9, seed=1, layer="b").top, chosen.top)
    assert not np.array_equal(chosen.top, chosen.bottom)
    assert sorted(chosen.top[0].ravel()) == list(range(180))


def test_tasks_are_those_of_all_versions():
    """Scores of a finished study must stay comparable: the random stream is part of the definition."""
    chosen = tasks(2, 2, 3, seed=5, layer="inception3a.branch1.conv")
    assert chosen.top.tolist() == [[[0, 3, 4], [1, 2, 5]], [[1, 2, 5], [0, 3, 4]]]
    assert chosen.bottom.tolist() == [[[0, 3, 4], [1, 2, 5]], [[0, 3, 4], [1, 2, 5]]]


# ----------------------------------------------------------------------------------------------- margins


def test_shortcut_equals_the_sum_over_pairs():
    rows = unit_rows(60, 16)
    top, bottom = random_extremes(5, 60, 16)
    found = margins(top, bottom, rows, 4, 3, seed=7, layer="x")
    chosen = tasks(5, 4, 3, seed=7, layer="x")
    expected = [
        [defined_margin(chosen, top, bottom, u, i, lambda a, b: rows[a] @ rows[b]) for i in range(4)] for u in range(5)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    looked_up = margins(top, bottom, gram(rows), 4, 3, seed=7, layer="x")
    np.testing.assert_allclose(looked_up, expected, atol=1e-6)
    assert looked_up.dtype == found.dtype == np.float32
    # Extremes as they are stored.
    np.testing.assert_array_equal(margins(top.astype(np.int32), bottom.astype(np.int32), rows, 4, 3, 7, "x"), found)


def test_scale_2_is_minus_the_squared_distance():
    rows = 3 * np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)  # of any length
    top, bottom = random_extremes(3, 40, 12)
    found = margins(top, bottom, rows, 3, 3, scale=2.0)
    chosen = tasks(3, 3, 3)
    expected = [
        [defined_margin(chosen, top, bottom, u, i, lambda a, b: -((rows[a] - rows[b]) ** 2).sum()) for i in range(3)]
        for u in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(margins(top, bottom, gram(rows), 3, 3, scale=2.0), expected, rtol=1e-4, atol=1e-4)


def test_the_innermost_images_ask():
    # N = 1, K = 1. Images 0 and 1 lie on x, 2 and 3 on y, 4 and 5 off both axes: rank 0 explains, rank 1 asks.
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    assert margins(np.array([[0, 4]]), np.array([[2, 5]]), rows, 1, 1).tolist() == [[0]]
    assert margins(np.array([[0, 1]]), np.array([[2, 3]]), rows, 1, 1).tolist() == [[2]]


def test_planted_clusters_by_hand():
    """Unit 0 prefers x to y, unit 1 has one query of three wrong, unit 2 has one cluster at both ends."""
    n_tasks, k = 3, 2  # 9 ranks: 0..5 explain, 6..8 ask
    rows = np.repeat(np.eye(2, dtype=np.float32), 18, axis=0)  # images 0..17 are x, 18..35 are y
    x, y = np.arange(9), 18 + np.arange(9)
    swapped_x, swapped_y = x.copy(), y.copy()
    swapped_x[7], swapped_y[7] = 30, 10  # the second query: y asks as the active one
    top = np.stack([x, swapped_x, x])
    bottom = np.stack([y, swapped_y, 9 + np.arange(9)])
    found = margins(top, bottom, rows, n_tasks, k)
    np.testing.assert_allclose(found, [[2, 2, 2], [2, -2, 2], [0, 0, 0]])
    sigmoid = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(mis(found, 1.0), [sigmoid, (1 + sigmoid) / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(two_afc_accuracy(found), [1, 2 / 3, 0])


def test_permuting_the_files_changes_nothing():
    n = 120
    rows, names = unit_rows(n, 8), [f"n{i}" for i in range(n)]
    values = np.random.default_rng(2).integers(0, 4, (n, 6)).astype(np.float32)  # ties everywhere
    values[:, 5] = 0  # and a dead unit

    def run(order: np.ndarray) -> np.ndarray:
        keys = extremes.tie_keys([names[i] for i in order], 0)
        top, bottom, _ = extremes.extremes(values[order], 20, keys)
        return margins(top, bottom, rows[order], 5, 3)

    shuffled = run(np.random.default_rng(3).permutation(n))
    np.testing.assert_allclose(shuffled, run(np.arange(n)), atol=1e-6)


def test_chunks_and_kinds_of_embeddings_change_nothing():
    rows = unit_rows(80, 4096)  # 2**20 / (4 * 4096) = 64 units a chunk
    top, bottom = random_extremes(600, 80, 16)
    found = margins(top, bottom, rows, 4, 3)
    last = tasks(600, 4, 3)
    expected = defined_margin(last, top, bottom, 599, 3, lambda a, b: rows[a] @ rows[b])
    assert found.shape == (600, 4) and found.dtype == np.float32
    assert found[599, 3] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(margins(top, bottom, torch.from_numpy(rows), 4, 3), found, atol=1e-6)
    half = margins(top, bottom, rows.astype(np.float16), 4, 3)
    np.testing.assert_allclose(half, found, atol=1e-3)


def test_chunks_of_look_ups_change_nothing():
    rows = unit_rows(400, 8)
    top, bottom = (np.tile(ranked, (300, 1)) for ranked in random_extremes(20, 400, 200))
    np.testing.assert_allclose(margins(top, bottom, gram(rows)), margins(top, bottom, rows), atol=1e-6)


def test_of_many_images_margins_are_read_from_embeddings(monkeypatch):
    rows = unit_rows(40, 4)
    top, bottom = random_extremes(3, 40, 8)
    products = gram(rows)
    monkeypatch.setattr(scoring, "LARGE", 39)
    assert isinstance(products, scoring.Gram) and isinstance(gram(rows), torch.Tensor)
    np.testing.assert_allclose(margins(top, bottom, gram(rows), 2, 3), margins(top, bottom, products, 2, 3), atol=1e-6)


def test_too_few_images_states_both_numbers():
    top, bottom = random_extremes(1, 399, 199)
    with pytest.raises(ValueError, match=r"399 images are too few.* = 400"):
        margins(top, bottom, unit_rows(399, 4))
    with pytest.raises(ValueError, match=r"399 images are too few"):
        margins(top, bottom, gram(unit_rows(399, 4)))
    with pytest.raises(ValueError, match=r"200 extremes a unit are needed, found 199 top"):
        margins(top, bottom, unit_rows(400, 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_embedding_is_named(bad):
    rows = unit_rows(40, 4)
    rows[[23, 31], 2] = bad
    with pytest.raises(ValueError, match="2 of 40 images are not finite, the first of image 23"):
        margins(*random_extremes(1, 40, 8), rows, 2, 3)
    with pytest.raises(ValueError, match="not finite"):
        gram(rows)


@pytest.mark.filterwarnings("error")
def test_read_only_embeddings_are_read_without_a_warning():
    rows = unit_rows(40, 4)
    rows.flags.writeable = False
    assert gram(rows).products.shape == (40, 40)


def test_a_layer_without_units_has_no_margins():
    nobody = np.empty((0, 8), np.int64)
    found = margins(nobody, nobody, unit_rows(40, 4), 2, 3)
    assert found.shape == (0, 2)
    assert mis(found, 1.0).shape == two_afc_accuracy(found).shape == (0,)


# ------------------------------------------------------------------------------------------- known answers


def scores(values: np.ndarray, rows: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    top, bottom, _ = extremes.extremes(values, 200, extremes.tie_keys([str(i) for i in range(len(values))], 0))
    found = margins(top, bottom, rows)
    return mis(found, temperature), two_afc_accuracy(found)


@pytest.fixture(scope="module")
def two_kinds() -> np.ndarray:
    """1,000 embeddings of two kinds of image, 2 apart along the first axis, noise of .05 along 31 others."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.05, (1000, 32)).astype(np.float32)
    rows[:, 0] = rng.permutation(np.repeat([-1, 1], 500))
    return rows


def test_a_unit_that_tells_two_kinds_apart_scores_by_their_distance(two_kinds):
    # Margin <q+ - q-, E+ - E-> = 2 * 2, up to the noise.
    score, accuracy = scores(two_kinds[:, :1], two_kinds, temperature=4.0)
    assert accuracy.tolist() == [1]
    assert score[0] == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)


def test_random_units_and_exchanged_images_are_at_chance(two_kinds):
    rng = np.random.default_rng(0)
    score, accuracy = scores(rng.standard_normal((1000, 200), dtype=np.float32), two_kinds, 0.1)
    assert score.mean() == pytest.approx(0.5, abs=0.03) and accuracy.mean() == pytest.approx(0.5, abs=0.03)
    dealt = [scores(two_kinds[:, :1], rng.permutation(two_kinds), 0.1)[0][0] for _ in range(40)]
    assert np.mean(dealt) == pytest.approx(0.5, abs=0.06)


# ------------------------------------------------------------------------------------------- temperature


def test_fitted_temperature_is_midway():
    found = np.random.default_rng(0).normal(0.02, 0.02, (50, 20)).astype(np.float32)
    temperature = fit_temperature(found)
    assert mis(found, temperature).mean() == pytest.approx((0.5 + (found > 0).mean()) / 2, abs=1e-5)
    assert fit_temperature(10 * found) == pytest.approx(10 * temperature, rel=1e-3)


def test_fitted_temperature_by_hand():
    # All margins 1: accuracy 1, so sigmoid(1 / T) = .75 and T = 1 / ln 3.
    assert fit_temperature(np.ones((4, 5))) == pytest.approx(1 / np.log(3), rel=1e-6)


def test_temperature_needs_more_than_chance():
    with pytest.raises(ValueError, match=r"accuracy is 0\.500"):
        fit_temperature(np.array([[1.0, -1.0]]))
    with pytest.raises(ValueError, match=r"accuracy is 0\.000"):
        fit_temperature(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="are all units dead"):
        fit_temperature(np.empty((0, 20)))
    with pytest.raises(ValueError, match="positive"):
        mis(np.ones((1, 2)), 0)


# -------------------------------------------------------------------------------- pictures as explanations
