"""The embedded data: images composed from photographs that scikit-image ships, with known concepts.

Every image shows a filled shape in front of a background. Background and filling are two different photographed
textures, each printed in one of a few pairs of inks. The class takes two cues, the background's texture and the shape:
100 classes. The photographs are grey, so that color says nothing of the class. Train and validation images are cut from
disjoint blocks of every photograph.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from prunelens.images.imageset import ImageSet

TEXTURES = {
    "brick": "brick.png",
    "coins": "coins.png",
    "craters": "moon.png",
    "fur": "chelsea.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "handwriting": "text.png",
    "print": "page.png",
    "tissue": "ihc.png",
}
SHAPES = ("bar", "circle", "crescent", "cross", "flower", "heart", "ring", "square", "star", "triangle")
TINTS = {  # the inks of dark and of light, 0..255
    "ink": ((24, 32, 58), (240, 234, 214)),
    "forest": ((20, 52, 44), (214, 224, 168)),
    "rust": ((78, 28, 24), (250, 205, 140)),
    "plum": ((56, 24, 66), (244, 196, 196)),
    "lagoon": ((8, 50, 76), (156, 222, 214)),
    "slate": ((40, 42, 46), (214, 216, 218)),
}
KINDS = {"texture": TEXTURES, "shape": SHAPES, "tint": TINTS}  # of concepts
CLASSES = [(texture, shape) for texture in range(len(TEXTURES)) for shape in range(len(SHAPES))]
FACTORS = ("background", "filling", "shape", "background_tint", "filling_tint")
SPLITS = ("train", "validation")
_BLOCK = 86  # pixels: the least side of a block, and the largest side of a crop
_SMALLEST_CROP = 56  # pixels
_FINER = 2  # a shape's outline is drawn at so many times the resolution


def compose(n: int, size: int, split: str, seed: int) -> ImageSet:
    """Compose ``n`` images of ``size`` x ``size`` pixels; image i depends on (size, split, seed, i) only.

    The classes take turns, in another order with every seed. The concepts are those of `Concepts`.

    Raises:
        ValueError: ``split`` is none of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"split: found {split!r}, expected one of {SPLITS}")
    images = np.empty((n, size, size, 3), np.uint8)
    masks = np.empty((n, size, size), bool)
    factors = {name: np.empty(n, np.int64) for name in FACTORS}
    labels = np.resize(np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(CLASSES)), n)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        drawn = _draw_factors(rng, *CLASSES[label])
        opacity = shape_opacity(SHAPES[drawn["shape"]], size, rng)
        background = _patch(drawn["background"], drawn["background_tint"], size, split, rng)
        filling = _patch(drawn["filling"], drawn["filling_tint"], size, split, rng)
        images[i] = background + opacity[..., None] * (filling - background) + 0.5
        masks[i] = opacity > 0.5
        for name, value in drawn.items():
            factors[name][i] = value
    return ImageSet(
        images=images,
        labels=labels,
        names=[f"{split}/{seed}/{i:06d}" for i in range(n)],
        class_names=[f"{SHAPES[shape]} on {list(TEXTURES)[texture]}" for texture, shape in CLASSES],
        outputs=np.arange(len(CLASSES)),
        concepts=Concepts(factors, masks),
    )


class Concepts(Mapping[str, np.ndarray]):
    """By name, the pixels that show a concept: bool (n, size, size), built on access (82 kB an image for all of them).

    10 textures and 6 tints ("texture:brick", "tint:rust"), of the background or the filling, and 10 shapes
    ("shape:ring").
    """

    def __init__(self, factors: dict[str, np.ndarray], inside: np.ndarray) -> None:
        self._factors, self._inside = factors, inside
        self._names = [f"{kind}:{name}" for kind, known in KINDS.items() for name in known]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        kind, _, value = name.partition(":")
        wanted, inside = list(KINDS[kind]).index(value), self._inside
        if kind == "shape":
            return inside & self._has("shape", wanted)
        suffix = "" if kind == "texture" else "_tint"
        return ~inside & self._has(f"background{suffix}", wanted) | inside & self._has(f"filling{suffix}", wanted)

    def _has(self, factor: str, value: int) -> np.ndarray:
        return (self._factors[factor] == value)[:, None, None]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def take(self, indices: np.ndarray) -> "Concepts":
        """The concepts of some images."""
        return Concepts({name: values[indices] for name, values in self._factors.items()}, self._inside[indices])


def _draw_factors(rng: np.random.Generator, background: int, shape: int) -> dict[str, int]:
    filling = (background + rng.integers(1, len(TEXTURES))) % len(TEXTURES)
    tints = rng.choice(len(TINTS), 2, replace=False)
    return dict(zip(FACTORS, map(int, (background, filling, shape, *tints)), strict=True))


def shape_opacity(shape: str, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How far a shape of random place, scale and rotation covers each pixel: (size, size), 0..1."""
    radius = rng.uniform(0.2, 0.36)
    top, left = rng.uniform(radius, 1 - radius, 2).tolist()
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = math.cos(turn), math.sin(turn)  # Python's numbers keep single precision
    place = (np.arange(size * _FINER, dtype=np.float32) + 0.5) / (size * _FINER)
    y, x = (place[:, None] - top) / radius, (place - left) / radius
    inside = _inside(shape, cos * x - sin * y, sin * x + cos * y)
    parts = [inside[row::_FINER, column::_FINER] for row in range(_FINER) for column in range(_FINER)]
    return np.sum(parts, axis=0, dtype=np.float32) / len(parts)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points lie in a shape of about radius 1 around the origin."""
    match shape:
        case "bar":
            return (abs(x) < 0.95) & (abs(y) < 0.4)
        case "circle":
            return np.hypot(x, y) < 0.85
        case "crescent":
            return (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.45, y) > 0.7)
        case "cross":
            return (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95)
        case "flower":
            return np.hypot(x, y) < 0.7 + 0.28 * np.cos(5 * np.arctan2(y, x))
        case "heart":
            u, v = 1.2 * x, 1.2 * y + 0.1
            return (u**2 + v**2 - 0.8) ** 3 < 2 * u**2 * v**3
        case "ring":
            return abs(np.hypot(x, y) - 0.775) < 0.225
        case "square":
            return np.maximum(abs(x), abs(y)) < 0.75
        case "star":
            return np.hypot(x, y) * np.cos(abs(_angle(x, y, 5)) - 0.35 * np.pi) < 0.36
        case "triangle":
            return np.hypot(x, y) * np.cos(_angle(x, y, 3)) < 0.5
    raise ValueError(f"shape: found {shape!r}, expected one of {SHAPES}")


def _angle(x: np.ndarray, y: np.ndarray, sectors: int) -> np.ndarray:
    """Angles from the middle of the sector of a circle in which a point lies."""
    width = 2 * np.pi / sectors
    return np.arctan2(y, x) % width - width / 2


def _patch(texture: int, tint: int, size: int, split: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A randomly placed, scaled, turned, lit and tinted piece of a photograph: (size, size, 3), 0..255."""
    blocks = _blocks(list(TEXTURES)[texture])[split]
    block = blocks[rng.integers(len(blocks))]
    side = int(rng.integers(_SMALLEST_CROP, _BLOCK + 1))
    top, left = (int(rng.integers(extent - side + 1)) for extent in block.shape)
    crop = Image.fromarray(block[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BILINEAR)
    turned = np.rot90(np.asarray(crop), rng.integers(4))
    gray = turned[:, ::-1] if rng.integers(2) else turned
    light = (0.5 + rng.uniform(-0.12, 0.12) + rng.uniform(0.6, 1.2) * (gray - 0.5)).clip(0, 1)
    dark, bright = np.array(list(TINTS.values())[tint], np.float32)
    return dark + light[..., None] * (bright - dark)


@cache
def _blocks(texture: str) -> dict[str, list[np.ndarray]]:
    """The blocks of a photograph, a quarter of them for validation: grey values of mean .5, deviation .2."""
    photograph = np.asarray(Image.open(Path(skimage.data.__file__).parent / TEXTURES[texture]).convert("L"), np.float32)
    standard = 0.5 + 0.2 * (photograph - photograph.mean()) / photograph.std()
    blocks: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for row, band in enumerate(np.array_split(standard, standard.shape[0] // _BLOCK, axis=0)):
        for column, block in enumerate(np.array_split(band, standard.shape[1] // _BLOCK, axis=1)):
            blocks["validation" if (2 * row + column) % 4 == 0 else "train"].append(block)
    return blocks
