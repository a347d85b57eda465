"""ResNet-18: its layers, what it computes, and its residual streams."""

import pytest
import torch
import torchvision

from prunelens.networks import architectures
from prunelens.networks.architecture import Stream, layer_table

RESNET = architectures.load("resnet18")


def test_layers() -> None:
    table = layer_table(RESNET, RESNET.build(1000))
    assert (len(table), table.prunable.sum(), table.parameters[0]) == (21, 19, 11_689_512)
    assert table.layer[~table.prunable].tolist() == ["conv1", "fc"]
    assert table.block.unique().tolist() == ["stem", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)), "fc"]


def test_it_is_torchvisions_on_images_from_0_to_1() -> None:
    ours, theirs = RESNET.build(10).eval(), torchvision.models.resnet18(num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)), atol=1e-5)


def test_width_scales_all_channel_counts() -> None:
    network = RESNET.build(10, 0.25)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 10)
    assert [layer.out_channels for layer in RESNET.convs(network).values()] == [16] * 5 + [32] * 5 + [64] * 5 + [
        128
    ] * 5


def test_it_has_no_auxiliary_heads() -> None:
    with pytest.raises(ValueError, match=r"aux_weight: .*resnet18 has no auxiliary heads"):
        RESNET.build(10, aux=True)


def test_all_that_is_added_is_one_stream() -> None:
    streams = RESNET.streams(RESNET.build(10, 0.25))
    added = [stream for stream in streams if stream.join == "add"]
    assert added[1] == Stream(
        ("layer2.0.downsample.0", "layer2.0.conv2", "layer2.1.conv2"),
        ("layer2.1.conv1", "layer3.0.conv1", "layer3.0.downsample.0"),
        "add",
    )
    assert added[0].writers == ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    assert added[3].readers == ("layer4.1.conv1", "fc") and len(added) == 4
    inner = [stream for stream in streams if stream.join == "concat"]
    assert [(stream.writers, stream.readers) for stream in inner] == [
        ((f"layer{i}.{j}.conv1",), (f"layer{i}.{j}.conv2",)) for i in (1, 2, 3, 4) for j in (0, 1)
    ]
