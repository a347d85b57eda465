"""The built-in architectures by name, how one is loaded, and the check of one."""

import torch
from torch import nn

from prunelens import registry
from prunelens.networks.architecture import Architecture
from prunelens.networks.compaction import compact
from prunelens.networks.googlenet import BVLCGoogLeNetArchitecture as bvlc_googlenet
from prunelens.networks.googlenet import BVLCGoogLeNetBNArchitecture as bvlc_googlenet_bn
from prunelens.networks.googlenet import GoogLeNetArchitecture as googlenet
from prunelens.networks.hooks import evaluating, recording
from prunelens.networks.resnet import ResNet18Architecture as resnet18

__all__ = ["bvlc_googlenet", "bvlc_googlenet_bn", "check", "googlenet", "load", "resnet18"]


def load(name: str) -> Architecture:
    """The architecture of a built-in's name or an import path, which is that of a subclass of `Architecture`.

    Raises:
        ValueError: there is no such architecture, or it is something else.
    """
    found = registry.find("architecture", name)
    if not (isinstance(found, type) and issubclass(found, Architecture)):
        raise ValueError(f"architecture {name}: found {found!r}, expected a subclass of {Architecture.__name__}")
    return found()


def check(architecture: Architecture, outputs: int, width: float, size: int) -> None:
    """Try an architecture: build it, run it on images of ``size`` pixels, and compare what it says with what it is.

    Raises:
        ValueError: the network cannot take such images, a layer that is named is none of its own, the steps do not give
            the network's outputs, the streams do not describe it: compaction would change the outputs, or BatchNorm is
            inserted, and the description does not say that this needs images.
    """
    if (architecture.plain is not None) != ("images" in registry.description(architecture, "").needs):
        raise ValueError('has plain weights or needs=("images",) in @describe, expected both or neither')
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # building draws weights
        network = architecture.build(outputs, width).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:  # biases and BatchNorm, so that filters of zeros write constants
            nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    images = torch.rand(2, 3, size, size, generator=generator)
    _check_names(architecture, network)
    rectified = {name: architecture.rectified(network, name) for name in architecture.convs(network)}
    with evaluating(network), recording(network, rectified, lambda output: output.shape[1]) as channels:
        found = network(images)
        if found.shape != (2, outputs):
            raise ValueError(f"gave outputs {tuple(found.shape)} of 2 images, expected (2, {outputs})")
        stepped = images
        for step in architecture.steps(network).values():
            stepped = step(stepped)
    if found.shape != stepped.shape or not torch.allclose(found, stepped, atol=1e-5 * float(found.abs().max())):
        raise ValueError("its steps in a row do not give the network's outputs")
    for name, conv in architecture.convs(network).items():
        if channels.get(name) != conv.out_channels:
            raise ValueError(
                f"rectified({name}): found {channels.get(name, 'no')} channels, expected {conv.out_channels}"
            )
    for name in architecture.prunable(network):
        weight = network.get_submodule(name).weight.data
        weight[torch.rand(len(weight), generator=generator) < 0.5] = 0
        shared = torch.Generator().manual_seed(0)  # readers of one tensor leave out the same channels
        weight[:, torch.rand(weight.shape[1], generator=shared) < 0.5] = 0
    compact(architecture, network, size)


def _check_names(architecture: Architecture, network: nn.Module) -> None:
    convs, steps = architecture.convs(network), architecture.steps(network)
    if not architecture.prunable(network):
        raise ValueError("names no prunable convs")
    for name in architecture.prunable(network):
        if name not in convs:
            raise ValueError(f"names the prunable layer {name}, which is none of its convs")
        if architecture.block(name) not in steps:
            raise ValueError(f"has {name} in the block {architecture.block(name)}, which is none of its steps")
