"""BatchNorm inserted: the same function, known statistics, weights in the same order, and what is refused."""

import copy
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from thin import perturb, thin
from torch import Tensor, nn

from prunelens.images.embedded import compose
from prunelens.images.folders import Protocol, imagenet_class_indices, read_folder
from prunelens.images.imageset import ImageSet, sample, to_batch
from prunelens.networks import architectures, compaction, weights
from prunelens.networks.architecture import Architecture, Step, Stream
from prunelens.networks.hooks import before, evaluating, recording
from prunelens.networks.normalization import he_factor, insert_batchnorm

ASSETS = os.environ.get("PRUNELENS_ASSETS")
IMAGES, OTHERS = compose(40, 48, "train", 0), compose(8, 48, "validation", 0)  # 40: the last batch is a smaller one


class Joined(nn.Module):
    """A concatenation, behind it a residual addition."""

    def __init__(self, normalized: bool, activation: nn.Module) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
            layers = [("conv", nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=not normalized))]
            return nn.Sequential(OrderedDict(layers + [("bn", nn.BatchNorm2d(outputs))] * normalized))

        self.stem, self.left, self.right = conv(3, 8, 3), conv(8, 12, 3), conv(8, 4, 1)
        self.enter, self.inner, self.outer = conv(16, 8, 1), conv(8, 8, 3), conv(8, 8, 3)
        self.activation, self.pool = activation, nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 10)

    def mix(self, x: Tensor) -> Tensor:
        return self.pool(self.activation(torch.cat([self.left(x), self.right(x)], 1)))

    def add(self, x: Tensor) -> Tensor:
        x = self.activation(self.enter(x))
        return self.activation(self.outer(self.activation(self.inner(x))) + x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.add(self.mix(self.activation(self.stem(x)))).mean((2, 3)))


class JoinedArchitecture(Architecture):
    normalized, activation = False, nn.LeakyReLU()

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        return Joined(self.normalized, self.activation)

    def prunable(self, network: nn.Module) -> list[str]:
        return [name for name in self.convs(network) if name != "stem.conv"]

    def streams(self, network: nn.Module) -> list[Stream]:
        return [
            Stream(("stem.conv",), ("left.conv", "right.conv")),
            Stream(("left.conv", "right.conv"), ("enter.conv",)),
            Stream(("inner.conv",), ("outer.conv",)),
            Stream(("enter.conv", "outer.conv"), ("inner.conv", "fc"), "add"),
        ]

    def steps(self, network: nn.Module) -> dict[str, Step]:
        raise NotImplementedError


class JoinedBNArchitecture(JoinedArchitecture):
    normalized = True


def pair(name: str) -> tuple[Architecture, nn.Module, nn.Module]:
    """An architecture with BatchNorm, its plain network with perturbed weights, and a network to insert into."""
    if name == "joined":
        return JoinedBNArchitecture(), perturb(JoinedArchitecture().build(10)), JoinedBNArchitecture().build(10)
    return thin("bvlc_googlenet_bn")[0], thin("bvlc_googlenet")[1], thin("bvlc_googlenet_bn")[1]


def difference(one: nn.Module, other: nn.Module, images: ImageSet) -> float:
    """The largest difference of outputs, of their range."""
    batch = to_batch(images.images, "cpu")
    with torch.inference_mode():
        expected, found = one.eval()(batch), other.eval()(batch)
    return float((expected - found).abs().max() / (expected.max() - expected.min()))


def ratios(architecture: Architecture, plain: nn.Module, normalized: nn.Module) -> Tensor:
    """Every conv weight with BatchNorm over the same one without."""
    pairs = ((plain.get_submodule(name).weight, conv.weight) for name, conv in architecture.convs(normalized).items())
    return torch.cat([(after / ours)[ours != 0].flatten() for ours, after in pairs]).detach()


@pytest.fixture(scope="module", params=["joined", "bvlc_googlenet"])
def inserted(request: pytest.FixtureRequest) -> tuple[Architecture, nn.Module, nn.Module]:
    architecture, plain, normalized = pair(request.param)
    insert_batchnorm(architecture, plain, normalized, IMAGES)
    return architecture, plain, normalized


Inserted = tuple[Architecture, nn.Module, nn.Module]


def test_the_function_is_the_same(inserted: Inserted) -> None:
    assert difference(*inserted[1:], IMAGES) < 1e-5 and difference(*inserted[1:], OTHERS) < 1e-5


def test_statistics_are_those_of_the_images(inserted: Inserted) -> None:
    architecture, _, normalized = inserted
    batch = to_batch(IMAGES.images, "cpu")
    norms = {name: architecture.norm(normalized, name) for name in architecture.convs(normalized)}
    convs = architecture.convs(normalized)
    with evaluating(normalized), recording(normalized, convs, lambda output: output.double()) as outputs:
        normalized(batch)
    for name, output in outputs.items():
        mean, variance = output.mean((0, 2, 3)), output.var((0, 2, 3), correction=0)
        torch.testing.assert_close(norms[name].running_mean.double(), mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norms[name].running_var.double(), variance, rtol=1e-3, atol=1e-4)


def test_tensors_between_layers_have_a_root_mean_square_of_one(inserted: Inserted) -> None:
    architecture, _, normalized = inserted
    found: dict[str, float] = {}
    streams = [stream for stream in architecture.streams(normalized) if not stream.fixed]
    seen = {
        normalized.get_submodule(stream.readers[0]): lambda x, name=stream.readers[0]: found.update(
            {name: float(x.square().mean().sqrt())}
        )
        for stream in streams
    }
    with evaluating(normalized), before(seen):
        normalized(to_batch(IMAGES.images, "cpu"))
    assert len(found) == len(streams) >= 4
    assert all(size == pytest.approx(1, abs=1e-3) for size in found.values())


def test_all_weights_grow_by_one_factor_that_makes_the_median_conv_hes(inserted: Inserted) -> None:
    architecture, plain, normalized = inserted
    factor = he_factor(architecture.convs(plain).values())
    found = ratios(architecture, plain, normalized)
    torch.testing.assert_close(found, torch.full_like(found, factor), rtol=1e-5, atol=0)
    assert he_factor(architecture.convs(normalized).values()) == pytest.approx(1)


def test_the_factor_by_hand() -> None:
    convs = [nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 2), nn.Conv2d(8, 4, 1)]  # He's sizes: 1, 1/2, 1/2
    for conv, weight in zip(convs, (3.0, -0.25, 2.0), strict=True):
        nn.init.constant_(conv.weight, weight)
    assert he_factor(convs) == pytest.approx(1 / 3)  # of 3, 1/2 and 4


def test_compaction_is_exact(inserted: Inserted) -> None:
    architecture, _, normalized = inserted
    normalized = copy.deepcopy(normalized)
    for name in architecture.prunable(normalized):
        normalized.get_submodule(name).weight.data[::2] = 0
    small = compaction.compact(architecture, normalized)
    assert difference(normalized, small, OTHERS) < 1e-5
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(p.numel() for p in normalized.parameters())


def test_an_activation_that_does_not_scale_is_refused() -> None:
    class Curved(JoinedArchitecture):
        activation = nn.GELU()

    class CurvedBN(Curved):
        normalized = True

    with pytest.raises(ValueError, match=r"insert_batchnorm: outputs would differ by .*does every activation scale"):
        insert_batchnorm(CurvedBN(), perturb(Curved().build(10)), CurvedBN().build(10), IMAGES)


def test_a_network_without_batchnorm_is_refused() -> None:
    plain = JoinedArchitecture()
    with pytest.raises(ValueError, match=r"stem\.conv has no BatchNorm behind it"):
        insert_batchnorm(plain, plain.build(10), plain.build(10), IMAGES)


def test_layers_of_other_names_are_refused() -> None:
    plain, architecture = thin("bvlc_googlenet")[1], JoinedBNArchitecture()
    with pytest.raises(ValueError, match=r"found the convs conv1\.conv, .*expected stem\.conv, left\.conv"):
        insert_batchnorm(architecture, plain, architecture.build(10), IMAGES)


@pytest.mark.skipif(not ASSETS, reason="no assets")
def test_real_weights_on_real_images(tmp_path: Path) -> None:
    plain, architecture = architectures.load("bvlc_googlenet"), architectures.load("bvlc_googlenet_bn")
    network, normalized = plain.build(1000), architecture.build(1000)
    weights.load_weights(network, Path(ASSETS) / "weights" / "bvlc_googlenet.safetensors")
    folder = Path(ASSETS) / "images" / "imagenet-sample-1000"
    part = tmp_path / "part"
    for name in sorted(path.name for path in folder.iterdir())[::10]:
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).symlink_to(folder / name)
    images = read_folder(part, Protocol(96), tmp_path / "cache", imagenet_class_indices())
    insert_batchnorm(architecture, network, normalized, sample(images, 64, 0))
    assert difference(network, normalized, images) < 1e-4
    assert he_factor(plain.convs(network).values()) == pytest.approx(1 / 0.74, rel=0.01)
    found = ratios(architecture, network, normalized).numpy()
    assert np.ptp(found) < 1e-5 * found.mean()
