import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelens.units.extremes import extremes, of_layers, tie_keys


def keys_of(n: int, seed: int = 0) -> np.ndarray:
    return tie_keys([str(i) for i in range(n)], seed)


def test_tie_keys_depend_on_name_and_seed_only():
    names = [f"n{i}/file.JPEG" for i in range(500)]
    keys = tie_keys(names, seed=3)
    assert keys.dtype == np.uint64 and len(set(keys.tolist())) == 500
    np.testing.assert_array_equal(tie_keys(names[::-1], seed=3), keys[::-1])
    assert not np.array_equal(tie_keys(names, seed=4), keys)
    assert abs(np.corrcoef(np.arange(500), keys.argsort().argsort())[0, 1]) < 0.2  # not the file order


# Few distinct values, so that nearly everything is a tie; both zeros, both signs.
FEW = st.sampled_from([-2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0])


@given(st.lists(FEW, min_size=4, max_size=30), st.integers(0, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_extremes_order_by_value_then_key_whatever_the_file_order(column, seed, data):
    n, k = len(column), data.draw(st.integers(1, len(column)))
    keys = keys_of(n, seed)
    values = np.array(column, dtype=np.float32)[:, None]
    top, bottom, _ = extremes(values, k, keys)
    ranked = sorted(range(n), key=lambda i: (values[i, 0], keys[i]))  # Python: -0.0 == 0.0
    assert bottom[0].tolist() == ranked[:k]
    assert top[0].tolist() == ranked[::-1][:k]

    order = np.random.default_rng(seed).permutation(n)
    top_moved, bottom_moved, _ = extremes(values[order], k, keys[order])
    np.testing.assert_array_equal(order[top_moved], top)
    np.testing.assert_array_equal(order[bottom_moved], bottom)


def test_extremes_of_many_units_agree_with_argsort():
    values = np.random.default_rng(0).standard_normal((300, 600)).astype(np.float32)  # more than one chunk
    top, bottom, alive = extremes(values, 20, keys_of(300))
    ranked = values.argsort(axis=0).T
    np.testing.assert_array_equal(bottom, ranked[:, :20])
    np.testing.assert_array_equal(top, ranked[:, ::-1][:, :20])
    assert top.dtype == bottom.dtype == np.int64 and alive.all()


def test_a_constant_unit_gets_random_disjoint_images():
    top, bottom, _ = extremes(np.zeros((400, 1), np.float32), 100, keys_of(400))
    assert not set(top[0]) & set(bottom[0])
    # File order (the paper's trap) would give 0..99 and 300..399: means 49.5 and 349.5.
    assert abs(top[0].mean() - 199.5) < 60 and abs(bottom[0].mean() - 199.5) < 60


def test_extremes_refuse_what_they_cannot_rank():
    keys = keys_of(3)
    values = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="k = 4 extremes of 3 images"):
        extremes(values, 4, keys)
    with pytest.raises(ValueError, match="3 distinct keys, found 1"):
        extremes(values, 1, np.zeros(3, np.uint64))
    for broken in (np.nan, np.inf):
        values[2, 1] = broken
        with pytest.raises(ValueError, match=f"activation of a unit 1 on image 2 is {broken}"):
            of_layers({"a": values}, 1, keys)


def test_alive_means_more_than_one_value():
    values = np.array([[0, 1, 5, 0], [0, 1, 5, 0], [0, 1, 5 + 1e-6, 2e-8]], np.float32)
    np.testing.assert_array_equal(extremes(values, 1, keys_of(3))[2], [False, False, True, True])


def by_hand(values: np.ndarray, k: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ranked = np.stack([np.lexsort((keys, unit)) for unit in values.T + np.float32(0)])
    return ranked[:, ::-1][:, :k], ranked[:, :k], np.ptp(values, axis=0) >= 1e-8


def test_ties_over_many_units():
    rng = np.random.default_rng(0)
    values = rng.integers(-20, 20, (3000, 300)).astype(np.float32)  # some 75 images of every value
    values[:, 7] = 0  # dead
    values[:, 8] = 1e-9 * (np.arange(3000) == 5)  # as good as dead
    keys = keys_of(3000)
    found = extremes(values, 200, keys)
    for result, expected in zip(found, by_hand(values, 200, keys), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert np.flatnonzero(~found[2]).tolist() == [7, 8]


def test_arrays_of_all_layers_are_those_of_single_layers():
    rng = np.random.default_rng(0)
    values = {"a": rng.standard_normal((50, 4), dtype=np.float32), "b.c": np.zeros((50, 2), np.float32)}
    keys = keys_of(50)
    found = of_layers(values, 5, keys)
    assert list(found) == ["top/a", "bottom/a", "alive/a", "top/b.c", "bottom/b.c", "alive/b.c"]
    for layer, value in values.items():
        for side, expected in zip(("top", "bottom", "alive"), extremes(value, 5, keys), strict=True):
            np.testing.assert_array_equal(found[f"{side}/{layer}"], expected)
    assert found["top/a"].dtype == np.int32 and found["alive/b.c"].dtype == bool
