"""What the study asks of an architecture. A subclass of `Architecture` of your own can be named in a profile."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """A tensor between layers: the convs that write it and the layers that read it, by dotted name.

    join: how the writers' outputs come together: "concat" (along channels, in this order) or "add".
    pools: by reader, the max pool between the tensor and that reader; compaction may select channels there.
    fixed: its writers must keep all their channels, as where normalization across channels follows.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    join: str = "concat"
    pools: tuple[tuple[str, str], ...] = ()
    fixed: bool = False


class Architecture:
    """A family of networks. A subclass gives at least `build`, `prunable`, `streams` and `steps`.

    Networks take RGB images in [0, 1] and normalize them themselves.
    """

    output = "fc"  # the layer whose units are the outputs

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        """Build a network with PyTorch's default initialization, channels last; width: factor of all channel counts.

        aux: with the auxiliary heads that training uses.
        """
        raise NotImplementedError

    def prunable(self, network: nn.Module) -> list[str]:
        """Name the convs that are pruned, in order of the forward pass."""
        raise NotImplementedError

    def streams(self, network: nn.Module) -> list[Stream]:
        """List the tensors that prunable convs write or read, in order of the forward pass."""
        raise NotImplementedError

    def steps(self, network: nn.Module) -> dict[str, Step]:
        """Split the forward pass in evaluation mode into steps in a row; each block is one step of its name."""
        raise NotImplementedError

    def convs(self, network: nn.Module) -> dict[str, nn.Conv2d]:
        """Find the convs of inference by dotted name, in order of the forward pass."""
        return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and not self.is_aux(name)}

    def is_aux(self, name: str) -> bool:
        """Whether a module or parameter belongs to an auxiliary head, which inference does not use."""
        return name.startswith("aux")

    def block(self, layer: str) -> str:
        """Name the block that a layer belongs to."""
        return layer.split(".")[0]

    def norm(self, network: nn.Module, conv: str) -> nn.BatchNorm2d | None:
        """Find the BatchNorm behind a conv."""
        raise NotImplementedError

    def rectified(self, network: nn.Module, conv: str) -> nn.Module:
        """Find the module whose output, where it is positive, is a conv's output after normalization and ReLU."""
        raise NotImplementedError

    def pretrained(self) -> dict[str, Tensor]:
        """Download weights that were trained on ImageNet.

        Raises:
            ValueError: there are none for this architecture.
        """
        raise ValueError(f"network.weights: found torchvision, which has no weights of {type(self).__name__}")


def unit_layers(architecture: Architecture, network: nn.Module) -> dict[str, nn.Module]:
    """The layers whose channels are the study's units: convs in order of the forward pass, last the output layer."""
    return {**architecture.convs(network), architecture.output: network.get_submodule(architecture.output)}


def parameters(architecture: Architecture, network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that inference uses."""
    return ((name, p) for name, p in network.named_parameters() if not architecture.is_aux(name))


def layer_table(architecture: Architecture, network: nn.Module) -> pd.DataFrame:
    """One row per layer with units: layer, block, position (0 the first), kind (conv, output), prunable, units, weights.

    parameters: those of the whole network, the same in every row.
    """
    prunable = set(architecture.prunable(network))
    total = sum(parameter.numel() for _, parameter in parameters(architecture, network))
    return pd.DataFrame(
        {
            "layer": name,
            "block": architecture.block(name),
            "position": position,
            "kind": "conv" if isinstance(module, nn.Conv2d) else "output",
            "prunable": name in prunable,
            "units": module.weight.shape[0],
            "weights": module.weight.numel(),
            "parameters": total,
        }
        for position, (name, module) in enumerate(unit_layers(architecture, network).items())
    )


def check(architecture: Architecture, outputs: int, width: float, size: int) -> None:
    """Try an architecture: build it, run its steps, and compare what it says of itself with what it is.

    Raises:
        ValueError: the network cannot take such images, the steps do not give its outputs, or a layer that it names is
            no conv of it.
    """
    network = architecture.build(outputs, width).eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = network(images)
        if found.shape != (2, outputs):
            raise ValueError(f"gave outputs {tuple(found.shape)} of 2 images, expected (2, {outputs})")
        stepped = images
        for step in architecture.steps(network).values():
            stepped = step(stepped)
    if not torch.allclose(found, stepped, atol=1e-5 * float(found.abs().max())):
        raise ValueError("its steps in a row do not give the network's outputs")
    convs, prunable = architecture.convs(network), architecture.prunable(network)
    if not prunable:
        raise ValueError("names no prunable convs")
    steps = architecture.steps(network)
    for name in prunable:
        if name not in convs:
            raise ValueError(f"names the prunable layer {name}, which is none of its convs")
        if architecture.block(name) not in steps:
            raise ValueError(f"has {name} in the block {architecture.block(name)}, which is none of its steps")
    for stream in architecture.streams(network):
        for name in (*stream.writers, *stream.readers):
            if name not in convs and name != architecture.output:
                raise ValueError(f"names {name} in a stream, which is none of its layers")
