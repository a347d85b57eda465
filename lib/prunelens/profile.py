"""Profiles: one YAML file holds every number that changes results."""

import difflib
import os
import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import yaml
from pydantic import Field

from prunelens.paths import PROFILES

Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, le=1000)]


def _no_value_twice(values: list) -> list:
    printed = [_printed(value) if isinstance(value, float) else value for value in values]
    if len(set(printed)) < len(printed):
        raise ValueError("expected no value twice" + (", to two decimals" if printed != values else ""))
    return values


def _printed(rate: float) -> str:
    """A rate as names of variants have it: tables and files tell no finer ones apart."""
    return f"{rate:.2f}"


def _prunes(name: str) -> str:
    if name == "dense":
        raise ValueError("expected a pruning method")
    return name


Distinct = pydantic.AfterValidator(_no_value_twice)
Methods = Annotated[list[Annotated[str, pydantic.AfterValidator(_prunes)]], Distinct]
Names = Annotated[list[str], Distinct]
Rates = Annotated[list[Rate], Distinct]


Channels = Field(min_length=3, max_length=3)


class Section(pydantic.BaseModel):
    """Unknown keys and values of another type are errors; numbers are never read from strings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    """What the networks are trained, tested and recorded on."""

    source: str  # "folder", or an image source: a built-in's name ("embedded") or an import path
    size: Annotated[int, Field(ge=32, le=1024)]  # pixels, the images' width and height
    # Of "folder": photographs are resized to this shorter side (null: size), then cropped to size in the center.
    resize: Annotated[int, Field(ge=32, le=2048)] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of resizing, antialiased as torchvision's
    train_images: Count | None = None  # a seeded sample, equal per class; null: all
    validation_images: Count | None = None
    stimulus_images: Count  # drawn from the training images, equal per class
    # of "folder": names of the class folders in the order of the network's outputs, those without a folder included;
    # null: ImageNet's WordNet ids for 1,000 outputs, else the folders in the order of their names, one for each output
    classes: Names | None = None
    root: str | None = None  # of "folder": a folder with train/WNID and val/WNID; $NAME is read from the environment
    download: Literal["imagenette"] | None = None  # fetch it with torchvision into ``root`` where it is missing
    extra_stimuli: str | None = None  # one more folder WNID/FILE whose images are all stimuli


class Training(Section):
    """How a network is trained. The paper: SGD .01, momentum .9, weight decay 1e-4, gamma .9, batch 128."""

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    schedule: Literal["exponential", "one_cycle"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.9
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.08  # least area that RandomResizedCrop keeps
    aux_weight: Annotated[float, Field(ge=0, le=10)] = 0.0  # of each auxiliary head's loss; the paper: .3
    precision: Literal["float32", "bfloat16"] = "float32"  # a CPU without bfloat16 instructions takes float32


class Normalization(Section):
    """What is done to images, RGB in [0, 1], before the first layer: (image - mean) / deviation of each channel."""

    mean: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Channels]
    deviation: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Channels]


class Network(Section):
    """Which network is pruned, and where its trained weights come from."""

    architecture: str  # a built-in's name (googlenet, bvlc_googlenet, resnet18) or an import path
    width: Annotated[float, Field(gt=0, le=4)] = 1.0  # factor of all channel counts
    outputs: Annotated[int, Field(ge=2, le=100_000)]
    normalization: Normalization | None = None  # that the weights were trained with; null: the architecture's own
    weights: str  # a safetensors file ($NAME is read from the environment), "torchvision", or "scratch"
    scratch: Training | None = None  # how the dense network is trained where weights are "scratch"


class Grid(Section):
    """Methods, each at all the rates."""

    methods: Methods = []
    rates: Rates = []


class Iterative(Grid):
    """Pruning in steps: each prunes the same fraction of what remains, then retrains for an equal share of epochs."""

    steps: Count = 4


class Pruning(Section):
    """The grid of variants. A method is a built-in's name or the import path of a function of yours."""

    methods: Methods = Field(min_length=1)
    rates: Rates = Field(min_length=1)
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    unmasked: Grid = Grid()  # retrained without masks, as the paper's code did
    iterative: Iterative = Iterative()
    unretrained: Grid = Grid()  # further networks that are left as they were pruned, one each
    # Judged by accuracy alone:
    doubled: Rates = []  # the first seed's retrained networks of these rates, and the dense one, with twice the epochs
    recalibrated: Grid = Grid()  # BatchNorm's statistics measured anew, no gradient step
    controls: Grid = Grid()  # further one-shot variants, such as random masks, at fewer rates


# Grids of Pruning beside itself:
GRIDS = ("unmasked", "iterative", "unretrained", "recalibrated", "controls")


class Sensitivity(Section):
    """The scan of Top-1 after pruning one layer alone."""

    methods: Methods = Field(["unstructured_local", "structured_l1", "connection_l1"], min_length=1)
    rates: Rates = Field(min_length=1)
    images: Count  # of the training set, so that what is chosen by the scan is not chosen by the validation set


class Interpretability(Section):
    """Measures of units; the MIS has N tasks of K explanations on each side, under one similarity."""

    similarity: str  # a built-in's name or the import path of a class of yours
    measures: Names = ["mis", "two_afc_accuracy", "margin", "clarity", "monosemanticity", "class_selectivity",
                       "lifetime_sparseness", "concept_selectivity", "dissection"]  # fmt: skip
    tasks: Count = 20
    explanations: Count = 9

    @property
    def extremes(self) -> int:
        """How many of a unit's most, and of its least, activating stimuli the tasks take."""
        return self.tasks * (self.explanations + 1)


class Visualization(Section):
    """Pictures of the same units in the dense and in pruned networks."""

    units: dict[str, list[int]] = {}  # by dotted layer name: units that are drawn in any case
    per_block: Annotated[int, Field(ge=0)]  # further conv units of every block, a seeded sample
    size: Count  # pixels
    steps: Count
    methods: Methods = Field(min_length=1)
    rates: Rates = Field(min_length=1)


class Margins(Section):
    """Margins of practical equivalence of the claims' decisions."""

    accuracy: Positive = 0.005  # of Top-1
    slope: Positive = 0.1  # of the way from random to dense, per unit of rate
    correlation: Positive = 0.3
    mis: Positive = 0.01


class Claims(Section):
    """How claims are decided, and claims of your own (import paths) beside the paper's."""

    margins: Margins = Margins()
    extra: Names = []


class Profile(Section):
    """Everything that one run of the study depends on."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+ -]*$")]  # that of its file; names a folder
    about: str
    seed: Seed = 0
    data: Data
    network: Network
    pruning: Pruning
    sensitivity: Sensitivity
    retraining: Training
    interpretability: Interpretability
    visualization: Visualization
    latency_batches: Annotated[list[Count], Distinct] = Field([1, 32], min_length=1)
    latency_repeats: Count = 10  # rounds in which each network is timed once
    claims: Claims = Claims()

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        """Checks that involve several sections but no network."""
        _check_one_shot(self.pruning)
        for key in GRIDS:
            if (part := getattr(self.pruning, key)).methods and not part.rates:
                raise ValueError(f"pruning.{key}.rates: found none, expected some for {', '.join(part.methods)}")
        _check_iterative(self.pruning.iterative, self.retraining.epochs)
        if self.data.extra_stimuli is None:
            self.check_stimuli(self.data.stimulus_images)
        if self.data.source == "folder" and self.data.root is None:
            raise ValueError("data.root: found nothing, expected a folder with train/WNID and val/WNID")
        classes, outputs = self.data.classes, self.network.outputs
        if classes is not None and (self.data.source != "folder" or len(classes) != outputs):
            raise ValueError(f"data.classes: found {len(classes)} names, expected {outputs} (network.outputs) of class "
                             "folders (data.source = folder)")  # fmt: skip
        if (most := self.data.train_images) is not None and self.sensitivity.images > most:
            raise ValueError(f"sensitivity.images: found {self.sensitivity.images}, expected at most {most}, which is "
                             "data.train_images")  # fmt: skip
        _check_protocol(self.data)
        if self.network.weights == "scratch" and self.network.scratch is None:
            raise ValueError("network.scratch: found nothing, expected how to train, as network.weights is scratch")
        return self

    def check_stimuli(self, n: int) -> None:
        """Refuse tasks whose extremes are more than a quarter of the n stimuli: those would be no extremes."""
        wanted = self.interpretability
        if 8 * wanted.extremes > n:
            raise ValueError(
                f"data.stimulus_images: found {n} stimuli, of which {wanted.tasks} interpretability.tasks of "
                f"{wanted.explanations} explanations take {2 * wanted.extremes} as extremes; expected at least "
                f"{8 * wanted.extremes}, so that extremes are at most a quarter"
            )

    @property
    def methods(self) -> list[str]:
        """All pruning methods of all grids and of the sensitivity scan, each once."""
        return list(dict.fromkeys(method for each in self._grids for method in each.methods))

    def highest_rate(self, method: str) -> float:
        """The highest rate of a method in any grid."""
        return max(rate for each in self._grids if method in each.methods for rate in each.rates)

    @property
    def _grids(self) -> list[Pruning | Grid | Sensitivity]:
        return [self.pruning, *(getattr(self.pruning, name) for name in GRIDS), self.sensitivity]

    def value(self, key: str) -> Any:
        """The JSON value of a dotted key, which may be a whole section."""
        found: Any = self
        for part in key.split("."):
            found = getattr(found, part)
        return found.model_dump() if isinstance(found, pydantic.BaseModel) else found


def _check_iterative(iterative: Iterative, epochs: int) -> None:
    """Refuse a schedule whose steps have no epoch each with a third of all after the last mask."""
    if iterative.methods and epochs - -(-epochs // 3) < iterative.steps - 1:
        raise ValueError(f"retraining.epochs: found {epochs}, expected at least one for each of the {iterative.steps} "
                         "steps of pruning.iterative, and a third of all after the last")  # fmt: skip


def _check_protocol(data: Data) -> None:
    """Refuse a resizing that leaves less than the crop, or that no photograph would see."""
    if data.resize is not None and data.resize < data.size:
        raise ValueError(f"data.resize: found {data.resize}, expected at least data.size = {data.size}")
    if data.source != "folder" and (data.resize is not None or data.interpolation != "bilinear"):
        raise ValueError(f"data.resize, data.interpolation: found values, but images {data.source} are no folder")


def _check_one_shot(grid: Pruning) -> None:
    """Refuse a variant that two of the one-shot grids have."""
    found: dict[str, str] = {}
    for key, part in (("pruning", grid), ("pruning.controls", grid.controls)):
        for method, rate in product(part.methods, part.rates):
            variant = f"{method} at rate {_printed(rate)}"
            if variant in found:
                raise ValueError(f"{key}: found {variant}, which is in {found[variant]} already")
            found[variant] = key


def names() -> list[str]:
    """The profiles that the project ships."""
    return sorted(file.stem for file in PROFILES.glob("*.yaml"))


def load(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Profile:
    """Read a profile by its name or path and change the keys named by ``overrides`` ("key.path=value").

    Raises:
        FileNotFoundError: no such profile; lists those there are.
        ValueError: unknown key (suggests the nearest), wrong type or value; names file and key.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"profile {name!r}: no file {file}; expected a path to a YAML file or one of {names()}")
    try:
        content = yaml.load(file.read_text(), _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
        raise ValueError(f"profile {file}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"profile {file}: found {type(content).__name__}, expected keys with values")
    for override in overrides:
        _override(content, override)
    if "name" in content:
        raise ValueError(f"profile {file}: found the key name, expected none: a profile is named by its file")
    try:
        return Profile.model_validate({"name": file.stem, **content})
    except pydantic.ValidationError as error:
        raise ValueError(f"profile {file}: " + "; ".join(map(_explain, error.errors()))) from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-4 is a number; 010, 1:30, yes and nothing at all are strings, which no number is."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~", "n~"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), list(_first))


def _override(content: dict[str, Any], override: str) -> None:
    """Set one key; ``value`` is read as YAML."""
    path, separator, value = override.partition("=")
    if not separator:
        raise ValueError(f"override {override!r}: expected key.path=value")
    if not value.strip():
        raise ValueError(f"override {override!r}: found no value; write null for none")
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
    """Replace $NAME in a profile's path from the environment.

    Raises:
        ValueError: the environment has no such name; names it and the profile's key.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        name = expanded.split("$", 1)[1].split("/")[0].strip("{}")
        raise ValueError(f"{key} = {path}: the environment variable {name} is not set")
    return Path(expanded)
