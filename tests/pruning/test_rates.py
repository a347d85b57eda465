"""Rates by layer, from what each layer tolerates."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelens.pruning import rates


def test_tolerated_is_the_largest_rate_before_the_first_loss() -> None:
    table = pd.DataFrame(
        {
            "layer": ["a"] * 3 + ["b"] * 3 + ["c"] * 3,
            "rate": [0.9, 0.1, 0.5] * 3,
            "top1": [0.2, 0.8, 0.79, 0.8, 0.7, 0.8, 0.8, 0.8, 0.8],
        }
    )
    assert rates.tolerated(table, 0.8) == {"a": 0.5, "b": 0.05, "c": 0.9}


@given(
    st.lists(st.tuples(st.floats(0.05, 0.9), st.integers(1, 10**6)), min_size=1, max_size=20),
    st.floats(0.0, 0.95, allow_subnormal=False),
)
def test_scaled_rates_meet_the_rate_in_proportion(layers: list[tuple[float, int]], rate: float) -> None:
    tolerated = {str(i): share for i, (share, _) in enumerate(layers)}
    sizes = {str(i): size for i, (_, size) in enumerate(layers)}
    found = rates.scaled_rates(tolerated, sizes, rate)
    assert sum(found[name] * sizes[name] for name in sizes) / sum(sizes.values()) == pytest.approx(rate, abs=1e-6)
    ratios = [found[name] / tolerated[name] for name in sizes if found[name] < 0.98]
    assert max(ratios, default=0) - min(ratios, default=0) < 1e-6 and all(0 <= r <= 0.98 for r in found.values())


def test_a_rate_that_the_layers_do_not_tolerate() -> None:
    with pytest.raises(ValueError, match=r"found 0\.9, but the layers that tolerate pruning reach 0\.490"):
        rates.scaled_rates({"a": 0.5, "b": 0.0}, {"a": 10, "b": 10}, 0.9)
