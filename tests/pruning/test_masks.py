"""What a method may do, what it is told when it misbehaves, and that its masks are all that counts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from prunelens import registry
from prunelens.pruning import masks
from prunelens.pruning.masks import Masks, check_method, keep_largest


def test_keep_largest_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 1.0], [2.0, 5.0, 1.0]])
    assert keep_largest(scores, 0.34).tolist() == [[True, False, False], [True, True, True]], "ties fall in order"
    assert (~keep_largest(torch.arange(10.0), 0.3)).sum() == 3 and keep_largest(scores, 0.0).all()


def test_sparsity_is_measured(small: Any) -> None:
    network = small.fresh()
    assert masks.sparsity(small.architecture, network)["conv_sparsity"] == 0
    small.prune(network, "unstructured_global", 0.8)
    found = masks.sparsity(small.architecture, network)
    assert found["conv_sparsity"] == pytest.approx(0.8, abs=1e-5)
    assert found["total_sparsity"] < found["all_conv_sparsity"] < found["conv_sparsity"]


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rate_outside_its_range(googlenet: Any, rate: float) -> None:
    with pytest.raises(ValueError, match=f"pruning rate: found {rate}, expected a number"):
        googlenet.prune(googlenet.fresh(), "structured_l1", rate)


BRANCH = "inception3a.branch1.conv.weight"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"conv1.conv.weight": torch.ones(16, 3, 7, 7, dtype=torch.bool)}, "conv1.conv.weight: .* is protected"),
        ({"fc.weight": torch.ones(100, 256, dtype=torch.bool)}, "fc.weight: this parameter is protected"),
        ({"inception3a.branch1": torch.ones(1, dtype=torch.bool)}, "inception3a.branch1: this .* does not exist"),
        ({BRANCH: torch.ones(16, 48, 1, dtype=torch.bool)}, r"found torch.bool \(16, 48, 1\), expected torch.bool"),
        ({BRANCH: torch.ones(16, 48, 1, 1)}, "found torch.float32"),
        ({BRANCH: [True]}, "found a list, expected torch.bool"),
        (None, "masks: found a NoneType, expected a dict"),
    ],
)
def test_a_method_that_misbehaves_is_told_where(googlenet: Any, found: Masks, message: str) -> None:
    network = googlenet.fresh()
    with pytest.raises(ValueError, match=message):
        masks.prune(network, lambda network, rate, context: found, 0.5, googlenet.context())
    assert masks.sparsity(googlenet.architecture, network)["total_sparsity"] < 0.02, "nothing was pruned"


def test_what_else_a_method_prunes_is_named_by_its_description(googlenet: Any) -> None:
    @registry.describe("output", also=("{output}.weight", "conv1.conv.weight"))
    def method(network: torch.nn.Module, rate: float, context: masks.Context) -> Masks:
        return {name: network.get_parameter(name) > 0 for name in ("fc.weight", "conv1.conv.weight")}

    network = googlenet.fresh()
    assert masks.prune(network, method, 0.5, googlenet.context()).keys() == {"fc.weight", "conv1.conv.weight"}
    assert (network.fc.weight >= 0).all()


@pytest.mark.parametrize("kept", [True, None])
def test_a_step_that_unprunes_is_refused(googlenet: Any, kept: bool | None) -> None:
    network = googlenet.fresh()
    first = googlenet.prune(network, "structured_l1", 0.5)
    pruned = int((~first[BRANCH]).sum())
    found = {name: mask if name != BRANCH else torch.ones_like(mask) for name, mask in first.items()}
    if kept is None:
        del found[BRANCH]
    with pytest.raises(ValueError, match=f"mask of {BRANCH}: keeps {pruned} weights that an earlier step pruned"):
        masks.prune(network, lambda network, rate, context: found, 0.6, googlenet.context(), first)


# A user's methods


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["in_place", "quiet", "taylor"])
def test_masks_are_all_that_a_method_changes(small: Any, name: str) -> None:
    network = small.fresh().train()
    found = small.prune(network, f"own_methods.{name}", 0.2)
    assert network.training and not any(module._forward_hooks for module in network.modules())
    expected = small.fresh()
    masks.apply(expected, found)
    after = network.state_dict()
    assert all(torch.equal(after[parameter], tensor) for parameter, tensor in expected.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.usefixtures("own")
def test_a_method_that_prunes_in_place_gives_the_masks_of_the_built_in_one(small: Any) -> None:
    own, built_in = (small.prune(small.fresh(), name, 0.5) for name in ("own_methods.in_place", "structured_l1"))
    assert all(torch.equal(own[name], built_in[name]) for name in small.convs)


@pytest.mark.usefixtures("own")
def test_taylor_prunes_what_changes_the_loss_least(small: Any) -> None:
    network = small.fresh()
    found = small.prune(network, "own_methods.taylor", 0.3)
    gradients = replace(small.context()(small.fresh().eval()), needs=("images",)).gradients()
    for name in small.convs:
        scores = (small.network.get_parameter(name).detach() * gradients[name]).abs()
        assert scores[~found[name]].max() <= scores[found[name]].min(), name
    again = small.prune(network, "own_methods.taylor", 0.6, within=found)
    assert masks.sparsity(small.architecture, network)["conv_sparsity"] == pytest.approx(0.6, abs=0.01)
    assert not any((again[name] & ~found[name]).any() for name in small.convs)


@pytest.mark.usefixtures("own")
def test_a_method_that_draws_elsewhere_still_follows_the_seed(googlenet: Any) -> None:
    state = torch.get_rng_state()
    one, same, other = (googlenet.prune(googlenet.fresh(), "own_methods.torch_random", 0.5, s) for s in (0, 0, 1))
    assert torch.equal(one[BRANCH], same[BRANCH]) and not torch.equal(one[BRANCH], other[BRANCH])
    assert torch.equal(torch.get_rng_state(), state)


# Trying a method before anything is computed


def tried(small: Any, name: str, **more: Any) -> None:
    check_method(registry.find("method", name), small.architecture, 8, small.width, 32, **more)


@pytest.mark.parametrize("name", registry.built_ins("method"))
def test_built_in_methods_pass_the_check_in_steps_too(googlenet: Any, name: str) -> None:
    tried(googlenet, name, iterative=True)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["taylor", "largest", "in_place", "quiet", "as_partial", "as_object", "torch_random"])
def test_own_methods_pass_the_check(small: Any, name: str) -> None:
    tried(small, f"own_methods.{name}")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("undeclared_images", r'asks for images, found needs=\(\), expected needs=\("images",\)'),
        ("undeclared_scan", "asks for sensitivity, found needs"),
        ("nothing", "found a NoneType, expected a dict"),
        ("rateless", "prunes (\\d+) weights at rate 0.5 and \\1 at 0.75, expected more"),
        ("unseeded", "the same seed gives other masks, expected those of context.generator"),
        ("broken", r"KeyError: 'no such\\nname'"),
        ("powers", "TypeError: .*missing 1 required positional argument: 'power'"),
    ],
)
def test_a_method_that_cannot_work_is_refused_in_one_line(googlenet: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        tried(googlenet, f"own_methods.{name}")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("own")
def test_a_method_that_unprunes_is_refused_where_it_is_used_in_steps(googlenet: Any) -> None:
    tried(googlenet, "own_methods.largest")
    with pytest.raises(ValueError, match=r"that an earlier step pruned; expected none: context.kept\(name\)"):
        tried(googlenet, "own_methods.largest", iterative=True)


def test_a_rate_that_a_method_cannot_reach_is_refused(googlenet: Any) -> None:
    with pytest.raises(
        ValueError, match=r"pruning rate: found 0\.99, but the layers that tolerate pruning reach 0\.98"
    ):
        tried(googlenet, "unstructured_sensitivity", highest=0.99)


def test_the_check_draws_the_same_network_every_time(googlenet: Any) -> None:
    seen, state = [], torch.get_rng_state()

    def method(network: torch.nn.Module, rate: float, context: Callable) -> Masks:
        seen.append(network.fc.weight.detach().clone())
        return registry.find("method", "structured_l1")(network, rate, context)

    check_method(method, googlenet.architecture, 8, 0.25, 32)
    check_method(method, googlenet.architecture, 8, 0.25, 32)
    assert all(torch.equal(seen[0], other) for other in seen) and torch.equal(torch.get_rng_state(), state)
