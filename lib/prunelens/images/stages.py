"""The image sets of a study, and what results depend on of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunelens import registry
from prunelens.images import folders, sources
from prunelens.images.imageset import ImageSet, concatenate, first, sample, shared
from prunelens.paths import ROOT
from prunelens.profile import expand
from prunelens.stages import Pipeline, Subject, fact, stage


def train(pipeline: Pipeline) -> ImageSet:
    """The images that networks are trained on."""
    return _opened(pipeline, "train", pipeline.profile.data.train_images)


def validation(pipeline: Pipeline) -> ImageSet:
    """The images that accuracy is measured on."""
    return _opened(pipeline, "validation", pipeline.profile.data.validation_images)


def stimuli(pipeline: Pipeline) -> ImageSet:
    """The images whose activations are recorded: training images, and the profile's extra ones."""
    data = pipeline.profile.data
    found = _opened(pipeline, "train", data.stimulus_images)
    if data.extra_stimuli is None:
        return found
    extra = expand(data.extra_stimuli, "data.extra_stimuli")
    return pipeline.remember("stimuli", lambda: concatenate([found, _folder(pipeline, extra, "extra")]))


@fact
def train_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the training images are."""
    if not registry.is_built_in(pipeline.profile.data.source):
        pipeline.remember("apart", lambda: _check_apart(pipeline))
    return _content(pipeline, "train", pipeline.profile.data.train_images)


@fact
def validation_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the validation images are."""
    return _content(pipeline, "validation", pipeline.profile.data.validation_images)


@fact
def stimulus_images(pipeline: Pipeline, subject: Subject) -> Any:
    """What the stimuli are."""
    data = pipeline.profile.data
    found = _content(pipeline, "train", data.stimulus_images)
    return found if data.extra_stimuli is None else [found, stimuli(pipeline).content]


@stage(form="json", needs=("validation_images",), subject="")
def classes(pipeline: Pipeline, subject: None) -> dict[str, list]:
    """Names of the data's classes, and the network output that stands for each."""
    found = validation(pipeline)
    return {"names": list(found.class_names), "outputs": found.outputs.tolist()}


def _check_apart(pipeline: Pipeline) -> None:
    """Refuse a user's source that trains on validation images."""
    if both := shared(train(pipeline), validation(pipeline)):
        raise ValueError(f"images {pipeline.profile.data.source}: gave training images that are among the validation "
                         f"images: {first(both)}")  # fmt: skip


def _opened(pipeline: Pipeline, split: str, n: int | None) -> ImageSet:
    return pipeline.remember(f"{split} {n}", lambda: _open(pipeline, split, n))


def _open(pipeline: Pipeline, split: str, n: int | None) -> ImageSet:
    data, seed = pipeline.profile.data, pipeline.profile.seed
    if data.source != "folder":
        found = registry.find("images", data.source)(split, n, data.size, seed)
        if (most := int(found.outputs.max())) >= pipeline.profile.network.outputs:
            raise ValueError(f"images {data.source}: found a class for output {most}, expected less than "
                             f"network.outputs = {pipeline.profile.network.outputs}")  # fmt: skip
        return found
    train_folder, validation_folder = folders.split_root(root(pipeline))
    folder = train_folder if split == "train" else validation_folder
    found = _folder(pipeline, folder, split)
    return found if n is None else sample(found, n, seed)


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


def _folder(pipeline: Pipeline, folder: Path, name: str) -> ImageSet:
    data, network = pipeline.profile.data, pipeline.profile.network
    protocol = folders.Protocol(data.size, data.resize, data.interpolation)
    key = {"folder": str(folder.resolve()), "protocol": asdict(protocol)}
    cache = pipeline.store.path("images", f"{name}-{data.size}", key, "")
    known = folders.imagenet_class_indices() if network.outputs == 1000 else None
    return pipeline.remember(f"folder {folder}", lambda: folders.read_folder(folder, protocol, cache, known))


def _content(pipeline: Pipeline, split: str, n: int | None) -> Any:
    """The embedded images follow from a few numbers; any other source has to be asked for its pixels."""
    data = pipeline.profile.data
    if data.source == "embedded":
        return {"embedded": sources.embedded.description.version, "n": n, "size": data.size, "split": split,
                "seed": pipeline.profile.seed}  # fmt: skip
    return _opened(pipeline, split, n).content
