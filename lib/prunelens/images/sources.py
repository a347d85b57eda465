"""Image sources: functions (split, n, size, seed) -> ImageSet. One of your own has this signature too.

split is "train" or "validation"; n is the number of images, or None for all there are; size is in pixels.
Both splits have the same classes. Known concepts are optional; see `ImageSet`.
"""

from collections.abc import Callable

from prunelens.images.embedded import compose
from prunelens.images.imageset import ImageSet, first, shared
from prunelens.registry import describe

Source = Callable[[str, int | None, int, int], ImageSet]


@describe("embedded textures")
def embedded(split: str, n: int | None, size: int, seed: int) -> ImageSet:
    """Images composed from photographs of textures, with known concepts; see `prunelens.images.embedded`.

    Raises:
        ValueError: no number of images is given.
    """
    if n is None:
        raise ValueError("data.train_images and data.validation_images: embedded data needs a number")
    return compose(n, size, split, seed)


def check(source: Source, size: int, outputs: int) -> None:
    """Try a source on a few images of each split.

    Raises:
        ValueError: it gives no image sets of that size and number with equal classes and different images, gives
            others when it is asked again, or has a class for which the network has no output.
    """
    found = {split: source(split, 8, size, 0) for split in ("train", "validation")}
    for split, images in found.items():
        if not isinstance(images, ImageSet):
            raise ValueError(f"gave {split} images as {type(images).__name__}, expected an ImageSet")
        if len(images) != 8 or images.images.shape[1] != size:
            raise ValueError(f"gave {split} images {images.images.shape}, expected (8, {size}, {size}, 3)")
        if source(split, 8, size, 0).content != images.content:
            raise ValueError(f"gave other {split} images when it was asked again, expected the same for the same seed")
        if (most := int(images.outputs.max())) >= outputs:
            raise ValueError(f"gave a class for output {most}, expected less than network.outputs = {outputs}")
    train, validation = found.values()
    if train.class_names != validation.class_names or train.outputs.tolist() != validation.outputs.tolist():
        raise ValueError("gave other classes or outputs for train than for validation, expected the same")
    if both := shared(train, validation):
        raise ValueError(f"gave images for train that are in validation too: {first(both)}")
