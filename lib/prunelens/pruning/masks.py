"""Masks: which weights of a network are pruned. They are plain tensors; nothing is registered in the network."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from prunelens.images.imageset import ImageSet
from prunelens.networks.architecture import Architecture, parameters
from prunelens.pruning.context import Context, Masks
from prunelens.registry import description

# (a copy of the network, the share of weights to prune, what else it may ask for) -> masks, which are all that counts.
Method = Callable[[nn.Module, float, Context], Masks]
MakeContext = Callable[[nn.Module], Context]  # of the copy


def prune(
    network: nn.Module, method: Method, rate: float, make_context: MakeContext, within: Masks | None = None
) -> Masks:
    """Compute and check a method's masks, and set the pruned weights of ``network`` to zero.

    within: masks of the step before in an iterative schedule, which those of this step may only narrow.

    Raises:
        ValueError: the rate is outside [0, 1), or a mask is not what it should be (see `check`).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"pruning rate: found {rate}, expected a number in [0, 1)")
    copied, described = copy.deepcopy(network).cpu().eval(), description(method, "")
    context = replace(make_context(copied), needs=described.needs, before=within or {})
    also = [name.format(output=context.architecture.output) for name in described.also]
    with torch.random.fork_rng(devices=[]):  # a method may draw from PyTorch's own generator, too
        torch.manual_seed(context.seed)
        masks = method(copied, rate, context)
    check(network, masks, [*context.layers, *also], context.before)
    masks = {name: mask.detach().cpu() for name, mask in masks.items()}
    apply(network, masks)
    return masks


def check(network: nn.Module, masks: Masks, allowed: Iterable[str], within: Masks) -> None:
    """Check what a method returned.

    Raises:
        ValueError: a mask is that of an unknown or protected parameter, no bool tensor of its shape, or keeps weights
            that ``within`` does not; names the parameter.
    """
    if not isinstance(masks, dict):
        raise ValueError(f"masks: found a {type(masks).__name__}, expected a dict of bool tensors by parameter name")
    known, allowed = dict(network.named_parameters()), set(allowed)
    for name, mask in masks.items():
        if name not in known:
            raise ValueError(f"mask of {name}: this parameter does not exist; expected names such as {min(allowed)}")
        if name not in allowed:
            raise ValueError(f"mask of {name}: this parameter is protected; expected weights of the prunable convs")
        expected = f"torch.bool {tuple(known[name].shape)}"
        found = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        if found != expected:
            raise ValueError(f"mask of {name}: found {found}, expected {expected}")
    for name, before in within.items():
        revived = int((~before & masks[name].cpu() if name in masks else ~before).sum())
        if revived:
            raise ValueError(f"mask of {name}: keeps {revived} weights that an earlier step pruned; expected none: "
                             "context.kept(name) tells which to rank last")  # fmt: skip


@torch.no_grad()
def apply(network: nn.Module, masks: Masks) -> None:
    """Set the masked parameters of ``network`` to exactly zero."""
    for name, mask in masks.items():
        parameter = network.get_parameter(name)
        parameter.mul_(mask.to(parameter.device))


def keep_largest(scores: Tensor, rate: float) -> Tensor:
    """Bool, shaped as ``scores``: False for the int(n x rate) smallest; equal scores fall in order of position."""
    return drop_smallest(scores, int(scores.numel() * rate + 1e-9))  # 10 x .3 is 3, though floats say 2.999...


def drop_smallest(scores: Tensor, n: int) -> Tensor:
    """Bool, shaped as ``scores``: False for the ``n`` smallest; equal scores fall in order of position."""
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[scores.detach().flatten().argsort(stable=True)[:n]] = False
    return kept.view_as(scores)


def sparsity(architecture: Architecture, network: nn.Module) -> dict[str, float]:
    """Measure the fractions of exactly zero weights, in [0, 1].

    ``conv_sparsity``: among the weights of the prunable convs; ``all_conv_sparsity``: of all convs; ``total_sparsity``:
    among all parameters of inference.
    """
    convs = {name: conv.weight for name, conv in architecture.convs(network).items()}
    return {
        "conv_sparsity": _zeros([convs[name] for name in architecture.prunable(network)]),
        "all_conv_sparsity": _zeros(list(convs.values())),
        "total_sparsity": _zeros([parameter for _, parameter in parameters(architecture, network)]),
    }


def _zeros(tensors: list[Tensor]) -> float:
    total = sum(tensor.numel() for tensor in tensors)
    return (total - sum(int(tensor.detach().count_nonzero()) for tensor in tensors)) / total


def check_method(
    method: Method,
    architecture: Architecture,
    outputs: int,
    width: float,
    size: int,
    highest: float = 0.75,
    iterative: bool = False,
) -> None:
    """Try a method on a network with random weights and a few random images, up to the highest rate that is asked for.

    iterative: in two steps too.

    Raises:
        ValueError: it raises, or its masks are not what they should be, follow neither seed nor rate; in one line.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    images = ImageSet(pixels, np.array([0, 1, 0, 1]), list("abcd"), ["0", "1"], np.array([0, 1]))

    def make_context(network: nn.Module, seed: int = 0) -> Context:
        tolerated = dict.fromkeys(architecture.prunable(network), 0.5)
        return Context(network, architecture, seed, lambda: images, lambda: tolerated)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = architecture.build(outputs, width)
    try:
        another = highest if highest != 0.5 else 0.25
        first, again, other, less_or_more = (
            prune(copy.deepcopy(network), method, rate, partial(make_context, seed=seed))
            for rate, seed in ((0.5, 0), (0.5, 0), (0.5, 1), (another, 0))
        )
        if not _equal(first, again):
            raise ValueError("the same seed gives other masks, expected those of context.generator or torch's own")
        if not _equal(first, other) and not description(method, "").random:
            raise ValueError("another seed gives other masks, expected random=True in @describe")
        if (_pruned(first) - _pruned(less_or_more)) * (0.5 - another) <= 0:
            found = f"{_pruned(first)} weights at rate 0.5 and {_pruned(less_or_more)} at {another:g}"
            raise ValueError(f"prunes {found}, expected more at the higher rate")
        if iterative:
            apply(network, first)
            prune(network, method, 0.75, make_context, first)
    except (Exception, SystemExit) as error:  # a user's method can fail in any way
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(kind + " ".join(str(error).split())) from error


def _equal(masks: Masks, others: Masks) -> bool:
    return masks.keys() == others.keys() and all(torch.equal(mask, others[name]) for name, mask in masks.items())


def _pruned(masks: Masks) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())
