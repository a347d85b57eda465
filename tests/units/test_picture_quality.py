import numpy as np
import pytest

from prunelens.units.picture_quality import Drawn, alikeness, consistency, quality

K, UNITS, STARTS, D = 3, 4, 2, 5
STIMULI = np.random.default_rng(9).standard_normal((40, D)).astype(np.float32)


def drawn(seed: int, alive: list[bool]) -> Drawn:
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((UNITS, STARTS, D)).astype(np.float32)
    top = np.stack([rng.permutation(40)[:K] for _ in range(UNITS)])
    objective = rng.standard_normal((UNITS, STARTS)).astype(np.float32)
    excited = np.array([[True, True], [True, False], [False, False], [True, True]])
    most, least = np.array([2.0, 1.0, 0.5, 0.0]), np.array([-2.0, 0.0, 0.0, 0.0])
    return Drawn(embeddings, objective, excited, top, most, least, np.array(alive))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_alikeness_is_the_mean_cosine_of_all_pairs() -> None:
    pictures = np.array([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [3.0, 0.0]]])
    images = np.array([[[5.0, 0.0]], [[0.0, -1.0]]])
    np.testing.assert_allclose(alikeness(pictures, images), [0.5, 0.0], atol=1e-7)


def test_consistency_is_the_mean_cosine_over_pairs_of_different_starts() -> None:
    pictures, others = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    for other in (None, others):
        second = pictures if other is None else others
        expected = np.mean([(unit(pictures)[:, i] * unit(second)[:, j]).sum(1) for i, j in pairs], axis=0)
        np.testing.assert_allclose(consistency(pictures, other), expected, atol=1e-6)
    with pytest.raises(ValueError, match="different starts: found 1"):
        consistency(pictures[:, :1])


def test_quality_has_a_row_per_unit_and_nan_where_it_is_dead() -> None:
    pruned, dense = drawn(1, [True, True, False, True]), drawn(2, [True, False, True, True])
    table = quality(pruned, dense, STIMULI, seed=4)
    assert table.alive.tolist() == [True, True, False, True]
    numbers = table.drop(columns="alive")
    assert numbers.loc[2].isna().all() and numbers.loc[0].notna().all()
    assert numbers.columns[numbers.loc[1].isna()].tolist() == ["like_dense"], "dead in the dense one"
    assert table.excited[[0, 1, 3]].tolist() == [1, 0.5, 1]
    assert table.reached[0] == pytest.approx((pruned.objective[0].mean() + 2) / 4)
    assert not np.isfinite(table.reached[3]), "its most and least activating stimuli excite it alike"


def test_quality_compares_exciting_pictures_with_extreme_random_and_the_dense_networks_ones() -> None:
    pruned, dense = drawn(1, [True] * 4), drawn(2, [True] * 4)
    table = quality(pruned, dense, STIMULI, seed=4)
    pictures = unit(pruned.embeddings)
    random = STIMULI[np.random.default_rng(4).choice(40, K, replace=False)]
    of_top, of_random = (
        (pictures @ unit(shown).swapaxes(1, 2)).mean((1, 2))
        for shown in (STIMULI[pruned.top], np.stack([random] * UNITS))
    )
    np.testing.assert_allclose(table.like_top, of_top - of_random, atol=1e-6)
    np.testing.assert_allclose(table.consistency, consistency(pruned.embeddings))
    own = consistency(dense.embeddings)
    np.testing.assert_allclose(table.like_dense, consistency(pruned.embeddings, dense.embeddings) - own)


def test_a_network_is_like_itself() -> None:
    """Like the dense network's pictures as much as those are like each other, where it is the dense network."""
    dense = drawn(2, [True] * 4)
    np.testing.assert_allclose(quality(dense, dense, STIMULI, seed=4).like_dense, 0, atol=1e-6)


def test_no_units_give_no_rows() -> None:
    none = Drawn(*(array[:0] for array in drawn(1, [True] * 4)))
    table = quality(none, none, STIMULI, seed=4)
    assert table.shape == (0, 6)
