"""Masks: which weights of a network are pruned.

A method is a function ``(network, rate, generator) -> masks`` of a network as it is now: it keeps, in every layer it
prunes, what its criterion ranks highest. Masks are plain tensors of our own; nothing is registered in the network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunelens.networks import conv_layers, parameters, prunable_layers

Masks = dict[str, Tensor]  # by layer name: bool, shaped as the layer's weight, True where the weight is kept
Method = Callable[[nn.Module, float, torch.Generator], Masks]


def unstructured_local(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the smallest |w|, the same fraction in every layer."""
    return {name: _keep_largest(layer.weight.abs(), rate) for name, layer in prunable_layers(network).items()}


def unstructured_global(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the smallest |w| of all prunable convs taken together."""
    layers = prunable_layers(network)
    scores = torch.cat([layer.weight.detach().abs().flatten() for layer in layers.values()])
    kept = _keep_largest(scores, rate).split([layer.weight.numel() for layer in layers.values()])
    return {name: mask.view_as(layer.weight) for (name, layer), mask in zip(layers.items(), kept, strict=True)}


def structured_l1(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Prune the filters (output channels) of the smallest L1 norm, the same fraction in every layer."""
    return {
        name: _expand(_keep_largest(layer.weight.abs().sum((1, 2, 3)), rate).view(-1, 1, 1, 1), layer)
        for name, layer in prunable_layers(network).items()
    }


def connection_l1(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Connection sparsity: prune the input channels of the smallest L1 norm, the same fraction in every layer."""
    return {
        name: _expand(_keep_largest(layer.weight.abs().sum((0, 2, 3)), rate).view(1, -1, 1, 1), layer)
        for name, layer in prunable_layers(network).items()
    }


def connection_random(network: nn.Module, rate: float, generator: torch.Generator) -> Masks:
    """Connection sparsity: prune input channels at random, the same fraction in every layer.

    Channels pruned already rank last, so that masks only grow over the steps of an iterative schedule.
    """
    masks = {}
    for name, layer in prunable_layers(network).items():
        scores = 1 + torch.rand(layer.weight.shape[1], generator=generator)
        alive = layer.weight.detach().abs().sum((0, 2, 3)).cpu() > 0
        masks[name] = _expand(_keep_largest(scores * alive, rate).view(1, -1, 1, 1).to(layer.weight.device), layer)
    return masks


METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (unstructured_local, unstructured_global, structured_l1, connection_l1, connection_random)
}


def _keep_largest(scores: Tensor, rate: float) -> Tensor:
    """Bool, shaped as ``scores``: False for the int(n x rate) smallest; equal scores fall in order of position."""
    pruned = int(scores.numel() * rate + 1e-9)  # 10 x .3 is 3, though floating point says 2.999...
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.detach().flatten().argsort(stable=True)[:pruned]] = False
    return kept.view_as(scores)


def _expand(kept: Tensor, layer: nn.Conv2d) -> Tensor:
    return kept.expand_as(layer.weight).clone()


def prune(network: nn.Module, method: Method, rate: float, seed: int) -> Masks:
    """Compute and check a method's masks, and set the pruned weights of ``network`` to zero.

    Raises:
        ValueError: the rate is outside [0, 1), or the method returned a mask of an unknown or protected layer, of
            another shape, or not of booleans; names the layer.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"pruning rate: found {rate}, expected a number in [0, 1)")
    masks = method(network, rate, torch.Generator().manual_seed(seed))
    check(network, masks)
    apply(network, masks)
    return masks


def check(network: nn.Module, masks: Masks) -> None:
    """Raise ValueError unless every mask is a bool tensor shaped as the weight of a prunable layer of ``network``."""
    layers = prunable_layers(network)
    for name, mask in masks.items():
        if name not in layers:
            where = "is protected" if name in conv_layers(network) or name == "fc" else "does not exist"
            raise ValueError(f"mask of {name}: this layer {where}; expected one of {len(layers)} prunable convs")
        expected = tuple(layers[name].weight.shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(f"mask of {name}: found {mask.dtype} {tuple(mask.shape)}, expected torch.bool {expected}")


@torch.no_grad()
def apply(network: nn.Module, masks: Masks) -> None:
    """Set the masked weights of ``network`` to exactly zero."""
    for name, mask in masks.items():
        network.get_submodule(name).weight.mul_(mask)


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
        "total_sparsity": zeros / _size(everything),
    }


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(weight.detach().count_nonzero())


def _size(weights: list[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)
