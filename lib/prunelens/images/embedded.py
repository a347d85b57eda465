"""The embedded data: images composed from photographs that scikit-image ships, with known concepts.

Every image shows a filled shape in front of a background. Background and filling are two different photographed
textures, each in one of a few tints; the class is the background's texture. The photographs are grey, so that color
says nothing of the class. Train and validation images are cut from disjoint blocks of every photograph.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from prunelens.images.imageset import ImageSet

TEXTURES = {
    "brick": "brick.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "handwriting": "text.png",
    "print": "page.png",
    "tissue": "ihc.png",
}
SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")
TINTS = {
    "grey": (1.0, 1.0, 1.0),
    "red": (1.0, 0.55, 0.5),
    "green": (0.6, 1.0, 0.55),
    "blue": (0.55, 0.7, 1.0),
    "yellow": (1.0, 0.95, 0.45),
    "magenta": (1.0, 0.55, 0.95),
}
KINDS = {"texture": TEXTURES, "shape": SHAPES, "tint": TINTS}  # of concepts
SPLITS = ("train", "validation")
_BLOCK = 86  # pixels: the least side of a block, and the largest side of a crop
_SMALLEST_CROP = 56  # pixels


def compose(n: int, size: int, split: str, seed: int) -> ImageSet:
    """Compose ``n`` images of ``size`` x ``size`` pixels; image i depends on (size, split, seed, i) only.

    Their concepts are those of `Concepts`.

    Raises:
        ValueError: ``split`` is none of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"split: found {split!r}, expected one of {SPLITS}")
    images = np.empty((n, size, size, 3), np.uint8)
    masks = np.empty((n, size, size), bool)
    drawn = []
    for i in range(n):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        concepts = _draw_concepts(rng)
        masks[i] = shape_mask(SHAPES[concepts["shape"]], size, rng)
        background = _patch(concepts["background"], concepts["background_tint"], size, split, rng)
        filling = _patch(concepts["filling"], concepts["filling_tint"], size, split, rng)
        images[i] = np.where(masks[i][..., None], filling, background)
        drawn.append(concepts)
    factors = {key: np.array([c[key] for c in drawn], np.int64) for key in _draw_concepts(np.random.default_rng(0))}
    return ImageSet(
        images=images,
        labels=factors["background"],
        names=[f"{split}/{seed}/{i:06d}" for i in range(n)],
        class_names=list(TEXTURES),
        outputs=np.arange(len(TEXTURES)),
        concepts=Concepts(factors, masks),
    )


class Concepts(Mapping[str, np.ndarray]):
    """By name, the pixels that show a concept: bool (n, size, size), built on access (82 kB an image for all of them).

    8 textures and 6 tints ("texture:brick", "tint:red"), on the background or the filling, and 6 shapes ("shape:ring").
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


def _draw_concepts(rng: np.random.Generator) -> dict[str, int]:
    background, filling = rng.choice(len(TEXTURES), 2, replace=False)
    background_tint, filling_tint = rng.choice(len(TINTS), 2, replace=False)
    return {
        "background": int(background),
        "filling": int(filling),
        "shape": int(rng.integers(len(SHAPES))),
        "background_tint": int(background_tint),
        "filling_tint": int(filling_tint),
    }


def shape_mask(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a shape of random place, scale and rotation: bool (size, size)."""
    radius = rng.uniform(0.18, 0.32)
    center = rng.uniform(radius, 1 - radius, 2)
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size + 0.5 / size
    y, x = (y - center[0]) / radius, (x - center[1]) / radius
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    match shape:
        case "circle":
            return distance < 0.85
        case "ring":
            return (distance < 1) & (distance > 0.5)
        case "square":
            return np.maximum(abs(x), abs(y)) < 0.75
        case "cross":
            return (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95)
        case "triangle":
            return _polygon(distance, angle, 3)
        case "star":
            return distance < 0.7 + 0.3 * np.cos(5 * angle)
    raise ValueError(f"shape: found {shape!r}, expected one of {SHAPES}")


def _polygon(distance: np.ndarray, angle: np.ndarray, corners: int) -> np.ndarray:
    sector = 2 * np.pi / corners
    return distance * np.cos((angle % sector) - sector / 2) < np.cos(sector / 2)


def _patch(texture: int, tint: int, size: int, split: str, rng: np.random.Generator) -> np.ndarray:
    """A randomly placed, scaled, turned and lit piece of a photograph: uint8 (size, size, 3)."""
    blocks = _blocks(list(TEXTURES)[texture])[split]
    block = blocks[rng.integers(len(blocks))]
    side = int(rng.integers(_SMALLEST_CROP, _BLOCK + 1))
    top, left = (int(rng.integers(extent - side + 1)) for extent in block.shape)
    crop = Image.fromarray(block[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BILINEAR)
    turned = np.rot90(np.asarray(crop), rng.integers(4))
    gray = turned[:, ::-1] if rng.integers(2) else turned
    light = 0.5 + rng.uniform(-0.12, 0.12) + rng.uniform(0.6, 1.2) * (gray - 0.5)
    return (light[..., None] * np.array(list(TINTS.values())[tint]) * 255).clip(0, 255).astype(np.uint8)


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
