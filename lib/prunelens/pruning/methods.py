"""The built-in pruning methods: functions ``(network, rate, context) -> masks`` of a network as it is now.

They differ in three things: the criterion (|w|, L1, L2, random), the scope (every layer alone, or all together) and the
shape of what is pruned: single weights, filters (dim 0 of a weight) or connections (input channels, dim 1). What was
pruned in an earlier step ranks last, so that masks only grow.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunelens.pruning.context import Context, Masks
from prunelens.pruning.masks import Method, drop_smallest, keep_largest
from prunelens.pruning.rates import scaled_rates
from prunelens.registry import describe

SINGLE, FILTERS, CONNECTIONS = (), (1, 2, 3), (0, 2, 3)  # dims of a conv's weight that one score covers
Criterion = Callable[[Tensor, tuple[int, ...], Context], Tensor]  # (weight, dims) -> scores; the lowest are pruned

# ----------------------------------------------------------------------------------- the same fraction in every layer


def _l1(weight: Tensor, dims: tuple[int, ...], context: Context) -> Tensor:
    return torch.linalg.vector_norm(weight, 1, dims, keepdim=True) if dims else weight.abs()


def _l2(weight: Tensor, dims: tuple[int, ...], context: Context) -> Tensor:
    return torch.linalg.vector_norm(weight, 2, dims, keepdim=True)


def _random(weight: Tensor, dims: tuple[int, ...], context: Context) -> Tensor:
    """Random scores; what is zero ranks below the rest."""
    alive = weight.detach().abs().sum(dims, keepdim=True) > 0 if dims else weight.detach() != 0
    return (1 + torch.rand(alive.shape, generator=context.generator)) * alive


def _ranked(scores: Tensor, context: Context, name: str, dims: tuple[int, ...] = SINGLE) -> Tensor:
    """The scores of a parameter's parts, with those last that an earlier step pruned."""
    kept = context.kept(name)
    return scores.masked_fill(~(kept.any(dims, keepdim=True) if dims else kept), -1)


def _by_layer(label: str, criterion: Criterion, dims: tuple[int, ...], color: str, marker: str, **more: Any) -> Method:
    """A method that prunes the same fraction of every layer. more: of `describe`, such as version."""

    @describe(label, color=color, marker=marker, **more)
    def method(network: nn.Module, rate: float, context: Context) -> Masks:
        masks = {}
        for name, layer in context.layers.items():
            kept = keep_largest(_ranked(criterion(layer.weight, dims, context), context, name, dims), rate)
            masks[name] = kept.expand_as(layer.weight).clone()
        return masks

    return method


unstructured_local = _by_layer("unstructured, equal per layer", _l1, SINGLE, "#56B4E9", "v")
unstructured_random = _by_layer("unstructured, random", _random, SINGLE, "#A6CEE3", "v", random=True)
structured_l1 = _by_layer("structured, L1", _l1, FILTERS, "#D55E00", "s")
structured_l2 = _by_layer("structured, L2", _l2, FILTERS, "#F4A582", "s")
structured_random = _by_layer("structured, random", _random, FILTERS, "#FDB863", "H", random=True)
connection_l1 = _by_layer("connection, L1", _l1, CONNECTIONS, "#009E73", "D")
connection_l2 = _by_layer("connection, L2", _l2, CONNECTIONS, "#7FBC41", "D")
connection_random = _by_layer("connection, random", _random, CONNECTIONS, "#E69F00", "P", random=True)

# ------------------------------------------------------------------------------------ layers looked at together


@describe("unstructured, per layer by sensitivity", color="#5E3C99", marker="<", needs=("sensitivity",))
def unstructured_sensitivity(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the smallest |w|, in every layer as large a fraction as it tolerates, scaled to ``rate`` of all weights."""
    sizes = {name.removesuffix(".weight"): layer.weight.numel() for name, layer in context.layers.items()}
    rates = scaled_rates(context.tolerated, sizes, rate)
    scores = {name: _ranked(layer.weight.abs(), context, name) for name, layer in context.layers.items()}
    return {name: keep_largest(score, rates[name.removesuffix(".weight")]) for name, score in scores.items()}


@describe("unstructured, global", color="#0072B2", marker="^")
def unstructured_global(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the smallest |w| of all prunable convs taken together."""
    return _together({name: layer.weight for name, layer in context.layers.items()}, rate, context)


@describe("unstructured, random, layers as global", color="#80B1D3", marker="^", random=True)
def unstructured_global_random(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune as many weights of each layer as ``unstructured_global``, at random: its control."""
    masks = unstructured_global(network, rate, context)
    for name, layer in context.layers.items():
        scores = _ranked(_random(layer.weight, SINGLE, context), context, name)
        masks[name] = drop_smallest(scores, int((~masks[name]).sum()))
    return masks


@describe("unstructured, global with fc", color="#08306B", marker=">", also=("{output}.weight", "{output}.bias"))
def unstructured_global_paper(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the smallest |w| of all prunable convs and of the output layer's weights and biases, as the paper's code.

    That code also counts the weights of the auxiliary heads, which inference never uses; they are left out here.
    """
    output = context.architecture.output
    last = {f"{output}.{name}": tensor for name, tensor in network.get_submodule(output).named_parameters()}
    return _together({name: layer.weight for name, layer in context.layers.items()} | last, rate, context)


def _together(tensors: dict[str, Tensor], rate: float, context: Context) -> Masks:
    ranked = [_ranked(tensor.detach().abs(), context, name).flatten() for name, tensor in tensors.items()]
    kept = keep_largest(torch.cat(ranked), rate).split([tensor.numel() for tensor in tensors.values()])
    return {name: mask.view_as(tensor) for (name, tensor), mask in zip(tensors.items(), kept, strict=True)}


@describe("connection, L1, shared by a tensor's readers", color="#66A61E", marker="p")
def connection_l1_shared(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the same input channels in all layers that read a tensor: those of the smallest L1 norm over all of them.

    A channel that no layer reads need not be computed, so that compaction shrinks the layers before it too.
    """
    masks = {}
    for stream in context.architecture.streams(network):
        readers = [f"{name}.weight" for name in stream.readers if f"{name}.weight" in context.layers]
        scores = sum(_l1(context.layers[name].weight, CONNECTIONS, context) for name in readers)
        for name in readers:
            kept = keep_largest(_ranked(scores, context, name, CONNECTIONS), rate)
            masks[name] = kept.expand_as(context.layers[name].weight).clone()
    return {name: masks[name] for name in context.layers}
