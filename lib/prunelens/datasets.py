"""Image sets: folders of photographs, decoded once to uint8, and ways to batch, sample and join them.

A folder is laid out as root/CLASS/FILE, CLASS a WordNet id for ImageNet and Imagenette.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache as call_once
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision_datasets
from torchvision.models import GoogLeNet_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as geometry
from tqdm import tqdm

from prunelens.artefacts import locked

log = logging.getLogger(__name__)

IMAGENETTE_IMAGES = {"train": 9469, "val": 3925}
# Part of a cache's key: raise it when the decoding below changes, so that old caches are decoded again.
DECODING_VERSION = 1


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size.

    images: uint8 (images, size, size, 3), RGB, an array or a memory map
    labels: int64 (images,), the image's class, 0..classes-1
    names: a stable id per image, "CLASS/FILE"
    class_names: a readable name per class
    logits: int64 (classes,), the network output that stands for each class
    concepts: what else is known about each image, arrays whose first axis is the images; None for photographs

    Raises ValueError where these disagree.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    class_names: list[str]
    logits: np.ndarray
    concepts: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        shape, classes = self.images.shape, len(self.class_names)
        labels, logits = self.labels, self.logits
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"images: expected uint8 (n, size, size, 3), found {self.images.dtype} {shape}")
        if labels.dtype != np.int64 or labels.shape != shape[:1]:
            raise ValueError(f"labels: expected int64 {shape[:1]}, found {labels.dtype} {labels.shape}")
        if len(self.names) != shape[0]:
            raise ValueError(f"names: expected one for each of {shape[0]} images, found {len(self.names)}")
        if logits.dtype != np.int64 or logits.shape != (classes,):
            raise ValueError(f"logits: expected int64 {(classes,)}, found {logits.dtype} {logits.shape}")
        if len(np.unique(logits)) != classes or (logits < 0).any():
            raise ValueError(f"logits: expected a different output for each class, found {logits.tolist()}")
        if len(self) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"labels: expected 0..{classes - 1}, found {labels.min()}..{labels.max()}")
        for name, concept in (self.concepts or {}).items():
            if len(concept) != shape[0]:
                raise ValueError(f"concept {name}: expected {shape[0]} rows, found {len(concept)}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at `indices`, in that order, copied into memory; the classes stay as they are."""
        indices = np.asarray(indices, dtype=np.int64)
        return ImageSet(
            images=np.asarray(self.images[indices]),
            labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            class_names=self.class_names,
            logits=self.logits,
            concepts=self.concepts and {name: concept[indices] for name, concept in self.concepts.items()},
        )

    def batches(self, batch_size: int, device: torch.device | str) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order: float32 (batch, 3, size, size) in [0, 1], channels last; int64 labels."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            # The copy reads the memory map; the bytes travel to the device as uint8, a quarter of the floats.
            pixels = torch.from_numpy(np.array(self.images[start:stop])).to(device)
            labels = torch.from_numpy(np.array(self.labels[start:stop])).to(device)
            yield pixels.permute(0, 3, 1, 2).float().div(255), labels


def concatenate(image_sets: Sequence[ImageSet]) -> ImageSet:
    """One set of all images, copied into memory. Classes with the same network output become one class.

    Raises ValueError if sizes, class names or concepts disagree, or if two images have the same name.
    """
    sizes = sorted({image_set.images.shape[1] for image_set in image_sets})
    if len(sizes) != 1:
        raise ValueError(f"concatenate: expected one image size, found {sizes}")
    concepts = {tuple(sorted(image_set.concepts or {})) for image_set in image_sets}
    if len(concepts) != 1:
        raise ValueError(f"concatenate: expected the same concepts, found {sorted(concepts)}")
    names = [name for image_set in image_sets for name in image_set.names]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"concatenate: {len(repeated)} names occur more than once: {_first(repeated)}")
    class_of: dict[int, str] = {}
    for image_set in image_sets:
        for logit, name in zip(image_set.logits.tolist(), image_set.class_names, strict=True):
            if class_of.setdefault(logit, name) != name:
                raise ValueError(f"concatenate: output {logit} is called {class_of[logit]} and {name}")
    logits = np.array(sorted(class_of), dtype=np.int64)
    return ImageSet(
        images=np.concatenate([image_set.images for image_set in image_sets]),
        labels=np.concatenate([np.searchsorted(logits, s.logits[s.labels]) for s in image_sets]),
        names=names,
        class_names=[class_of[logit] for logit in logits.tolist()],
        logits=logits,
        concepts={k: np.concatenate([s.concepts[k] for s in image_sets]) for k in concepts.pop()} or None,
    )


def sample(image_set: ImageSet, n: int, seed: int) -> ImageSet:
    """`n` random images, as evenly spread over the classes as the set allows, in the set's order.

    With one seed a smaller sample is part of every larger one. Raises ValueError if there are fewer than
    `n` images.
    """
    if n > len(image_set):
        raise ValueError(f"cannot sample {n} images from a set of {len(image_set)}")
    order = np.random.default_rng(seed).permutation(len(image_set))
    # Every class gives its first image, then every class its second one, and so on.
    turn = pd.Series(order).groupby(image_set.labels[order]).cumcount().to_numpy()
    return image_set.subset(np.sort(order[np.argsort(turn, kind="stable")[:n]]))


def balanced(image_set: ImageSet, outputs: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Indices, in the set's order, of equally many random images of each class that these outputs stand for.

    As many as the rarest of these classes has, so none where one has none; images of other classes are left out.
    """
    shown = image_set.logits[image_set.labels]
    fewest = min(np.count_nonzero(shown == output) for output in outputs)
    order = np.random.default_rng(seed).permutation(len(image_set))
    turn = pd.Series(order).groupby(shown[order]).cumcount().to_numpy()
    return np.sort(order[np.isin(shown[order], outputs) & (turn < fewest)])


@call_once
def imagenet_class_indices() -> dict[str, int]:
    """Network output, 0..999, of each of ImageNet's 1,000 WordNet ids: their sorted order."""
    text = files("prunelens").joinpath("data/imagenet_wnids.txt").read_text()
    return {wnid: index for index, wnid in enumerate(text.split())}


@call_once
def imagenet_class_names() -> dict[str, str]:
    """Readable name of each of ImageNet's 1,000 WordNet ids, as torchvision gives them."""
    names = GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"]
    return dict(zip(imagenet_class_indices(), names, strict=True))


def imagenette(root: Path, split: str, size: str = "160px", download: bool = False) -> Path:
    """The folder of Imagenette's "train" or "val" images under `root`, downloaded by torchvision on request.

    size: "160px" or "320px", the length of the shorter side. Raises FileNotFoundError if the folder is not
    there and ValueError if it is incomplete, as after an unpacking that was cut off.
    """
    base = Path(root) / f"imagenette2-{size.removesuffix('px')}"
    if download:
        torchvision_datasets.Imagenette(root, split=split, size=size, download=True)
    folder = base / split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: download Imagenette ({size}) or correct the path")
    found, expected = sum(1 for _ in folder.glob("*/*.JPEG")), IMAGENETTE_IMAGES[split]
    if found != expected:
        raise ValueError(f"{folder} has {found} images, not {expected}: delete {base} and download it again")
    return folder


def split_root(root: Path) -> tuple[Path, Path]:
    """The folders root/train and root/val, as ImageNet and Imagenette are laid out.

    Raises FileNotFoundError if one is missing and ValueError if their classes differ.
    """
    train, val = (Path(root) / split for split in ("train", "val"))
    classes = [{folder.name for folder in _class_folders(split)} for split in (train, val)]
    in_one = sorted(classes[0] ^ classes[1])
    if in_one:
        raise ValueError(f"{train} and {val} must have the same classes; only one has {_first(in_one)}")
    return train, val


def read_folder(
    root: Path,
    size: int,
    cache: Path,
    class_indices: dict[str, int] | None,
    limit_per_class: int | None = None,
    max_bad: int | None = None,
) -> ImageSet:
    """The images of root/CLASS/FILE, shorter side resized to `size` (Pillow bilinear), then center-cropped.

    They are decoded once into CACHE.npy (uint8) with CACHE.json beside it; a second call opens these, and waits
    while another process decodes. The cache holds as long as the files' names and lengths, `size` and
    `limit_per_class` do. `class_indices` gives the network output of each class folder
    (`imagenet_class_indices()`); None numbers them in sorted order. `limit_per_class` takes that many files of
    each class, evenly spaced in the sorted names. Files that can't be read are skipped, named in the log, and
    listed with the reason under "bad" in CACHE.json.

    Raises FileNotFoundError if `root` is missing, and ValueError if it has no class folders, a class folder
    is empty or unknown to `class_indices`, a class has no readable image, or more than `max_bad` files
    can't be read (default: 1 % of the files, at least 5).
    """
    folders = [folder.name for folder in _class_folders(root)]
    if class_indices is not None:
        _check_known(root, folders, class_indices)
    file_bytes = dict(pair for folder in folders for pair in _list_files(root, folder, limit_per_class))
    most_bad = max(5, len(file_bytes) // 100) if max_bad is None else max_bad
    key = _cache_key(file_bytes, size, limit_per_class)
    with locked(cache):
        opened = _open_cache(cache, key)
        if opened is None:
            _fill_cache(cache, key, Path(root), list(file_bytes), size, most_bad)
            opened = _open_cache(cache, key)
    if opened is None:
        raise ValueError(f"{_npy(cache)} does not hold {root}: does another process write there?")
    images, listing = opened
    _check_bad(root, listing["bad"], most_bad)
    if listing["bad"]:
        log.warning("%s: %d unreadable files skipped: %s", root, len(listing["bad"]), _first(listing["bad"]))
    label_of = {folder: label for label, folder in enumerate(folders)}
    labels = np.array([label_of[name.split("/")[0]] for name in listing["names"]], dtype=np.int64)
    unseen = sorted(set(folders) - {folders[label] for label in np.unique(labels)})
    if unseen:
        raise ValueError(f"{root}: no image can be read in {_first(unseen)}; reasons: {_json(cache)}")
    return ImageSet(
        images=images,
        labels=labels,
        names=listing["names"],
        class_names=[imagenet_class_names().get(folder, folder) for folder in folders],
        logits=np.array([(class_indices or label_of)[folder] for folder in folders], dtype=np.int64),
    )


def _class_folders(root: Path) -> list[Path]:
    """The folders root/CLASS, sorted by name, hidden ones left out."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected images in {root}/CLASS/FILE")
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"{root} has no class folders; expected images in {root}/CLASS/FILE")
    return folders


def _check_known(root: Path, folders: list[str], class_indices: dict[str, int]) -> None:
    unknown = [folder for folder in folders if folder not in class_indices]
    if unknown:
        raise ValueError(
            f"{root}: {len(unknown)} of {len(folders)} class folders are unknown: {_first(unknown)}; "
            f"expected names out of {len(class_indices)} such as {next(iter(class_indices))}"
        )


def _list_files(root: Path, folder: str, limit: int | None) -> list[tuple[str, int]]:
    """("CLASS/FILE", length in bytes) of a class's files, sorted by name; `limit` of them, evenly spaced."""
    with os.scandir(Path(root) / folder) as entries:
        found = [entry for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    if not found:
        raise ValueError(f"{Path(root) / folder} has no files; expected images of the class there")
    found.sort(key=lambda entry: entry.name)
    if limit is not None and limit < len(found):
        found = [found[i] for i in np.linspace(0, len(found) - 1, limit).round().astype(int)]
    return [(f"{folder}/{entry.name}", entry.stat().st_size) for entry in found]


def _decode(path: Path, size: int) -> np.ndarray:
    """One image as uint8 (size, size, 3). EXIF orientation is ignored, as ImageNet evaluations do."""
    with Image.open(path) as image:
        image = geometry.resize(_to_rgb(image), size, InterpolationMode.BILINEAR)
        return np.asarray(geometry.center_crop(image, size))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB: what is transparent shows white, 16-bit gray is scaled to 8 bits."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _decode_or_reason(path: Path, size: int) -> np.ndarray | str:
    try:
        return _decode(path, size)
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        return f"{type(error).__name__}: {error}"


def _decode_all(root: Path, names: list[str], size: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each name with its pixels or the reason why there are none, in order, decoded by a thread per core."""
    bar = tqdm(total=len(names), desc=f"decode {root}", unit="image")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), 512):  # in pieces, so that decoded images don't pile up in memory
            piece = names[start : start + 512]
            decoded = pool.map(lambda name: _decode_or_reason(root / name, size), piece)
            yield from zip(piece, decoded, strict=True)
            bar.update(len(piece))


def _fill_cache(cache: Path, key: str, root: Path, names: list[str], size: int, most_bad: int) -> None:
    """Decodes the named files into CACHE.npy and lists them in CACHE.json, each put in place in one step.

    Called under the cache's lock: scratch folders that are there already were left by processes that were killed.
    """
    good, bad = [], []
    for left in cache.parent.glob(f".{cache.name}-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=f".{cache.name}-") as scratch:
        pixels, listing = Path(scratch) / "pixels", Path(scratch) / "listing"
        # Written as a stream, not through a memory map: a full disk is then an error, not a crash (SIGBUS).
        with pixels.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            end = file.tell() + math.prod(header["shape"])
            for name, image in _decode_all(root, names, size):
                if isinstance(image, str):
                    bad.append(f"{name} ({image})")
                    _check_bad(root, bad, most_bad)
                else:
                    good.append(name)
                    file.write(image.tobytes())
            file.truncate(end)  # unread files leave unused rows at the end
            os.fsync(file.fileno())
        with listing.open("w") as file:
            json.dump({"key": key, "root": str(root), "bad": bad, "names": good}, file, indent=0)
            os.fsync(file.fileno())
        _json(cache).unlink(missing_ok=True)  # never an old listing beside new pixels
        pixels.replace(_npy(cache))
        listing.replace(_json(cache))


def _open_cache(cache: Path, key: str) -> tuple[np.ndarray, dict] | None:
    """CACHE.npy as a memory map and the contents of CACHE.json; None if absent, outdated or damaged."""
    if not _json(cache).exists():
        return None
    try:
        listing = json.loads(_json(cache).read_text())
        if listing["key"] != key:
            log.warning("%s holds other files or another size: decoding again", _npy(cache))
            return None
        images = np.load(_npy(cache), mmap_mode="r")
        return images[: len(listing["names"])], listing
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): decoding again", _npy(cache), error)
        return None


def _cache_key(file_bytes: dict[str, int], size: int, limit: int | None) -> str:
    return hashlib.sha256(json.dumps([DECODING_VERSION, size, limit, file_bytes]).encode()).hexdigest()


def _check_bad(root: Path, bad: list[str], most_bad: int) -> None:
    if len(bad) > most_bad:
        raise ValueError(f"{root}: more than {most_bad} files can't be read as images: {_first(bad)}")


def _npy(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.npy")


def _json(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.json")


def _first(items: list[str], shown: int = 5) -> str:
    """The first few items as text, and how many more there are."""
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")
