"""The networks of a study: pruned, retrained, and what they can do."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.images.imageset import BATCH, sample
from prunelens.networks import stages as networks
from prunelens.networks.stages import ARCHITECTURE, part
from prunelens.stages import Pipeline, Subject, fact, stage
from prunelens.store import Arrays, fingerprint, origin
from prunelens.variants import DENSE, Variant

if TYPE_CHECKING:
    from torch import nn

    from prunelens.profile import Training
    from prunelens.pruning.context import Context, Masks

DENSE_NETWORK = ("architecture_source", "dense_weights")  # facts that the dense network follows from
MASKS_VERSION = 3  # raise it when masks or fresh weights change
CALIBRATION_IMAGES = 64  # training images, at most, that a method may look at


@fact
def method(pipeline: Pipeline, variant: Variant) -> dict[str, Any] | None:
    """What a variant's masks depend on beside its fields and the dense network."""
    return None if variant.method == DENSE else _method(pipeline, variant.method)


@fact
def scanned_methods(pipeline: Pipeline, subject: Subject) -> list[dict[str, Any]]:
    """The methods of the sensitivity scan."""
    return [_method(pipeline, name) for name in pipeline.profile.sensitivity.methods]


def _method(pipeline: Pipeline, name: str) -> dict[str, Any]:
    description = pipeline.parts["method"][name]
    return {
        "name": name,
        "version": [MASKS_VERSION, description.version],
        "source": registry.own_source("method", name),
        "images": images.train_images(pipeline, None) if "images" in description.needs else None,
        "tolerated": tolerated(pipeline) if "sensitivity" in description.needs else None,
    }


@fact
def variant(pipeline: Pipeline, variant: Variant) -> dict[str, Any]:
    """The fields of a variant."""
    return variant.fields()


@fact
def network_of(pipeline: Pipeline, variant: Variant) -> str:
    """What a variant's weights depend on."""
    return fingerprint(pipeline.key(_stage(variant), variant))


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
    from prunelens.pruning.sensitivity import scan

    wanted = pipeline.profile.sensitivity
    return scan(
        network(pipeline, pipeline.dense),
        networks.architecture(pipeline),
        _scan_images(pipeline),
        block,
        {name: registry.find("method", name) for name in wanted.methods},
        wanted.rates,
        partial(_context, pipeline, seed=pipeline.profile.seed),
        batch_size=BATCH,
        device=pipeline.device,
    )


@stage(
    form="json",
    reads=(*ARCHITECTURE, "sensitivity.images", "seed"),
    needs=(*DENSE_NETWORK, "train_images"),
    subject="",
)
def sensitivity_dense(pipeline: Pipeline, subject: None) -> dict[str, float]:
    """Accuracies of the dense network on the images of the sensitivity scan."""
    from prunelens.pruning.accuracy import accuracy, logits

    seen = _scan_images(pipeline)
    return accuracy(logits(network(pipeline, pipeline.dense), seen, BATCH, pipeline.device), seen)


def _scan_images(pipeline: Pipeline) -> Any:
    n, seed = pipeline.profile.sensitivity.images, pipeline.profile.seed
    return sample(images.train(pipeline), n, seed, "sensitivity.images")


def tolerated(pipeline: Pipeline) -> dict[str, float]:
    """By layer, the rate of unstructured pruning that costs this layer alone next to nothing."""
    from prunelens.pruning.rates import tolerated as read

    table = pd.concat([pipeline.get("sensitivity", block) for block in prunable(pipeline).block.unique()])
    table, dense = table[table.method == "unstructured_local"], pipeline.get("sensitivity_dense")["top1"]
    return read(table, dense)


# --------------------------------------------------------------------------------------------------------- networks


def network(pipeline: Pipeline, variant: Variant) -> "nn.Module":
    """A variant's network on the CPU, in evaluation mode; retrained first where that has not been done yet."""
    from prunelens.networks import weights

    if variant.schedule != "none":
        found = networks.build(pipeline)
        networks.restore(found, pipeline.get(_stage(variant), variant), str(variant))
        return found.eval()
    found = networks.dense(pipeline)
    _prune(pipeline, variant, found, variant.rate)
    if variant.weights == "random":
        weights.initialize(found, variant.seed)
    return found


def _stage(variant: Variant) -> str:
    """The stage that makes a variant's weights."""
    return {"none": "pruned", "recalibrated": "recalibrated"}.get(variant.schedule, "retrained")


def _prune(
    pipeline: Pipeline, variant: Variant, network: "nn.Module", rate: float, within: "Masks | None" = None
) -> "Masks":
    from prunelens.pruning import masks

    if variant.method == DENSE:
        return {}
    part = registry.find("method", variant.method)
    return masks.prune(network, part, rate, partial(_context, pipeline, seed=variant.seed), within)


def _context(pipeline: Pipeline, network: "nn.Module", seed: int) -> "Context":
    from prunelens.pruning.context import Context

    def calibration() -> Any:
        found = images.train(pipeline)
        return sample(found, min(CALIBRATION_IMAGES, len(found)), pipeline.profile.seed)

    return Context(network, networks.architecture(pipeline), seed, calibration, partial(tolerated, pipeline))


@stage(version=3, reads=ARCHITECTURE, needs=(*DENSE_NETWORK, "variant", "method"))
def pruned(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Share of each prunable layer's weights that a variant's masks take: "sparsity" (layers,).

    The network itself is made anew when it is needed.
    """
    masks = _prune(pipeline, variant, networks.dense(pipeline), variant.rate)
    kept = (masks.get(f"{layer}.weight") for layer in prunable(pipeline).layer)
    return {"sparsity": np.array([0.0 if mask is None else 1 - mask.double().mean().item() for mask in kept])}


def prunable(pipeline: Pipeline) -> pd.DataFrame:
    """The rows of the prunable layers in the table of layers."""
    layers = pipeline.get("layers")
    return layers[layers.prunable].reset_index(drop=True)


@stage(
    version=5,
    reads=(*ARCHITECTURE, "retraining", "pruning.iterative.steps"),
    needs=(*DENSE_NETWORK, "variant", "method", "train_images", "validation_images"),
)
def retrained(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Weights, masks and epochs of a variant, pruned and retrained in one or several steps."""
    from prunelens.networks import weights

    recipe = pipeline.profile.retraining
    found = networks.trainable(pipeline, recipe, variant.seed)
    weights.load_state(found, networks.dense_state(pipeline), "the dense network")
    n = _n_steps(pipeline, variant)
    return _retrain(
        pipeline, "retrained", variant, found, recipe, variant.seed, n=n, rate=variant.rate, epochs=variant.epochs,
        prune=partial(_prune, pipeline, variant), masked=variant.masked,
    )  # fmt: skip


@stage(
    version=4,
    reads=(*ARCHITECTURE, "network.scratch", "seed"),
    needs=("architecture_source", "train_images", "validation_images"),
    subject="",
)
def scratch(pipeline: Pipeline, subject: None) -> Arrays:
    """Weights and epochs of the dense network, trained from scratch."""
    from prunelens.networks import weights

    recipe, seed = pipeline.profile.network.scratch, pipeline.profile.seed
    found = networks.trainable(pipeline, recipe, seed)
    weights.initialize(found, seed)
    return _retrain(pipeline, "scratch", None, found, recipe, seed, n=1, rate=0.0, epochs=recipe.epochs)


def _retrain(
    pipeline: Pipeline,
    name: str,
    subject: Subject,
    network: "nn.Module",
    recipe: "Training",
    seed: int,
    *,
    n: int,
    rate: float,
    epochs: int,
    prune: Any = lambda network, rate, within: {},
    **more: Any,
) -> Arrays:
    """Train in ``n`` steps from the last checkpoint on, which a later call removes once the result is stored."""
    from prunelens.pruning import retraining

    checkpoint = pipeline.checkpoint(name, subject)
    return retraining.retrain(
        network, images.train(pipeline), retraining.steps(rate, epochs, n), prune, partial(_evaluate, pipeline), recipe,
        seed=seed, device=pipeline.device, label=f"{subject or 'dense, from scratch'}", checkpoint=checkpoint, **more,
    )  # fmt: skip


def _n_steps(pipeline: Pipeline, variant: Variant) -> int:
    return pipeline.profile.pruning.iterative.steps if variant.schedule == "iterative" else 1


def before(pipeline: Pipeline, variant: Variant) -> Variant:
    """A retrained network as it was pruned first."""
    random = variant.method != DENSE and pipeline.parts["method"][variant.method].random
    n = _n_steps(pipeline, variant)
    rate = variant.rate if n == 1 else 1 - (1 - variant.rate) ** (1 / n)
    return Variant(variant.method, rate, seed=variant.seed if random else pipeline.dense.seed)


def course(pipeline: Pipeline, variant: Variant) -> pd.DataFrame:
    """The epochs of a retraining, epoch 0 being the network as it was pruned first; see `Study.epochs`."""
    columns = part(pipeline.get("retrained", variant), "epoch")
    table = pd.DataFrame({name: values for name, values in columns.items() if values.ndim == 1})
    start = before(pipeline, variant)
    row = pipeline.get("accuracy", start)["network"]
    first = pd.DataFrame([{"epoch": 0, "step": 0, "step_rate": start.rate, "seconds": 0.0, "bfloat16": False, **row}])
    return pd.concat([first, table], ignore_index=True)[table.columns]


@stage(
    version=2,
    reads=(*ARCHITECTURE, "retraining.batch_size", "retraining.smallest_crop"),
    needs=(*DENSE_NETWORK, "variant", "method", "train_images"),
)
def recalibrated(pipeline: Pipeline, variant: Variant) -> Arrays:
    """A pruned network with BatchNorm statistics measured anew, no gradient step."""
    from prunelens.pruning import retraining

    found = networks.dense(pipeline)
    masks, recipe = _prune(pipeline, variant, found, variant.rate), pipeline.profile.retraining
    retraining.recalibrate(found, images.train(pipeline), recipe, variant.seed, pipeline.device)
    return retraining.pack(found.cpu(), masks)


def share(pipeline: Pipeline) -> None:
    """Have in memory what processes that train or evaluate need, before they are forked."""
    images.train(pipeline), images.validation(pipeline), networks.dense_state(pipeline)


# ------------------------------------------------------------------------------------------------ what they can do


@stage(form="json", version=3, needs=("network_of", "validation_images"))
def accuracy(pipeline: Pipeline, variant: Variant) -> dict[str, dict[str, Any]]:
    """Accuracies and sparsities of a network ("network"), and its accuracy by class ("classes")."""
    if variant.retrained:  # its last epoch has evaluated it already
        arrays = pipeline.get("retrained", variant)
        found = {name: values[-1].tolist() for name, values in part(arrays, "epoch").items()}
        masks = part(arrays, "mask")
    else:
        found = _evaluate(pipeline, network(pipeline, variant))
        masks = {} if variant.schedule == "none" else part(pipeline.get("recalibrated", variant), "mask")
    found["mask_sparsity"] = _mask_sparsity(pipeline, variant, masks)
    right, n = np.array(found.pop("class_right")), np.array(found.pop("class_n"))
    course = {"epoch", "step", "step_rate", "learning_rate", "loss", "train_top1", "seconds", "bfloat16"}
    return {
        "network": {name: value for name, value in found.items() if name not in course},
        "classes": {"n": n.tolist(), "top1": (right / n.clip(1)).tolist()},
    }


def _mask_sparsity(pipeline: Pipeline, variant: Variant, masks: Arrays) -> float:
    """Share of the prunable convs' weights that masks take."""
    layers = prunable(pipeline)
    if variant.schedule == "none":
        taken = pipeline.get("pruned", variant)["sparsity"]
    else:
        ours = (masks.get(f"{layer}.weight") for layer in layers.layer)
        taken = np.array([0.0 if mask is None else 1 - mask.mean() for mask in ours])
    return float((taken * layers.weights).sum() / layers.weights.sum())


def _evaluate(pipeline: Pipeline, network: "nn.Module") -> dict[str, Any]:
    """Sparsities, accuracies and counts by class on the validation images."""
    from prunelens.pruning import accuracy
    from prunelens.pruning.masks import sparsity

    seen = images.validation(pipeline)
    logits = accuracy.logits(network, seen, BATCH, pipeline.device)
    right, n = accuracy.class_counts(logits, seen)
    return {
        **sparsity(networks.architecture(pipeline), network),
        **accuracy.accuracy(logits, seen),
        "class_right": right.tolist(),
        "class_n": n.tolist(),
    }


@fact
def machine(pipeline: Pipeline, subject: Subject) -> str:
    """The machine on which latencies are measured."""
    return origin()["machine"]


@stage(
    form="table",
    version=2,
    reads=("latency_batches", "latency_repeats", "data.size"),
    needs=("network_of", "dense.network_of", "machine"),
)
def costs(pipeline: Pipeline, variant: Variant) -> pd.DataFrame:
    """Size and speed of a network as masked and as compact tensors, beside the dense one; see `Study.costs`."""
    from prunelens.networks import compaction
    from prunelens.networks import costs as measured
    from prunelens.pruning.masks import sparsity

    ours, masked = networks.architecture(pipeline), network(pipeline, variant)
    pixels, repeats = pipeline.profile.data.size, pipeline.profile.latency_repeats
    forms = {
        "dense": network(pipeline, pipeline.dense),
        "masked": masked,
        "compact": compaction.compact(ours, masked, pixels),
    }
    sizes = pd.DataFrame(
        {"form": form, "conv_sparsity": sparsity(ours, found)["conv_sparsity"], **measured.costs(ours, found, pixels)}
        for form, found in forms.items()
    )
    latencies = [
        measured.latency(forms, pixels, batch, repeats, pipeline.device) for batch in pipeline.profile.latency_batches
    ]
    return sizes.merge(pd.concat(latencies).rename(columns={"network": "form"}), on="form")
