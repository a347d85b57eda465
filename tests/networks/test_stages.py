"""Networks of a study: which normalization of the images they have."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision

from prunelens import profile
from prunelens.networks import architectures, stages
from prunelens.stages import Pipeline
from prunelens.store import Store

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OWN = {
    "googlenet": ([0.5] * 3, [0.5] * 3),
    "resnet18": (MEAN, DEVIATION),
    "bvlc_googlenet": ([123 / 255, 117 / 255, 104 / 255], [1 / 255] * 3),
}


@torch.no_grad()
@pytest.mark.parametrize("name", OWN)
def test_an_architectures_own_normalization_can_be_given_in_numbers(name: str) -> None:
    network = architectures.load(name).build(8).eval()
    before = network(IMAGES)
    stages.normalize_by(network, *OWN[name])
    torch.testing.assert_close(network(IMAGES), before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["googlenet", "resnet18"])
def test_another_normalization_is_that_of_torchvisions_network_on_normalized_images(name: str, tmp_path: Path) -> None:
    """In the forward pass, in the steps, and in a copy."""
    wanted = f"network.normalization={{mean: {[0.1, 0.2, 0.3]}, deviation: {[0.4, 0.5, 0.6]}}}"
    asked = profile.load("smoke", [wanted, f"network.architecture={name}", "network.width=1.0", "network.outputs=8"])
    pipeline = Pipeline(asked, Store(tmp_path), "cpu")
    network = stages.build(pipeline).eval()
    more = {"aux_logits": False, "init_weights": False, "transform_input": False} if name == "googlenet" else {}
    other = getattr(torchvision.models, name)(num_classes=8, **more).eval()
    other.load_state_dict(network.state_dict())
    mean, deviation = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]).view(2, 3, 1, 1)
    expected, found = other((IMAGES - mean) / deviation), IMAGES
    for step in stages.architecture(pipeline).steps(network).values():
        found = step(found)
    torch.testing.assert_close(network(IMAGES), expected)
    torch.testing.assert_close(copy.deepcopy(network)(IMAGES), expected)
    torch.testing.assert_close(found, expected)


def test_it_is_part_of_the_keys(tmp_path: Path) -> None:
    wanted = "network.normalization={mean: [0, 0, 0], deviation: [1, 1, 1]}"
    keys = [
        Pipeline(profile.load("smoke", asked), Store(tmp_path)).key(name)
        for name in ("layers", "scratch")
        for asked in ([], [wanted])
    ]
    assert keys[0] != keys[1] and keys[2] != keys[3]


def test_a_network_that_normalizes_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^network\.normalization: found one, but Linear has no method normalize"):
        stages.normalize_by(torch.nn.Linear(2, 2), MEAN, DEVIATION)
