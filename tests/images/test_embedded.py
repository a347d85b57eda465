"""The embedded data: deterministic, split by region, and true to its concepts."""

import hashlib

import numpy as np
import pytest

from prunelens.images import embedded


def test_images_are_those_that_the_committed_weights_were_trained_on() -> None:
    images = embedded.compose(6, 48, "train", 0)
    assert hashlib.sha256(images.images.tobytes()).hexdigest()[:16] == "15a3689ddb1328a0"
    assert images.labels.tolist() == [82, 36, 20, 5, 93, 16]


def test_an_image_depends_on_its_index_only() -> None:
    few, many = embedded.compose(4, 32, "train", 0), embedded.compose(12, 32, "train", 0)
    assert np.array_equal(few.images, many.images[:4]) and few.names == many.names[:4]
    assert not np.array_equal(few.images, embedded.compose(4, 32, "train", 1).images)


def test_train_and_validation_blocks_never_overlap() -> None:
    for texture in embedded.TEXTURES:
        blocks = embedded._blocks(texture)
        spans = {
            split: [(b.__array_interface__["data"][0], b.shape, b.strides) for b in blocks[split]] for split in blocks
        }
        assert not set(spans["train"]) & set(spans["validation"])
        pixels = [{(start + y * strides[0] + x * strides[1]) for start, shape, strides in spans[split]
                   for y in (0, shape[0] - 1) for x in (0, shape[1] - 1)} for split in spans]  # fmt: skip
        assert not pixels[0] & pixels[1]
        assert all(min(block.shape) >= embedded._BLOCK for split in blocks for block in blocks[split])


def test_concepts_are_what_is_in_the_image() -> None:
    found = embedded.compose(200, 64, "train", 0)
    concepts = {kind: np.stack([found.concepts[f"{kind}:{name}"] for name in known], axis=1)
                for kind, known in embedded.KINDS.items()}  # fmt: skip
    shape = concepts["shape"].any(1)
    covered = shape.mean((1, 2))
    assert covered.min() > 0.02 and covered.max() < 0.4  # the class's cue covers most of every image
    assert (concepts["shape"].any((2, 3)).sum(1) == 1).all(), "not one shape in every image"
    for kind in ("texture", "tint"):
        assert (concepts[kind].sum(1) == 1).all(), f"not one {kind} on every pixel"
        assert (concepts[kind].any((2, 3)).sum(1) == 2).all(), f"not two {kind}s in every image"
    background = (concepts["texture"] & ~shape[:, None]).any((2, 3)).argmax(1)
    shapes = concepts["shape"].any((2, 3)).argmax(1)
    assert [embedded.CLASSES[label] for label in found.labels] == list(zip(background, shapes, strict=True))
    assert np.bincount(found.labels).tolist() == [2] * 100, "not equally many of every class"
    assert (
        found.class_names[found.labels[0]] == f"{embedded.SHAPES[shapes[0]]} on {[*embedded.TEXTURES][background[0]]}"
    )
    for image, inside, tint in zip(found.images[:50], shape, concepts["tint"], strict=False):
        for where in (inside, ~inside):
            dark, light = np.array(list(embedded.TINTS.values())[(tint & where).any((1, 2)).argmax()], float)
            pixels = np.median(image[where].astype(float), axis=0)
            share = np.median((pixels - dark) / (light - dark))
            assert np.allclose(pixels, dark + share * (light - dark), atol=8), "not between its inks"


def test_concepts_are_a_mapping_that_subsets_follow() -> None:
    found = embedded.compose(12, 32, "validation", 0)
    assert len(found.concepts) == len(list(found.concepts)) == 26
    assert found.concepts["shape:ring"].dtype == bool and "shape:ring" in found.concepts
    part = found.subset([7, 2])
    for name in found.concepts:
        assert np.array_equal(part.concepts[name], found.concepts[name][[7, 2]])
    assert "shape:hexagon" not in found.concepts
    with pytest.raises(KeyError):
        found.concepts["color:red"]


def test_every_shape_fits_and_differs() -> None:
    """Whole within the image wherever it lies; no two shapes share nine tenths of their pixels."""
    for seed in range(20):
        drawn = {shape: embedded.shape_opacity(shape, 64, np.random.default_rng(seed)) for shape in embedded.SHAPES}
        for shape, opacity in drawn.items():
            assert opacity.min() >= 0 and opacity.max() == 1, shape
            border = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
            assert (border > 0).mean() < 0.15, shape
        masks = np.array([opacity > 0.5 for opacity in drawn.values()]).reshape(len(drawn), -1).astype(int)
        common = masks @ masks.T / (masks[:, None] | masks[None]).sum(2)
        assert (common - np.eye(len(drawn))).max() < 0.9


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"split: found 'test'"):
        embedded.compose(1, 32, "test", 0)
