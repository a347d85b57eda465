"""Both networks: their layers, their weights, and what happens to wrong ones."""

import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from prunelens import datasets, evaluation, networks

ASSETS = os.environ.get("PRUNELENS_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="no assets")


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_layers_and_units_are_those_of_the_paper(architecture: str) -> None:
    table = networks.layer_table(networks.build(architecture, 1000))
    convs = table[table.kind == "conv"]
    assert (len(convs), table.prunable.sum(), convs.units.sum()) == (57, 54, 7280)
    assert set(convs[~convs.prunable].layer.str.split(".").str[0]) == {"conv1", "conv2", "conv3"}


def test_googlenet_is_torchvisions_on_images_from_0_to_1() -> None:
    ours = networks.build("googlenet", 10).eval()
    theirs = torchvision.models.googlenet(num_classes=10, aux_logits=False, init_weights=False, transform_input=True)
    theirs.eval().load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(normalised), atol=1e-5)


def test_local_response_norm_is_pytorchs() -> None:
    images = torch.randn(2, 64, 7, 7) * 100
    theirs = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)(images)
    assert torch.allclose(networks._LocalResponseNorm()(images), theirs, rtol=1e-5, atol=1e-5)


def test_initialise_follows_the_seed() -> None:
    one, same, other = (networks.build("bvlc_googlenet", 10) for _ in range(3))
    for network, seed in ((one, 0), (same, 0), (other, 1)):
        networks.initialise(network, seed)
    assert torch.equal(one.fc.weight, same.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_weights_survive_a_file(architecture: str, tmp_path: Path) -> None:
    network, copy = (networks.build(architecture, 10) for _ in range(2))
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "w.safetensors")
    networks.load_weights(copy, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, copy.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    state = networks.build("bvlc_googlenet", 10).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors holds weights of another architecture than GoogLeNet.*bn"):
        networks.load_weights(networks.build("googlenet", 10), tmp_path / "w.safetensors")


def test_weights_for_other_outputs_are_refused(tmp_path: Path) -> None:
    state = networks.build("googlenet", 8).state_dict()
    with pytest.raises(ValueError, match=r"fc\.bias: found \(8,\), expected \(10,\)"):
        networks.load_state(networks.build("googlenet", 10), state, "here")


def test_bvlc_has_no_auxiliary_heads() -> None:
    with pytest.raises(ValueError, match="bvlc_googlenet has no auxiliary heads"):
        networks.build("bvlc_googlenet", 10, aux_logits=True)


def test_missing_and_truncated_weights(tmp_path: Path) -> None:
    network = networks.build("googlenet", 8)
    with pytest.raises(FileNotFoundError, match="absent"):
        networks.load_weights(network, tmp_path / "absent.safetensors")
    file = tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="is damaged"):
        networks.load_weights(network, file)


@pytest.fixture(scope="module")
def bvlc() -> torch.nn.Module:
    network = networks.build("bvlc_googlenet", 1000)
    networks.load_weights(network, Path(ASSETS) / "weights" / "bvlc_googlenet.safetensors")
    return network


@needs_assets
@pytest.mark.parametrize(
    ("images", "size", "top1", "top5", "known"),
    [
        ("imagenet-sample-1000", 224, 0.762, 0.931, None),
        ("imagenette-160/val", 160, 0.632, None, 0.968),
        ("imagenette-160/val", 128, 0.512, None, 0.932),
    ],
)
def test_bvlc_scores_as_an_independent_forward_pass_did(
    bvlc: torch.nn.Module, tmp_path: Path, images: str, size: int, top1: float, top5: float | None, known: float | None
) -> None:
    folder = Path(ASSETS) / "images" / images
    image_set = datasets.read_folder(folder, size, tmp_path / "cache", datasets.imagenet_class_indices())
    found = evaluation.accuracy(evaluation.logits(bvlc, image_set, 64, "cpu"), image_set)
    assert found["top1"] == pytest.approx(top1, abs=0.01)
    assert top5 is None or found["top5"] == pytest.approx(top5, abs=0.01)
    assert known is None or found["top1_known"] == pytest.approx(known, abs=0.01)


def test_shuffled_weights_are_the_same_weights_in_other_places():
    network, original = networks.build("googlenet", 10), networks.build("googlenet", 10)
    networks.initialise(network, 0)
    original.load_state_dict(network.state_dict())
    networks.shuffle_weights(network, 1)
    for (name, found), tensor in zip(network.state_dict().items(), original.state_dict().values(), strict=True):
        assert torch.equal(found.flatten().sort().values, tensor.flatten().sort().values)
        weights = name.endswith("weight") and found.ndim > 1
        assert torch.equal(found, tensor) != weights
