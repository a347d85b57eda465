"""Folders of photographs, root/CLASS/FILE, decoded once to uint8. CLASS is a WordNet id for ImageNet and Imagenette."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache as call_once
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from prunelens.images.imageset import ImageSet, first, pixel_hash
from prunelens.store import atomic, locked, write_text

log = logging.getLogger(__name__)

IMAGENETTE_IMAGES = {"train": 9469, "val": 3925}
# Part of a cache's key: raise it when the decoding below changes, so that old caches are decoded again.
DECODING_VERSION = 2


@dataclass(frozen=True)
class Protocol:
    """How a photograph becomes a square, as torchvision's Resize(resize, interpolation) and CenterCrop(size) do it.

    size: of the crop, in pixels. resize: of the shorter side before it, at least ``size``; None: ``size``.
    """

    size: int
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def apply(self, image: Image.Image) -> Image.Image:
        """Resize (Pillow's resampling, which is antialiased) and crop in the center."""
        (width, height), side = image.size, self.resize or self.size
        # As torchvision: the longer side is truncated, the crop's corner rounded.
        wide, high = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
        image = image.resize((wide, high), Image.Resampling[self.interpolation.upper()])
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


@call_once
def imagenet_classes() -> dict[str, str]:
    """Readable name of each of ImageNet's 1,000 WordNet ids, in the order of the network outputs 0..999."""
    lines = files("prunelens").joinpath("data/imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def imagenet_class_indices() -> dict[str, int]:
    """Network output, 0..999, of each of ImageNet's 1,000 WordNet ids."""
    return {wnid: index for index, wnid in enumerate(imagenet_classes())}


def imagenette(root: Path, split: str, download: bool) -> Path:
    """The folder of Imagenette's "train" or "val" images (160 px) under `root`, downloaded by torchvision on request.

    Raises FileNotFoundError if it is not there and ValueError if it is incomplete, as after a cut-off unpacking.
    """
    if download:
        from torchvision.datasets import Imagenette

        Imagenette(root, split=split, size="160px", download=True)
    base = Path(root) / "imagenette2-160"
    folder, expected = base / split, IMAGENETTE_IMAGES[split]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: download Imagenette (160px) or correct the path")
    if (found := sum(1 for _ in folder.glob("*/*.JPEG"))) != expected:
        raise ValueError(f"{folder} has {found} images, not {expected}: delete {base} and download it again")
    return folder


def split_root(root: Path) -> tuple[Path, Path]:
    """The folders root/train and root/val, as ImageNet and Imagenette are laid out.

    Raises FileNotFoundError if one is missing and ValueError if they are one, or if their classes differ.
    """
    train, val = (Path(root) / split for split in ("train", "val"))
    classes = [{folder.name for folder in _class_folders(split)} for split in (train, val)]
    if train.samefile(val):
        raise ValueError(f"{train} and {val} are the same folder, expected other images for validation")
    if in_one := sorted(classes[0] ^ classes[1]):
        raise ValueError(f"{train} and {val} must have the same classes; only one has {first(in_one)}")
    return train, val


def class_names(root: Path) -> list[str]:
    """Names of the class folders root/CLASS, sorted.

    Raises FileNotFoundError if `root` is missing and ValueError if it has no class folders.
    """
    return [folder.name for folder in _class_folders(root)]


def read_folder(root: Path, protocol: Protocol, cache: Path, class_indices: dict[str, int]) -> ImageSet:
    """Read the images of root/CLASS/FILE, resized and cropped as the protocol says.

    They are decoded once into CACHE.npy (uint8) with CACHE.json beside it; a second call opens these, and waits while
    another process decodes. The cache holds as long as the protocol and the files' names, lengths and times do; its
    pixels are checked against their hash wherever its file has changed. `class_indices` gives the network output of
    each class folder. What cannot be read as an image is skipped, named in the log, and listed with the reason under
    "bad" in CACHE.json.

    Raises FileNotFoundError if `root` is missing, and ValueError if it has no class folders, a class folder is empty or
    unknown to `class_indices`, a class has no readable image, or more than 1 % of the files (and more than 5) cannot be
    read.
    """
    root, folders = Path(root), class_names(root)
    if unknown := [folder for folder in folders if folder not in class_indices]:
        raise ValueError(
            f"{root}: {len(unknown)} of {len(folders)} class folders are unknown: {first(unknown)}; "
            f"expected names out of {len(class_indices)} such as {next(iter(class_indices))} (see data.classes)"
        )
    listed = {name: state for folder in folders for name, state in _list_files(root, folder)}
    key = hashlib.sha256(json.dumps([DECODING_VERSION, astuple(protocol), listed]).encode()).hexdigest()
    opened = _open_cache(cache, key)
    if opened is None:
        with locked(cache):
            opened = _open_cache(cache, key)  # another process was faster
            if opened is None:
                _fill_cache(cache, key, root, list(listed), protocol)
                opened = _open_cache(cache, key)
    if opened is None:
        raise ValueError(f"{_npy(cache)} does not hold {root}: does another process write there?")
    images, listing = opened
    if listing["bad"]:
        log.warning("%s: %d unreadable files skipped: %s", root, len(listing["bad"]), first(listing["bad"]))
    found = [name.split("/")[0] for name in listing["names"]]
    if unseen := sorted(set(folders) - set(found)):
        raise ValueError(f"{root}: no image can be read in {first(unseen)}; reasons: {_json(cache)}")
    return ImageSet(
        images=images,
        labels=np.searchsorted(folders, found).astype(np.int64),
        names=listing["names"],
        class_names=[imagenet_classes().get(folder, folder) for folder in folders],
        outputs=np.array([class_indices[folder] for folder in folders], dtype=np.int64),
        pixels=listing["pixels"],
    )


def _class_folders(root: Path) -> list[Path]:
    """The folders root/CLASS and links to none, sorted by name, hidden ones left out."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected images in {root}/CLASS/FILE")
    entries = sorted(path for path in Path(root).iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir() or not path.exists()]
    if not folders:
        raise ValueError(f"{root} has no class folders; expected images in {root}/CLASS/FILE")
    return folders


def _list_files(root: Path, folder: str) -> list[tuple[str, list[int]]]:
    """("CLASS/FILE", [length, time]) of all that a class folder holds, sorted by name, hidden files left out."""
    with os.scandir(root / folder) as entries:
        found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    if not found:
        raise ValueError(f"{root / folder} has no files; expected images of the class there")
    return [(f"{folder}/{name}", _state(root / folder / name)) for name in found]


def _state(path: Path) -> list[int]:
    """Length of a file and when it last changed; of a link to nothing, which counts among what cannot be read, none.

    Its time of modification can be set, as by programs that copy; that of its last change cannot.
    """
    with suppress(OSError):
        state = path.stat()
        return [state.st_size, state.st_ctime_ns]
    return []


def _decode(path: Path, protocol: Protocol) -> np.ndarray:
    """One image as uint8 (size, size, 3). EXIF orientation is ignored, as ImageNet evaluations do."""
    with Image.open(path) as image:
        return np.asarray(protocol.apply(_to_rgb(image)))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB: what is transparent shows white, 16-bit gray is scaled to 8 bits."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _decode_or_reason(path: Path, protocol: Protocol) -> np.ndarray | str:
    try:
        return _decode(path, protocol)
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        return f"{type(error).__name__}: {error}"


def _decode_all(root: Path, names: list[str], protocol: Protocol) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each name with its pixels or the reason why there are none, in order, decoded by a thread per core."""
    with tqdm(total=len(names), desc=f"decode {root}", unit="image") as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), 512):  # in pieces, so that decoded images don't pile up in memory
            piece = names[start : start + 512]
            yield from zip(piece, pool.map(lambda name: _decode_or_reason(root / name, protocol), piece), strict=True)
            bar.update(len(piece))


def _fill_cache(cache: Path, key: str, root: Path, names: list[str], protocol: Protocol) -> None:
    """Decode the named files into CACHE.npy and list them in CACHE.json. Call it under the cache's lock."""
    good, bad, digest, most_bad = [], [], hashlib.sha256(), max(5, len(names) // 100)
    for left in cache.parent.glob(f".*-{_npy(cache).name}"):  # by processes that were killed
        left.unlink()
    # Written as a stream, not through a memory map: a full disk is then an error, not a crash (SIGBUS).
    with atomic(_npy(cache)) as draft, draft.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), protocol.size, protocol.size, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        end = file.tell() + math.prod(header["shape"])
        for name, image in _decode_all(root, names, protocol):
            if isinstance(image, str):
                bad.append(f"{name} ({image})")
                if len(bad) > most_bad:
                    raise ValueError(f"{root}: more than {most_bad} files can't be read as images: {first(bad)}")
            else:
                good.append(name)
                file.write(image.tobytes())
                digest.update(image.tobytes())
        file.truncate(end)  # files that were not read leave unused rows at the end
        _json(cache).unlink(missing_ok=True)  # never an old listing beside new pixels
    _write_listing(cache, {"key": key, "root": str(root), "bad": bad, "pixels": digest.hexdigest(), "names": good})


def _write_listing(cache: Path, listing: dict[str, Any]) -> None:
    """Write CACHE.json, with a hash of its own and the state in which CACHE.npy was checked."""
    state = {"sha256": _hash(listing), "checked": _state(_npy(cache))}
    write_text(_json(cache), json.dumps({**listing, **state}, indent=0))


def _hash(listing: dict[str, Any]) -> str:
    content = [listing[name] for name in ("key", "root", "bad", "pixels", "names")]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _open_cache(cache: Path, key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Open CACHE.npy as a memory map, and the contents of CACHE.json; None if absent, outdated or damaged."""
    if not _json(cache).exists():
        return None
    try:
        listing = json.loads(_json(cache).read_text(encoding="utf-8"))
        if listing["key"] != key:
            log.warning("%s holds other files or follows another protocol: decoding again", _npy(cache))
            return None
        if _hash(listing) != listing["sha256"]:
            raise ValueError(f"{_json(cache).name} does not match its hash")
        images = np.load(_npy(cache), mmap_mode="r")[: len(listing["names"])]
        if listing["checked"] != _state(_npy(cache)):
            if pixel_hash(images) != listing["pixels"]:
                raise ValueError("its pixels do not match their hash")
            with suppress(OSError):  # another user's cache can be read without being noted as checked
                _write_listing(cache, listing)
        return images, listing
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): decoding again", _npy(cache), error)
        return None


def _npy(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.npy")


def _json(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.json")
