"""Hooks: what they see, and that nothing of them is left."""

import pytest
import torch
from torch import nn

from prunelens.networks.hooks import before, evaluating, recording


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_every_module_gets_its_mode_back() -> None:
    network = nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.Dropout(0.5)).train()
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules()) and torch.is_inference_mode_enabled()
    assert network.training and network[0][0].training and not network[1].training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_modes_come_back_after_an_error() -> None:
    network = nn.Linear(3, 3)
    with pytest.raises(RuntimeError), evaluating(network):
        network(torch.zeros(1, 8))
    assert network.training


def test_outputs_are_recorded_before_what_happens_in_place() -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    x = torch.tensor([-1.0, 2.0])
    with recording(network, {"first": network[0], ("second", 1): network[1]}, torch.Tensor.tolist) as outputs:
        network(x)
        assert hooks(network) == 2
    assert outputs == {"first": [-1.0, 2.0], ("second", 1): [0.0, 2.0]} and hooks(network) == 0


def test_no_hook_is_left_after_an_error() -> None:
    network = nn.Linear(3, 3)
    with pytest.raises(RuntimeError), recording(network, {"layer": network}, torch.clone):
        network(torch.zeros(1, 8))
    assert hooks(network) == 0


def test_a_module_can_be_changed_before_it_runs() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).requires_grad_(False)

    def see(x: torch.Tensor) -> None:
        network[1].weight.fill_(float(x))

    with before({network[1]: see}):
        found = network(torch.ones(1, 1))
    assert found.item() == pytest.approx(network[0].weight.item() ** 2) and hooks(network) == 0
