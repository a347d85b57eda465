"""Invariants of masks, for every method and rate on both networks."""

import pytest
import torch
from torch import nn

from prunelens import networks, pruning

RATES = (0.0, 0.2, 0.4, 0.6, 0.8)


@pytest.fixture(scope="module", params=networks.ARCHITECTURES)
def dense(request: pytest.FixtureRequest) -> nn.Module:
    network = networks.build(request.param, 10)
    networks.initialise(network, 0)
    return network


def fresh(dense: nn.Module) -> nn.Module:
    network = networks.build("googlenet" if isinstance(dense, networks.GoogLeNet) else "bvlc_googlenet", 10)
    network.load_state_dict(dense.state_dict())
    return network


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("method", pruning.METHODS.values(), ids=pruning.METHODS)
def test_exact_counts_and_nothing_else_touched(dense: nn.Module, method: pruning.Method, rate: float) -> None:
    network = fresh(dense)
    masks = pruning.prune(network, method, rate, seed=1)
    layers = networks.prunable_layers(dense)
    assert masks.keys() == layers.keys()
    if method is pruning.unstructured_global:
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int((~mask).sum()) for mask in masks.values()) == int(total * rate + 1e-9)
    for name, mask in masks.items():
        flat = {"structured_l1": mask.all((1, 2, 3)), "connection_l1": mask.all((3, 2)).all(0)}
        flat["connection_random"] = flat["connection_l1"]
        if method is not pruning.unstructured_global:
            kept = flat.get(method.__name__, mask.flatten())
            assert int((~kept).sum()) == int(kept.numel() * rate + 1e-9), name
    for name, tensor in dense.state_dict().items():
        expected = tensor * masks[name.removesuffix(".weight")] if name.removesuffix(".weight") in masks else tensor
        assert torch.equal(network.state_dict()[name], expected), name


@pytest.mark.parametrize("method", ["unstructured_local", "structured_l1", "connection_l1"])
def test_every_pruned_score_is_below_every_kept_one(dense: nn.Module, method: str) -> None:
    masks = pruning.METHODS[method](dense, 0.6, torch.Generator())
    for name, layer in networks.prunable_layers(dense).items():
        weight, mask = layer.weight.detach().abs(), masks[name]
        if method == "structured_l1":
            weight, mask = weight.sum((1, 2, 3)), mask[:, 0, 0, 0]
        elif method == "connection_l1":
            weight, mask = weight.sum((0, 2, 3)), mask[0, :, 0, 0]
        assert weight[~mask].max() <= weight[mask].min(), name


def test_global_threshold_is_one_for_all_layers(dense: nn.Module) -> None:
    masks = pruning.unstructured_global(dense, 0.6, torch.Generator())
    weights = {name: layer.weight.detach().abs() for name, layer in networks.prunable_layers(dense).items()}
    highest_pruned = max(weights[name][~mask].max() for name, mask in masks.items() if (~mask).any())
    lowest_kept = min(weights[name][mask].min() for name, mask in masks.items() if mask.any())
    assert highest_pruned <= lowest_kept


@pytest.mark.parametrize("method", pruning.METHODS.values(), ids=pruning.METHODS)
def test_masks_only_grow_over_steps_though_weights_change(dense: nn.Module, method: pruning.Method) -> None:
    network = fresh(dense)
    first = pruning.prune(network, method, 0.4, seed=0)
    with torch.no_grad():
        for name, layer in networks.prunable_layers(network).items():
            layer.weight.add_(torch.randn_like(layer.weight) * 0.1).mul_(first[name])
    second = pruning.prune(network, method, 0.7, seed=0)
    assert all(not (second[name] & ~first[name]).any() for name in first)


def test_random_connections_follow_the_seed(dense: nn.Module) -> None:
    one, same, other = (pruning.prune(fresh(dense), pruning.connection_random, 0.5, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_sparsity_is_measured(dense: nn.Module) -> None:
    network = fresh(dense)
    assert pruning.sparsity(network)["conv_sparsity"] == 0
    pruning.prune(network, pruning.unstructured_global, 0.8, 0)
    found = pruning.sparsity(network)
    assert found["conv_sparsity"] == pytest.approx(0.8, abs=1e-6)
    assert found["total_sparsity"] < found["all_conv_sparsity"] < found["conv_sparsity"]


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_rate_outside_its_range(dense: nn.Module, rate: float) -> None:
    with pytest.raises(ValueError, match=f"found {rate}"):
        pruning.prune(fresh(dense), pruning.structured_l1, rate, 0)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv1.conv": torch.ones(64, 3, 7, 7, dtype=torch.bool)}, "conv1.conv: this layer is protected"),
        ({"fc": torch.ones(10, 1024, dtype=torch.bool)}, "fc: this layer is protected"),
        ({"inception9z": torch.ones(1, dtype=torch.bool)}, "inception9z: this layer does not exist"),
        ({"inception3a.branch1.conv": torch.ones(64, 192, 1, dtype=torch.bool)}, r"found torch.bool \(64, 192, 1\)"),
        ({"inception3a.branch1.conv": torch.ones(64, 192, 1, 1)}, "found torch.float32"),
    ],
)
def test_a_method_that_misbehaves_is_told_where(dense: nn.Module, masks: pruning.Masks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pruning.prune(fresh(dense), lambda network, rate, generator: masks, 0.5, 0)
