"""Small networks, images and contexts of the pruning tests."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from prunelens import registry
from prunelens.images.embedded import compose
from prunelens.images.imageset import ImageSet
from prunelens.networks import architectures, weights
from prunelens.networks.architecture import Architecture
from prunelens.pruning import masks
from prunelens.pruning.context import Context


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Small:
    """A quarter-width network (the original GoogLeNet has one width only) and how to prune it."""

    def __init__(self, name: str) -> None:
        self.architecture: Architecture = architectures.load(name)
        self.width = 1.0 if name == "bvlc_googlenet" else 0.25
        self.network = self.architecture.build(100, self.width)
        weights.initialize(self.network, 0)
        self.network.get_submodule(self.architecture.output).bias.data.normal_(
            generator=torch.Generator().manual_seed(0)
        )
        self.convs = {f"{name}.weight" for name in self.architecture.prunable(self.network)}
        self.images: ImageSet = compose(24, 32, "train", 0)

    def fresh(self) -> nn.Module:
        return copy.deepcopy(self.network)

    def context(self, seed: int = 0) -> Callable[[nn.Module], Context]:
        layers = self.architecture.prunable(self.network)
        tolerated = {layer: 0.1 + i / (2 * len(layers)) for i, layer in enumerate(sorted(layers))}
        return lambda network: Context(network, self.architecture, seed, lambda: self.images, lambda: tolerated)

    def prune(
        self, network: nn.Module, method: str, rate: float, seed: int = 0, within: masks.Masks | None = None
    ) -> masks.Masks:
        return masks.prune(network, registry.find("method", method), rate, self.context(seed), within)


@pytest.fixture(scope="session", params=["googlenet", "resnet18"])
def small(request: pytest.FixtureRequest) -> Small:
    return Small(request.param)


@pytest.fixture(scope="session")
def googlenet() -> Small:
    return Small("googlenet")


@pytest.fixture(scope="session")
def bvlc() -> Small:
    return Small("bvlc_googlenet")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `own_methods` importable, as a file in a user's folder is."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
