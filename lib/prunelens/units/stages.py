"""Units of a study's networks: extremes, measures and pictures."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunelens import registry
from prunelens.images import stages as images
from prunelens.images.imageset import BATCH, balanced, sample
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
PICTURES = ("visualization.size", "visualization.steps", "visualization.starts", "seed")
MEASURED = ("network_of", "stimulus_images", "extremes", "embeddings")
SPECTRUM_IMAGES = 512  # stimuli, at most, whose natural spectrum the atlas's pictures have
READ_BY_MEASURES = (*TASKS, "interpretability.dissection_images", "interpretability.dissection_quantile")


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

    given = pipeline.profile.interpretability.temperature or getattr(load_similarity(pipeline), "temperature", None)
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
    scale = getattr(load_similarity(pipeline), "scale", 1.0)
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
    pruning.share(pipeline)
    pipeline.remember("compared", lambda: _compared(pipeline))
    pipeline.get("temperature")


def measure_stage(pipeline: Pipeline, name: str) -> str:
    """The stage of one measure, "measure.NAME": by layer (units,) float64, NaN where a unit is dead."""
    stage_name, fact_name = f"measure.{name}", f"measured by {name}"
    needs = ("temperature",) if "temperature" in pipeline.parts["measure"][name].needs else ()
    FACTS[fact_name] = lambda pipeline, subject: _identity(pipeline, "measure", name)
    STAGES[stage_name] = Stage(
        stage_name, partial(_measure, name), "arrays", 1, READ_BY_MEASURES, (*MEASURED, fact_name, *needs), "variant"
    )
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
    from prunelens.units.softmax import rank_outputs

    found, outputs = images.stimuli(pipeline), np.array(pipeline.get("classes")["outputs"])
    sets = {"as they are": np.arange(len(found)), "balanced": balanced(found, outputs, pipeline.profile.seed)}
    needed = 2 * pipeline.profile.interpretability.extremes
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


def drawn_units(pipeline: Pipeline) -> list[Unit]:
    """Choose the units that are drawn in every network: the profile's, and a seeded sample of each block's convs."""
    per_block = pipeline.profile.visualization.per_block
    sampled = [unit for chosen in _sample(pipeline).values() for unit in chosen[:per_block]]
    return _in_order(pipeline, _named(pipeline) + sampled)


def atlas_units(pipeline: Pipeline) -> dict[str, list[Unit]]:
    """Choose the units of the dense network's atlas by block: the `drawn_units` that live in it, then more."""
    n, layers = pipeline.profile.visualization.atlas, pipeline.get("layers").set_index("layer")
    living = pipeline.get("alive", pipeline.dense)
    named = [(layer, unit) for layer, unit in _named(pipeline) if living[layer][unit]]
    return {
        block: _in_order(pipeline, ([u for u in named if layers.block[u[0]] == block] + units)[:n])
        for block, units in _sample(pipeline).items()
    }


def _named(pipeline: Pipeline) -> list[Unit]:
    """The units that the profile names."""
    return [(layer, unit) for layer, units in pipeline.profile.visualization.units.items() for unit in units]


def _in_order(pipeline: Pipeline, units: list[Unit]) -> list[Unit]:
    position = {layer: i for i, layer in enumerate(pipeline.get("layers").layer)}
    return sorted(units, key=lambda unit: (position[unit[0]], unit[1]))


def _sample(pipeline: Pipeline) -> dict[str, list[Unit]]:
    """By block, its prunable convs' units that live in the dense network and are not named, in random order."""
    living, named, layers = pipeline.get("alive", pipeline.dense), set(_named(pipeline)), pipeline.get("layers")
    blocks: dict[str, list[Unit]] = {}
    for row in layers[layers.prunable].itertuples():
        units = [(row.layer, int(unit)) for unit in np.flatnonzero(living[row.layer])]
        blocks.setdefault(row.block, []).extend(unit for unit in units if unit not in named)
    rng = np.random.default_rng([pipeline.profile.seed, *b"units"])
    return {block: [units[i] for i in rng.permutation(len(units))] for block, units in blocks.items()}


@stage(
    version=4,
    reads=(*PICTURES, "visualization.units", "visualization.per_block"),
    needs=("network_of", "extremes", "dense.extremes"),
)
def pictures(pipeline: Pipeline, variant: Variant) -> Arrays:
    """Pictures of the `drawn_units` that excite each unit and that inhibit it.

    "exciting/..." and "inhibiting/..." are the fields of `units.pictures.Pictures` (without opacity), zeros for units
    that are dead in the network; "natural/top", "natural/bottom" (units,): the activations on the stimuli that excite a
    unit most and least; "alive" (units,).
    """
    from prunelens.units.pictures import responses

    units, living = drawn_units(pipeline), pipeline.get("alive", variant)
    alive = np.array([living[layer][unit] for layer, unit in units])
    chosen = [unit for unit, lives in zip(units, alive, strict=True) if lives]
    network_, starts = network(pipeline, variant).to(pipeline.device), pipeline.profile.visualization.starts
    found: Arrays = {"alive": alive}
    for name, sign in (("exciting", 1), ("inhibiting", -1)):
        drawn = _draw(pipeline, network_, chosen, starts=starts, sign=sign)
        found |= {f"{name}/{field}": _spread(array, alive) for field, array in drawn.items() if field != "opacity"}
    for side in ("top", "bottom"):
        seen = images.stimuli(pipeline).images[extreme_stimuli(pipeline, variant, chosen, side)[:, 0]]
        found[f"natural/{side}"] = _spread(responses(network_, chosen, seen), alive)
    return found


@stage(
    version=4,
    reads=(*PICTURES, "visualization.units", "visualization.atlas"),
    needs=("dense.network_of", "dense.extremes"),
    subject="block",
)
def atlas(pipeline: Pipeline, block: str) -> Arrays:
    """Pictures of the dense network's `atlas_units` of a block, one start each.

    The fields of `units.pictures.Pictures` as "exciting/...", "inhibiting/...", and as "natural/..." of the pictures
    with the natural spectrum of the study's images, whose opacity is worth looking at.
    """
    from prunelens.units.pictures import natural_spectrum

    units, dense = atlas_units(pipeline)[block], network(pipeline, pipeline.dense).to(pipeline.device)
    stimuli = images.stimuli(pipeline)
    seen = sample(stimuli, min(SPECTRUM_IMAGES, len(stimuli)), pipeline.profile.seed).images
    spectrum = natural_spectrum(seen, pipeline.profile.visualization.size)
    ways = {"exciting": {}, "inhibiting": {"sign": -1}, "natural": {"spectrum": spectrum}}
    drawn = {name: _draw(pipeline, dense, units, **way) for name, way in ways.items()}
    return {f"{name}/{field}": array for name, arrays in drawn.items() for field, array in arrays.items()}


def _draw(pipeline: Pipeline, network: Any, units: list[Unit], **way: Any) -> Arrays:
    from prunelens.units.pictures import draw

    wanted = pipeline.profile.visualization
    settings = {"size": wanted.size, "steps": wanted.steps, "seed": pipeline.profile.seed}
    return draw(network, units, **settings, **way)._asdict()


def _spread(array: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rows of an array at the places that are chosen (n,), zeros at the others."""
    whole = np.zeros((len(chosen), *array.shape[1:]), array.dtype)
    whole[chosen] = array
    return whole


@stage(
    form="table",
    version=3,
    reads=(*TASKS, *PICTURES),
    needs=("pictures", "dense.pictures", "embeddings", "similarity", "temperature"),
)
def picture_quality(pipeline: Pipeline, variant: Variant) -> pd.DataFrame:
    """What a variant's pictures are worth in numbers: layer, unit, and those of `units.picture_quality.quality`."""
    from prunelens.units.picture_quality import quality

    wanted, units = pipeline.profile.interpretability, drawn_units(pipeline)
    stimuli, (drawn, dense) = _embed_pictures(pipeline, [variant, pipeline.dense])
    table = quality(
        drawn, dense, stimuli, pipeline.get("temperature")["temperature"], wanted.tasks, wanted.explanations,
        getattr(load_similarity(pipeline), "scale", 1.0), pipeline.profile.seed,
    )  # fmt: skip
    return pd.concat([pd.DataFrame(units, columns=["layer", "unit"]), table], axis=1)


def _embed_pictures(pipeline: Pipeline, variants: list[Variant]) -> tuple[np.ndarray, list[Any]]:
    """Embeddings of the stimuli (n, D), and each variant's pictures with theirs, in one space."""
    from prunelens.units.picture_quality import Drawn
    from prunelens.units.similarities import compress

    k = pipeline.profile.interpretability.extremes
    units = drawn_units(pipeline)
    found, embed = [pipeline.get("pictures", variant) for variant in variants], load_similarity(pipeline).embed
    shown = np.stack([arrays[f"{side}/images"] for arrays in found for side in ("exciting", "inhibiting")])
    stimuli, rows = _embeddings(pipeline), embed(shown.reshape(-1, *shown.shape[3:]), BATCH, pipeline.device)
    if stimuli.shape[1] != rows.shape[1]:  # compressed coordinates know the stimuli only
        whole = embed(images.stimuli(pipeline).images, BATCH, pipeline.device)
        stimuli, rows = np.split(compress(np.concatenate([whole, rows])), [len(stimuli)])
    rows = rows.reshape(*shown.shape[:3], -1)
    drawn = [
        Drawn(
            rows[2 * i], rows[2 * i + 1], arrays["exciting/objective"], arrays["exciting/excited"],
            *(extreme_stimuli(pipeline, variant, units, side, k) for side in ("top", "bottom")),
            arrays["natural/top"], arrays["natural/bottom"], arrays["alive"],
        )
        for i, (variant, arrays) in enumerate(zip(variants, found, strict=True))
    ]  # fmt: skip
    return stimuli, drawn
