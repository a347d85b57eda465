import numpy as np
import pytest
import torch

from prunelens import activations, interpretability
from prunelens.interpretability import clarity, class_selectivity, fit_temperature, margins, score, tasks


def unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_extremes(n_units: int, n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(n)[: 2 * k] for _ in range(n_units)])
    return ranked[:, :k], ranked[:, k:]


def defined_margin(chosen, top, bottom, unit, i, f) -> float:
    """The definition, pair by pair, with f the similarity of two images."""
    q_plus, q_minus = top[unit, chosen.queries[i]], bottom[unit, chosen.queries[i]]
    e_plus, e_minus = top[unit, chosen.top[unit, i]], bottom[unit, chosen.bottom[unit, i]]

    def s(q, explanations):
        return np.mean([f(q, e) for e in explanations])

    return s(q_plus, e_plus) - s(q_plus, e_minus) - s(q_minus, e_plus) + s(q_minus, e_minus)


# ------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("queries", "asked", "bins"),
    [("inner", [4, 5], [{0, 1}, {2, 3}]), ("outer", [0, 1], [{2, 3}, {4, 5}])],
)
def test_query_rules_on_two_tasks_of_two_explanations(queries, asked, bins):
    chosen = tasks(50, n_tasks=2, n_explanations=2, queries=queries)
    assert chosen.queries.tolist() == asked
    for ranks in (chosen.top, chosen.bottom):
        assert ranks.shape == (50, 2, 2)
        for unit in ranks:
            assert [set(unit[:, b]) for b in range(2)] == bins  # each task takes one of each bin
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


def test_unknown_query_rule():
    with pytest.raises(ValueError, match="'middle'"):
        tasks(1, 2, 2, queries="middle")


# ----------------------------------------------------------------------------------------------- margins


@pytest.mark.parametrize("queries", ["inner", "outer"])
def test_shortcut_equals_the_sum_over_pairs(queries):
    rows = unit_rows(60, 16)
    top, bottom = random_extremes(5, 60, 16)
    found = margins(top, bottom, rows, 4, 3, queries, seed=7, layer="x")
    chosen = tasks(5, 4, 3, queries, seed=7, layer="x")
    expected = [
        [defined_margin(chosen, top, bottom, u, i, lambda a, b: rows[a] @ rows[b]) for i in range(4)] for u in range(5)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


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


@pytest.mark.parametrize(
    ("queries", "margin"),
    # "inner" asks with images that are off both axes of the explanations, "outer" with images on them.
    [("inner", 0.0), ("outer", 2.0)],
)
def test_query_rule_by_hand(queries, margin):
    # N = 1, K = 1. Images 0 and 1 lie on x, 2 and 3 on y, 4 and 5 off both axes.
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    if queries == "outer":
        top, bottom = np.array([[0, 1]]), np.array([[2, 3]])
    else:  # rank 0 explains, rank 1 asks
        top, bottom = np.array([[0, 4]]), np.array([[2, 5]])
    assert margins(top, bottom, rows, 1, 1, queries).tolist() == [[margin]]


def test_planted_clusters_by_hand():
    """Unit 0 prefers x to y, unit 1 has one query of three wrong, unit 2 has one cluster at both ends."""
    n_tasks, k = 3, 2  # 9 ranks: 0..5 explain, 6..8 ask
    rows = np.repeat(np.eye(2, dtype=np.float32), 18, axis=0)  # images 0..17 are x, 18..35 are y
    x, y = np.arange(9), 18 + np.arange(9)
    swapped_x, swapped_y = x.copy(), y.copy()
    swapped_x[7], swapped_y[7] = 30, 10  # the second query: y asks as the active one
    top = np.stack([x, swapped_x, x])
    bottom = np.stack([y, swapped_y, 9 + np.arange(9)])
    np.testing.assert_allclose(margins(top, bottom, rows, n_tasks, k), [[2, 2, 2], [2, -2, 2], [0, 0, 0]])

    table = score(top, bottom, rows, temperature=1.0, n_tasks=n_tasks, n_explanations=k)
    sigmoid = 1 / (1 + np.exp(-2.0))
    assert list(table.columns) == ["unit", "mis", "two_afc_accuracy", "margin"]
    assert table.unit.tolist() == [0, 1, 2]
    np.testing.assert_allclose(table.mis, [sigmoid, (1 + sigmoid) / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(table.two_afc_accuracy, [1, 2 / 3, 0])
    np.testing.assert_allclose(table.margin, [2, 2 / 3, 0], atol=1e-6)


def test_a_perfect_unit_scores_1_and_random_units_at_chance():
    rows = unit_rows(1000, 32)
    values = np.random.default_rng(1).standard_normal((1000, 200)).astype(np.float32)
    values[:, 0] = 5 * rows[:, 0]
    rows[:, 0] *= 20  # the similarity sees what unit 0 responds to
    keys = activations.tie_keys([str(i) for i in range(1000)], 0)
    top, bottom = activations.extremes(values, 200, keys)
    table = score(top, bottom, rows, temperature=1.0)
    assert table.two_afc_accuracy[0] == 1 and table.mis[0] > 0.999
    assert abs(table.two_afc_accuracy[1:].mean() - 0.5) < 0.05
    assert abs(table.mis[1:].mean() - 0.5) < 0.05


def test_permuting_the_files_changes_nothing():
    n = 120
    rows, names = unit_rows(n, 8), [f"n{i}" for i in range(n)]
    values = np.random.default_rng(2).integers(0, 4, (n, 6)).astype(np.float32)  # ties everywhere
    values[:, 5] = 0  # and a dead unit

    def run(order: np.ndarray):
        keys = activations.tie_keys([names[i] for i in order], 0)
        top, bottom = activations.extremes(values[order], 20, keys)
        return score(top, bottom, rows[order], 0.1, n_tasks=5, n_explanations=3)

    shuffled = run(np.random.default_rng(3).permutation(n))
    np.testing.assert_allclose(shuffled, run(np.arange(n)), atol=1e-6)


def test_chunks_and_kinds_of_embeddings_change_nothing():
    rows = unit_rows(80, 4096)  # 2**23 / (4 * 4096) = 512 units a chunk
    top, bottom = random_extremes(600, 80, 16)
    found = margins(top, bottom, rows, 4, 3)
    last = tasks(600, 4, 3)
    expected = defined_margin(last, top, bottom, 599, 3, lambda a, b: rows[a] @ rows[b])
    assert found.shape == (600, 4) and found.dtype == np.float32
    assert found[599, 3] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(margins(top, bottom, torch.from_numpy(rows), 4, 3), found, atol=1e-6)
    half = margins(top, bottom, rows.astype(np.float16), 4, 3)
    np.testing.assert_allclose(half, found, atol=1e-3)


def test_too_few_images_states_both_numbers():
    top, bottom = random_extremes(1, 399, 199)
    with pytest.raises(ValueError, match=r"399 images are too few.* = 400"):
        margins(top, bottom, unit_rows(399, 4))
    with pytest.raises(ValueError, match=r"200 extremes a unit are needed, found 199 top"):
        margins(top, bottom, unit_rows(400, 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_embedding_is_named(bad):
    rows = unit_rows(40, 4)
    rows[[23, 31], 2] = bad
    with pytest.raises(ValueError, match="image 23 is not finite"):
        margins(*random_extremes(1, 40, 8), rows, 2, 3)


# ------------------------------------------------------------------------------------------- temperature


def test_fitted_temperature_is_midway():
    found = np.random.default_rng(0).normal(0.02, 0.02, (50, 20)).astype(np.float32)
    temperature = fit_temperature(found)
    table = interpretability.summarize(found, temperature)
    assert table.mis.mean() == pytest.approx((0.5 + (found > 0).mean()) / 2, abs=1e-5)
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
    with pytest.raises(ValueError, match="positive"):
        interpretability.summarize(np.ones((1, 2)), 0)


# ----------------------------------------------------------------------------------------- other measures


def test_clarity_is_the_mean_cosine_of_pairs():
    rows = 5 * np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    top = random_extremes(4, 30, 10)[0]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(10, 1)
    expected = [np.mean([unit[u[a]] @ unit[u[b]] for a, b in zip(first, second, strict=True)]) for u in top]
    np.testing.assert_allclose(clarity(top, rows), expected, atol=1e-6)
    identical = np.tile(rows[:1], (30, 1))
    np.testing.assert_allclose(clarity(top, identical), 1, atol=1e-5)
    with pytest.raises(ValueError, match="at least 2"):
        clarity(top[:, :1], rows)


def test_class_selectivity_by_hand():
    labels = np.array([0, 0, 1, 2])
    # Class means: (1, 0, 0) -> 1; (2, 2, 2) -> 0; (4, 1, 3) -> (4 - 2) / (4 + 2); dead -> undefined.
    values = np.array([[1, 2, 3, 0], [1, 2, 5, 0], [0, 2, 1, 0], [0, 2, 3, 0]], np.float32)
    np.testing.assert_allclose(class_selectivity(values, labels), [1, 0, 1 / 3, np.nan])
    with pytest.raises(ValueError, match="after the ReLU"):
        class_selectivity(values - 1, labels)
    with pytest.raises(ValueError, match="found 1"):
        class_selectivity(values, np.zeros(4, int))
