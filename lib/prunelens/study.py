"""A study: a profile at work. It joins what the stages compute into tidy tables; nothing here imports PyTorch.

    study = Study("quick")
    study.accuracy()   # computes what is missing, loads the rest
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunelens import parts, profile
from prunelens.images import stages as images
from prunelens.networks import stages as networks
from prunelens.paths import FIGURES, RUNS
from prunelens.pruning import stages as pruning
from prunelens.registry import Description
from prunelens.stages import Pipeline
from prunelens.store import Arrays, Store, origin
from prunelens.units import stages as units
from prunelens.variants import DENSE, FIELDS, Variant, accuracy_variants, variants

Unit = tuple[str, int]  # layer and index


class Study:
    """The networks, tables and pictures of a profile.

    Args:
        name: the profile's name or path; overrides: "key.path=value" each.
        device: auto (a GPU where there is one), cpu, cuda, ...
        out: where ``runs`` and ``figures`` go; by default the project's ``data/runs`` and ``figures``.

    Raises:
        ValueError, FileNotFoundError: the profile, or a part that it names, cannot be used; says which.
    """

    def __init__(self, name: str, overrides: Iterable[str] = (), device: str = "auto", out: str = "") -> None:
        self.overrides, self.device = list(overrides), device
        self.profile = profile.load(name, self.overrides)
        self.folder = (Path(out) / "figures" if out else FIGURES) / self.profile.name
        self.pipeline = Pipeline(self.profile, Store(Path(out) / "runs" if out else RUNS), device)
        random = {name for name, description in self.parts["method"].items() if description.random}
        self.variants = variants(self.profile, random)
        self.accuracy_variants = accuracy_variants(self.profile)
        self.dense = self.pipeline.dense

    # ------------------------------------------------------------------------------------------ what it is about

    @property
    def parts(self) -> parts.Parts:
        """Descriptions of what the profile names, by kind and name."""
        return self.pipeline.parts

    @property
    def origin(self) -> dict[str, Any]:
        """Where this study's results come from: profile, overrides, device, code, packages, machine."""
        return {"profile": self.profile.name, "overrides": self.overrides, "device": self.device, **origin()}

    @cached_property
    def classes(self) -> dict[str, list]:
        """Names of the data's classes ("names") and the outputs that stand for them ("outputs")."""
        return self.pipeline.get("classes")

    @property
    def chance(self) -> float:
        """Top-1 of guessing among the data's classes."""
        return 1 / len(self.classes["outputs"])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer that has units, in order: layer, block, position, kind, prunable, units, weights."""
        return self.pipeline.get("layers")

    @property
    def retrained(self) -> list[Variant]:
        """All retrained networks, those that are judged by accuracy alone included."""
        return [variant for variant in [*self.variants, *self.accuracy_variants] if variant.retrained]

    def check(self) -> None:
        """Find out what would go wrong later: missing files, weights, packages, parts that do not work.

        Raises:
            ValueError, OSError, ImportError: names the key, what was found and what was expected.
        """
        _ = self.parts, self.layers, self.classes
        self.pipeline.key("retrained", self.dense)

    def compute(self, stages: Sequence[str] | None = None) -> None:
        """Compute what is missing of the named stages (by default all), without drawing anything."""
        for name, subjects in self._work().items():
            if stages is None or name in stages:
                self.pipeline.ensure(name, subjects)

    # ------------------------------------------------------------------------------------------------- networks

    def _table(self, stage: str, chosen: Iterable[Variant], label: str) -> pd.DataFrame:
        """A stage's tables of several variants, one below the other, with the variants' fields."""
        chosen = list(chosen)
        self.pipeline.ensure(stage, chosen, label)
        found = [_with_fields(variant, self.pipeline.get(stage, variant)) for variant in chosen]
        return pd.concat(found, ignore_index=True)
