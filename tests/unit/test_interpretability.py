import numpy as np
import pytest
import scipy.stats
import torch

from prunelens import activations, interpretability
from prunelens.interpretability import (
    fit_temperature,
    gram,
    margins,
    planted_units,
    random_units,
    shuffled,
    summarize,
    tasks,
)


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
    looked_up = margins(top, bottom, gram(rows), 4, 3, queries, seed=7, layer="x")
    np.testing.assert_allclose(looked_up, expected, atol=1e-6)
    assert looked_up.dtype == found.dtype == np.float32


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

    table = summarize(margins(top, bottom, rows, n_tasks, k), temperature=1.0)
    sigmoid = 1 / (1 + np.exp(-2.0))
    assert list(table.columns) == ["unit", "mis", "mis_low", "mis_high", "two_afc_accuracy", "margin"]
    assert table.unit.tolist() == [0, 1, 2]
    np.testing.assert_allclose(table.mis, [sigmoid, (1 + sigmoid) / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(table.two_afc_accuracy, [1, 2 / 3, 0])
    np.testing.assert_allclose(table.margin, [2, 2 / 3, 0], atol=1e-6)


def test_permuting_the_files_changes_nothing():
    n = 120
    rows, names = unit_rows(n, 8), [f"n{i}" for i in range(n)]
    values = np.random.default_rng(2).integers(0, 4, (n, 6)).astype(np.float32)  # ties everywhere
    values[:, 5] = 0  # and a dead unit

    def run(order: np.ndarray):
        keys = activations.tie_keys([names[i] for i in order], 0)
        top, bottom = activations.extremes(values[order], 20, keys)
        return summarize(margins(top, bottom, rows[order], 5, 3), 0.1)

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


def test_chunks_of_look_ups_change_nothing():
    rows = unit_rows(400, 8)
    top, bottom = (np.tile(ranked, (300, 1)) for ranked in random_extremes(20, 400, 200))
    np.testing.assert_allclose(margins(top, bottom, gram(rows)), margins(top, bottom, rows), atol=1e-6)


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


def test_a_layer_without_units_has_no_margins():
    nobody = np.empty((0, 8), np.int64)
    found = margins(nobody, nobody, unit_rows(40, 4), 2, 3)
    assert found.shape == (0, 2)
    assert len(summarize(found, 1.0)) == 0


# --------------------------------------------------------------------------------------------- intervals


def test_interval_by_hand():
    """Three units of two tasks: sigmoids (1, 0), resampled means 0, .5 or 1; (.5, .5), no spread; (1, 1)."""
    table = summarize(np.array([[99.0, -99], [0, 0], [99, 99]]), 1.0)
    np.testing.assert_allclose(table.mis_low, [0, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(table.mis_high, [1, 0.5, 1], atol=1e-12)


def test_interval_is_the_percentile_bootstrap_of_the_tasks():
    found = np.random.default_rng(0).normal(0.5, 1, (1500, 20))  # more than one chunk
    table = summarize(found, 1.0, resamples=4000)
    scores = 1 / (1 + np.exp(-found[1499]))
    expected = scipy.stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=4000, rng=1)
    assert table.mis_low[1499] == pytest.approx(expected.confidence_interval.low, abs=0.01)
    assert table.mis_high[1499] == pytest.approx(expected.confidence_interval.high, abs=0.01)
    again = summarize(found, 1.0, resamples=4000)
    np.testing.assert_array_equal(again.mis_low, table.mis_low)
    assert not np.array_equal(summarize(found, 1.0, resamples=4000, seed=1).mis_low, table.mis_low)


def test_interval_holds_the_expected_score_as_often_as_it_says():
    found = np.random.default_rng(1).normal(0.3, 0.5, (2000, 20))
    truth = (1 / (1 + np.exp(-np.random.default_rng(2).normal(0.3, 0.5, 10**6)))).mean()
    table = summarize(found, 1.0)
    covered = ((table.mis_low < truth) & (truth < table.mis_high)).mean()
    assert 0.90 < covered < 0.95  # a percentile interval of 20 values is a little short


# -------------------------------------------------------------------------------------- controls and anchors


def anchored(values: np.ndarray, rows: np.ndarray, temperature: float = 0.1):
    keys = activations.tie_keys([str(i) for i in range(len(values))], 0)
    return summarize(margins(*activations.extremes(values, 200, keys), rows), temperature)


@pytest.fixture(scope="module")
def two_kinds() -> np.ndarray:
    """1,000 embeddings of two kinds of image, 2 apart along the first axis, noise of .05 along 31 others."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.05, (1000, 32)).astype(np.float32)
    rows[:, 0] = rng.permutation(np.repeat([-1, 1], 500))
    return rows


def test_upper_anchor_by_hand(two_kinds):
    """It tells the two kinds apart: margin <q+ - q-, E+ - E-> = 2 * 2, up to the noise."""
    table = anchored(planted_units(two_kinds, 200, 3, seed=0), two_kinds, temperature=4.0)
    assert table.two_afc_accuracy.tolist() == [1, 1, 1]
    np.testing.assert_allclose(table.margin, 4, atol=0.1)
    np.testing.assert_allclose(table.mis, 1 / (1 + np.exp(-1)), atol=0.01)


def test_planted_units_are_two_groups_that_no_exchange_of_one_step_drives_further_apart():
    rows, k = unit_rows(60, 8), 20
    found = planted_units(rows, k, 10, seed=0)
    assert found.shape == (60, 10) and found.dtype == np.float32
    for unit in found.T:
        on, off = unit == 1, unit == -1
        assert on.sum() == off.sum() == k and not unit[~on & ~off].any()
        along = rows @ (rows[on].mean(axis=0) - rows[off].mean(axis=0))  # the groups are its two ends
        between = along[~on & ~off]
        assert along[on].min() > between.max() and between.min() > along[off].max()
    np.testing.assert_array_equal(planted_units(rows, k, 10, seed=0), found)
    assert not np.array_equal(planted_units(rows, k, 10, seed=1), found)
    assert planted_units(rows, k, 200, seed=0).shape == (60, 60)


def test_planted_units_of_equal_images_and_of_too_few():
    assert (planted_units(np.ones((7, 3)), 3, 1, seed=0) != 0).sum() == 6
    with pytest.raises(ValueError, match="5 images are too few for two groups of 3"):
        planted_units(np.ones((5, 3)), 3, 1, seed=0)


def test_the_best_planted_unit_is_above_units_along_directions_of_the_embeddings():
    """Images of six kinds in thirds of very different numbers; 400 of 480 are extremes, as on the quick profile."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.6, (6, 24))[rng.choice(6, 480)] + rng.normal(0, 0.3, (480, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    directions = np.concatenate([np.linalg.svd(rows - rows.mean(axis=0))[2], rng.standard_normal((500, 24)), rows])
    real = anchored(rows @ directions.T.astype(np.float32), rows).mis
    assert anchored(planted_units(rows, 200, 50, seed=0), rows).mis.max() > real.max()


def test_lower_anchor_is_at_chance(two_kinds):
    values = random_units(1000, 200, seed=0)
    assert values.shape == (1000, 200) and values.dtype == np.float32
    table = anchored(values, two_kinds)
    assert table.mis.mean() == pytest.approx(0.5, abs=0.03)
    assert table.two_afc_accuracy.mean() == pytest.approx(0.5, abs=0.03)


def test_shuffled_images_take_a_perfect_unit_to_chance(two_kinds):
    values = planted_units(two_kinds, 200, 1, seed=0)
    assert anchored(values, two_kinds).mis[0] > 0.999
    scores = [anchored(values, shuffled(two_kinds, seed)).mis[0] for seed in range(40)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(np.sort(shuffled(two_kinds, 0), axis=0), np.sort(two_kinds, axis=0))
    assert not np.array_equal(shuffled(two_kinds, 0, "a"), shuffled(two_kinds, 0, "b"))
    np.testing.assert_array_equal(shuffled(two_kinds, 1, "a"), shuffled(two_kinds, 1, "a"))


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
    with pytest.raises(ValueError, match="are all units dead"):
        fit_temperature(np.empty((0, 20)))
    with pytest.raises(ValueError, match="positive"):
        interpretability.summarize(np.ones((1, 2)), 0)


# -------------------------------------------------------------------------------- pictures as explanations


@pytest.mark.parametrize("queries", ["inner", "outer"])
def test_picture_margins_ask_as_margins_do_and_explain_by_pictures(queries):
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((60, 6)).astype(np.float32)
    top, bottom = (np.stack([rng.permutation(60)[:12] for _ in range(3)]) for _ in range(2))
    exciting, inhibiting = rng.standard_normal((2, 3, 2, 6)).astype(np.float32)
    found = interpretability.picture_margins(top, bottom, embeddings, exciting, inhibiting, 3, 3, queries, scale=2.0)
    asked = range(9, 12) if queries == "inner" else range(3)
    for unit in range(3):
        for task, rank in enumerate(asked):
            plus, minus = embeddings[top[unit, rank]], embeddings[bottom[unit, rank]]
            expected = 2 * sum(
                sign * np.mean([query @ picture for picture in pictures[unit]])
                for query, one in ((plus, 1), (minus, -1))
                for pictures, sign in ((exciting, one), (inhibiting, -one))
            )
            assert found[unit, task] == pytest.approx(expected, abs=1e-5)


def test_pictures_that_are_the_natural_explanations_give_their_margins():
    """One task: with the explanations' own embeddings as pictures the margin is that of `margins`."""
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((40, 5)).astype(np.float32)
    top, bottom = (np.stack([rng.permutation(40)[:5] for _ in range(2)]) for _ in range(2))
    expected = interpretability.margins(top, bottom, embeddings, 1, 4)
    found = interpretability.picture_margins(
        top, bottom, embeddings, embeddings[top[:, :4]], embeddings[bottom[:, :4]], 1, 4
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="10 extremes a unit are needed, found 5 top"):
        interpretability.picture_margins(top, bottom, embeddings, embeddings[top], embeddings[bottom], 2, 4)
