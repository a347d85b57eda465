"""The embedded data: deterministic, split by region, and true to its concepts."""

import numpy as np
import pytest

from prunelens import textures


def test_an_image_depends_on_its_index_only() -> None:
    few, many = textures.compose(4, 32, "train", 0), textures.compose(12, 32, "train", 0)
    assert np.array_equal(few.images, many.images[:4]) and few.names == many.names[:4]
    assert not np.array_equal(few.images, textures.compose(4, 32, "train", 1).images)


def test_train_and_validation_blocks_never_overlap() -> None:
    for texture in textures.TEXTURES:
        blocks = textures._blocks(texture)
        spans = {
            split: [(b.__array_interface__["data"][0], b.shape, b.strides) for b in blocks[split]] for split in blocks
        }
        assert not set(spans["train"]) & set(spans["validation"])
        pixels = [{(start + y * strides[0] + x * strides[1]) for start, shape, strides in spans[split]
                   for y in (0, shape[0] - 1) for x in (0, shape[1] - 1)} for split in spans]  # fmt: skip
        assert not pixels[0] & pixels[1]
        assert all(min(block.shape) >= textures._BLOCK for split in blocks for block in blocks[split])


def test_concepts_are_what_is_in_the_image() -> None:
    found = textures.compose(200, 64, "train", 0)
    assert np.array_equal(found.labels, found.concepts["background"])
    assert (found.concepts["background"] != found.concepts["filling"]).all()
    assert set(found.concepts["shape"]) == set(range(len(textures.SHAPES)))
    covered = found.concepts["mask"].mean((1, 2))
    assert covered.min() > 0.02 and covered.max() < 0.4  # the class's cue covers most of every image
    tints = np.array(list(textures.TINTS.values()))
    for concept, mask in (("filling_tint", found.concepts["mask"]), ("background_tint", ~found.concepts["mask"])):
        for image, where, tint in zip(found.images[:50], mask, found.concepts[concept], strict=False):
            color = image[where].mean(0)
            assert np.allclose(color / color.max(), tints[tint] / tints[tint].max(), atol=0.15)


def test_every_shape_fits_and_differs() -> None:
    masks = {shape: textures.shape_mask(shape, 64, np.random.default_rng(3)) for shape in textures.SHAPES}
    assert all(mask.any() and not mask.all() for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"split: found 'test'"):
        textures.compose(1, 32, "test", 0)
