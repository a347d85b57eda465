"""Units of a study's networks: extremes, measures and pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.networks import stages as networks
from prunelens.networks.stages import part
from prunelens.pruning.stages import network
from prunelens.stages import FACTS, STAGES, Pipeline, Stage, Subject, fact, stage
from prunelens.store import Arrays
from prunelens.variants import Variant

if TYPE_CHECKING:
    from prunelens.units.recording import Recording

Unit = tuple[str, int]  # layer and index

TASKS = ("interpretability.tasks", "interpretability.explanations", "seed")
PICTURES = ("visualization.size", "visualization.steps", "visualization.starts", "seed")
MEASURED = ("network_of", "stimulus_images", "extremes", "embeddings")
READ_BY_MEASURES = (*TASKS, "interpretability.dissection_images", "interpretability.dissection_quantile")


# ------------------------------------------------------------------------------------------------ similarity and MIS


@fact
def similarity(pipeline: Pipeline, subject: Subject) -> dict[str, Any]:
    """Which similarity the stimuli are embedded under."""
    name = pipeline.profile.interpretability.similarity
    return _identity(pipeline, "similarity", name)


def _identity(pipeline: Pipeline, kind: str, name: str) -> dict[str, Any]:
    source = None if registry.is_built_in(name) else registry.source_hash(kind, name)
    return {"name": name, "version": pipeline.parts[kind][name].version, "source": source}


@stage(version=3, needs=("similarity", "stimulus_images"), subject="")
def embeddings(pipeline: Pipeline, subject: None) -> Arrays:
    """The stimuli under the profile's similarity, (n, D), once for the whole study."""
    from prunelens.units import similarities

    found = _similarity(pipeline).embed(images.stimuli(pipeline).images, pipeline.profile.batch_size, pipeline.device)
    return {"embeddings": similarities.halve(similarities.compress(found))}


def _similarity(pipeline: Pipeline) -> Any:
    from prunelens.units import similarities

    wanted = pipeline.profile.interpretability
    return pipeline.remember("similarity", lambda: similarities.load(wanted.similarity, wanted.download))


@stage(form="json", needs=("stimulus_images",), subject="")
def stimuli(pipeline: Pipeline, subject: None) -> dict[str, Any]:
    """How many stimuli there are, and the names of their known concepts."""
    found = images.stimuli(pipeline)
    return {"n": len(found), "concepts": list(found.concepts or ())}


@stage(version=2, reads=TASKS, needs=("network_of", "stimulus_images"))
def extremes(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Stimuli that excite each unit most and least: "top/LAYER", "bottom/LAYER" (units, k), "alive/LAYER" (units,)."""
    return dict(_record(pipeline, variant).extremes)


@stage(needs=("extremes",))
def alive(pipeline: Pipeline, variant: Variant) -> Arrays:
    """By layer, whether each unit varies over the stimuli."""
    return part(pipeline.get("extremes", variant), "alive")


@stage(
    form="json",
    version=2,
    reads=(*TASKS, "interpretability.temperature"),
    needs=("dense.extremes", "embeddings"),
    subject="",
)
def temperature(pipeline: Pipeline, subject: None) -> dict[str, float]:
    """The temperature of the MIS: the profile's, the published one, or fitted on the dense network's live convs."""
    from prunelens.units.mis import fit_temperature

    given = pipeline.profile.interpretability.temperature or getattr(_similarity(pipeline), "temperature", None)
    if given:
        return {"temperature": given}
    found = _record(pipeline, pipeline.dense, pipeline.get("extremes", pipeline.dense))
    margins = [found.margins[layer][found.alive[layer]] for layer in found.layers[:-1]]
    return {"temperature": fit_temperature(np.concatenate(margins))}


def recording(pipeline: Pipeline, variant: Variant) -> "Recording":
    """What measures may look at of a variant; the last variant's is kept, for several measures."""
    kept = pipeline.memory.get("recording")
    if kept is None or kept[0] != variant:
        degrees = pipeline.get("temperature")["temperature"]
        kept = variant, _record(pipeline, variant, pipeline.get("extremes", variant), degrees)
        pipeline.memory["recording"] = kept
    return kept[1]


def _record(
    pipeline: Pipeline, variant: Variant, found: Arrays | None = None, temperature: float | None = None
) -> "Recording":
    """Record a variant; found: its extremes, where they are known."""
    from prunelens.units.recording import NetworkSource, Recording, Settings

    wanted, seed = pipeline.profile.interpretability, pipeline.profile.seed
    scale = getattr(_similarity(pipeline), "scale", 1.0)
    seen = (wanted.dissection_images, wanted.dissection_quantile)
    settings = Settings(wanted.tasks, wanted.explanations, scale, temperature, *seen, seed)
    source = NetworkSource(networks.architecture(pipeline), network(pipeline, variant), pipeline.device)
    compared = pipeline.remember("compared", lambda: _compared(pipeline))
    return Recording(source, images.stimuli(pipeline), _embeddings(pipeline), settings, found, compared)


def _embeddings(pipeline: Pipeline) -> np.ndarray:
    return pipeline.remember("embeddings", lambda: pipeline.get("embeddings")["embeddings"].astype(np.float32))


def _compared(pipeline: Pipeline) -> Any:
    from prunelens.units.mis import gram

    return gram(_embeddings(pipeline), pipeline.device)


def share(pipeline: Pipeline) -> None:
    """Have in memory what all processes that judge units need, before they are forked."""
    from prunelens.pruning.stages import share as share_networks

    share_networks(pipeline)
    pipeline.remember("compared", lambda: _compared(pipeline))
    pipeline.get("temperature")


def measure_stage(pipeline: Pipeline, name: str) -> str:
    """The stage of one measure, "measure.NAME": by layer (units,) float64, NaN where a unit is dead."""
    from functools import partial

    stage_name, fact_name = f"measure.{name}", f"measured by {name}"
    if stage_name not in STAGES or stage_name not in pipeline.memory:
        needs = pipeline.parts["measure"][name].needs
        more = ("temperature",) if "temperature" in needs else ()
        FACTS[fact_name] = lambda pipeline, subject: _identity(pipeline, "measure", name)
        STAGES[stage_name] = Stage(
            stage_name, partial(_measure, name), "arrays", 1, READ_BY_MEASURES, (*MEASURED, fact_name, *more), "variant"
        )
        pipeline.memory[stage_name] = True
    return stage_name


def _measure(name: str, pipeline: Pipeline, variant: Variant) -> Arrays:
    from prunelens.units.measures import score

    table = score(recording(pipeline, variant), registry.find("measure", name))
    return {layer: rows.value.to_numpy() for layer, rows in table.groupby("layer", sort=False)}


@stage(
    form="table",
    version=2,
    reads=READ_BY_MEASURES,
    needs=("network_of", "stimulus_images", "validation_images", "embeddings", "temperature"),
)
def softmax(pipeline: Pipeline, variant: Variant) -> pd.DataFrame:
    """The outputs of the data's classes ranked by logit and by probability, on the stimuli as they are and balanced.

    A balanced set has equally many of each of the data's classes and none of others; too few images give no rows.
    """
    from prunelens.images.imageset import balanced
    from prunelens.units.softmax import rank_outputs

    found, outputs = images.stimuli(pipeline), np.array(pipeline.get("classes")["outputs"])
    sets = {"as they are": np.arange(len(found)), "balanced": balanced(found, outputs, pipeline.profile.seed)}
    wanted = pipeline.profile.interpretability
    needed = 2 * wanted.tasks * (wanted.explanations + 1)
    tables = [
        rank_outputs(recording(pipeline, variant), chosen, outputs).assign(stimuli=name)
        for name, chosen in sets.items()
        if len(chosen) >= needed
    ]
    return pd.concat(tables, ignore_index=True)


# ---------------------------------------------------------------------------------------------------------- pictures


def extreme_stimuli(pipeline: Pipeline, variant: Variant, chosen: Sequence[Unit], side: str, n: int = 1) -> np.ndarray:
    """Indices of the n stimuli that excite each unit most ("top") or least ("bottom"), (units, n)."""
    found = pipeline.get("extremes", variant)
    return np.array([found[f"{side}/{layer}"][unit, :n] for layer, unit in chosen], dtype=int).reshape(-1, n)
