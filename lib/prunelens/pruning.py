"""Masks: which weights of a network are pruned.

A method is a function ``(network, rate, generator) -> masks`` of a network as it is now. Methods differ in three
things only: the criterion (|w|, L1, L2, random), the scope (every layer alone, or all together) and the shape of what
is pruned (single weights; filters, dim 0 of a weight; connections = input channels, dim 1). Masks are plain tensors
of our own; nothing is registered in the network.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from prunelens.networks import conv_layers, parameters, prunable_layers

Masks = dict[str, Tensor]  # by parameter name: bool, shaped as the parameter, True where it is kept
Method = Callable[[nn.Module, float, torch.Generator], Masks]
Score = Callable[[Tensor], Tensor]  # of a conv's weight, broadcastable to it: what ranks lowest is pruned

FILTERS, CONNECTIONS = (1, 2, 3), (0, 2, 3)  # dims that the score of a filter, or of an input channel, sums over

# --------------------------------------------------------------------------------------- unstructured: single weights


def unstructured_local(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the smallest |w|, the same fraction in every layer."""
    return _by_layer(network, rate, torch.abs)


def unstructured_random(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune weights at random, the same fraction in every layer: the control of ``unstructured_local``."""
    return _by_layer(network, rate, _random((), generator))


def unstructured_global(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the smallest |w| of all prunable convs taken together."""
    return _together({name: layer.weight for name, layer in _weights(network).items()}, rate)


def unstructured_global_random(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune as many weights of each layer as ``unstructured_global``, at random: its control."""
    masks, score = unstructured_global(network, rate, generator), _random((), generator)
    return {name: _keep(score(_weights(network)[name].weight), int((~mask).sum())) for name, mask in masks.items()}


def unstructured_global_paper(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the smallest |w| of all prunable convs and of fc's weights and biases together, as the paper's code does.

    The paper's code also counts the weights of the auxiliary heads, which inference never uses; ours leaves them out.
    """
    tensors = {name: layer.weight for name, layer in _weights(network).items()}
    return _together({**tensors, "fc.weight": network.fc.weight, "fc.bias": network.fc.bias}, rate)


unstructured_global_paper.also = ("fc.weight", "fc.bias")  # what it prunes besides the prunable convs


def unstructured_sensitivity(
    network: nn.Module, rate: float, generator: torch.Generator, tolerated: Mapping[str, float]
) -> Masks:
    """Prune the smallest |w|, in every layer as large a fraction as it tolerates, scaled to ``rate`` of all weights.

    tolerated: by layer name, the rate at which the network still does well when this layer alone is pruned.
    """
    layers = prunable_layers(network)
    rates = scaled_rates(tolerated, {name: layer.weight.numel() for name, layer in layers.items()}, rate)
    return {f"{name}.weight": _keep_largest(layer.weight.abs(), rates[name]) for name, layer in layers.items()}


def scaled_rates(
    tolerated: Mapping[str, float], sizes: Mapping[str, int], rate: float, highest: float = 0.98
) -> dict[str, float]:
    """Rates in proportion to ``tolerated``, at most ``highest``, whose mean weighted by ``sizes`` is ``rate``.

    Raises:
        ValueError: ``rate`` is above ``highest``, or above what the layers that tolerate anything can give.
    """
    total, factor = sum(sizes.values()), 0.0
    reachable = sum(size for name, size in sizes.items() if tolerated[name] > 0) * highest / total
    if rate > reachable:
        raise ValueError(f"pruning rate: found {rate}, but the layers that tolerate pruning reach {reachable:.3f}")
    step = 1e6
    while step > 1e-12:  # the weighted mean rises with the factor: bisection
        candidate = factor + step
        mean = sum(min(highest, candidate * tolerated[name]) * size for name, size in sizes.items()) / total
        factor = candidate if mean <= rate else factor
        step /= 2
    return {name: min(highest, factor * tolerated[name]) for name in sizes}


# ------------------------------------------------------------------------------------------------ structured: filters


def structured_l1(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the filters (output channels) of the smallest L1 norm, the same fraction in every layer."""
    return _by_layer(network, rate, _norm(1, FILTERS))


def structured_l2(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the filters of the smallest L2 norm, the same fraction in every layer."""
    return _by_layer(network, rate, _norm(2, FILTERS))


def structured_random(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune filters at random, the same fraction in every layer."""
    return _by_layer(network, rate, _random(FILTERS, generator))


# ------------------------------------------------------------------------------- connection sparsity: input channels


def connection_l1(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the input channels of the smallest L1 norm, the same fraction in every layer."""
    return _by_layer(network, rate, _norm(1, CONNECTIONS))


def connection_l2(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the input channels of the smallest L2 norm, the same fraction in every layer."""
    return _by_layer(network, rate, _norm(2, CONNECTIONS))


def connection_random(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune input channels at random, the same fraction in every layer."""
    return _by_layer(network, rate, _random(CONNECTIONS, generator))


def connection_l1_shared(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the same input channels in all layers that read a tensor: those of the smallest L1 norm over all of them.

    A channel that no layer reads need not be computed, so that compaction shrinks the layers before it too.
    """
    masks, score = {}, _norm(1, CONNECTIONS)
    for readers in _readers(network).values():
        kept = _keep_largest(sum(score(layer.weight) for layer in readers.values()), rate)
        masks |= {name: _expand(kept, layer.weight) for name, layer in readers.items()}
    return {name: masks[name] for name in _weights(network)}


def _readers(network: nn.Module) -> dict[str, dict[str, nn.Conv2d]]:
    """The prunable convs by the tensor they read: four read an inception block's input, two a branch's own tensor."""
    readers: dict[str, dict[str, nn.Conv2d]] = {}
    for name, layer in _weights(network).items():
        block, branch = name.removesuffix(".conv.weight").split(".", 1)
        tensor = block if branch in ("branch1", "branch2.0", "branch3.0", "branch4.1") else f"{block}.{branch}"
        readers.setdefault(tensor, {})[name] = layer
    return readers


METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        unstructured_local,
        unstructured_random,
        unstructured_sensitivity,
        unstructured_global,
        unstructured_global_random,
        unstructured_global_paper,
        structured_l1,
        structured_l2,
        structured_random,
        connection_l1,
        connection_l2,
        connection_random,
        connection_l1_shared,
    )
}


def find(name: str) -> Method:
    """A method by its name here, or by its import path ("package.module.function").

    Raises:
        ValueError: neither names a function.
    """
    if name in METHODS:
        return METHODS[name]
    module, _, function = name.rpartition(".")
    if not module:
        raise ValueError(f"expected the import path of a function, or one of {', '.join(METHODS)}")
    try:
        method = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the import path names no function ({error})") from error
    if not callable(method):
        raise ValueError(f"the import path names a {type(method).__name__}, expected a function")
    return method


def source(name: str) -> str | None:
    """The source of a method that is not one of METHODS, on which its results depend; None for those that are."""
    return None if name in METHODS else inspect.getsource(find(name))


# --------------------------------------------------------------------------------------------------------- criteria


def _norm(order: int, dims: tuple[int, ...]) -> Score:
    return lambda weight: torch.linalg.vector_norm(weight, order, dims, keepdim=True)


def _random(dims: tuple[int, ...], generator: torch.Generator) -> Score:
    """Random scores; what is zero already ranks last, so that masks only grow over the steps of a schedule."""

    def score(weight: Tensor) -> Tensor:
        alive = weight.detach().abs().sum(dims, keepdim=True) > 0 if dims else weight.detach() != 0
        drawn = 1 + torch.rand(alive.shape, generator=generator).to(weight.device)
        return drawn * alive

    return score


# ------------------------------------------------------------------------------------------------------------- parts


def _weights(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The prunable convs by the name of their weight."""
    return {f"{name}.weight": layer for name, layer in prunable_layers(network).items()}


def _by_layer(network: nn.Module, rate: float, score: Score) -> Masks:
    return {
        name: _expand(_keep_largest(score(layer.weight), rate), layer.weight)
        for name, layer in _weights(network).items()
    }


def _together(tensors: dict[str, Tensor], rate: float) -> Masks:
    scores = torch.cat([tensor.detach().abs().flatten() for tensor in tensors.values()])
    kept = _keep_largest(scores, rate).split([tensor.numel() for tensor in tensors.values()])
    return {name: mask.view_as(tensor) for (name, tensor), mask in zip(tensors.items(), kept, strict=True)}


def _keep_largest(scores: Tensor, rate: float) -> Tensor:
    """Bool, shaped as ``scores``: False for the int(n x rate) smallest; equal scores fall in order of position."""
    return _keep(scores, int(scores.numel() * rate + 1e-9))  # 10 x .3 is 3, though floating point says 2.999...


def _keep(scores: Tensor, pruned: int) -> Tensor:
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.detach().flatten().argsort(stable=True)[:pruned]] = False
    return kept.view_as(scores)


def _expand(kept: Tensor, weight: Tensor) -> Tensor:
    return kept.expand_as(weight).clone()


# --------------------------------------------------------------------------------------------------------- applying


def prune(network: nn.Module, method: Method, rate: float, seed: int, affine: bool = False) -> Masks:
    """Compute and check a method's masks, and set the pruned weights of ``network`` to zero.

    affine: prune with a filter its BatchNorm's weight and bias too (without BatchNorm: its own bias), so that it
    writes zero and not a constant.

    Raises:
        ValueError: the rate is outside [0, 1), or the method returned a mask of an unknown or protected parameter, of
            another shape, or not of booleans; names the parameter.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"pruning rate: found {rate}, expected a number in [0, 1)")
    masks = method(network, rate, torch.Generator().manual_seed(seed))
    check(network, masks, getattr(method, "also", ()))
    if affine:
        masks |= _affine(network, masks)
    apply(network, masks)
    return masks


def check(network: nn.Module, masks: Masks, also: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless every mask is a bool tensor shaped as the weight of a prunable conv, or one of ``also``.

    A method that means to prune more than the prunable convs says so in its attribute ``also``, a tuple of names.
    """
    known = dict(parameters(network))
    allowed = {*_weights(network), *also}
    for name, mask in masks.items():
        if name not in known:
            raise ValueError(f"mask of {name}: this parameter does not exist; expected names such as {min(allowed)}")
        if name not in allowed:
            raise ValueError(f"mask of {name}: this parameter is protected; expected weights of the prunable convs")
        expected = tuple(known[name].shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(f"mask of {name}: found {mask.dtype} {tuple(mask.shape)}, expected torch.bool {expected}")


def _affine(network: nn.Module, masks: Masks) -> Masks:
    """Masks of the affine parameters behind filters that are pruned whole."""
    known, found = dict(parameters(network)), {}
    for name, mask in masks.items():
        stem = name.removesuffix("conv.weight")
        for behind in (f"{stem}bn.weight", f"{stem}bn.bias", f"{stem}conv.bias"):
            if name.endswith("conv.weight") and behind in known:
                found[behind] = mask.flatten(1).any(1)
    return found


@torch.no_grad()
def apply(network: nn.Module, masks: Masks) -> None:
    """Set the masked parameters of ``network`` to exactly zero."""
    for name, mask in masks.items():
        network.get_parameter(name).mul_(mask)


def sparsity(network: nn.Module) -> dict[str, float]:
    """Fractions of exactly zero weights, measured: ``conv_sparsity`` among the weights of the prunable convs,
    ``all_conv_sparsity`` among those of all convs, ``total_sparsity`` among all inference parameters.
    """
    prunable = [layer.weight for layer in prunable_layers(network).values()]
    convs = [layer.weight for layer in conv_layers(network).values()]
    everything = [parameter for _, parameter in parameters(network)]
    zeros = sum(_zeros(weight) for weight in convs)
    return {
        "conv_sparsity": sum(_zeros(weight) for weight in prunable) / _size(prunable),
        "all_conv_sparsity": zeros / _size(convs),
        "total_sparsity": sum(_zeros(parameter) for parameter in everything) / _size(everything),
    }


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(weight.detach().count_nonzero())


def _size(weights: list[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)
