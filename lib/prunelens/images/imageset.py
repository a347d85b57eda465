"""Image sets: uint8 images of one size with labels, and ways to batch, sample and join them."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH = 64  # images of a forward pass: a constant, since another size changes the last digits of results


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size.

    images: uint8 (n, size, size, 3), RGB, an array or a memory map. labels: int64 (n,), 0..classes-1.
    names: an id per image, such as "CLASS/FILE". class_names: a readable name per class.
    outputs: int64 (classes,), the network output that stands for each class.
    concepts: by name ("shape:ring"), the pixels that show it: bool (n, size, size); None where none are known.
    pixels: hash of the images (see `pixel_hash`), where it is known already.

    Pixels and concepts are read-only: all networks, measures and methods see the same ones. Raises ValueError where
    these disagree, or a name occurs twice.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    class_names: list[str]
    outputs: np.ndarray
    concepts: Mapping[str, np.ndarray] | None = None
    pixels: str | None = None

    def __post_init__(self) -> None:
        shape, classes = self.images.shape, len(self.class_names)
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"images: expected uint8 (n, size, size, 3), found {self.images.dtype} {shape}")
        _check("labels", self.labels, np.dtype(np.int64), shape[:1])
        _check("outputs", self.outputs, np.dtype(np.int64), (classes,))
        if len(self.names) != shape[0]:
            raise ValueError(f"names: expected one for each of {shape[0]} images, found {len(self.names)}")
        if len(np.unique(self.outputs)) != classes or (self.outputs < 0).any():
            raise ValueError(f"outputs: expected a different output for each class, found {self.outputs.tolist()}")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise ValueError(f"labels: expected 0..{classes - 1}, found {self.labels.min()}..{self.labels.max()}")
        if len(set(self.names)) < len(self.names):
            repeated = [name for name, count in Counter(self.names).items() if count > 1]
            raise ValueError(f"names: {len(repeated)} occur more than once: {first(repeated)}")
        object.__setattr__(self, "images", read_only(self.images))
        if isinstance(self.concepts, dict):  # a mapping of another type builds its masks on access
            for name, concept in self.concepts.items():
                _check(f"concept {name}", concept, np.dtype(bool), shape[:3])
            object.__setattr__(self, "concepts", {name: read_only(each) for name, each in self.concepts.items()})

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def content(self) -> str:
        """Hash of all that results depend on: pixels, labels, names, outputs and concepts."""
        concepts = {name: pixel_hash(self.concepts[name]) for name in self.concepts or ()}
        facts = (self.images.shape, self.pixels or pixel_hash(self.images), self.names, self.outputs.tolist(), concepts)
        return hashlib.sha256(repr(facts).encode() + self.labels.tobytes()).hexdigest()

    def table(self) -> pd.DataFrame:
        """Name and class of every image: name, class_name."""
        return pd.DataFrame({"name": self.names, "class_name": np.array(self.class_names)[self.labels]})

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at `indices`, in that order, copied into memory; the classes stay as they are."""
        indices = np.asarray(indices, dtype=np.int64)
        images, names = np.asarray(self.images[indices]), [self.names[i] for i in indices]
        concepts = None if self.concepts is None else _take(self.concepts, indices)
        return replace(self, images=images, labels=self.labels[indices], names=names, concepts=concepts, pixels=None)

    def batches(self, batch_size: int, device: "torch.device | str") -> "Iterator[tuple[Tensor, Tensor]]":
        """All images in order: batches as of `to_batch`, and int64 labels."""
        import torch

        for start in range(0, len(self), batch_size):
            labels = torch.from_numpy(np.array(self.labels[start : start + batch_size])).to(device)
            yield to_batch(self.images[start : start + batch_size], device), labels


def _check(name: str, array: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name}: expected {dtype} {shape}, found {array.dtype} {array.shape}")


def read_only(array: np.ndarray) -> np.ndarray:
    """A view of an array that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def pixel_hash(images: np.ndarray) -> str:
    """SHA-256 of the bytes of images, or of masks, in order."""
    digest = hashlib.sha256()
    for start in range(0, len(images), 512):  # in pieces, for memory maps
        digest.update(np.ascontiguousarray(images[start : start + 512]))
    return digest.hexdigest()


def to_batch(images: np.ndarray, device: "torch.device | str") -> "Tensor":
    """Images (n, height, width, 3) uint8 as networks take them: float32 (n, 3, height, width) in [0, 1], channels last.

    Raises ValueError for images of another kind.
    """
    import torch

    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(f"expected uint8 images (n > 0, height, width, 3), found {images.dtype} {images.shape}")
    # The copy reads a memory map. Bytes travel to the device as uint8, a quarter of the floats.
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float().div(255)


def _take(concepts: Mapping[str, np.ndarray], indices: np.ndarray) -> Mapping[str, np.ndarray]:
    """The concepts of some images; a mapping that builds masks on access has a method `take` of its own."""
    own = getattr(concepts, "take", None)
    return own(indices) if own else {name: concept[indices] for name, concept in concepts.items()}


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
    class_of: dict[int, str] = {}
    for image_set in image_sets:
        for output, name in zip(image_set.outputs.tolist(), image_set.class_names, strict=True):
            if class_of.setdefault(output, name) != name:
                raise ValueError(f"concatenate: output {output} is called {class_of[output]} and {name}")
    outputs = np.array(sorted(class_of), dtype=np.int64)
    return ImageSet(
        images=np.concatenate([image_set.images for image_set in image_sets]),
        labels=np.concatenate([np.searchsorted(outputs, s.outputs[s.labels]) for s in image_sets]),
        names=[name for image_set in image_sets for name in image_set.names],
        class_names=[class_of[output] for output in outputs.tolist()],
        outputs=outputs,
        concepts={k: np.concatenate([s.concepts[k] for s in image_sets]) for k in concepts.pop()} or None,
    )


def sample(image_set: ImageSet, n: int, seed: int, key: str = "sample") -> ImageSet:
    """`n` random images, as evenly spread over the classes as the set allows, in the set's order.

    With one seed a smaller sample is part of every larger one. Raises ValueError, which names the key, if there are
    fewer than `n` images.
    """
    if n > len(image_set):
        raise ValueError(f"{key}: found {n}, expected at most {len(image_set)}, as many images as there are")
    # Every class gives its first image, then every class its second one, and so on.
    order, turn = _dealt(image_set.labels, seed)
    return image_set.subset(np.sort(order[np.argsort(turn, kind="stable")[:n]]))


def balanced(image_set: ImageSet, outputs: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Indices, in the set's order, of equally many random images of each class that these outputs stand for.

    As many as the rarest of these classes has, so none where one has none; images of other classes are left out.
    """
    shown = image_set.outputs[image_set.labels]
    fewest = min(np.count_nonzero(shown == output) for output in outputs)
    order, turn = _dealt(shown, seed)
    return np.sort(order[np.isin(shown[order], outputs) & (turn < fewest)])


def _dealt(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All indices in random order, and the how-manieth of its group each one is there."""
    order = np.random.default_rng(seed).permutation(len(groups))
    return order, pd.Series(order).groupby(groups[order]).cumcount().to_numpy()


def shared(one: ImageSet, other: ImageSet) -> list[str]:
    """Names of the images of `one` whose very pixels are in `other` too."""
    known = set(_hashes(other.images))
    return [name for name, digest in zip(one.names, _hashes(one.images), strict=True) if digest in known]


def _hashes(images: np.ndarray) -> Iterator[bytes]:
    return (hashlib.sha256(image.tobytes()).digest() for image in images)


def first(items: Sequence[str], shown: int = 5) -> str:
    """The first few items as text, and how many more there are."""
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")
