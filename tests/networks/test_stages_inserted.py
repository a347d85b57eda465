"""The dense network of a study: where BatchNorm is inserted, it follows from a file and from training images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thin import perturb

from prunelens.networks import architectures
from prunelens.networks import stages as networks
from prunelens.stages import Pipeline
from prunelens.study import Study
from prunelens.variants import Variant

FEW = [
    "network.width=1.0", "network.outputs=100", "pruning.methods=[structured_l1]", "pruning.rates=[0.8]",
    "pruning.unretrained.rates=[0.8]",
    "data.train_images=32", "data.validation_images=32", "sensitivity.images=8", "retraining.epochs=2",
    "interpretability.measures=[mis]",
]  # fmt: skip


def dense_weights(pipeline: Pipeline) -> str:
    return networks.dense_weights(pipeline, pipeline.dense)


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of weights drawn from a seed, in the plain architecture."""

    def make(architecture: str, seed: int = 0, *overrides: str) -> Study:
        file = tmp_path / f"plain-{seed}.safetensors"
        plain = perturb(architectures.load("bvlc_googlenet").build(100), seed)
        save_file({name: tensor.contiguous() for name, tensor in plain.state_dict().items()}, file)
        wanted = [f"network.architecture={architecture}", f"network.weights={file}", *FEW, *overrides]
        if architecture == "bvlc_googlenet":  # has no statistics to be measured anew
            wanted.append("pruning.recalibrated.methods=[]")
        return Study("smoke", wanted, "cpu", str(tmp_path / "out"))

    return make


def test_a_network_with_batchnorm_inserted_goes_through_the_study(study: Callable[..., Study]) -> None:
    normalized, plain = study("bvlc_googlenet_bn"), study("bvlc_googlenet")
    found, expected = (networks.dense(each.pipeline) for each in (normalized, plain))
    images = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        expected, found = expected(images), found(images)
    assert (found - expected).abs().max() < 1e-4 * (expected.max() - expected.min())
    variants = [normalized.dense, Variant("structured_l1", 0.8, "one_shot", epochs=2)]
    accuracy = normalized.accuracy(variants)
    assert accuracy.conv_sparsity.round(2).tolist() == [0, pytest.approx(0.8, abs=0.03)]
    assert accuracy.top1[0] == plain.accuracy([plain.dense]).top1[0]
    assert len(normalized.accuracy([Variant("structured_l1", 0.8, "recalibrated")])) == 1
    units = normalized.units(variants)
    assert units[units.alive].mis.notna().mean() > 0.9 and set(units.method) == {"dense", "structured_l1"}


def test_its_weights_follow_from_the_file_and_the_training_images(study: Callable[..., Study]) -> None:
    found = dense_weights(study("bvlc_googlenet_bn").pipeline)
    assert dense_weights(study("bvlc_googlenet_bn", 0, "retraining.epochs=3").pipeline) == found
    others = [("bvlc_googlenet_bn", 1), ("bvlc_googlenet_bn", 0, "data.train_images=16"), ("bvlc_googlenet", 0)]
    assert found not in {dense_weights(study(*other).pipeline) for other in others}


def test_a_plain_networks_weights_follow_from_the_file_alone(study: Callable[..., Study]) -> None:
    plain, others = (study("bvlc_googlenet", 0, f"data.train_images={n}") for n in (32, 16))
    assert dense_weights(plain.pipeline) == dense_weights(others.pipeline)
    assert dense_weights(study("bvlc_googlenet", 1).pipeline) != dense_weights(plain.pipeline)


def test_weights_that_have_batchnorm_already_are_refused(study: Callable[..., Study], tmp_path: Path) -> None:
    file = tmp_path / "normalized.safetensors"
    state = architectures.load("bvlc_googlenet_bn").build(100).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    with pytest.raises(ValueError, match=r"normalized\.safetensors holds weights of another .*than BVLCGoogLeNet"):
        study("bvlc_googlenet_bn", 0, f"network.weights={file}").check()
