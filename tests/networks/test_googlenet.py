"""Both GoogLeNets: their layers, what they compute, and the original's accuracy on real photographs."""

import os
from pathlib import Path

import pytest
import torch
import torchvision
from thin import GOOGLENETS
from torch import nn

from prunelens import profile
from prunelens.images.folders import Protocol, imagenet_class_indices, read_folder
from prunelens.networks import architectures, weights
from prunelens.networks.architecture import layer_table
from prunelens.networks.googlenet import _LocalResponseNorm
from prunelens.pruning.accuracy import accuracy, logits

ASSETS, IMAGENET = os.environ.get("PRUNELENS_ASSETS"), os.environ.get("IMAGENET")
TORCHVISIONS = Path(torch.hub.get_dir()) / "checkpoints" / Path(torchvision.models.GoogLeNet_Weights.DEFAULT.url).name


@pytest.mark.parametrize("name", GOOGLENETS)
def test_layers_and_units_are_those_of_the_paper(name: str) -> None:
    architecture = architectures.load(name)
    table = layer_table(architecture, architecture.build(1000))
    convs = table[table.kind == "conv"]
    assert (len(convs), table.prunable.sum(), convs.units.sum()) == (57, 54, 7280)
    assert set(convs[~convs.prunable].layer.str.split(".").str[0]) == {"conv1", "conv2", "conv3"}
    assert table.block.unique().tolist() == ["stem", *sorted(set(table.block) - {"stem", "fc"}), "fc"]


def test_googlenet_is_torchvisions_on_images_from_0_to_1() -> None:
    ours = architectures.load("googlenet").build(10).eval()
    theirs = torchvision.models.googlenet(num_classes=10, aux_logits=False, init_weights=False, transform_input=True)
    theirs.eval().load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(normalized), atol=1e-5)


@pytest.mark.parametrize(("width", "channels"), [(0.25, 256), (0.1, 104), (1.25, 1280)])
def test_width_scales_all_channel_counts(width: float, channels: int) -> None:
    network = architectures.load("googlenet").build(10, width, aux=True)
    main, first, second = network(torch.rand(2, 3, 64, 64))
    assert main.shape == first.shape == second.shape == (2, 10)
    assert network.fc.in_features == channels
    found = {m.out_channels for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and not n.startswith("aux")}
    assert min(found) >= 4 and not any(channels % 4 for channels in found)


def test_local_response_norm_is_pytorchs() -> None:
    images = torch.randn(2, 64, 7, 7) * 100
    theirs = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)(images)
    assert torch.allclose(_LocalResponseNorm()(images), theirs, rtol=1e-5, atol=1e-5)


def test_bvlc_has_one_width_no_auxiliary_heads_and_no_weights_of_torchvision() -> None:
    architecture = architectures.load("bvlc_googlenet")
    with pytest.raises(ValueError, match=r"aux_weight: .*the original GoogLeNet has no such heads"):
        architecture.build(10, aux=True)
    with pytest.raises(
        ValueError, match=r"network\.width: found 0\.5, expected 1: the original GoogLeNet has one width"
    ):
        architecture.build(10, 0.5)
    with pytest.raises(ValueError, match="found torchvision, which has no weights of BVLC"):
        architecture.pretrained()


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS, reason="no assets")
@pytest.mark.parametrize(
    ("images", "size", "top1", "top5", "known"),
    [
        ("imagenet-sample-1000", 224, 0.762, 0.931, None),
        ("imagenette-160/val", 160, 0.632, None, 0.968),
        ("imagenette-160/val", 128, 0.512, None, 0.932),
    ],
)
def test_bvlc_scores_as_an_independent_forward_pass_did(
    tmp_path: Path, images: str, size: int, top1: float, top5: float | None, known: float | None
) -> None:
    network = architectures.load("bvlc_googlenet").build(1000)
    weights.load_weights(network, Path(ASSETS) / "weights" / "bvlc_googlenet.safetensors")
    folder = Path(ASSETS) / "images" / images
    image_set = read_folder(folder, Protocol(size), tmp_path / "cache", imagenet_class_indices())
    found = accuracy(logits(network, image_set, 64, "cpu"), image_set)
    assert found["top1_all_outputs"] == pytest.approx(top1, abs=0.01)
    assert top5 is None or found["top5_all_outputs"] == pytest.approx(top5, abs=0.01)
    assert known is None or found["top1"] == pytest.approx(known, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not (IMAGENET and TORCHVISIONS.is_file()), reason="no $IMAGENET or no weights of torchvision's")
def test_googlenet_scores_on_imagenet_what_torchvision_says(tmp_path: Path) -> None:
    architecture, data = architectures.load("googlenet"), profile.load("imagenet").data
    network = architecture.build(1000)
    weights.load_state(network, architecture.pretrained(), "torchvision's weights")
    protocol = Protocol(data.size, data.resize, data.interpolation)
    image_set = read_folder(Path(IMAGENET) / "val", protocol, tmp_path / "cache", imagenet_class_indices())
    found = accuracy(logits(network, image_set, 128, "cuda" if torch.cuda.is_available() else "cpu"), image_set)
    assert found["n"] == 50_000
    assert found["top1_all_outputs"] == pytest.approx(0.69778, abs=5e-4)  # decoders of JPEG files differ in few pixels
    assert found["top5_all_outputs"] == pytest.approx(0.8953, abs=5e-4)
