"""Invariants of masks, for every built-in method."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prunelens import registry

METHODS = registry.built_ins("method")
TOGETHER = ("unstructured_global", "unstructured_global_random", "unstructured_global_paper")


def random_methods() -> list[str]:
    return [name for name in METHODS if registry.find("method", name).description.random]


def pieces(name: str, tensor: Tensor) -> Tensor:
    """One value per weight, filter or input channel, whatever the method prunes; all weights of a piece must agree."""
    dims = {"structured": 0, "connection": 1}.get(name.split("_")[0])
    if dims is None:
        return tensor.flatten()
    rows = tensor.movedim(dims, 0).flatten(1)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0]


def test_the_built_ins_have_names_looks_and_needs() -> None:
    assert len(METHODS) == 13
    found = [registry.find("method", name).description for name in METHODS]
    assert len({(each.color, each.marker) for each in found}) == len({each.label for each in found}) == 13
    assert [each.label for each in found if each.needs] == ["unstructured, per layer by sensitivity"]
    assert random_methods() == [name for name in METHODS if name.endswith("_random")]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("name", METHODS)
def test_exact_counts_and_nothing_else_touched(small: Any, name: str, rate: float) -> None:
    network = small.fresh()
    masks = small.prune(network, name, rate, seed=1)
    assert masks.keys() == small.convs | ({"fc.weight", "fc.bias"} if name == "unstructured_global_paper" else set())
    total, pruned = sum(m.numel() for m in masks.values()), sum(int((~m).sum()) for m in masks.values())
    if name in TOGETHER:
        assert pruned == int(total * rate + 1e-9)
    elif name == "unstructured_sensitivity":
        assert rate * total - len(masks) <= pruned <= rate * total  # rounded down in every layer
    else:
        for layer, mask in masks.items():
            kept = pieces(name, mask)
            assert int((~kept).sum()) == int(kept.numel() * rate + 1e-9), layer
    found = network.state_dict()
    for parameter, tensor in small.network.state_dict().items():
        assert torch.equal(found[parameter], tensor * masks.get(parameter, 1)), parameter


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
def test_every_pruned_score_is_below_every_kept_one(small: Any, name: str, score: Callable) -> None:
    for parameter, mask in small.prune(small.fresh(), name, 0.6).items():
        scores, kept = score(small.network.get_parameter(parameter).detach()), pieces(name, mask)
        assert scores[~kept].max() <= scores[kept].min() * (1 + 1e-6), parameter


@pytest.mark.parametrize("name", ["unstructured_global", "unstructured_global_paper"])
def test_global_threshold_is_one_for_all(small: Any, name: str) -> None:
    masks = small.prune(small.fresh(), name, 0.6)
    weights = {parameter: small.network.get_parameter(parameter).detach().abs() for parameter in masks}
    highest_pruned = max(weights[parameter][~mask].max() for parameter, mask in masks.items() if (~mask).any())
    lowest_kept = min(weights[parameter][mask].min() for parameter, mask in masks.items() if mask.any())
    assert highest_pruned <= lowest_kept


def test_random_control_has_the_layerwise_sparsity_of_what_it_controls(small: Any) -> None:
    real, control = (small.prune(small.fresh(), name, 0.6) for name in TOGETHER[:2])
    assert all(real[name].sum() == control[name].sum() for name in small.convs)
    agree = torch.cat([(real[name] == control[name]).flatten() for name in small.convs]).float().mean()
    assert 0.45 < agree < 0.62  # chance is .6^2 + .4^2 = .52 and a little more where layers differ


def test_shared_connections_are_one_choice_per_tensor(small: Any) -> None:
    masks = small.prune(small.fresh(), "connection_l1_shared", 0.6)
    read = {name: pieces("connection_l1", mask) for name, mask in masks.items()}
    shared = 0
    for stream in small.architecture.streams(small.network):
        readers = [f"{name}.weight" for name in stream.readers if f"{name}.weight" in masks]
        if not readers:
            continue
        shared += len(readers) > 1
        first = read[readers[0]]
        assert all(torch.equal(first, read[reader]) for reader in readers)
        scores = sum(norm(1, (0, 2, 3))(small.network.get_parameter(reader).detach()) for reader in readers)
        assert scores[~first].max() <= scores[first].min() * (1 + 1e-6)
    assert shared == {"GoogLeNet": 9, "ResNet18": 3}[type(small.network).__name__]


def test_shared_connections_of_an_inception_block(googlenet: Any) -> None:
    masks = googlenet.prune(googlenet.fresh(), "connection_l1_shared", 0.6)
    for block in ("inception3a", "inception4c", "inception5b"):
        ends = ("branch1", "branch2.0", "branch3.0", "branch4.1")
        first, *others = (pieces("connection", masks[f"{block}.{end}.conv.weight"]) for end in ends)
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", METHODS)
def test_masks_only_grow_over_steps_though_weights_change(small: Any, name: str) -> None:
    network = small.fresh()
    first = small.prune(network, name, 0.4)
    with torch.no_grad():
        for parameter, mask in first.items():
            weight = network.get_parameter(parameter)
            weight.add_(torch.randn_like(weight) * 0.1).mul_(mask)
    second = small.prune(network, name, 0.7, within=first)
    assert all(not (second[parameter] & ~mask).any() for parameter, mask in first.items())


@pytest.mark.parametrize("name", METHODS)
def test_masks_only_grow_where_weights_that_were_kept_have_become_zero(googlenet: Any, name: str) -> None:
    network = googlenet.fresh()
    first = googlenet.prune(network, name, 0.4)
    with torch.no_grad():
        for parameter in first:
            network.get_parameter(parameter).zero_()
    second = googlenet.prune(network, name, 0.41, within=first)
    assert sum(int(mask.sum()) for mask in second.values()) <= sum(int(mask.sum()) for mask in first.values())


@pytest.mark.parametrize("name", random_methods())
def test_random_masks_follow_the_seed(small: Any, name: str) -> None:
    one, same, other = (small.prune(small.fresh(), name, 0.5, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[parameter], same[parameter]) for parameter in one)
    assert any(not torch.equal(one[parameter], other[parameter]) for parameter in one)
