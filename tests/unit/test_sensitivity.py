"""The scan: one layer alone is pruned, the shortcut through cached inputs is exact, and nothing stays behind."""

import pandas as pd
import pytest
import torch
from torch import nn

from prunelens import evaluation, networks, pruning, sensitivity, textures

IMAGES = textures.compose(8, 48, "train", 0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=networks.ARCHITECTURES)
def network(request: pytest.FixtureRequest) -> nn.Module:
    network = networks.build(request.param, 8).eval()
    networks.initialise(network, 0)
    return network


def test_stages_are_the_forward_pass(network: nn.Module) -> None:
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = network(x)
        for stage in networks.stages(network).values():
            x = stage(x)
    assert torch.equal(x, expected)


def test_rows_equal_pruning_that_layer_alone(network: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = sensitivity.scan(network, IMAGES, "inception4e", ["structured_l1"], [0.5], 0, 8, CPU)
    assert len(found) == 6 and found.layer.str.startswith("inception4e").all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for row in found.itertuples():
        name = f"{row.layer}.weight"
        mask = pruning.structured_l1(network, row.rate, torch.Generator())[name]
        pruning.apply(network, {name: mask})
        logits = evaluation.logits(network, IMAGES, 8, CPU)
        network.load_state_dict(before)
        assert row.top1 == evaluation.accuracy(logits, IMAGES)["top1"], row


def test_tolerated_is_the_largest_rate_before_the_first_loss() -> None:
    table = pd.DataFrame(
        {
            "layer": ["a"] * 3 + ["b"] * 3 + ["c"] * 3,
            "rate": [0.9, 0.1, 0.5] * 3,
            "top1": [0.2, 0.8, 0.79, 0.8, 0.7, 0.8, 0.8, 0.8, 0.8],
        }
    )
    assert sensitivity.tolerated(table, 0.8, 0.02) == {"a": 0.5, "b": 0.05, "c": 0.9}
