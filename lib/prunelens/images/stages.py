"""The image sets of a study, and what results depend on of them."""

import logging
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prunelens import registry
from prunelens.images import folders, sources
from prunelens.images.imageset import ImageSet, concatenate, first, sample, shared
from prunelens.paths import ROOT
from prunelens.profile import expand
from prunelens.stages import Pipeline, Subject, fact, stage

log = logging.getLogger(__name__)


SPLITS = {"train_images": "train", "validation_images": "validation", "stimulus_images": "train"}  # by key of data
MOST_SHARED = 0.01  # of the validation images may be training images too: real data sets have some


def train(pipeline: Pipeline) -> ImageSet:
    """The images that networks are trained on.

    Raises:
        ValueError: the validation images are among them.
    """
    pipeline.remember("apart", lambda: pipeline.get("apart"))
    return _opened(pipeline, "train_images")


def validation(pipeline: Pipeline) -> ImageSet:
    """The images that accuracy is measured on."""
    return _opened(pipeline, "validation_images")


def stimuli(pipeline: Pipeline) -> ImageSet:
    """The images whose activations are recorded: training images, and the profile's extra ones.

    Extra classes that no output stands for are given outputs that the network does not have.
    """
    found = _opened(pipeline, "stimulus_images")
    if pipeline.profile.data.extra_stimuli is not None:
        found = pipeline.remember("stimuli", lambda: _with_extra(pipeline, found))
    pipeline.profile.check_stimuli(len(found))
    return found


def _with_extra(pipeline: Pipeline, found: ImageSet) -> ImageSet:
    data, outputs = pipeline.profile.data, pipeline.profile.network.outputs
    known = dict(zip(found.class_names, found.outputs.tolist(), strict=True))
    try:
        if data.source == "folder":
            known = _class_outputs(pipeline, folders.split_root(root(pipeline))[0])
        folder = expand(data.extra_stimuli, "data.extra_stimuli")
        more = [name for name in folders.class_names(folder) if name not in known]
        known |= {name: outputs + i for i, name in enumerate(more)}
        extra = _folder(pipeline, folder, "extra", known)
        return concatenate([found, replace(extra, names=[f"extra/{name}" for name in extra.names])])
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"data.extra_stimuli: {error}") from error


@fact
def train_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the training images are."""
    return _content(pipeline, "train_images")


@fact
def validation_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the validation images are."""
    return _content(pipeline, "validation_images")


@fact
def stimulus_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the stimuli are."""
    found = _content(pipeline, "stimulus_images")
    return found if pipeline.profile.data.extra_stimuli is None else [found, stimuli(pipeline).content]


@stage(form="json", needs=("validation_images",), subject="")
def classes(pipeline: Pipeline, subject: None) -> dict[str, list]:
    """Names of the data's classes, and the network output that stands for each."""
    found = validation(pipeline)
    return {"names": list(found.class_names), "outputs": found.outputs.tolist()}


@stage(form="json", needs=("train_images", "validation_images"), subject="")
def apart(pipeline: Pipeline, subject: None) -> dict[str, list[str]]:
    """Names of the validation images whose very pixels are among the training images, which a few may be."""
    seen, source = validation(pipeline), pipeline.profile.data.source
    both = shared(seen, _opened(pipeline, "train_images"))
    said = f"{len(both)} of {len(seen)} validation images are among the training images: {first(both)}"
    if len(both) > max(5, MOST_SHARED * len(seen)):
        raise ValueError(f"{'data.root' if source == 'folder' else f'images {source}'}: {said}; expected others")
    if both:
        log.warning("%s", said)
    return {"shared": both}


def _opened(pipeline: Pipeline, key: str) -> ImageSet:
    n = getattr(pipeline.profile.data, key)
    return pipeline.remember(f"{SPLITS[key]} {n}", lambda: _open(pipeline, key, n))


def _open(pipeline: Pipeline, key: str, n: int | None) -> ImageSet:
    data, seed, split = pipeline.profile.data, pipeline.profile.seed, SPLITS[key]
    if data.source != "folder":
        return registry.find("images", data.source)(split, n, data.size, seed)
    both = dict(zip(("train", "validation"), folders.split_root(root(pipeline)), strict=True))
    found = _folder(pipeline, both[split], split, _class_outputs(pipeline, both["train"]))
    return found if n is None else sample(found, n, seed, f"data.{key}")


def root(pipeline: Pipeline) -> Path:
    """The folder with train/CLASS and val/CLASS, downloaded where the profile says so."""
    data = pipeline.profile.data
    found = ROOT / expand(data.root, "data.root")  # an absolute path stays what it is
    if data.download == "imagenette" and not (found / "train").is_dir():
        for split in ("train", "val"):
            missing = not (found / "imagenette2-160" / split).is_dir()
            found_split = folders.imagenette(found, split, download=missing)
        return found_split.parent
    return found


def _class_outputs(pipeline: Pipeline, folder: Path) -> dict[str, int]:
    """The network output that stands for each class folder's name: as the profile says, ImageNet's, or in order.

    Raises:
        ValueError: the profile does not say, and there are more or fewer folders than outputs, or two orders.
    """
    named, outputs = pipeline.profile.data.classes, pipeline.profile.network.outputs
    if named is not None:
        return {name: output for output, name in enumerate(named)}
    if outputs == len(folders.imagenet_class_indices()):
        return folders.imagenet_class_indices()
    names = folders.class_names(folder)
    if len(names) != outputs:
        raise ValueError(f"network.outputs: found {outputs}, but {folder} has {len(names)} class folders; expected as "
                         "many, or data.classes: the folders' names in the order of the outputs")  # fmt: skip
    if names != (other := sorted(names, key=_by_number)):
        raise ValueError(f"data.classes: found nothing, expected the names of the class folders in the order of the "
                         f"outputs: is that {first(names, 3)} or {first(other, 3)}?")  # fmt: skip
    return {name: output for output, name in enumerate(names)}


def _by_number(name: str) -> list[str | int]:
    """A sort key that has 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _folder(pipeline: Pipeline, folder: Path, name: str, outputs: dict[str, int]) -> ImageSet:
    data = pipeline.profile.data
    protocol = folders.Protocol(data.size, data.resize, data.interpolation)
    key = {"folder": str(folder.resolve()), "protocol": asdict(protocol)}
    cache = pipeline.store.path("images", f"{name}-{data.size}", key, "")
    return pipeline.remember(f"folder {folder}", lambda: folders.read_folder(folder, protocol, cache, outputs))


def _content(pipeline: Pipeline, key: str) -> Any:
    """The embedded images follow from a few numbers; any other source has to be asked for its pixels."""
    data = pipeline.profile.data
    if data.source == "embedded":
        return {"embedded": sources.embedded.description.version, "n": getattr(data, key), "size": data.size,
                "split": SPLITS[key], "seed": pipeline.profile.seed}  # fmt: skip
    return _opened(pipeline, key).content
