"""The compact network computes what the masked one does, is as small as the zeros allow, and survives a file."""

import copy
import json
import os
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from prunelens import compaction, networks, pruning, textures

ASSETS = os.environ.get("PRUNELENS_ASSETS")
METHODS = ["structured_l1", "connection_l1", "connection_l1_shared"]  # others differ in what they rank by
LAYERS = list(networks.prunable_layers(networks.build("googlenet", 1)))
Network = nn.Module


def perturb(network: Network, seed: int = 0) -> Network:
    """Draw weights, biases and BatchNorm anew: filters of zeros write constants, some of them zero."""
    networks.initialise(network, seed)
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


def pruned(network: Network, method: str, rate: float, affine: bool = False) -> Network:
    network = copy.deepcopy(network)
    pruning.prune(network, pruning.METHODS[method], rate, 0, affine)
    return network


def thin(architecture: str) -> Network:
    """The architecture with a quarter of the channels everywhere: the same graph in less time."""

    def quarter(name: str, tensor: Tensor) -> Tensor:
        outputs = slice(None) if name.startswith("fc.") else slice(len(tensor) // 4)
        if tensor.ndim < 2 or name == "conv1.conv.weight":
            return tensor[outputs]
        return tensor[outputs, : tensor.shape[1] // 4]

    network = networks.build(architecture, 10)
    state = {name: quarter(name, tensor) if tensor.ndim else tensor for name, tensor in network.state_dict().items()}
    return perturb(compaction._assemble(network, state))


THIN = {architecture: thin(architecture) for architecture in networks.ARCHITECTURES}


@pytest.fixture(params=networks.ARCHITECTURES)
def dense(request: pytest.FixtureRequest) -> Network:
    return THIN[request.param]


def photographs(n: int, size: int) -> Tensor:
    images = textures.compose(n, size, "validation", seed=0).images
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)


def outputs(network: Network, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.eval()(images.to(network.fc.weight.dtype))


def difference(one: Network, other: Network, images: Tensor) -> float:
    """Relative to the largest output, as the project's criterion has it."""
    expected, found = outputs(one, images), outputs(other, images)
    return float((expected - found).abs().max() / expected.abs().max())


def sharp_difference(one: Network, other: Network, images: Tensor) -> float:
    """Relative to how much the outputs differ between images: a pruned network's may hardly, beside their constants."""
    expected, found = outputs(one, images), outputs(other, images)
    return float((expected - found).abs().max() / (expected.amax(0) - expected.amin(0)).max())


def retrain(network: Network, masks: pruning.Masks) -> None:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for seed in range(2):
        images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        functional.cross_entropy(network(images) / 100, torch.arange(8)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
        pruning.apply(network, masks)
    network.eval()


def widths(network: Network) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every conv and of fc."""
    return {name: tuple(layer.weight.shape[:2]) for name, layer in networks.unit_layers(network).items()}


# ----------------------------------------------------------------------------------------------------- the same outputs


@pytest.mark.parametrize("method", METHODS)
def test_outputs_at_every_rate_fresh_and_retrained(dense: Network, method: str) -> None:
    images = torch.cat([photographs(2, 64), torch.rand(2, 3, 64, 64)])
    for rate in (0.2, 0.4, 0.6, 0.8):
        network = copy.deepcopy(dense)
        masks = pruning.prune(network, pruning.METHODS[method], rate, 0)
        before = outputs(network, images)
        assert difference(network, compaction.compact(network), images) < 1e-5, rate
        retrain(network, masks)
        assert not torch.allclose(outputs(network, images), before, rtol=1e-3)
        assert difference(network, compaction.compact(network), images) < 1e-5, rate


@pytest.mark.parametrize(
    ("architecture", "method"), [("googlenet", "connection_l1"), ("bvlc_googlenet", "structured_l1")]
)
def test_outputs_at_full_width(architecture: str, method: str) -> None:
    network = pruned(perturb(networks.build(architecture, 10)), method, 0.8)
    small = compaction.compact(network)
    assert difference(network, small, torch.cat([photographs(1, 96), torch.rand(1, 3, 96, 96)])) < 1e-5
    assert sum(p.numel() for p in small.parameters()) < 0.2 * sum(p.numel() for p in network.parameters())


@pytest.mark.skipif(not ASSETS, reason="no assets")
@pytest.mark.parametrize("method", ["structured_l1", "connection_l1_shared"])
def test_outputs_of_real_weights_on_real_images(method: str) -> None:
    network = networks.build("bvlc_googlenet", 1000)
    networks.load_weights(network, Path(ASSETS) / "weights" / "bvlc_googlenet.safetensors")
    files = sorted((Path(ASSETS) / "images" / "imagenette-160" / "val").glob("*/*.JPEG"))[::900]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    for rate in (0.2, 0.8):
        network = pruned(network, method, rate)
        assert difference(network, compaction.compact(network), images) < 1e-5


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    architecture=st.sampled_from(networks.ARCHITECTURES),
    filters=st.sampled_from([0.0, 0.3, 0.8, 0.99]),
    inputs=st.sampled_from([0.0, 0.3, 0.8, 0.99]),
    gone=st.sets(st.sampled_from(LAYERS), max_size=6),
    size=st.integers(33, 65),
    seed=st.integers(0, 99),
    folded=st.booleans(),
)
def test_any_mask(
    architecture: str, filters: float, inputs: float, gone: set[str], size: int, seed: int, folded: bool
) -> None:
    """Filters, inputs and whole layers at random: exact in float64, borders included."""
    network, generator = copy.deepcopy(THIN[architecture]).double(), torch.Generator().manual_seed(seed)
    for name, layer in networks.prunable_layers(network).items():
        layer.weight.data[torch.rand(layer.out_channels, generator=generator) < filters] = 0
        layer.weight.data[:, torch.rand(layer.in_channels, generator=generator) < inputs] = 0
        if name in gone:
            layer.weight.data.zero_()
    images = torch.rand(3, 3, size, size, generator=generator)
    if folded:
        network = compaction.fold_batchnorm(network)
    small = compaction.compact(network)
    expected = outputs(network, images)
    if float((expected.amax(0) - expected.amin(0)).max() / expected.abs().max()) > 1e-9:
        assert sharp_difference(network, small, images) < 1e-6
    assert difference(network, small, images) < 1e-13
    assert all(min(pair) >= 1 for pair in widths(small).values())


@pytest.mark.parametrize("gone", ["branch1", "branch2.0", "branch2.1", "branch3.0", "branch4.1", ""])
def test_layers_and_blocks_that_are_gone(dense: Network, gone: str) -> None:
    """A branch of every block, or ("") all of block 4c: exact, in float64, and one filter is left of each."""
    network = copy.deepcopy(dense).double()
    layers = [name for name in LAYERS if (f".{gone}." in name if gone else "inception4c" in name)]
    for name in layers:
        network.get_submodule(name).weight.data.zero_()
    small = compaction.compact(network)
    tolerance = 1e-13 if gone == "" else 1e-11  # nothing of the image is left behind block 4c
    assert (difference if gone == "" else sharp_difference)(network, small, torch.rand(2, 3, 65, 65)) < tolerance
    assert {widths(small)[name] for name in layers} <= {(1, 1)} | {(1, n) for n in range(1, 900) if gone}


# ------------------------------------------------------------------------------------------------- as small as can be


def test_widths_of_structured_masks(dense: Network) -> None:
    """With their constants gone too, exactly the filters of the masks go, and their readers' inputs."""
    small = widths(compaction.compact(pruned(dense, "structured_l1", 0.8, affine=True)))
    whole = widths(dense)
    assert all(small[name] == whole[name] for name in ("conv1.conv", "conv2.conv", "conv3.conv"))
    left = {name: whole[name][0] - int(whole[name][0] * 0.8 + 1e-9) for name in LAYERS}
    assert {name: small[name][0] for name in LAYERS} == left
    block = sum(left[f"inception3a.branch{branch}.conv"] for branch in ("1", "2.1", "3.1", "4.1"))
    assert [small[f"inception3b.branch{branch}.conv"][1] for branch in ("1", "2.0", "3.0", "4.1")] == [block] * 4
    assert small["inception3b.branch2.1.conv"][1] == left["inception3b.branch2.0.conv"]
    assert small["fc"][1] == sum(left[f"inception5b.branch{branch}.conv"] for branch in ("1", "2.1", "3.1", "4.1"))


def test_one_constant_channel_is_left_before_a_padded_conv(dense: Network) -> None:
    small = widths(compaction.compact(pruned(dense, "structured_l1", 0.8)))
    cut = widths(compaction.compact(pruned(dense, "structured_l1", 0.8, affine=True)))
    more = {name: small[name][0] - cut[name][0] for name in LAYERS}
    assert {more[name] for name in LAYERS if name.endswith((".branch2.0.conv", ".branch3.0.conv"))} == {1}
    assert {more[name] for name in LAYERS if not name.endswith((".branch2.0.conv", ".branch3.0.conv"))} == {0}


def test_widths_of_shared_connections(dense: Network) -> None:
    """Nobody selects: what a block reads is all that is written, conv3 (or the pool behind it) included."""
    network = pruned(dense, "connection_l1_shared", 0.5)
    small = compaction.compact(network)
    found, whole = widths(small), widths(network)
    kept = {name: n - n // 2 for name, (_, n) in whole.items()}
    assert all(found[name][1] == kept[name] for name in LAYERS)
    bvlc = isinstance(network, networks.BVLCGoogLeNet)
    assert found["conv3.conv"][0] == (48 if bvlc else 24)
    selecting = [name for name in small.state_dict() if name.endswith("channels")]
    assert selecting == (["maxpool2.1.channels"] if bvlc else [])
    assert found["inception4a.branch2.0.conv"][0] == kept["inception4a.branch2.1.conv"]
    assert found["fc"] == whole["fc"]


def test_readers_select_where_they_read_half_or_less(dense: Network) -> None:
    def selecting(rate: float) -> dict[str, int]:
        small = compaction.compact(pruned(dense, "connection_random", rate))
        return {name: len(value) for name, value in small.state_dict().items() if name.endswith("channels")}

    assert selecting(0.3) == {}
    found = selecting(0.8)
    assert "maxpool2.1.channels" not in found  # about 1 - .8^4 = .59 of them are read
    assert found["inception4a.branch1.conv.channels"] == found["inception4a.branch4.0.channels"] == 120 - 96
    assert len(found) == 9 * 4
    assert not any(".branch2.1." in name or ".branch3.1." in name for name in found)


def test_nothing_goes_where_single_weights_are_pruned(dense: Network) -> None:
    network = pruned(dense, "unstructured_local", 0.5)
    small = compaction.compact(network)
    assert widths(small) == widths(network)
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_what_nobody_reads_goes_back_to_the_stem(dense: Network) -> None:
    network = copy.deepcopy(dense)
    network.fc.weight.data.zero_()
    found = widths(compaction.compact(network))
    assert {found[name] for name in LAYERS} == {(1, 1)}
    assert found["conv2.conv"] == widths(dense)["conv2.conv"]


def test_compact_once_is_compact(dense: Network) -> None:
    once = compaction.compact(pruned(dense, "structured_l1", 0.6))
    assert widths(compaction.compact(once)) == widths(once)


# -------------------------------------------------------------------------------------------------- a plain network


def test_it_is_a_network_like_any_other(dense: Network) -> None:
    network = pruned(dense, "connection_random", 0.8).train()
    before = copy.deepcopy(network.state_dict())
    small = compaction.compact(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert small.training and type(small) is type(network)
    assert small.fc.weight.dtype == torch.float32
    assert list(networks.conv_layers(small)) == list(networks.conv_layers(network))
    assert small.conv3.conv.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 64)
    twin = copy.deepcopy(small)
    twin.load_state_dict(small.state_dict())
    assert torch.equal(outputs(twin, images), outputs(small, images))
    assert difference(small, small, images.to(memory_format=torch.channels_last)) < 1e-6
    functional.cross_entropy(small.train()(images), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_auxiliary_heads_go() -> None:
    network = networks.build("googlenet", 10, aux_logits=True).eval()
    small = compaction.compact(network)
    assert not any(name.startswith("aux") for name in small.state_dict()) and network.aux1 is not None
    assert difference(network, small, torch.rand(2, 3, 64, 64)) < 1e-6
    assert isinstance(small.train()(torch.rand(2, 3, 64, 64)), Tensor)  # and no tuple of three heads


def test_folded_batchnorm(dense: Network, tmp_path: Path) -> None:
    network = compaction.compact(pruned(dense, "connection_l1", 0.8))
    folded = compaction.fold_batchnorm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.rand(2, 3, 64, 64)
    assert difference(network, folded, images) < 1e-5
    compaction.save(folded, tmp_path / "folded.safetensors")
    assert torch.equal(outputs(folded, images), outputs(compaction.load(tmp_path / "folded.safetensors"), images))


@pytest.mark.parametrize("network", [torchvision.models.googlenet(init_weights=False), nn.Linear(2, 2)])
@pytest.mark.parametrize("use", [compaction.compact, lambda network: compaction.save(network, Path("never"))])
def test_other_networks_are_refused(network: nn.Module, use: object) -> None:
    with pytest.raises(ValueError, match=f"{type(network).__name__}, expected prunelens' GoogLeNet or BVLCGoogLeNet"):
        use(network)


def test_a_network_that_selects_is_refused() -> None:
    small = compaction.compact(pruned(THIN["googlenet"], "connection_random", 0.8))
    with pytest.raises(ValueError, match=r"inception3a.branch1.conv selects channels already"):
        compaction.compact(small)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    small = compaction.compact(pruned(THIN["bvlc_googlenet"], "connection_random", 0.8))
    compaction.save(small, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_it_survives_a_file(dense: Network, kind: torch.dtype, tmp_path: Path) -> None:
    small = compaction.compact(pruned(dense, "connection_random", 0.8).to(kind))
    compaction.save(small, tmp_path / "small.safetensors")
    loaded = compaction.load(tmp_path / "small.safetensors")
    state = loaded.state_dict()
    assert not loaded.training and state.keys() == small.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(outputs(small, images), outputs(loaded, images))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compaction.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_damaged_file(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"small.safetensors is damaged or no safetensors file"):
        compaction.load(file)


def test_a_file_of_another_kind(file: Path) -> None:
    save_file(load_file(file), file)
    with pytest.raises(ValueError, match=r"small.safetensors holds no compact network: found the metadata {}"):
        compaction.load(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("fc.weight"),
        lambda state: state.pop("inception3a.branch1.conv.bias"),
        lambda state: state.update({"inception3a.branch1.conv.weight": torch.ones(2, 2, 1, 1)}),
        lambda state: state.update({"inception3a.branch1.conv.weight": torch.ones(2)}),
        lambda state: state.update({"fc.weight": torch.ones(2, 2, 2)}),
        lambda state: state["inception3a.branch1.conv.channels"].add_(192),
        lambda state: state.update({"one_more": torch.ones(2)}),
    ],
)
def test_tensors_that_make_no_network(file: Path, change: object) -> None:
    state = load_file(file)
    change(state)
    metadata = {"kind": "compact network", "architecture": "bvlc_googlenet", "outputs": "10"}
    save_file(state, file, metadata)
    with pytest.raises(ValueError, match=r"small.safetensors holds tensors that make no network"):
        compaction.load(file)


def test_onnx(dense: Network, tmp_path: Path) -> None:
    network = pruned(dense, "connection_random", 0.8)
    small = compaction.compact(network).train()
    compaction.export_onnx(small, 63, tmp_path / "small.onnx")
    assert small.training
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    for n in (1, 5):
        images = torch.rand(n, 3, 63, 63)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        expected = outputs(network, images).numpy()
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5


# -------------------------------------------------------------------------------------------------------------- cost


def test_cost_by_hand() -> None:
    network = networks.build("googlenet", 10)
    with torch.no_grad():
        network.inception3b.branch2[1].conv.weight[:, :32] = 0
    table = compaction.cost(network, 160).set_index("layer")
    assert len(table) == 58
    conv1 = table.loc["conv1.conv"]
    assert conv1.weights == conv1.nonzero == 64 * 3 * 49
    assert conv1.macs == conv1.sparse_macs == 64 * 3 * 49 * 80 * 80
    assert conv1.parameters == 64 * 3 * 49 + 2 * 64
    assert conv1.bytes == 4 * (64 * 3 * 49 + 4 * 64) + 8  # running statistics, and how often they were updated
    inner = table.loc["inception3b.branch2.1.conv"]  # 128 to 192 channels, a quarter of the inputs unread
    assert inner.macs == 192 * 128 * 9 * 20 * 20
    assert inner.sparse_macs == 192 * 96 * 9 * 20 * 20 and inner.nonzero == 192 * 96 * 9
    fc = table.loc["fc"]
    assert (fc.kind, fc.macs, fc.parameters, fc.bytes) == ("fc", 10240, 10250, 4 * 10250)


def test_cost_agrees_with_pytorch_and_the_file(tmp_path: Path) -> None:
    network = pruned(THIN["googlenet"], "connection_random", 0.8)
    small = compaction.compact(network)
    table = compaction.cost(small, 65)
    assert (table.kind == "pool").sum() == 9
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(torch.zeros(1, 3, 65, 65))
    assert 2 * table.macs.sum() == counter.get_total_flops()
    assert table.parameters.sum() == sum(parameter.numel() for parameter in small.parameters())
    compaction.save(small, tmp_path / "small.safetensors")
    content = (tmp_path / "small.safetensors").read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    assert json.loads(content[8 : 8 + header])["__metadata__"]["architecture"] == "googlenet"
    assert table.bytes.sum() == len(content) - 8 - header
