"""Image sets: parts that agree, batches, samples, one set of several, a hash of the content."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelens.images.imageset import ImageSet, balanced, concatenate, pixel_hash, sample, shared, to_batch


def image_set(
    labels: Sequence[int],
    outputs: Sequence[int] = (0, 1, 2),
    size: int = 4,
    prefix: str = "",
    concepts: Mapping[str, np.ndarray] | None = None,
) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    names = [f"{prefix}{label}/{i}.png" for i, label in enumerate(labels)]
    class_names = [f"class of {output}" for output in outputs]
    labels = np.array(labels, dtype=np.int64)
    return ImageSet(pixels, labels, names, class_names, np.array(outputs, dtype=np.int64), concepts)


def masks(*shown: int) -> np.ndarray:
    """A concept on a different number of pixels in each image of 4 x 4."""
    return np.arange(16).reshape(4, 4) < np.array(shown)[:, None, None]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((3, 4, 4, 3), np.float32), "images: expected uint8"),
        ("images", np.zeros((3, 4, 5, 3), np.uint8), "images: expected uint8"),
        ("images", np.zeros((3, 3, 4, 4), np.uint8), "images: expected uint8"),
        ("labels", np.zeros(3, np.int32), "labels: expected int64"),
        ("labels", np.zeros(2, np.int64), "labels: expected int64"),
        ("labels", np.array([0, 1, 3]), r"labels: expected 0\.\.2, found 0\.\.3"),
        ("labels", np.array([0, 1, -1]), r"labels: expected 0\.\.2, found -1\.\.1"),
        ("names", ["a", "b"], "names: expected one for each of 3 images, found 2"),
        ("names", ["a", "b", "a"], "names: 1 occur more than once: a"),
        ("outputs", np.array([0, 1]), "outputs: expected int64"),
        ("outputs", np.array([0, 1, 1]), "outputs: expected a different output"),
        ("concepts", {"shape": masks(1, 2)}, r"concept shape: expected bool \(3, 4, 4\), found bool \(2, 4, 4\)"),
        ("concepts", {"shape": np.zeros((3, 4, 4))}, "concept shape: expected bool .*, found float64"),
    ],
)
def test_parts_that_disagree_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(image_set([0, 1, 2]), **{field: value})


def test_batches_keep_order_and_values() -> None:
    images = image_set([0, 1, 2, 0, 1])
    batches = list(images.batches(2, "cpu"))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == images.labels.tolist()
    pixels = torch.cat([pixels for pixels, _ in batches])
    assert pixels.dtype == torch.float32 and pixels.shape == (5, 3, 4, 4)
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal((pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy(), images.images)
    assert pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), "u1")]
)
def test_a_batch_is_made_of_uint8_images_alone(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        to_batch(images, "cpu")


def test_subset_takes_rows_of_everything_in_the_order_asked_for() -> None:
    images = image_set([0, 1, 2, 0], concepts={"shape": masks(1, 2, 3, 4)})
    part = images.subset([3, 1])
    np.testing.assert_array_equal(part.images, images.images[[3, 1]])
    assert part.labels.tolist() == [0, 1]
    assert part.names == [images.names[3], images.names[1]]
    assert part.concepts["shape"].sum((1, 2)).tolist() == [4, 2]
    assert part.class_names == images.class_names and len(part) == 2


def test_content_depends_on_all_that_results_depend_on() -> None:
    images = image_set([0, 1, 2], concepts={"shape": masks(1, 2, 3)})
    other = images.images.copy()
    other[2, 3, 3, 2] ^= 1
    changed = [
        replace(images, images=other),
        replace(images, labels=np.array([0, 2, 1])),
        replace(images, outputs=np.array([0, 2, 1])),
        replace(images, names=["a", "b", "c"]),
        replace(images, concepts={"shape": masks(1, 2, 4)}),
        replace(images, concepts=None),
        images.subset([0, 1]),
    ]
    assert len({found.content for found in [images, *changed]}) == 8
    assert images.subset([0, 1, 2]).content == images.content
    known = replace(images, pixels=pixel_hash(images.images))
    assert known.content == images.content and known.subset([1]).content == images.subset([1]).content


def test_concatenate_merges_classes_by_network_output() -> None:
    first = image_set([0, 1, 1], outputs=(7, 3), prefix="a")
    second = image_set([1, 0], outputs=(7, 5), prefix="b")
    both = concatenate([first, second])
    assert both.outputs.tolist() == [3, 5, 7]
    assert both.class_names == ["class of 3", "class of 5", "class of 7"]
    assert both.outputs[both.labels].tolist() == [7, 3, 3, 5, 7]
    assert both.names == first.names + second.names
    np.testing.assert_array_equal(both.images[3:], second.images)
    assert both.labels.dtype == np.int64 and both.concepts is None


def test_concatenate_joins_concepts() -> None:
    first = image_set([0], prefix="a", concepts={"shape": masks(4)})
    second = image_set([1], prefix="b", concepts={"shape": masks(6)})
    assert concatenate([first, second]).concepts["shape"].sum((1, 2)).tolist() == [4, 6]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (image_set([0], size=8, prefix="b"), "one image size"),
        (image_set([0], concepts={"shape": masks(0)}, prefix="b"), "same concepts"),
        (image_set([0]), "names: 1 occur more than once: 0/0.png"),
        (replace(image_set([0], prefix="b"), class_names=list("xyz")), "output 0 is called"),
    ],
)
def test_concatenate_refuses_sets_that_disagree(second: ImageSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        concatenate([image_set([0]), second])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.data())
def test_sample_is_balanced_reproducible_and_nested(labels: list[int], data: st.DataObject) -> None:
    images = image_set(labels)
    n = data.draw(st.integers(0, len(labels)))
    seed = data.draw(st.integers(0, 5))
    chosen = sample(images, n, seed)
    assert len(chosen) == n and len(set(chosen.names)) == n
    assert chosen.names == sample(images, n, seed).names
    assert set(sample(images, n // 2, seed).names) <= set(chosen.names)
    available, taken = (np.bincount(s.labels, minlength=3) for s in (images, chosen))
    # A class that still has images is at most one behind any other.
    assert all(taken[c] >= taken.max() - 1 for c in range(3) if taken[c] < available[c])
    places = [images.names.index(name) for name in chosen.names]
    assert places == sorted(places)


def test_sample_depends_on_the_seed_and_needs_enough_images() -> None:
    images = image_set([0, 1, 2] * 20)
    assert sample(images, 30, seed=0).names != sample(images, 30, seed=1).names
    with pytest.raises(ValueError, match="sample: found 61, expected at most 60"):
        sample(images, 61, seed=0)


def test_balanced_takes_equally_many_of_the_classes_wanted_and_none_of_others() -> None:
    images = image_set([0, 0, 0, 0, 1, 1, 2, 2, 2], outputs=(3, 5, 9))
    chosen = balanced(images, [3, 9], seed=0)
    assert images.labels[chosen].tolist() == [0, 0, 0, 2, 2, 2]  # three each, of the three of class 2
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    picked = {tuple(balanced(images, [5, 3], seed)) for seed in range(20)}
    assert len(picked) > 1 and all(images.labels[list(p)].tolist() == [0, 0, 1, 1] for p in picked)
    assert balanced(images, [3, 4], seed=0).tolist() == []  # no image stands for output 4


def test_shared_finds_images_by_their_pixels() -> None:
    images = image_set([0, 1, 2, 0])
    other = replace(images.subset([2, 0]), names=["renamed", "too"])
    assert shared(images, other) == [images.names[0], images.names[2]]
    assert shared(images.subset([1]), other) == []


def test_pixels_and_concepts_cannot_be_spoiled_by_who_sees_them() -> None:
    found = replace(image_set([0, 1]), concepts={"shape": masks(1, 2)})
    for array in (found.images, found.concepts["shape"], found.subset([0]).images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_image_sets_are_opened_without_pytorch() -> None:
    code = "import sys, prunelens.images.sources, prunelens.images.folders; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
