"""Profiles: one YAML file holds every number that changes results."""

import difflib
import os
import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import torch
import yaml
from pydantic import Field
from torch import nn

from prunelens import pruning
from prunelens.networks import ARCHITECTURES, build, unit_layers
from prunelens.similarity import SIMILARITIES

FOLDER = Path(__file__).parents[2] / "notebooks" / "profiles"

Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


def _known_method(name: str) -> str:
    pruning.find(name)
    return name


Method = Annotated[str, pydantic.AfterValidator(_known_method)]


def _no_value_twice(values: list) -> list:
    printed = [_printed(value) if isinstance(value, float) else value for value in values]
    if len(set(printed)) < len(printed):
        raise ValueError("expected no value twice" + (", to two decimals" if printed != values else ""))
    return values


def _printed(rate: float) -> str:
    """A rate as variants' names have it: tables and files tell no finer ones apart."""
    return f"{rate:.2f}"


Distinct = pydantic.AfterValidator(_no_value_twice)
Methods = Annotated[list[Method], Distinct]
Rates = Annotated[list[Rate], Distinct]


class Section(pydantic.BaseModel):
    """Unknown keys and values of another type are errors; numbers are never read from strings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """What the networks are trained, tested and recorded on."""

    source: Literal["embedded", "folder"]
    size: Count  # pixels, the images' width and height
    train_images: Count | None = None  # a seeded sample, equal per class; none: all
    validation_images: Count | None = None
    stimulus_images: Count  # drawn from the training images, equal per class
    root: str | None = None  # a folder with train/WNID and val/WNID; $NAME is read from the environment
    download: Literal["imagenette"] | None = None  # fetch it with torchvision into ``root`` where it is missing
    extra_stimuli: str | None = None  # one more folder WNID/FILE whose images are all stimuli


class Training(Section):
    """How a network is trained. The paper: SGD .01, momentum .9, weight decay 1e-4, gamma .9, batch 128."""

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["exponential", "one_cycle"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.9
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.08  # least area that RandomResizedCrop keeps
    aux_weight: Annotated[float, Field(ge=0)] = 0.0  # of each auxiliary head's loss; the paper: .3
    precision: Literal["float32", "bfloat16"] = "float32"  # a CPU without bfloat16 instructions takes float32


class Network(Section):
    """Which network is pruned, and where its trained weights come from."""

    architecture: Literal[ARCHITECTURES]
    outputs: Count  # number of logits
    weights: str  # a safetensors file ($NAME is read from the environment), "torchvision", or "scratch"
    scratch: Training | None = None  # how the dense network is trained where weights are "scratch"


class Grid(Section):
    """Methods, each at all the rates."""

    methods: Methods = []
    rates: Rates = []


class Iterative(Grid):
    """Pruning in steps: each prunes the same fraction of what remains, then retrains for an equal share of epochs."""

    steps: Count = 4
    restart: bool = True  # the learning rate starts anew at every step; else it goes on falling
    # Further numbers of epochs, in all, at which iterative and one-shot networks are compared by accuracy:
    epochs: list[Count] = []


class Rewound(Grid):
    """Learning-rate rewinding (Renda, Frankle & Carbin 2020): retraining with the dense network's own schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    schedule: Literal["exponential", "one_cycle"] = "one_cycle"


class Pruning(Section):
    """The grid of variants. A method is one of ``pruning.METHODS`` or the import path of a function of yours."""

    methods: Methods = Field(min_length=1)
    rates: Rates = Field(min_length=1)
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    first_seed_only: list[Method] = []  # of ``methods``: those that get one seed, where time is short
    affine: bool = False  # prune with a filter its BatchNorm's weight and bias too
    unmasked: Grid = Grid()  # retrained without masks, as the paper's code did
    iterative: Iterative = Iterative()
    # Judged by accuracy alone:
    recalibrated: Grid = Grid()  # BatchNorm's statistics measured anew, no gradient step
    controls: Grid = Grid()  # further one-shot variants, such as random masks, at fewer rates
    reinitialised: Grid = Grid()  # the masks kept, all weights drawn anew
    rewound: Rewound = Rewound()


class Sensitivity(Section):
    """The scan of Top-1 after pruning one layer alone."""

    methods: Methods = Field(["unstructured_local", "structured_l1", "connection_l1"], min_length=1)
    rates: Rates = Field(min_length=1)
    images: Count  # of the training set, so that what is chosen by the scan is not chosen by the validation set
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02  # a loss of Top-1 that a layer's rate is allowed to cost


class Interpretability(Section):
    """MIS: N tasks of K explanations on each side, under one similarity; its anchors; and Network Dissection."""

    similarity: Literal[SIMILARITIES]
    download: bool = False  # fetch the similarity's weights where they are missing (lpips, dreamsim)
    seeds: list[Seed] | None = None  # networks of these seeds are scored; none: all
    tasks: Count = 20
    explanations: Count = 9
    queries: Literal["inner", "outer"] = "inner"
    temperature: Annotated[float, Field(gt=0)] | None = None  # none: the published one, or fitted on the dense network
    anchor_units: Count = 200  # units of random numbers, and planted ones of which the best is the upper anchor
    dissection_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9  # a unit's peaks are its activations above it
    dissection_images: Count = 128  # stimuli that are looked at, equally many of each class


class Visualization(Section):
    """Feature visualisations: the same units in the dense and in pruned networks, and an atlas of the dense one."""

    # By dotted layer name; by default the two units that the paper shows.
    units: dict[str, list[int]] = {"inception4d.branch3.1.conv": [33], "inception5a.branch4.1.conv": [118]}
    per_block: Annotated[int, Field(ge=0)]  # further conv units of every inception block, a seeded sample
    atlas: Count  # units of every inception block in the atlas, a seeded sample
    size: Count  # pixels
    steps: Count
    starts: Annotated[int, Field(ge=2)] = 2  # pictures of a unit; two show how far a picture is chance
    diversity: Annotated[float, Field(gt=0)]  # weight, in units of activation, that pushes pictures of a unit apart
    diverse_starts: Annotated[int, Field(ge=2)] = 4  # pictures of a unit that are pushed apart
    methods: Methods = Field(min_length=1)
    rates: Rates = Field(min_length=1)


class Statistics(Section):
    resamples: Count = 2000  # of every bootstrap but that of a single unit's MIS over its tasks, which has 1,000


class Profile(Section):
    """Everything that one run of the study depends on."""

    name: str
    about: str
    seed: Seed = 0
    batch_size: Count = 64  # of forward passes; changes no result
    data: Data
    network: Network
    pruning: Pruning
    sensitivity: Sensitivity
    retraining: Training
    interpretability: Interpretability
    visualization: Visualization
    latency_batches: Annotated[list[Count], Distinct] = Field([1, 32], min_length=1)
    latency_repeats: Count = 10  # rounds in which each network is timed once
    statistics: Statistics = Statistics()

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        """What can only be seen across sections is said before an hour is spent."""
        grid, steps, shown = self.pruning, self.pruning.iterative.steps, self.visualization
        _check_one_shot(grid)
        if unpruned := [method for method in grid.first_seed_only if method not in grid.methods]:
            raise ValueError(f"pruning.first_seed_only: found {unpruned}, expected some of pruning.methods")
        for key, epochs in (
            ("retraining.epochs", [self.retraining.epochs]),
            ("pruning.iterative.epochs", grid.iterative.epochs),
        ):
            if grid.iterative.methods and min(epochs, default=steps) < steps:
                raise ValueError(
                    f"{key}: found {min(epochs)}, expected at least one for each of the {steps} "
                    "steps of pruning.iterative"
                )
        outside = [m for m in shown.methods if m not in grid.methods] + [r for r in shown.rates if r not in grid.rates]
        if outside:
            raise ValueError(f"visualization: found {outside}, expected methods and rates of the section pruning")
        if "unstructured_sensitivity" in self.sensitivity.methods:
            raise ValueError("sensitivity.methods: found unstructured_sensitivity, which itself needs the scan")
        if "unstructured_sensitivity" in self.methods and "unstructured_local" not in self.sensitivity.methods:
            raise ValueError("sensitivity.methods: unstructured_sensitivity needs unstructured_local among them")
        if self.network.architecture == "bvlc_googlenet" and grid.recalibrated.methods:
            raise ValueError("pruning.recalibrated: found methods, but bvlc_googlenet has no BatchNorm")
        measure = self.interpretability
        if measure.seeds is not None and grid.seeds[0] not in measure.seeds:
            raise ValueError(
                f"interpretability.seeds: found {measure.seeds}, expected {grid.seeds[0]} among them, the first of "
                "pruning.seeds: it is the dense network's"
            )
        needed = 2 * measure.tasks * (measure.explanations + 1)
        if self.data.stimulus_images < needed and self.data.extra_stimuli is None:
            raise ValueError(
                f"data.stimulus_images: found {self.data.stimulus_images}, {measure.tasks} tasks of "
                f"{measure.explanations} explanations need {needed}"
            )
        if self.network.architecture == "bvlc_googlenet" and self.retraining.aux_weight > 0:
            raise ValueError("retraining.aux_weight: found more than 0, but bvlc_googlenet has no auxiliary heads")
        network = build(self.network.architecture, self.network.outputs)
        for name in {*self.methods, *self.sensitivity.methods} - pruning.METHODS.keys():
            _try(name, network)
        layers = unit_layers(network)
        for name, units in shown.units.items():
            if name == "fc":
                raise ValueError("visualization.units: found fc, expected convs: an output has no map")
            if name not in layers:
                near = difflib.get_close_matches(name, layers, 1)
                raise ValueError(
                    f"visualization.units: found {name!r}" + (f", did you mean {near[0]}?" if near else "")
                )
            width = layers[name].weight.shape[0]
            if outside := [unit for unit in units if not 0 <= unit < width]:
                raise ValueError(f"visualization.units: found {name} {outside[0]}, it has units 0 to {width - 1}")
        return self

    @property
    def methods(self) -> set[str]:
        """All pruning methods of all grids."""
        grid = self.pruning
        more = (grid.unmasked, grid.iterative, grid.recalibrated, grid.controls, grid.reinitialised, grid.rewound)
        return {method for each in (grid, *more) for method in each.methods}


def _check_one_shot(grid: Pruning) -> None:
    """No variant stands in two of the grids that share the schedule one_shot; the others have one of their own.

    Raises:
        ValueError: names the key, the variant and where it stands already.
    """
    grids = {
        "pruning": (grid, ""),
        "pruning.unmasked": (grid.unmasked, "_unmasked"),
        "pruning.controls": (grid.controls, ""),
        "pruning.reinitialised": (grid.reinitialised, "_reinitialised"),
    }
    found: dict[str, str] = {}
    for key, (part, suffix) in grids.items():
        for method, rate in product(part.methods, part.rates):
            variant = f"{method}{suffix} at rate {_printed(rate)}"
            if variant in found:
                raise ValueError(f"{key}: found {variant}, which is in {found[variant]} already")
            found[variant] = key


def _try(name: str, network: nn.Module) -> None:
    """Run a method of the user's once, so that its mistakes show before an hour is spent."""
    method = pruning.find(name)
    try:
        pruning.check(network, method(network, 0.5, torch.Generator().manual_seed(0)), getattr(method, "also", ()))
    except Exception as error:
        raise ValueError(f"pruning method {name}: {error}") from error


def names() -> list[str]:
    """The profiles that the project ships."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Profile:
    """Read a profile by its name or path and change the keys named by ``overrides`` ("key.path=value").

    Raises:
        FileNotFoundError: no such profile; lists those there are.
        ValueError: unknown key (suggests the nearest), wrong type or value; names file and key.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"profile {name!r}: no file {file}; expected a path to a YAML file or one of {names()}")
    try:
        content = yaml.load(file.read_text(), _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that the calendar lacks
        raise ValueError(f"profile {file}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"profile {file}: found {type(content).__name__}, expected keys with values")
    for override in overrides:
        _override(content, override)
    try:
        return Profile.model_validate(content)
    except pydantic.ValidationError as error:
        raise ValueError(f"profile {file}: " + "; ".join(map(_explain, error.errors()))) from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as a string; this loader reads it as the number that was meant."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _override(content: dict[str, Any], override: str) -> None:
    """Set one key; ``value`` is read as YAML."""
    path, separator, value = override.partition("=")
    if not separator:
        raise ValueError(f"override {override!r}: expected key.path=value")
    *parents, last = path.strip().split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ValueError(f"override {override!r}: {parent} is no section of the profile")
    try:
        section[last] = yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"override {override!r}: not valid YAML: {error}") from error


def _explain(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggest(error['loc'])}"
    if error["type"] == "missing":
        return f"key {key} is missing"
    if not key:  # across sections: the message names the keys itself
        return error["msg"].removeprefix("Value error, ")
    return f"key {key}: found {error['input']!r}, {error['msg'].removeprefix('Value error, ').lower()}"


def _suggest(location: tuple[str | int, ...]) -> str:
    section: Any = Profile
    for key in location[:-1]:
        section = _section(section.model_fields[key].annotation) if section else None
    known = [*getattr(section, "model_fields", {})]
    near = difflib.get_close_matches(str(location[-1]), known, 1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else f" (expected one of {', '.join(known)})" if known else ""


def _section(annotation: Any) -> type[Section] | None:
    """The section in an annotation such as Training or Training | None."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def expand(path: str, key: str) -> Path:
    """A profile's path with $NAME replaced from the environment.

    Raises:
        ValueError: the environment has no such name; names it and the profile's key.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        name = expanded.split("$", 1)[1].split("/")[0].strip("{}")
        raise ValueError(f"{key} = {path}: the environment variable {name} is not set")
    return Path(expanded)
