"""Architectures: what each says of itself, a user's own among them, and what the check finds."""

from functools import partial

import pytest
import torch
from own_architecture import Added, Tiny
from thin import NAMES, thin
from torch import Tensor, nn

from prunelens.networks import architectures
from prunelens.networks.architecture import Architecture, Step, Stream, layer_table, parameters, unit_layers
from prunelens.networks.hooks import before, evaluating, recording


@pytest.mark.parametrize("name", NAMES)
def test_the_check_passes(name: str) -> None:
    state = torch.get_rng_state()
    architectures.check(architectures.load(name), 8, 1.0 if name.startswith("bvlc") else 0.25, 64)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_layers_come_in_the_order_of_the_forward_pass(name: str) -> None:
    architecture, network = thin(name)
    layers, called = unit_layers(architecture, network), []

    def see(layer: str, x: Tensor) -> None:
        called.append(layer)

    with evaluating(network), before({layer: partial(see, name) for name, layer in layers.items()}):
        network(torch.rand(1, 3, 64, 64))
    first = [layer for layer in called if "downsample" not in layer]
    assert first == [layer for layer in layers if "downsample" not in layer] and set(called) == set(layers)


@pytest.mark.parametrize("name", NAMES)
def test_a_conv_rectified_is_what_relu_leaves_of_it(name: str) -> None:
    architecture, network = thin(name)
    convs = architecture.convs(network)
    modules = {("conv", conv): module for conv, module in convs.items()}
    modules |= {("rectified", conv): architecture.rectified(network, conv) for conv in convs}
    with evaluating(network), recording(network, modules, torch.clone) as outputs:
        network(torch.rand(2, 3, 64, 64))
        for conv in convs:
            norm = architecture.norm(network, conv) or nn.Identity()
            assert torch.equal(outputs["rectified", conv].relu(), norm(outputs["conv", conv]).relu()), conv


@pytest.mark.parametrize("name", NAMES)
def test_streams_read_and_write_every_prunable_conv_once(name: str) -> None:
    architecture, network = thin(name)
    streams, prunable = architecture.streams(network), architecture.prunable(network)
    readers = [reader for stream in streams for reader in stream.readers]
    writers = [writer for stream in streams for writer in stream.writers]
    assert sorted(readers) == sorted([*prunable, architecture.output])
    assert len(set(writers)) == len(writers) and set(prunable) <= set(writers)


def test_the_layer_table_of_a_users_architecture() -> None:
    network = Tiny().build(5)
    table = layer_table(Tiny(), network)
    assert table.layer.tolist() == ["stem", "mixed.wide", "mixed.narrow", "added.left", "added.right", "head"]
    assert table.block.tolist() == ["stem", "mixed", "mixed", "added", "added", "head"]
    assert table.position.tolist() == list(range(6))
    assert table.kind.tolist() == ["conv"] * 5 + ["output"]
    assert table.prunable.tolist() == [False, True, True, True, True, False]
    assert table.units.tolist() == [16, 16, 16, 16, 16, 5] and table.weights.tolist()[-1] == 320
    assert set(table.parameters) == {sum(parameter.numel() for _, parameter in parameters(Tiny(), network))}
    assert Tiny().norm(network, "mixed.wide") is network.mixed.norm and Tiny().norm(network, "added.right") is None
    with pytest.raises(ValueError, match=r"network\.weights: found torchvision, which has no weights of Tiny"):
        Tiny().pretrained()


def test_what_is_no_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"architecture googlenett: unknown, did you mean googlenet\?"):
        architectures.load("googlenett")
    with pytest.raises(ValueError, match=r"own_architecture\.Added: found .*, expected a subclass of Architecture"):
        architectures.load(f"{Added.__module__}.Added")


class Unprunable(Tiny):
    def prunable(self, network: nn.Module) -> list[str]:
        return []


class Misnamed(Tiny):
    def prunable(self, network: nn.Module) -> list[str]:
        return ["mixed.wider"]


class Unstepped(Tiny):
    def block(self, layer: str) -> str:
        return layer


class Misstepped(Tiny):
    def steps(self, network: nn.Module) -> dict[str, Step]:
        return {**super().steps(network), "head": lambda x: 2 * network.head(x.flatten(1))}


class Unrectified(Tiny):
    def rectified(self, network: nn.Module, conv: str) -> nn.Module:
        return network.mixed


class Plain(Tiny):
    plain = Tiny  # and no needs=("images",)


class Other(Tiny):
    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        return super().build(outputs + 1, width)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Unprunable, "names no prunable convs"),
        (Misnamed, r"names the prunable layer mixed\.wider, which is none of its convs"),
        (Unstepped, r"has mixed\.wide in the block mixed\.wide, which is none of its steps"),
        (Misstepped, "its steps in a row do not give the network's outputs"),
        (Unrectified, r"rectified\(stem\): found 32 channels, expected 16"),
        (Plain, r'has plain weights or needs=\("images",\) in @describe, expected both or neither'),
        (Other, r"gave outputs \(2, 11\) of 2 images, expected \(2, 10\)"),
    ],
)
def test_the_check_finds_what_is_wrong(wrong: type[Architecture], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architectures.check(wrong(), 10, 1.0, 32)


@pytest.mark.parametrize(
    "wrong",
    [
        Stream(("mixed.wide", "mixed.narrow"), ("added.left",)),  # a reader is missing
        Stream(("mixed.narrow", "mixed.wide"), ("added.left", "added.right")),  # in another order
        Stream(("mixed.wide", "mixed.narrow"), ("added.left", "added.right"), "add"),
        Stream(("mixed.wide",), ("added.left", "added.right")),  # a writer is missing
        Stream(("mixed.wide", "mixed.narow"), ("added.left", "added.right")),
    ],
)
def test_the_check_finds_streams_that_are_wrong(wrong: Stream) -> None:
    class Mistaken(Tiny):
        def streams(self, network: nn.Module) -> list[Stream]:
            first, _, last = super().streams(network)
            return [first, wrong, last]

    with pytest.raises(ValueError, match="streams do not describe the network"):
        architectures.check(Mistaken(), 10, 1.0, 32)


def test_a_network_that_cannot_take_the_images_is_found() -> None:
    class Fixed(Tiny):
        def steps(self, network: nn.Module) -> dict[str, Step]:
            def refuse(x: Tensor) -> Tensor:
                raise RuntimeError("32 pixels are needed")

            return {"refuse": refuse, **super().steps(network)}

    with pytest.raises(RuntimeError, match="32 pixels are needed"):
        architectures.check(Fixed(), 10, 1.0, 16)
