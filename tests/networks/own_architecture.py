"""An architecture of a user's own, in one file: concatenation, addition, flattened maps, another activation."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunelens.networks.architecture import Architecture, Step, Stream


class Mixed(nn.Module):
    """Two convs whose outputs are concatenated, one of them with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.narrow = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide, narrow = self.norm(self.wide(x)), self.narrow(x)
        return functional.max_pool2d(functional.leaky_relu(torch.cat([wide, narrow], 1)), 2)


class Added(nn.Module):
    """Two convs whose outputs are added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(2 * channels, channels, 3)
        self.right = nn.Conv2d(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.left(x) + self.right(x))


class TinyNetwork(nn.Module):
    """For images of any size; 2 x 2 places of each channel are flattened for the last layer."""

    def __init__(self, outputs: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.mixed, self.added = Mixed(channels), Added(channels)
        self.head = nn.Linear(4 * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for step in Tiny().steps(self).values():
            x = step(x)
        return x


class Tiny(Architecture):
    """Pruned are all convs but the first."""

    output = "head"

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        return TinyNetwork(outputs, round(16 * width)).to(memory_format=torch.channels_last)

    def prunable(self, network: nn.Module) -> list[str]:
        return ["mixed.wide", "mixed.narrow", "added.left", "added.right"]

    def streams(self, network: nn.Module) -> list[Stream]:
        return [
            Stream(("stem",), ("mixed.wide", "mixed.narrow")),
            Stream(("mixed.wide", "mixed.narrow"), ("added.left", "added.right")),
            Stream(("added.left", "added.right"), ("head",), join="add"),
        ]

    def steps(self, network: nn.Module) -> dict[str, Step]:
        return {
            "stem": lambda x: functional.leaky_relu(network.stem(2 * x - 1)),
            "mixed": network.mixed,
            "added": network.added,
            "pool": nn.AdaptiveMaxPool2d(2),
            "head": lambda x: network.head(x.flatten(1)),
        }
