"""Units of a study's networks: extremes, measures and pictures."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.images.imageset import BATCH
from prunelens.networks import stages as networks
from prunelens.networks.stages import part
from prunelens.pruning import stages as pruning
from prunelens.pruning.stages import network
from prunelens.stages import FACTS, STAGES, Pipeline, Stage, Subject, fact, stage
from prunelens.store import Arrays
from prunelens.variants import Variant

if TYPE_CHECKING:
    from prunelens.units.recording import Recording

Unit = tuple[str, int]  # layer and index

TASKS = ("interpretability.tasks", "interpretability.explanations", "seed")
PICTURES = ("visualization.size", "visualization.steps", "seed")
STARTS = 2  # pictures of a unit: two show how far a picture is chance
MEASURED = ("network_of", "stimulus_images", "extremes", "embeddings")


# ------------------------------------------------------------------------------------------------ similarity and MIS


@fact
def similarity(pipeline: Pipeline, subject: Subject) -> dict[str, Any]:
    """Which similarity the stimuli are embedded under."""
    return _identity(pipeline, "similarity", pipeline.profile.interpretability.similarity)


def _identity(pipeline: Pipeline, kind: str, name: str) -> dict[str, Any]:
    version, source = pipeline.parts[kind][name].version, registry.own_source(kind, name)
    return {"name": name, "version": version, "source": source}


@stage(version=3, needs=("similarity", "stimulus_images"), subject="")
def embeddings(pipeline: Pipeline, subject: None) -> Arrays:
    """The stimuli under the profile's similarity, (n, D), once for the whole study."""
    from prunelens.units import similarities

    found = load_similarity(pipeline).embed(images.stimuli(pipeline).images, BATCH, pipeline.device)
    return {"embeddings": similarities.halve(similarities.compress(found))}


def load_similarity(pipeline: Pipeline) -> Any:
    """The profile's similarity, loaded once in this process."""
    name = pipeline.profile.interpretability.similarity
    return pipeline.remember("similarity", lambda: registry.find("similarity", name)())


@stage(form="json", needs=("stimulus_images",), subject="")
def stimuli(pipeline: Pipeline, subject: None) -> dict[str, Any]:
    """How many stimuli there are, and the names of their known concepts."""
    found = images.stimuli(pipeline)
    return {"n": len(found), "concepts": list(found.concepts or ())}


@stage(version=2, reads=TASKS, needs=("network_of", "stimulus_images"))
def extremes(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Stimuli that excite each unit most and least: "top/LAYER", "bottom/LAYER" (units, k), "alive/LAYER" (units,)."""
    return dict(_recording(pipeline, variant).extremes)


@stage(needs=("extremes",))
def alive(pipeline: Pipeline, variant: Variant) -> Arrays:
    """By layer, whether each unit varies over the stimuli."""
    return part(pipeline.get("extremes", variant), "alive")


@stage(
    form="json",
    version=2,
    reads=TASKS,
    needs=("dense.extremes", "embeddings"),
    subject="",
)
def temperature(pipeline: Pipeline, subject: None) -> dict[str, float]:
    """The temperature of the MIS: the similarity's published one, or fitted on the dense network's live convs."""
    from prunelens.units.mis import fit_temperature

    if given := getattr(load_similarity(pipeline), "temperature", None):
        return {"temperature": given}
    found = _recording(pipeline, pipeline.dense, pipeline.get("extremes", pipeline.dense))
    margins = [found.margins[layer][found.alive[layer]] for layer in found.layers[:-1]]
    return {"temperature": fit_temperature(np.concatenate(margins))}


def recording(pipeline: Pipeline, variant: Variant) -> "Recording":
    """What measures may look at of a variant."""
    degrees = pipeline.get("temperature")["temperature"]
    found = _recording(pipeline, variant, pipeline.get("extremes", variant))
    found.temperature = degrees
    return found


def _recording(pipeline: Pipeline, variant: Variant, extremes: Arrays | None = None) -> "Recording":
    """Record a variant, whose extremes may be known; the last one is kept, for its extremes and all its measures."""
    kept = pipeline.memory.get("recording")
    if kept is None or kept[0] != variant:
        kept = pipeline.memory["recording"] = variant, _record(pipeline, variant, extremes)
    return kept[1]


def _record(pipeline: Pipeline, variant: Variant, extremes: Arrays | None) -> "Recording":
    from prunelens.units.recording import NetworkSource, Recording, Settings

    wanted, seed = pipeline.profile.interpretability, pipeline.profile.seed
    scale = getattr(load_similarity(pipeline), "scale", 1.0)
    settings = Settings(wanted.tasks, wanted.explanations, scale, seed=seed)
    source = NetworkSource(networks.architecture(pipeline), network(pipeline, variant), pipeline.device)
    compared = pipeline.remember("compared", lambda: _compared(pipeline))
    return Recording(source, images.stimuli(pipeline), _embeddings(pipeline), settings, extremes, compared)


def _embeddings(pipeline: Pipeline) -> np.ndarray:
    return pipeline.remember("embeddings", lambda: pipeline.get("embeddings")["embeddings"].astype(np.float32))


def _compared(pipeline: Pipeline) -> Any:
    from prunelens.units.mis import gram

    return gram(_embeddings(pipeline), pipeline.device)


def share(pipeline: Pipeline) -> None:
    """Have in memory what all processes that judge units need, before they are forked."""
    pruning.share(pipeline)
    pipeline.remember("compared", lambda: _compared(pipeline))
    pipeline.get("temperature")


def measure_stage(pipeline: Pipeline, name: str) -> str:
    """The stage of one measure, "measure.NAME": by layer (units,) float64, NaN where a unit is dead."""
    stage_name, fact_name = f"measure.{name}", f"measured by {name}"
    needs = ("temperature",) if "temperature" in pipeline.parts["measure"][name].needs else ()
    FACTS[fact_name] = lambda pipeline, subject: _identity(pipeline, "measure", name)
    STAGES[stage_name] = Stage(
        stage_name, partial(_measure, name), "arrays", 1, TASKS, (*MEASURED, fact_name, *needs), "variant"
    )
    return stage_name


def _measure(name: str, pipeline: Pipeline, variant: Variant) -> Arrays:
    from prunelens.units.measures import score

    table = score(recording(pipeline, variant), registry.find("measure", name))
    return {layer: rows.value.to_numpy() for layer, rows in table.groupby("layer", sort=False)}


# ---------------------------------------------------------------------------------------------------------- pictures


def extreme_stimuli(pipeline: Pipeline, variant: Variant, chosen: Sequence[Unit], side: str, n: int = 1) -> np.ndarray:
    """Indices of the n stimuli that excite each unit most ("top") or least ("bottom"), (units, n)."""
    found = pipeline.get("extremes", variant)
    return np.array([found[f"{side}/{layer}"][unit, :n] for layer, unit in chosen], dtype=int).reshape(-1, n)


def drawn_units(pipeline: Pipeline) -> list[Unit]:
    """The units that are drawn in every network, in order of the forward pass.

    They are the profile's, and of each block a seeded sample of prunable convs' units that live in the dense network.
    """
    wanted, layers = pipeline.profile.visualization, pipeline.get("layers")
    living, rng = pipeline.get("alive", pipeline.dense), np.random.default_rng([pipeline.profile.seed, *b"units"])
    named = [(layer, unit) for layer, units in wanted.units.items() for unit in units]
    chosen = list(named)
    for _, rows in layers[layers.prunable].groupby("block", sort=False):
        units = [(layer, int(unit)) for layer in rows.layer for unit in np.flatnonzero(living[layer])]
        others = [unit for unit in units if unit not in named]
        chosen += [others[i] for i in rng.permutation(len(others))[: wanted.per_block]]
    position = {layer: i for i, layer in enumerate(layers.layer)}
    return sorted(chosen, key=lambda unit: (position[unit[0]], unit[1]))


@stage(
    version=5,
    reads=(*PICTURES, "visualization.units", "visualization.per_block"),
    needs=("network_of", "extremes", "dense.extremes"),
)
def pictures(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Pictures of the `drawn_units`: the fields of `units.pictures.Pictures`, zeros for units that are dead.

    "most", "least" (units,): the activations on the stimuli that excite a unit most and least; "alive" (units,).
    """
    from prunelens.units.pictures import draw, responses

    units, living = drawn_units(pipeline), pipeline.get("alive", variant)
    alive = np.array([living[layer][unit] for layer, unit in units])
    chosen = [unit for unit, lives in zip(units, alive, strict=True) if lives]
    network_ = network(pipeline, variant).to(pipeline.device)
    wanted, seed = pipeline.profile.visualization, pipeline.profile.seed
    found: Arrays = draw(network_, chosen, size=wanted.size, steps=wanted.steps, seed=seed, starts=STARTS)._asdict()
    for name, side in (("most", "top"), ("least", "bottom")):
        seen = images.stimuli(pipeline).images[extreme_stimuli(pipeline, variant, chosen, side)[:, 0]]
        found[name] = responses(network_, chosen, seen)
    for name, array in found.items():
        found[name] = np.zeros((len(units), *array.shape[1:]), array.dtype)
        found[name][alive] = array
    return found | {"alive": alive}


@stage(
    form="table",
    version=4,
    reads=("interpretability.explanations", *PICTURES),
    needs=("pictures", "dense.pictures", "embeddings", "similarity"),
)
def picture_quality(pipeline: Pipeline, variant: Variant) -> pd.DataFrame:
    """What a variant's pictures are worth in numbers: layer, unit, and those of `units.picture_quality.quality`."""
    from prunelens.units.picture_quality import Drawn, quality

    units, k = drawn_units(pipeline), pipeline.profile.interpretability.explanations
    variants = (variant, pipeline.dense)
    found = [pipeline.get("pictures", each) for each in variants]
    stimuli, embedded = _embed_pictures(pipeline, np.stack([arrays["images"] for arrays in found]))
    drawn, dense = (
        Drawn(rows, arrays["objective"], arrays["excited"], extreme_stimuli(pipeline, each, units, "top", k),
              arrays["most"], arrays["least"], arrays["alive"])
        for each, arrays, rows in zip(variants, found, embedded, strict=True)
    )  # fmt: skip
    table = quality(drawn, dense, stimuli, pipeline.profile.seed)
    return pd.concat([pd.DataFrame(units, columns=["layer", "unit"]), table], axis=1)


def _embed_pictures(pipeline: Pipeline, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the stimuli (n, D) and of pictures (..., h, w, 3), as (..., D), in one space."""
    from prunelens.units.similarities import compress

    embed = partial(load_similarity(pipeline).embed, batch_size=BATCH, device=pipeline.device)
    stimuli, rows = _embeddings(pipeline), embed(pictures.reshape(-1, *pictures.shape[-3:]))
    if stimuli.shape[1] != rows.shape[1]:  # compressed coordinates know the stimuli only
        whole = embed(images.stimuli(pipeline).images)
        stimuli, rows = np.split(compress(np.concatenate([whole, rows])), [len(stimuli)])
    return stimuli, rows.reshape(*pictures.shape[:-3], -1)
