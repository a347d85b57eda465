"""The networks of a study: pruned, retrained, and what they can do."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.networks import stages as networks
from prunelens.networks.stages import ARCHITECTURE
from prunelens.profile import Training
from prunelens.stages import Pipeline, Subject, fact, stage
from prunelens.store import Arrays, fingerprint
from prunelens.variants import DENSE, Variant

if TYPE_CHECKING:
    from torch import nn

    from prunelens.pruning.context import Context
    from prunelens.pruning.masks import Masks

DENSE_NETWORK = ("architecture_source", "dense_weights")  # facts that the dense network follows from
MASKS_VERSION = 3  # raise it when masks or fresh weights change
CALIBRATION_IMAGES = 64  # training images, at most, that a method may look at


# ------------------------------------------------------------------------------------------------------------- facts


@fact
def method(pipeline: Pipeline, variant: Variant) -> dict[str, Any] | None:
    """What a variant's masks depend on beside its fields and the dense network."""
    return None if variant.method == DENSE else _method(pipeline, variant.method)


@fact
def scanned_methods(pipeline: Pipeline, subject: Subject) -> list[dict[str, Any]]:
    """The methods of the sensitivity scan."""
    return [_method(pipeline, name) for name in pipeline.profile.sensitivity.methods]


def _method(pipeline: Pipeline, name: str) -> dict[str, Any]:
    needs = pipeline.parts["method"][name].needs
    return {
        "name": name,
        "version": [MASKS_VERSION, pipeline.parts["method"][name].version],
        "source": None if registry.is_built_in(name) else registry.source_hash("method", name),
        "images": images.train_images(pipeline, None) if "images" in needs else None,
        "tolerated": tolerated(pipeline) if "sensitivity" in needs else None,
    }


@fact
def variant(pipeline: Pipeline, variant: Variant) -> dict[str, Any]:
    """The fields of a variant."""
    return variant.fields()


@fact
def network_of(pipeline: Pipeline, variant: Variant) -> str:
    """What a variant's weights depend on."""
    if variant.schedule == "none":
        found = [{name: networks_fact(pipeline, name) for name in DENSE_NETWORK}, variant.fields()]
        return fingerprint([*found, method(pipeline, variant), {k: pipeline.profile.value(k) for k in ARCHITECTURE}])
    return fingerprint(pipeline.key("recalibrated" if variant.schedule == "recalibrated" else "retrained", variant))


def networks_fact(pipeline: Pipeline, name: str) -> Any:
    """The value of one of the facts about the dense network."""
    return getattr(networks, name)(pipeline, None)


# ------------------------------------------------------------------------------------------------------ sensitivity


@stage(
    version=2,
    form="table",
    reads=(*ARCHITECTURE, "sensitivity.methods", "sensitivity.rates", "sensitivity.images", "seed"),
    needs=(*DENSE_NETWORK, "train_images", "scanned_methods"),
    subject="block",
)
def sensitivity(pipeline: Pipeline, block: str) -> pd.DataFrame:
    """Top-1 after pruning each layer of a block alone, on training images."""
    from prunelens.pruning import sensitivity as scan

    wanted = pipeline.profile.sensitivity
    return scan.scan(
        network(pipeline, pipeline.dense),
        networks.architecture(pipeline),
        _scan_images(pipeline),
        block,
        {name: registry.find("method", name) for name in wanted.methods},
        wanted.rates,
        partial(context, pipeline, seed=pipeline.profile.seed),
        batch_size=pipeline.profile.batch_size,
        device=pipeline.device,
    )


@stage(
    form="json",
    reads=(*ARCHITECTURE, "sensitivity.images", "seed"),
    needs=(*DENSE_NETWORK, "train_images"),
    subject="",
)
def sensitivity_dense(pipeline: Pipeline, subject: None) -> dict[str, float]:
    """Top-1 of the dense network on the images of the sensitivity scan."""
    from prunelens.pruning import accuracy

    found = _scan_images(pipeline)
    logits = accuracy.logits(
        network(pipeline, pipeline.dense), found, pipeline.profile.batch_size, pipeline.device
    )
    return {"top1": accuracy.accuracy(logits, found)["top1"]}


def _scan_images(pipeline: Pipeline) -> Any:
    from prunelens.images.imageset import sample

    return sample(images.train(pipeline), pipeline.profile.sensitivity.images, pipeline.profile.seed)


def tolerated(pipeline: Pipeline) -> dict[str, float]:
    """By layer, the rate of unstructured pruning that costs this layer alone no more than the tolerance."""
    from prunelens.pruning.sensitivity import tolerated as read

    blocks = pipeline.get("layers").query("prunable").block.unique()
    table = pd.concat([pipeline.get("sensitivity", block) for block in blocks], ignore_index=True)
    table = table[table.method == "unstructured_local"]
    return read(table, pipeline.get("sensitivity_dense")["top1"], pipeline.profile.sensitivity.tolerance)


# --------------------------------------------------------------------------------------------------------- networks


def context(pipeline: Pipeline, network: "nn.Module", seed: int) -> "Context":
    """What a pruning method may ask for, beside the network and the rate."""
    from prunelens.images.imageset import sample
    from prunelens.pruning.context import Context

    def calibration() -> Any:
        found = images.train(pipeline)
        return sample(found, min(CALIBRATION_IMAGES, len(found)), pipeline.profile.seed)

    return Context(network, networks.architecture(pipeline), seed, calibration, partial(tolerated, pipeline))


def network(pipeline: Pipeline, variant: Variant) -> "nn.Module":
    """A variant's network on the CPU, in evaluation mode; retrains it where that has not been done yet."""
    from prunelens.networks import weights

    found = networks.build(pipeline)
    if variant.schedule in ("none", "recalibrated"):
        found = _pruned(pipeline, variant)[0] if variant.schedule == "none" else found
    if variant.schedule != "none":
        networks.restore(found, _trained(pipeline, variant), str(variant))
    elif variant.weights == "random":
        weights.initialize(found, variant.seed)
    elif variant.weights == "shuffled":
        weights.shuffle_weights(found, variant.seed)
    return found.eval()


def _trained(pipeline: Pipeline, variant: Variant) -> Arrays:
    return pipeline.get("recalibrated" if variant.schedule == "recalibrated" else "retrained", variant)


def _pruned(pipeline: Pipeline, variant: Variant) -> tuple["nn.Module", "Masks"]:
    """The dense network pruned as a variant says, not retrained, and its masks."""
    found = networks.build(pipeline)
    found.load_state_dict(networks.dense_state(pipeline))
    return found, _prune(pipeline, variant, found, variant.rate, None)


def _prune(
    pipeline: Pipeline, variant: Variant, network: "nn.Module", rate: float, within: "Masks | None"
) -> "Masks":
    from prunelens.pruning import masks

    if variant.method == DENSE:
        return {}
    part = registry.find("method", variant.method)
    return masks.prune(network, part, rate, partial(context, pipeline, seed=variant.seed), within)


@stage(
    version=4,
    reads=(*ARCHITECTURE, "retraining", "pruning.iterative.steps", "pruning.rewound"),
    needs=(*DENSE_NETWORK, "variant", "method", "train_images", "validation_images"),
)
def retrained(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Weights, masks and epochs of a variant, pruned and retrained in one or several steps."""
    from prunelens.networks import weights
    from prunelens.pruning import retraining

    recipe = _recipe(pipeline, variant)
    network = networks.trainable(pipeline, recipe, variant.seed)
    weights.load_state(network, networks.dense_state(pipeline), "the dense network")

    def fresh(network: "nn.Module") -> None:
        if variant.weights == "random":
            weights.initialize(network, variant.seed)

    found = retraining.retrain(
        network,
        images.train(pipeline),
        retraining.steps(variant.rate, variant.epochs, steps(pipeline, variant)),
        partial(_prune, pipeline, variant),
        partial(_evaluate, pipeline),
        recipe,
        seed=variant.seed,
        device=pipeline.device,
        masked=variant.masked,
        prepare=fresh,
        label=str(variant),
        checkpoint=pipeline.checkpoint("retrained", variant),
    )
    return found


@stage(
    version=3,
    reads=(*ARCHITECTURE, "network.scratch", "seed"),
    needs=("architecture_source", "train_images", "validation_images"),
    subject="",
)
def scratch(pipeline: Pipeline, subject: None) -> Arrays:
    """Weights and epochs of the dense network, trained from scratch."""
    from prunelens.networks import weights
    from prunelens.pruning import retraining

    recipe, seed = pipeline.profile.network.scratch, pipeline.profile.seed
    network = networks.trainable(pipeline, recipe, seed)
    weights.initialize(network, seed)
    raise NotImplementedError


@stage(
    version=2,
    reads=(*ARCHITECTURE, "retraining.batch_size", "retraining.smallest_crop"),
    needs=(*DENSE_NETWORK, "variant", "method", "train_images"),
)
def recalibrated(pipeline: Pipeline, variant: Variant) -> Arrays:
    """A pruned network with BatchNorm statistics measured anew, no gradient step."""
    from prunelens.pruning import retraining

    network, masks = _pruned(pipeline, variant)
    recipe = pipeline.profile.retraining
    retraining.recalibrate(network, images.train(pipeline), recipe, variant.seed, pipeline.device)
    return retraining.pack(network, masks)


def steps(pipeline: Pipeline, variant: Variant) -> int:
    """How many steps of pruning and retraining a variant takes."""
    return pipeline.profile.pruning.iterative.steps if variant.schedule == "iterative" else 1


def _recipe(pipeline: Pipeline, variant: Variant) -> Training:
    recipe = pipeline.profile.retraining
    if variant.schedule != "rewound":
        return recipe
    rewound = pipeline.profile.pruning.rewound
    return recipe.model_copy(update=rewound.model_dump(include={"learning_rate", "schedule"}))


# ------------------------------------------------------------------------------------------------ what they can do


def _evaluate(pipeline: Pipeline, network: "nn.Module") -> dict[str, Any]:
    """Accuracies, sparsities and counts by class on the validation images."""
    raise NotImplementedError
