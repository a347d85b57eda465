"""The scan: one layer alone is pruned, the shortcut through cached inputs is exact, and nothing stays behind."""

from typing import Any

import pandas as pd
import pytest
import torch

from prunelens import registry
from prunelens.images.embedded import compose
from prunelens.pruning import accuracy, masks, sensitivity

IMAGES = compose(8, 48, "train", 0)


def scan(small: Any, network: torch.nn.Module, block: str, methods: list[str], rates: list[float]) -> pd.DataFrame:
    found = {name: registry.find("method", name) for name in methods}
    return sensitivity.scan(
        network, small.architecture, IMAGES, block, found, rates, small.context(), batch_size=5, device="cpu"
    )


def test_rows_equal_pruning_that_layer_alone(small: Any) -> None:
    network = small.fresh().eval()
    prunable = small.architecture.prunable(network)
    block = small.architecture.block(prunable[len(prunable) // 2])
    table = scan(small, network, block, ["structured_l1"], [0.5, 0.9])
    assert table.layer.unique().tolist() == [name for name in prunable if small.architecture.block(name) == block]
    assert len(table) == 2 * table.layer.nunique() and set(table.method) == {"structured_l1"}
    whole = small.network.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in network.state_dict().items())
    for row in table.itertuples():
        alone, name = small.fresh().eval(), f"{row.layer}.weight"
        masks.apply(alone, {name: small.prune(small.fresh(), "structured_l1", row.rate)[name]})
        expected = accuracy.accuracy(accuracy.logits(alone, IMAGES, 5, "cpu"), IMAGES)
        assert {key: getattr(row, key) for key in expected} == expected, row


@pytest.mark.usefixtures("own")
def test_a_method_that_prunes_in_place_or_takes_gradients_ruins_nothing(googlenet: Any) -> None:
    network = googlenet.fresh().eval()
    methods = ["structured_l1", "own_methods.in_place", "own_methods.taylor", "own_methods.quiet"]
    table = scan(googlenet, network, "inception4e", methods, [0.9])
    columns = table.pivot(index="layer", columns="method", values="top1")
    assert (columns["structured_l1"] == columns["own_methods.in_place"]).all()
    whole = googlenet.network.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in network.state_dict().items())
