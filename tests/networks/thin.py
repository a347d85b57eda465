"""Networks of the tests: every architecture, small and fast, and with parts of it set to zero."""

import copy

import torch
from torch import Tensor, nn

from prunelens.images.embedded import compose
from prunelens.images.imageset import to_batch
from prunelens.networks import architectures
from prunelens.networks.architecture import Architecture
from prunelens.networks.compaction import _assemble
from prunelens.networks.weights import initialize

GOOGLENETS = ("googlenet", "bvlc_googlenet", "bvlc_googlenet_bn")
NAMES = (*GOOGLENETS, "resnet18", "own_architecture.Tiny")


def perturb(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights, biases and BatchNorm anew: filters of zeros write constants, some of them zero."""
    initialize(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.2, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.normal_(5, 10, generator=generator)  # activations are of the order of 100
    return network.eval()


def thin(name: str) -> tuple[Architecture, nn.Module]:
    """The architecture, and a network with a quarter of the channels: the same graph in less time."""
    architecture = architectures.load(name)
    if name not in GOOGLENETS:
        return architecture, perturb(architecture.build(10, 0.25 if name == "resnet18" else 1.0))

    def quarter(name: str, tensor: Tensor) -> Tensor:  # without rounding, and of the network that has one width
        outputs = slice(None) if name.startswith("fc.") else slice(len(tensor) // 4)
        if tensor.ndim < 2 or name == "conv1.conv.weight":
            return tensor[outputs]
        return tensor[outputs, : tensor.shape[1] // 4]

    state = architecture.build(10).state_dict()
    state = {name: quarter(name, tensor) if tensor.ndim else tensor for name, tensor in state.items()}
    return architecture, perturb(_assemble(architecture, state, 10))


def photographs(n: int, size: int) -> Tensor:
    return to_batch(compose(n, size, "validation", seed=0).images, "cpu").contiguous()


def prune(architecture: Architecture, network: nn.Module, method: str, rate: float, affine: bool = False) -> nn.Module:
    """A copy with a share of the filters ("structured") or inputs of all prunable convs at zero.

    Inputs of the smallest L1 norm of each conv ("connection") or of all that read a tensor ("shared"), or at "random".
    affine: with the biases and BatchNorm of the filters at zero, so that they write zeros.
    """
    network, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    layers = {name: network.get_submodule(name) for name in architecture.prunable(network)}
    norms = {name: layer.weight.data.abs().sum((2, 3)) for name, layer in layers.items()}
    scores = {name: norm.sum(1 if method == "structured" else 0) for name, norm in norms.items()}
    if method == "random":
        scores = {name: torch.rand(score.shape, generator=generator) for name, score in scores.items()}
    for stream in architecture.streams(network) if method == "shared" else []:
        readers = [reader for reader in stream.readers if reader in layers]
        scores |= {reader: sum(scores[reader] for reader in readers) for reader in readers}
    for name, layer in layers.items():
        gone = scores[name].argsort()[: int(len(scores[name]) * rate + 1e-9)]
        if method == "structured":
            layer.weight.data[gone] = 0
            for module in (layer, architecture.norm(network, name)) if affine else ():
                for parameter in module.parameters() if module else ():
                    parameter.data[gone] = 0
        else:
            layer.weight.data[:, gone] = 0
    return network
