"""What the study asks of an architecture. A subclass of `Architecture` of your own can be named in a profile."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """A tensor between layers, for compaction and for pruning that its readers share.

    writers: the convs whose outputs, after BatchNorm and activation, make up the tensor.
    readers: all layers (convs, the output layer) that take it as their input, directly or behind pools and other
        operations on each channel alone. Flattened maps count: (channels x places) inputs of a linear layer.
    join: how the writers' outputs come together: "concat", along the channels in this order, or "add", channel by
        channel. A residual stream is one `Stream` with all its additions and readers, up to where no identity shortcut
        passes it on: shortcuts keep channels in their place, so that all its writers have the same ones.
    fixed: the writers keep all their channels, since what follows mixes channels, as local response normalization does.
    pool: of a fixed stream, the max pool through which all readers read: it selects channels in the writers' stead.
    pools: (reader, max pool) pairs: a pool that only this reader reads through, so that it can select channels early.

    A layer writes one stream at most, and reads one at most. A tensor that cannot be described so (grouped convs,
    normalization behind a concatenation) is left out with all its writers and readers: nothing of it is ever cut.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    join: str = "concat"
    fixed: bool = False
    pool: str = ""
    pools: tuple[tuple[str, str], ...] = ()


class Architecture:
    """A family of networks that differ in width and outputs. Layers are named as in ``network.named_modules()``.

    A subclass gives `build`, `prunable`, `streams` and `steps`; the other methods suit most networks as they are. It is
    made without arguments. Its networks map images (n, 3, size, size), RGB in [0, 1], to (n, outputs), normalize the
    images themselves (in a method ``normalize``, if a profile is to have a say), and end in one linear layer.
    `architectures.check` tries all this.
    """

    output = "fc"  # the linear layer whose units are the outputs
    # The architecture without BatchNorm whose weights are given to this one (see `normalization`); layers have the same
    # names in both. One that has it says needs=("images",) in @describe.
    plain: "type[Architecture] | None" = None

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        """Build a network with random weights, channels last.

        width: factor of all channel counts. aux: with auxiliary heads, whose outputs the network returns beside its own
        in training mode, as torchvision's GoogLeNet does.

        Raises:
            ValueError: there is no such width, or there are no auxiliary heads.
        """
        raise NotImplementedError

    def prunable(self, network: nn.Module) -> list[str]:
        """Name the convs that are pruned, in order of the forward pass."""
        raise NotImplementedError

    def streams(self, network: nn.Module) -> list[Stream]:
        """List the tensors that prunable convs read or write, in order of the forward pass; see `Stream`."""
        raise NotImplementedError

    def steps(self, network: nn.Module) -> dict[str, Step]:
        """Split the forward pass in evaluation mode into functions that are called in a row, by name.

        Every block (see `block`) with prunable convs is one step of its name.
        """
        raise NotImplementedError

    def convs(self, network: nn.Module) -> dict[str, nn.Conv2d]:
        """Find the convs of inference by name, in order of the forward pass; here: in the order of their definition."""
        return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and not self.is_aux(name)}

    def is_aux(self, name: str) -> bool:
        """Whether a module or parameter belongs to an auxiliary head: their names begin with "aux", always."""
        return name.startswith("aux")

    def block(self, layer: str) -> str:
        """Name the block that a layer belongs to; here: the first part of its name."""
        return layer.split(".")[0]

    def norm(self, network: nn.Module, conv: str) -> nn.BatchNorm2d | None:
        """Find the BatchNorm behind a conv; here: the module that is defined next, if it is one."""
        modules = list(network.modules())
        place = modules.index(network.get_submodule(conv)) + 1
        return modules[place] if place < len(modules) and isinstance(modules[place], nn.BatchNorm2d) else None

    def rectified(self, network: nn.Module, conv: str) -> nn.Module:
        """Find the module whose output, clipped at 0, is the conv's after normalization and ReLU; here: BatchNorm."""
        return self.norm(network, conv) or network.get_submodule(conv)

    def pretrained(self) -> dict[str, Tensor]:
        """Download weights that were trained on ImageNet, as a state dict.

        Raises:
            ValueError: there are none for this architecture.
        """
        raise ValueError(f"network.weights: found torchvision, which has no weights of {type(self).__name__}")


def normalized(images: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """(images - mean) / deviation, by channel: images (n, 3, height, width)."""
    numbers = torch.tensor([mean, deviation], device=images.device, dtype=images.dtype).view(2, 3, 1, 1)
    return (images - numbers[0]) / numbers[1]


def unit_layers(architecture: Architecture, network: nn.Module) -> dict[str, nn.Module]:
    """The layers whose channels are the study's units: convs in order of the forward pass, then the output layer."""
    return {**architecture.convs(network), architecture.output: network.get_submodule(architecture.output)}


def parameters(architecture: Architecture, network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that inference uses: all but those of auxiliary heads."""
    return ((name, p) for name, p in network.named_parameters() if not architecture.is_aux(name))


def layer_table(architecture: Architecture, network: nn.Module) -> pd.DataFrame:
    """One row per layer with units: layer, block, position (from 0), kind (conv, output), prunable, units, weights.

    Column parameters: those of the whole network, the same in every row.
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
