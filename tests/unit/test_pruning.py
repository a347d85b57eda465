"""Invariants of masks, for every method and rate on both networks."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunelens import networks, pruning

RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
TOGETHER = ("unstructured_global", "unstructured_global_random", "unstructured_global_paper")
UNSTRUCTURED = [name for name in pruning.METHODS if name.startswith("unstructured")]
CONVS = {f"{name}.weight" for name in networks.prunable_layers(networks.build("googlenet", 10))}


@pytest.fixture(scope="module", params=networks.ARCHITECTURES)
def dense(request: pytest.FixtureRequest) -> nn.Module:
    network = networks.build(request.param, 10)
    networks.initialise(network, 0)
    network.fc.bias.data.normal_()
    return network


def fresh(dense: nn.Module) -> nn.Module:
    network = networks.build("googlenet" if isinstance(dense, networks.GoogLeNet) else "bvlc_googlenet", 10)
    network.load_state_dict(dense.state_dict())
    return network


def method(name: str) -> pruning.Method:
    if name != "unstructured_sensitivity":
        return pruning.METHODS[name]
    layers = sorted(name.removesuffix(".weight") for name in CONVS)
    return partial(pruning.unstructured_sensitivity, tolerated={layer: 0.1 + i / 60 for i, layer in enumerate(layers)})


def pieces(name: str, tensor: Tensor) -> Tensor:
    """One value per weight, filter or input channel, whatever the method prunes; all weights of a piece must agree."""
    dims = {"structured": 0, "connection": 1}.get(name.split("_")[0])
    if dims is None:
        return tensor.flatten()
    rows = tensor.movedim(dims, 0).flatten(1)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", pruning.METHODS)
def test_exact_counts_and_nothing_else_touched(dense: nn.Module, name: str, rate: float) -> None:
    network = fresh(dense)
    masks = pruning.prune(network, method(name), rate, seed=1)
    assert masks.keys() == CONVS | set(getattr(method(name), "also", ()))
    total, pruned = sum(m.numel() for m in masks.values()), sum(int((~m).sum()) for m in masks.values())
    if name in TOGETHER:
        assert pruned == int(total * rate + 1e-9)
    elif name == "unstructured_sensitivity":
        assert rate * total - len(masks) <= pruned <= rate * total  # rounded down in every layer
    else:
        for layer, mask in masks.items():
            kept = pieces(name, mask)
            assert int((~kept).sum()) == int(kept.numel() * rate + 1e-9), layer
    for parameter, tensor in dense.state_dict().items():
        expected = tensor * masks[parameter] if parameter in masks else tensor
        assert torch.equal(network.state_dict()[parameter], expected), parameter


def norm(order: int, dims: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda weight: (weight.abs() ** order).sum(dims)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("unstructured_local", lambda weight: weight.abs().flatten()),
        ("unstructured_sensitivity", lambda weight: weight.abs().flatten()),
        ("structured_l1", norm(1, (1, 2, 3))),
        ("structured_l2", norm(2, (1, 2, 3))),
        ("connection_l1", norm(1, (0, 2, 3))),
        ("connection_l2", norm(2, (0, 2, 3))),
    ],
)
def test_every_pruned_score_is_below_every_kept_one(dense: nn.Module, name: str, score: Callable) -> None:
    masks = method(name)(dense, 0.6, torch.Generator())
    for parameter, mask in masks.items():
        scores, kept = score(dense.get_parameter(parameter).detach()), pieces(name, mask)
        assert scores[~kept].max() <= scores[kept].min() * (1 + 1e-6), parameter


@pytest.mark.parametrize("name", ["unstructured_global", "unstructured_global_paper"])
def test_global_threshold_is_one_for_all(dense: nn.Module, name: str) -> None:
    masks = method(name)(dense, 0.6, torch.Generator())
    weights = {parameter: dense.get_parameter(parameter).detach().abs() for parameter in masks}
    highest_pruned = max(weights[parameter][~mask].max() for parameter, mask in masks.items() if (~mask).any())
    lowest_kept = min(weights[parameter][mask].min() for parameter, mask in masks.items() if mask.any())
    assert highest_pruned <= lowest_kept


def test_random_control_has_the_layerwise_sparsity_of_what_it_controls(dense: nn.Module) -> None:
    real, control = (method(name)(dense, 0.6, torch.Generator().manual_seed(0)) for name in TOGETHER[:2])
    assert all(real[name].sum() == control[name].sum() for name in CONVS)
    agree = torch.cat([(real[name] == control[name]).flatten() for name in CONVS]).float().mean()
    assert 0.45 < agree < 0.6  # chance is .6^2 + .4^2 = .52 and a little more where layers differ


def test_shared_connections_are_one_choice_per_tensor(dense: nn.Module) -> None:
    masks = pruning.connection_l1_shared(dense, 0.6, torch.Generator())
    read = {name: pieces("connection_l1", mask) for name, mask in masks.items()}
    for block in ("inception3a", "inception4c", "inception5b"):
        ends = ("branch1", "branch2.0", "branch3.0", "branch4.1")
        first, *others = (read[f"{block}.{end}.conv.weight"] for end in ends)
        assert all(torch.equal(first, other) for other in others)
        scores = sum(norm(1, (0, 2, 3))(dense.get_parameter(f"{block}.{end}.conv.weight").detach()) for end in ends)
        assert scores[~first].max() <= scores[first].min() * (1 + 1e-6)


@pytest.mark.parametrize("name", pruning.METHODS)
def test_masks_only_grow_over_steps_though_weights_change(dense: nn.Module, name: str) -> None:
    network = fresh(dense)
    first = pruning.prune(network, method(name), 0.4, seed=0)
    with torch.no_grad():
        for parameter, mask in first.items():
            weight = network.get_parameter(parameter)
            weight.add_(torch.randn_like(weight) * 0.1).mul_(mask)
    second = pruning.prune(network, method(name), 0.7, seed=0)
    assert all(not (second[parameter] & ~mask).any() for parameter, mask in first.items())


@pytest.mark.parametrize("name", [name for name in pruning.METHODS if name.endswith("_random")])
def test_random_masks_follow_the_seed(dense: nn.Module, name: str) -> None:
    one, same, other = (pruning.prune(fresh(dense), method(name), 0.5, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[parameter], same[parameter]) for parameter in one)
    assert any(not torch.equal(one[parameter], other[parameter]) for parameter in one)


def test_affine_parameters_go_with_their_filter_and_only_then(dense: nn.Module) -> None:
    network = fresh(dense)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(1.0)
    masks = pruning.prune(network, pruning.structured_l1, 0.6, 0, affine=True)
    end = "bn.bias" if isinstance(network, networks.GoogLeNet) else "conv.bias"
    for name in CONVS:
        gone = ~pieces("structured_l1", masks[name])
        bias = network.get_parameter(name.removesuffix("conv.weight") + end)
        assert not bias[gone].any() and (bias[~gone] == 1).all(), name
    assert (network.fc.bias == 1).all()
    partly = pruning.prune(fresh(dense), pruning.connection_l1, 0.6, 0, affine=True)
    assert all(mask.all() for name, mask in partly.items() if name not in CONVS)


def test_sparsity_is_measured(dense: nn.Module) -> None:
    network = fresh(dense)
    assert pruning.sparsity(network)["conv_sparsity"] == 0
    pruning.prune(network, pruning.unstructured_global, 0.8, 0)
    found = pruning.sparsity(network)
    assert found["conv_sparsity"] == pytest.approx(0.8, abs=1e-6)
    assert found["total_sparsity"] < found["all_conv_sparsity"] < found["conv_sparsity"]


@given(st.lists(st.tuples(st.floats(0.05, 0.9), st.integers(1, 10**6)), min_size=1, max_size=20), st.floats(0.0, 0.95))
def test_scaled_rates_meet_the_rate_in_proportion(layers: list[tuple[float, int]], rate: float) -> None:
    tolerated = {str(i): share for i, (share, _) in enumerate(layers)}
    sizes = {str(i): size for i, (_, size) in enumerate(layers)}
    rates = pruning.scaled_rates(tolerated, sizes, rate)
    assert sum(rates[name] * sizes[name] for name in sizes) / sum(sizes.values()) == pytest.approx(rate, abs=1e-6)
    ratios = [rates[name] / tolerated[name] for name in sizes if rates[name] < 0.98]
    assert max(ratios, default=0) - min(ratios, default=0) < 1e-6 and all(0 <= r <= 0.98 for r in rates.values())


def test_a_rate_that_the_layers_do_not_tolerate() -> None:
    with pytest.raises(ValueError, match=r"found 0\.9, but the layers that tolerate pruning reach 0\.490"):
        pruning.scaled_rates({"a": 0.5, "b": 0.0}, {"a": 10, "b": 10}, 0.9)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_rate_outside_its_range(dense: nn.Module, rate: float) -> None:
    with pytest.raises(ValueError, match=f"found {rate}"):
        pruning.prune(fresh(dense), pruning.structured_l1, rate, 0)


BRANCH = "inception3a.branch1.conv.weight"


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv1.conv.weight": torch.ones(64, 3, 7, 7, dtype=torch.bool)}, "conv1.conv.weight: .* is protected"),
        ({"fc.weight": torch.ones(10, 1024, dtype=torch.bool)}, "fc.weight: this parameter is protected"),
        ({"inception3a.branch1": torch.ones(1, dtype=torch.bool)}, "inception3a.branch1: this .* does not exist"),
        ({BRANCH: torch.ones(64, 192, 1, dtype=torch.bool)}, r"found torch.bool \(64, 192, 1\)"),
        ({BRANCH: torch.ones(64, 192, 1, 1)}, "found torch.float32"),
    ],
)
def test_a_method_that_misbehaves_is_told_where(dense: nn.Module, masks: pruning.Masks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pruning.prune(fresh(dense), lambda network, rate, generator: masks, 0.5, 0)


def test_a_method_of_ones_own_is_found_by_its_import_path() -> None:
    assert pruning.find("structured_l1") is pruning.structured_l1
    assert pruning.find("prunelens.pruning.structured_l1") is pruning.structured_l1
    assert "Prune the filters" in pruning.source("prunelens.pruning.structured_l1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "expected the import path of a function, or one of unstructured_local"),
        ("nowhere.at_all", "No module named 'nowhere'"),
        ("prunelens.pruning.magic", "has no attribute 'magic'"),
        ("prunelens.pruning.METHODS", "names a dict, expected a function"),
    ],
)
def test_an_unknown_method_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pruning.find(name)
