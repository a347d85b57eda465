"""The dense network of a study, and the table of its layers."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.images.imageset import sample
from prunelens.paths import ROOT
from prunelens.profile import Training, expand
from prunelens.stages import Pipeline, Subject, fact, stage
from prunelens.store import Arrays, fingerprint, sha256

if TYPE_CHECKING:
    from torch import nn

    from prunelens.networks.architecture import Architecture

ARCHITECTURE = ("network.architecture", "network.width", "network.outputs")
MEASURED_IMAGES = 1024  # training images, at most, on which inserted BatchNorm has its statistics


@fact
def architecture_source(pipeline: Pipeline, subject: Subject) -> Any:
    """The source of a user's architecture, and a normalization that is not the architecture's own."""
    wanted = pipeline.profile.network
    source = registry.own_source("architecture", wanted.architecture)
    return source if wanted.normalization is None else [source, wanted.normalization.model_dump()]


@fact
def dense_weights(pipeline: Pipeline, subject: Subject) -> str:
    """Which weights the dense network has."""
    weights = pipeline.profile.network.weights
    if weights == "torchvision":
        return "torchvision IMAGENET1K_V1"
    made = dense_stage(pipeline)
    return fingerprint(pipeline.key(made)) if made else named_file(pipeline, subject)


def dense_stage(pipeline: Pipeline) -> str:
    """The stage that makes the dense network; empty where its weights are read as they are."""
    if pipeline.profile.network.weights == "scratch":
        return "scratch"
    return "inserted" if _inserts_batchnorm(pipeline) else ""


@fact
def named_file(pipeline: Pipeline, subject: Subject) -> str:
    """The content of the file that network.weights names."""
    return pipeline.remember("weights", lambda: sha256(weights_file(pipeline)))


def _inserts_batchnorm(pipeline: Pipeline) -> bool:
    return "images" in pipeline.parts["architecture"][pipeline.profile.network.architecture].needs


@stage(form="table", reads=ARCHITECTURE, needs=("architecture_source",), subject="")
def layers(pipeline: Pipeline, subject: None) -> pd.DataFrame:
    """Table of the layers that have units, in order of the forward pass."""
    from prunelens.networks.architecture import layer_table

    return layer_table(architecture(pipeline), build(pipeline))


@stage(reads=(*ARCHITECTURE, "seed"), needs=("architecture_source", "named_file", "train_images"), subject="")
def inserted(pipeline: Pipeline, subject: None) -> Arrays:
    """Weights of the dense network where BatchNorm is inserted into a plain one, on training images."""
    from prunelens.networks import weights
    from prunelens.networks.normalization import insert_batchnorm

    ours, network, seen = architecture(pipeline), pipeline.profile.network, images.train(pipeline)
    plain, found = ours.plain().build(network.outputs, network.width), build(pipeline)
    weights.load_weights(plain, weights_file(pipeline))
    insert_batchnorm(ours, plain, found, sample(seen, min(MEASURED_IMAGES, len(seen)), pipeline.profile.seed))
    return {f"weight/{name}": tensor.numpy() for name, tensor in found.state_dict().items()}


def weights_file(pipeline: Pipeline) -> Path:
    """The file that network.weights names.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file = expand(pipeline.profile.network.weights, "network.weights")
    file = file if file.is_absolute() or file.exists() else ROOT / file
    if not file.is_file():
        raise FileNotFoundError(f"network.weights: found no file {file}, expected a safetensors file")
    return file


def architecture(pipeline: Pipeline) -> "Architecture":
    """The profile's architecture."""
    from prunelens.networks import architectures

    return architectures.load(pipeline.profile.network.architecture)


def build(pipeline: Pipeline, aux: bool = False) -> "nn.Module":
    """A network of the profile's architecture without trained weights."""
    wanted = pipeline.profile.network
    network = architecture(pipeline).build(wanted.outputs, wanted.width, aux)
    if wanted.normalization is not None:
        normalize_by(network, **wanted.normalization.model_dump())
    return network


def normalize_by(network: "nn.Module", mean: list[float], deviation: list[float]) -> None:
    """Make a network normalize images by these numbers, in place of its own.

    Raises:
        ValueError: it has no method ``normalize`` that could be replaced.
    """
    from prunelens.networks.architecture import normalized

    if not callable(getattr(network, "normalize", None)):
        raise ValueError(f"network.normalization: found one, but {type(network).__name__} has no method normalize")
    network.normalize = partial(normalized, mean=mean, deviation=deviation)


def trainable(pipeline: Pipeline, recipe: Training, seed: int) -> "nn.Module":
    """A network with auxiliary heads, drawn from the seed, where the recipe has a loss for them."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(pipeline, aux=recipe.aux_weight > 0)


def dense_state(pipeline: Pipeline) -> dict[str, Any]:
    """The state dict of the dense network, read once in this process."""
    return pipeline.remember("dense", lambda: _dense(pipeline).state_dict())


def dense(pipeline: Pipeline) -> "nn.Module":
    """A copy of the dense network on the CPU, in evaluation mode."""
    network = build(pipeline)
    network.load_state_dict(dense_state(pipeline))
    return network.eval()


def _dense(pipeline: Pipeline) -> "nn.Module":
    from prunelens.networks import weights

    network, named = build(pipeline), pipeline.profile.network.weights
    if named == "torchvision":
        weights.load_state(network, architecture(pipeline).pretrained(), "torchvision's weights")
    elif named == "scratch":
        restore(network, pipeline.get("scratch"), "network.weights = scratch")
    elif _inserts_batchnorm(pipeline):
        restore(network, pipeline.get("inserted"), "network.weights with BatchNorm inserted")
    else:
        weights.load_weights(network, weights_file(pipeline))
    return network.eval()


def restore(network: "nn.Module", arrays: Arrays, origin: str) -> None:
    """Load the weights of an artefact into a network."""
    import torch

    from prunelens.networks.weights import load_state

    state = {name: torch.from_numpy(array.copy()) for name, array in part(arrays, "weight").items()}
    load_state(network, state, origin)


def part(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with PREFIX/, without it."""
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
