"""A study: a profile at work. It joins what the stages compute into tidy tables, and imports no PyTorch itself.

    study = Study("quick")
    study.accuracy()   # computes what is missing, loads the rest

Every table of networks begins with the variants' fields; see `prunelens.variants`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunelens import profile
from prunelens.images import stages as images
from prunelens.images.imageset import ImageSet
from prunelens.paths import RUNS, figures
from prunelens.pruning import stages as pruning
from prunelens.registry import TOP1, Description
from prunelens.stages import Pipeline
from prunelens.store import Arrays, Store, origin
from prunelens.units import stages as units
from prunelens.units.stages import Unit
from prunelens.variants import Variant, accuracy_variants, drawn, most_pruned, variants

Chosen = Iterable[Variant] | None


# What `compute` computes, in order: names for the command line, and the tables that they are needed for.
WORK = {
    "sensitivity": "sensitivity",
    "pruned": "layer_sparsity",
    "retrained": "epochs",
    "accuracy": "class_accuracy",
    "costs": "costs",
    "measures": "units",
    "pictures": "picture_quality",
}


def check_stages(names: Iterable[str]) -> None:
    """Refuse names that are not in `WORK`.

    Raises:
        ValueError: lists those there are.
    """
    if unknown := sorted(set(names) - WORK.keys()):
        raise ValueError(f"--stages: found {', '.join(unknown)}, expected some of {', '.join(WORK)}")


class Study:
    """The networks, tables and pictures of a profile.

    Args:
        name: the profile's name or path; overrides: "key.path=value" each.
        device: auto (a GPU where there is one), cpu, cuda, ...
        out: where ``runs`` and ``figures`` go; by default the project's ``data/runs`` and ``figures``.

    Networks (lists of variants): ``variants`` are judged by all measures, ``accuracy_variants`` by accuracy alone, and
    ``everything`` is both; ``retrained``, ``pruned`` (as pruned), ``most_pruned`` and ``drawn`` (whose units are drawn)
    are parts of these.

    Raises:
        ValueError, OSError, ImportError: the profile, or a part that it names, cannot be used; says which and why.
    """

    def __init__(self, name: str, overrides: Iterable[str] = (), device: str = "auto", out: str = "") -> None:
        self.overrides, self.device = list(overrides), device
        self.profile = profile.load(name, self.overrides)
        self.folder = figures(out) / self.profile.name
        self.pipeline = Pipeline(self.profile, Store(Path(out) / "runs" if out else RUNS), device)
        random = {name for name, method in self.pipeline.parts["method"].items() if method.random}
        self.variants = variants(self.profile, random)
        self.accuracy_variants = accuracy_variants(self.profile)
        self.everything = [*self.variants, *self.accuracy_variants]
        self.dense = self.pipeline.dense
        self.retrained = [variant for variant in self.everything if variant.retrained]
        self.pruned = [variant for variant in self.variants if variant.schedule == "none" and variant.rate > 0]
        self.most_pruned = most_pruned(self.profile)
        self.drawn = drawn(self.profile)

    def check(self) -> None:
        """Find out before the first hour what would go wrong later: missing files, weights, packages, images.

        Raises:
            ValueError, OSError, ImportError: names the key, what was found and what was expected.
        """
        wanted = self.profile
        self.pipeline.key("retrained", self.retrained[0])
        self.pipeline.key("embeddings")
        if wanted.data.source != "embedded":
            _ = self.train, self.validation
        if not self.pipeline.has("embeddings"):
            units.load_similarity(self.pipeline)
        if wanted.network.weights == "scratch":
            return
        if not self.pipeline.has("retrained", self.retrained[0]):
            pruning.network(self.pipeline, self.dense)
        dense = self.accuracy([self.dense]).iloc[0]
        if dense.top1_low <= self.chance:
            raise ValueError(
                f"network.weights: the dense network is right on {dense.top1:.1%} of {dense.n} images, where guessing "
                f"gives {self.chance:.1%}; expected more: see data.classes and network.normalization"
            )

    def compute(self, stages: Sequence[str] | None = None) -> None:
        """Compute what is missing of the named stages (by default of all), without drawing a figure.

        Raises:
            ValueError: there is no such stage; lists those there are.
        """
        check_stages(stages or ())
        for name, table in WORK.items():
            if stages is None or name in stages:
                getattr(self, table)()

    # ------------------------------------------------------------------------------------------ what it is about

    @property
    def origin(self) -> dict[str, Any]:
        """Where results come from: profile, overrides, device, code, packages, machine."""
        return {"profile": self.profile.name, "overrides": self.overrides, "device": self.device, **origin()}

    @property
    def descriptions(self) -> dict[str, Description]:
        """Labels and looks of the profile's methods and measures and of accuracy, by name."""
        among = {"top1": f"{len(self.classes['outputs'])} classes", "top1_all_outputs": "all outputs"}
        accuracy = {name: Description(f"{TOP1} among {what}", color="#000000") for name, what in among.items()}
        return {**self.pipeline.parts["method"], **self.pipeline.parts["measure"], **accuracy}

    @cached_property
    def classes(self) -> dict[str, list]:
        """Names of the data's classes ("names"), and the outputs that stand for them ("outputs")."""
        return self.pipeline.get("classes")

    @property
    def chance(self) -> float:
        """Top-1 of guessing among the data's classes."""
        return 1 / len(self.classes["outputs"])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer that has units, in order: layer, block, position, kind, prunable, units, weights, parameters."""
        return self.pipeline.get("layers")

    @property
    def blocks(self) -> list[str]:
        """The blocks of the network that have prunable layers, in order."""
        return list(pruning.prunable(self.pipeline).block.unique())

    @property
    def train(self) -> ImageSet:
        """The images that networks are trained on."""
        return images.train(self.pipeline)

    @property
    def validation(self) -> ImageSet:
        """The images that accuracy is measured on."""
        return images.validation(self.pipeline)

    # ------------------------------------------------------------------------------------------ pruning and accuracy

    def sensitivity(self) -> pd.DataFrame:
        """Top-1 after pruning one layer alone, on training images: method, layer, block, position, rate, top1, kept.

        kept: the share of the dense network's Top-1 on the same images.
        """
        self.pipeline.ensure("sensitivity", self.blocks)
        table = pd.concat([self.pipeline.get("sensitivity", block) for block in self.blocks], ignore_index=True)
        dense = self.pipeline.get("sensitivity_dense")["top1"]
        return table.merge(self.layers[["layer", "block", "position"]]).assign(kept=lambda t: t.top1 / dense)

    def layer_sparsity(self, chosen: Chosen = None) -> pd.DataFrame:
        """Share of pruned weights by prunable layer: fields, layer, block, position, sparsity."""
        chosen = self.pruned if chosen is None else list(chosen)
        self.pipeline.ensure("pruned", chosen, "masks")
        layers = pruning.prunable(self.pipeline)[["layer", "block", "position"]]
        return _rows(chosen, lambda v: layers.assign(sparsity=self.pipeline.get("pruned", v)["sparsity"]))

    def accuracy(self, chosen: Chosen = None) -> pd.DataFrame:
        """Accuracy and measured sparsity on the validation images, a row per network.

        Columns: fields; n; top1, top1_low, top1_high, top5 (among the data's own classes); the same with
        _all_outputs; conv_sparsity, all_conv_sparsity, total_sparsity; mask_sparsity (of the masks, of prunable convs).
        """
        chosen = self.variants if chosen is None else list(chosen)
        self.pipeline.ensure("accuracy", chosen)
        return _rows(chosen, lambda variant: pd.DataFrame([self.pipeline.get("accuracy", variant)["network"]]))

    def class_accuracy(self, chosen: Chosen = None) -> pd.DataFrame:
        """Accuracy by class: fields, class_name, output, n, top1."""
        chosen = self.everything if chosen is None else list(chosen)
        self.pipeline.ensure("accuracy", chosen)
        classes = {"class_name": self.classes["names"], "output": self.classes["outputs"]}
        return _rows(chosen, lambda v: pd.DataFrame({**classes, **self.pipeline.get("accuracy", v)["classes"]}))

    def epochs(self, chosen: Chosen = None) -> pd.DataFrame:
        """The course of retraining: a row per network and epoch, epoch 0 being the network as it was pruned first.

        Columns: fields; epoch, step, step_rate, learning_rate, loss, train_top1, seconds, bfloat16 (whether it ran in
        that precision), and those of `accuracy`.
        """
        chosen = self.retrained if chosen is None else list(chosen)
        self.pipeline.ensure("retrained", chosen, "retraining", before=partial(pruning.share, self.pipeline))
        self.pipeline.ensure("accuracy", (pruning.before(self.pipeline, variant) for variant in chosen))
        return _rows(chosen, partial(pruning.course, self.pipeline))

    def costs(self) -> pd.DataFrame:
        """Size and speed of the most pruned networks as masked and as compact tensors, beside the dense network.

        Columns: fields; form ("dense", "masked", "compact"), batch_size, conv_sparsity, parameters, macs, sparse_macs,
        bytes; seconds, seconds_low, seconds_high (median, least and most of the rounds), images_per_second; speedup,
        speedup_low, speedup_high over the dense network in the same round.
        """
        chosen = [replace(variant, schedule="none", epochs=0) for variant in self.most_pruned[1:]]
        return _rows(chosen, lambda variant: self.pipeline.get("costs", variant))

    # ----------------------------------------------------------------------------------------------------- units

    @property
    def measures(self) -> list[str]:
        """The profile's measures that can be taken: without known concepts, those that need them cannot."""
        known = self.pipeline.get("stimuli")["concepts"]
        found = self.pipeline.parts["measure"]
        return [name for name, measure in found.items() if known or "concepts" not in measure.needs]

    def units(self, chosen: Chosen = None) -> pd.DataFrame:
        """Every unit of every network, with a column per measure; NaN where a unit is dead or the measure undefined.

        Columns: fields; layer, block, position, kind ("conv", "output"), unit, own_class (False for outputs that stand
        for no class of the data), alive (False: constant over all stimuli), and the `measures`.
        """
        chosen = self.variants if chosen is None else list(chosen)
        stages = {name: units.measure_stage(self.pipeline, name) for name in self.measures}
        before = partial(units.share, self.pipeline)
        self.pipeline.ensure(["extremes", "alive", *stages.values()], chosen, "measures", before=before)
        layers = self.layers
        units_of = layers.loc[layers.index.repeat(layers.units), ["layer", "block", "position", "kind"]]
        units_of["unit"] = units_of.groupby("layer", sort=False).cumcount()
        units_of["own_class"] = (units_of.kind != "output") | units_of.unit.isin(self.classes["outputs"])

        def of(variant: Variant) -> pd.DataFrame:
            columns = {}
            for name, stage in {"alive": "alive", **stages}.items():
                values = self.pipeline.get(stage, variant)
                columns[name] = np.concatenate([values[layer] for layer in layers.layer])
            return units_of.assign(**columns)

        return _rows(chosen, of)

    def extreme_images(self, variant: Variant, chosen: Sequence[Unit], n: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the n stimuli that excite each unit most, and of those that do least: (units, n, size, size, 3)."""
        stimuli = images.stimuli(self.pipeline).images
        sides = (units.extreme_stimuli(self.pipeline, variant, chosen, side, n) for side in ("top", "bottom"))
        return tuple(stimuli[found.ravel()].reshape(*found.shape, *stimuli.shape[1:]) for found in sides)

    def temperature(self) -> float:
        """The temperature of the MIS."""
        return self.pipeline.get("temperature")["temperature"]

    # -------------------------------------------------------------------------------------------------- pictures

    @cached_property
    def drawn_units(self) -> list[Unit]:
        """Units that are drawn in every network: the profile's, and a seeded sample of each block's convs."""
        return units.drawn_units(self.pipeline)

    def pictures(self, variant: Variant) -> Arrays:
        """Pictures of the `drawn_units` in one network; see `prunelens.units.stages.pictures`."""
        self.pipeline.ensure("pictures", self.drawn, before=partial(units.share, self.pipeline))
        return self.pipeline.get("pictures", variant)

    def picture_quality(self) -> pd.DataFrame:
        """What the pictures are worth in numbers: fields, layer, unit and those of `units.picture_quality`."""
        share = partial(units.share, self.pipeline)
        self.pipeline.ensure(["pictures", "picture_quality"], self.drawn, "pictures", before=share)
        return _rows(self.drawn, lambda variant: self.pipeline.get("picture_quality", variant))

    # ---------------------------------------------------------------------------------------------------- tables

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that claims are judged by: accuracy, units and classes."""
        return {
            "accuracy": self.accuracy(self.everything),
            "units": self.units(),
            "classes": self.class_accuracy(),
        }


def _rows(chosen: Iterable[Variant], table: Callable[[Variant], pd.DataFrame]) -> pd.DataFrame:
    """The tables of several networks, one below the other, each with its variant's fields first."""
    found = []
    for variant in chosen:
        rows = table(variant)
        fields = pd.DataFrame([variant.fields()] * len(rows), index=rows.index)
        found.append(pd.concat([fields, rows], axis=1))
    return pd.concat(found, ignore_index=True)
