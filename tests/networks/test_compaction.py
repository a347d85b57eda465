"""The compact network computes what the masked one does, and is as small as the zeros allow."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from thin import GOOGLENETS, NAMES, perturb, photographs, prune, thin
from torch import Tensor, nn
from torch.nn import functional

from prunelens.networks import architectures, compaction, weights
from prunelens.networks.architecture import Architecture, unit_layers

ASSETS = os.environ.get("PRUNELENS_ASSETS")
Network = nn.Module
Subject = tuple[Architecture, Network]
THIN = {name: thin(name) for name in NAMES}
GOOGLENET = THIN["googlenet"][0]
LAYERS = GOOGLENET.prunable(THIN["googlenet"][1])


@pytest.fixture(params=NAMES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return THIN[request.param]


@pytest.fixture(params=GOOGLENETS)
def googlenet(request: pytest.FixtureRequest) -> Network:
    return THIN[request.param][1]


def pruned(network: Network, method: str, rate: float, affine: bool = False) -> Network:
    return prune(GOOGLENET, network, method, rate, affine)


def compact(network: Network) -> Network:
    """Of one of the GoogLeNets."""
    bvlc, normalized = hasattr(network.maxpool2, "1"), hasattr(network.conv1, "bn")
    name = ("bvlc_googlenet_bn" if normalized else "bvlc_googlenet") if bvlc else "googlenet"
    return compaction.compact(THIN[name][0], network)


def outputs(network: Network, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.eval()(images.to(next(network.parameters()).dtype))


def difference(one: Network, other: Network, images: Tensor) -> float:
    """Relative to the largest output, as the project's criterion has it."""
    expected, found = outputs(one, images), outputs(other, images)
    return float((expected - found).abs().max() / expected.abs().max())


def sharp_difference(one: Network, other: Network, images: Tensor) -> float:
    """Relative to how much the outputs differ between images: a pruned network's may hardly, beside their constants."""
    expected, found = outputs(one, images), outputs(other, images)
    return float((expected - found).abs().max() / (expected.amax(0) - expected.amin(0)).max())


def retrain(network: Network) -> None:
    """Two steps of SGD that leave zeros at zero."""
    kept = [(parameter, parameter != 0) for parameter in network.parameters()]
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for seed in range(2):
        images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        functional.cross_entropy(network(images) / 100, torch.arange(8)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
        for parameter, mask in kept:
            if parameter.ndim == 4:
                parameter.data.mul_(mask)
    network.eval()


def widths(network: Network, architecture: Architecture = GOOGLENET) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every conv and of the output layer."""
    return {name: tuple(layer.weight.shape[:2]) for name, layer in unit_layers(architecture, network).items()}


# ----------------------------------------------------------------------------------------------------- the same outputs


@pytest.mark.parametrize("method", ["structured", "connection", "shared"])
def test_outputs_at_every_rate_fresh_and_retrained(subject: Subject, method: str) -> None:
    architecture, dense = subject
    images = torch.cat([photographs(2, 64), torch.rand(2, 3, 64, 64)])
    for rate in (0.2, 0.8):
        network = prune(architecture, dense, method, rate)
        before = outputs(network, images)
        assert difference(network, compaction.compact(architecture, network), images) < 1e-5, rate
        retrain(network)
        assert not torch.allclose(outputs(network, images), before, rtol=1e-3)
        small = compaction.compact(architecture, network)
        assert difference(network, small, images) < 1e-5, rate
        double = copy.deepcopy(network).double()
        assert difference(double, compaction.compact(architecture, double), images) < 1e-13, rate


@pytest.mark.parametrize(
    ("name", "method"), [("googlenet", "connection"), ("bvlc_googlenet", "structured"), ("resnet18", "structured")]
)
def test_outputs_at_full_width(name: str, method: str) -> None:
    architecture = architectures.load(name)
    network = prune(architecture, perturb(architecture.build(10)), method, 0.8)
    small = compaction.compact(architecture, network)
    assert difference(network, small, torch.cat([photographs(1, 96), torch.rand(1, 3, 96, 96)])) < 1e-5
    assert sum(p.numel() for p in small.parameters()) < 0.2 * sum(p.numel() for p in network.parameters())


@pytest.mark.skipif(not ASSETS, reason="no assets")
@pytest.mark.parametrize("method", ["structured", "shared"])
def test_outputs_of_real_weights_on_real_images(method: str) -> None:
    architecture = architectures.load("bvlc_googlenet")
    network = architecture.build(1000)
    weights.load_weights(network, Path(ASSETS) / "weights" / "bvlc_googlenet.safetensors")
    files = sorted((Path(ASSETS) / "images" / "imagenette-160" / "val").glob("*/*.JPEG"))[::900]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((160, 160))) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    for rate in (0.2, 0.8):
        network = prune(architecture, network, method, rate)
        assert difference(network, compaction.compact(architecture, network), images) < 1e-5


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    name=st.sampled_from(NAMES),
    filters=st.sampled_from([0.0, 0.3, 0.8, 0.99]),
    inputs=st.sampled_from([0.0, 0.3, 0.8, 0.99]),
    gone=st.sets(st.integers(0, 53), max_size=6),
    stem=st.booleans(),
    size=st.integers(33, 65),
    seed=st.integers(0, 99),
)
def test_any_mask(name: str, filters: float, inputs: float, gone: set[int], stem: bool, size: int, seed: int) -> None:
    """Filters, inputs and whole layers at random, of the stem, too: exact in float64, borders included."""
    architecture, network = THIN[name][0], copy.deepcopy(THIN[name][1]).double()
    generator, layers = torch.Generator().manual_seed(seed), architecture.prunable(network)
    for i, layer in enumerate(architecture.convs(network) if stem else layers):
        weight = network.get_submodule(layer).weight.data
        weight[torch.rand(len(weight), generator=generator) < filters] = 0
        if layer in layers:
            weight[:, torch.rand(weight.shape[1], generator=generator) < inputs] = 0
            weight.mul_(i not in gone)
    images = torch.rand(3, 3, size, size, generator=generator)
    small = compaction.compact(architecture, network)
    expected = outputs(network, images)
    if float((expected.amax(0) - expected.amin(0)).max() / expected.abs().max()) > 1e-9:
        assert sharp_difference(network, small, images) < 1e-6
    assert difference(network, small, images) < 1e-13
    assert all(min(pair) >= 1 for pair in widths(small, architecture).values())


@pytest.mark.parametrize("gone", ["branch1", "branch2.0", "branch2.1", "branch3.0", "branch4.1", ""])
def test_layers_and_blocks_that_are_gone(googlenet: Network, gone: str) -> None:
    """A branch of every block, or ("") all of block 4c: exact, in float64, and one filter is left of each."""
    network = copy.deepcopy(googlenet).double()
    layers = [name for name in LAYERS if (f".{gone}." in name if gone else "inception4c" in name)]
    for name in layers:
        network.get_submodule(name).weight.data.zero_()
    small = compact(network)
    tolerance = 1e-13 if gone == "" else 1e-11  # nothing of the image is left behind block 4c
    assert (difference if gone == "" else sharp_difference)(network, small, torch.rand(2, 3, 65, 65)) < tolerance
    assert {widths(small)[name] for name in layers} <= {(1, 1)} | {(1, n) for n in range(1, 900) if gone}


# ------------------------------------------------------------------------------------------------- as small as can be


def test_widths_of_structured_masks(googlenet: Network) -> None:
    """With their constants gone too, exactly the filters of the masks go, and their readers' inputs."""
    small = widths(compact(pruned(googlenet, "structured", 0.8, affine=True)))
    whole = widths(googlenet)
    assert all(small[name] == whole[name] for name in ("conv1.conv", "conv2.conv", "conv3.conv"))
    left = {name: whole[name][0] - int(whole[name][0] * 0.8 + 1e-9) for name in LAYERS}
    assert {name: small[name][0] for name in LAYERS} == left
    block = sum(left[f"inception3a.branch{branch}.conv"] for branch in ("1", "2.1", "3.1", "4.1"))
    assert [small[f"inception3b.branch{branch}.conv"][1] for branch in ("1", "2.0", "3.0", "4.1")] == [block] * 4
    assert small["inception3b.branch2.1.conv"][1] == left["inception3b.branch2.0.conv"]
    assert small["fc"][1] == sum(left[f"inception5b.branch{branch}.conv"] for branch in ("1", "2.1", "3.1", "4.1"))


def test_one_constant_channel_is_left_before_a_padded_conv(googlenet: Network) -> None:
    small = widths(compact(pruned(googlenet, "structured", 0.8)))
    cut = widths(compact(pruned(googlenet, "structured", 0.8, affine=True)))
    more = {name: small[name][0] - cut[name][0] for name in LAYERS}
    assert {more[name] for name in LAYERS if name.endswith((".branch2.0.conv", ".branch3.0.conv"))} == {1}
    assert {more[name] for name in LAYERS if not name.endswith((".branch2.0.conv", ".branch3.0.conv"))} == {0}


def test_widths_of_shared_connections(googlenet: Network) -> None:
    """No layer selects: what a block reads is all that is written, conv3 (or the pool behind it) included."""
    network = pruned(googlenet, "shared", 0.5)
    small = compact(network)
    found, whole = widths(small), widths(network)
    kept = {name: n - n // 2 for name, (_, n) in whole.items()}
    assert all(found[name][1] == kept[name] for name in LAYERS)
    bvlc = hasattr(network.maxpool2, "1")
    assert found["conv3.conv"][0] == (48 if bvlc else 24)
    selecting = [name for name in small.state_dict() if name.endswith("channels")]
    assert selecting == (["maxpool2.1.channels"] if bvlc else [])
    assert found["inception4a.branch2.0.conv"][0] == kept["inception4a.branch2.1.conv"]
    assert found["fc"] == whole["fc"]


def test_readers_select_where_they_read_half_or_less(googlenet: Network) -> None:
    def selecting(rate: float) -> dict[str, int]:
        small = compact(pruned(googlenet, "random", rate))
        return {name: len(value) for name, value in small.state_dict().items() if name.endswith("channels")}

    assert selecting(0.3) == {}
    found = selecting(0.8)
    assert "maxpool2.1.channels" not in found  # about 1 - .8^4 = .59 of them are read
    assert found["inception4a.branch1.conv.channels"] == found["inception4a.branch4.0.channels"] == 120 - 96
    assert len(found) == 9 * 4
    assert not any(".branch2.1." in name or ".branch3.1." in name for name in found)


def test_residual_streams_are_cut_as_a_whole() -> None:
    """A channel goes where no reader of the stream wants it, whatever is added to it on the way."""
    architecture, dense = THIN["resnet18"]
    small = widths(compaction.compact(architecture, prune(architecture, dense, "shared", 0.75)), architecture)
    for stage, channels in enumerate((4, 8, 16, 128), start=1):  # of 16, 32, 64 and 128; fc reads all of the last
        blocks = [f"layer{stage}.0", f"layer{stage}.1"]
        writers = [f"{block}.conv2" for block in blocks] + ["conv1" if stage == 1 else f"layer{stage}.0.downsample.0"]
        assert {small[writer][0] for writer in writers} == {channels}
        assert {small[f"{block}.conv2"][1] for block in blocks} == {2 ** (stage + 1)}
        assert small[f"layer{stage}.1.conv1"] == (2 ** (stage + 1), min(channels, 32))
    assert small["fc"] == (10, 128)


def test_filters_of_residual_blocks() -> None:
    """Within a block they go; of what is added only a channel goes that all writers leave alone."""
    architecture, dense = THIN["resnet18"]
    network = copy.deepcopy(dense)
    for name in ("layer3.0.conv1", "layer3.0.conv2", "layer3.1.conv2", "layer3.0.downsample.0", "layer4.0.conv2"):
        network.get_submodule(name).weight.data[:40] = 0
    found, whole = (widths(n, architecture) for n in (compaction.compact(architecture, network), network))
    assert found["layer3.0.conv1"][0] == found["layer3.0.conv2"][1] == 64 - 40 + 1  # its reader is padded
    # The stream's sum is constant in 40 channels: one constant each is left for both padded readers, at most.
    added = {found[f"layer3.{name}"][0] for name in ("0.conv2", "1.conv2", "0.downsample.0")}
    assert len(added) == 1 and added <= {64 - 40 + 1, 64 - 40 + 2}
    assert found["layer4.0.conv1"][1] in added and found["layer4.0.conv2"] == whole["layer4.0.conv2"]


def test_a_users_network_is_cut_everywhere() -> None:
    architecture, dense = THIN["own_architecture.Tiny"]
    cut = widths(compaction.compact(architecture, prune(architecture, dense, "structured", 0.5)), architecture)
    left, right = (dense.added.get_submodule(name).weight.abs().sum((1, 2, 3)) for name in ("left", "right"))
    both = set(left.argsort()[:8].tolist()) & set(right.argsort()[:8].tolist())
    assert cut["added.left"] == cut["added.right"] == (16 - len(both), 8 + 8)
    assert cut["head"] == (10, 4 * (16 - len(both))) and cut["mixed.wide"] == (8, 16)
    shared = widths(compaction.compact(architecture, prune(architecture, dense, "shared", 0.5)), architecture)
    assert shared["stem"] == (8, 3) and shared["mixed.wide"][1] == shared["mixed.narrow"][1] == 8
    assert shared["mixed.wide"][0] + shared["mixed.narrow"][0] == shared["added.left"][1] == 16


def test_nothing_goes_where_single_weights_are_pruned(subject: Subject) -> None:
    architecture, network = subject[0], copy.deepcopy(subject[1])
    for name in architecture.prunable(network):
        weight = network.get_submodule(name).weight.data
        weight[weight.abs() < weight.abs().median() / 2] = 0
    small = compaction.compact(architecture, network)
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_what_no_layer_reads_goes_back_to_the_stem(subject: Subject) -> None:
    architecture, network = subject[0], copy.deepcopy(subject[1])
    network.get_submodule(architecture.output).weight.data.zero_()
    found = widths(compaction.compact(architecture, network), architecture)
    assert {found[name] for name in architecture.prunable(network)} == {(1, 1)}


def test_compact_once_is_compact(subject: Subject) -> None:
    architecture, dense = subject
    once = compaction.compact(architecture, prune(architecture, dense, "structured", 0.6))
    if not any(name.endswith("channels") for name in once.state_dict()):
        assert widths(compaction.compact(architecture, once), architecture) == widths(once, architecture)


# -------------------------------------------------------------------------------------------------- a plain network


def test_it_is_a_network_like_any_other(subject: Subject) -> None:
    architecture, network = subject[0], prune(*subject, "random", 0.8).train()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    small = compaction.compact(architecture, network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert small.training and type(small) is type(network) and torch.equal(torch.get_rng_state(), state)
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float32}
    assert list(architecture.convs(small)) == list(architecture.convs(network))
    convs = architecture.convs(small).values()
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)
    assert all(conv.weight.shape == (conv.out_channels, conv.in_channels, *conv.kernel_size) for conv in convs)
    images = torch.rand(2, 3, 64, 64)
    twin = copy.deepcopy(small)
    twin.load_state_dict(small.state_dict())
    assert torch.equal(outputs(twin, images), outputs(small, images))
    assert difference(small, small, images.to(memory_format=torch.channels_last)) < 1e-6
    functional.cross_entropy(small.train()(images), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_auxiliary_heads_go() -> None:
    network = GOOGLENET.build(10, 0.25, aux=True).eval()
    small = compact(network)
    assert not any(name.startswith("aux") for name in small.state_dict()) and network.aux1 is not None
    assert difference(network, small, torch.rand(2, 3, 64, 64)) < 1e-6
    assert isinstance(small.train()(torch.rand(2, 3, 64, 64)), Tensor)  # and no tuple of three heads


def test_a_network_that_selects_is_refused() -> None:
    small = compact(pruned(THIN["googlenet"][1], "random", 0.8))
    with pytest.raises(ValueError, match=r"inception3a.branch1.conv selects channels already"):
        compact(small)


def test_another_architectures_network_is_refused() -> None:
    with pytest.raises(ValueError, match="streams do not describe the network"):
        compaction.compact(GOOGLENET, nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
