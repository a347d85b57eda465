"""Pruning methods as a user could write them; the tests find them by import path. Some misbehave."""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from prunelens.pruning.context import Context, Masks
from prunelens.pruning.masks import keep_largest
from prunelens.registry import describe


@describe("Taylor", color="#117733", needs=("images",))
def taylor(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the weights that change the loss least, to first order: |w x gradient| (Molchanov et al. 2017)."""
    masks, gradients = {}, context.gradients()
    for name, layer in context.layers.items():
        scores = (layer.weight * gradients[name]).abs()
        masks[name] = keep_largest(scores.masked_fill(~context.kept(name), -1), rate)
    return masks


def largest(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the largest weights, and forget in a second step what the first one pruned."""
    return {name: keep_largest(-layer.weight.abs(), rate) for name, layer in context.layers.items()}


def in_place(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the filters of the smallest L1 norm with PyTorch's own functions, which change the network."""
    masks = {}
    for name, layer in context.layers.items():
        prune.ln_structured(layer, "weight", amount=int(rate * len(layer.weight)), n=1, dim=0)
        masks[name] = layer.weight_mask.bool()
        prune.remove(layer, "weight")
    return masks


@describe("quiet", needs=("images",))
def quiet(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune the filters of the smallest mean absolute output, with hooks and a network that is left training."""
    found, masks = {}, {}
    for name, layer in context.layers.items():
        layer.register_forward_hook(lambda m, i, o, name=name: found.update({name: o.abs().mean((0, 2, 3))}))
    network.train()(context.images()[0])
    for name, layer in context.layers.items():
        masks[name] = keep_largest(found[name], rate)[:, None, None, None].expand_as(layer.weight)
    return masks


def powers(network: nn.Module, rate: float, context: Context, power: int) -> Masks:
    """Prune the weights of the smallest power."""
    return {name: keep_largest(layer.weight.abs() ** power, rate) for name, layer in context.layers.items()}


class Powers:
    """The same as an object."""

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, network: nn.Module, rate: float, context: Context) -> Masks:
        return powers(network, rate, context, self.power)


as_partial, as_object = partial(powers, power=2), Powers(2)


def undeclared_images(network: nn.Module, rate: float, context: Context) -> Masks:
    """Ask for images without saying so."""
    context.images()
    return {}


def undeclared_scan(network: nn.Module, rate: float, context: Context) -> Masks:
    """Ask for the sensitivity scan without saying so."""
    return dict(context.tolerated)


def nothing(network: nn.Module, rate: float, context: Context) -> None:
    """Forget to return the masks."""


def broken(network: nn.Module, rate: float, context: Context) -> Masks:
    """Fail."""
    return {}["no such\nname"]


@describe("drawn by PyTorch", random=True)
def torch_random(network: nn.Module, rate: float, context: Context) -> Masks:
    """Draw from PyTorch's own generator instead of the context's."""
    return {name: torch.rand(layer.weight.shape) >= rate for name, layer in context.layers.items()}


def rateless(network: nn.Module, rate: float, context: Context) -> Masks:
    """Prune half, whatever the rate."""
    return {name: keep_largest(layer.weight.abs(), 0.5) for name, layer in context.layers.items()}


@describe("drawn by nobody's seed", random=True)
def unseeded(network: nn.Module, rate: float, context: Context) -> Masks:
    """Draw from a generator of its own."""
    draw = np.random.default_rng().random
    return {name: torch.from_numpy(draw(layer.weight.shape) >= rate) for name, layer in context.layers.items()}
