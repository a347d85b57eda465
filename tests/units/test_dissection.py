from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prunelens.images.imageset import ImageSet
from prunelens.units import dissection, measures
from prunelens.units.dissection import dissect, overlaps
from prunelens.units.recording import ArraySource, Recording, Settings


def in_batches(maps: dict[str, np.ndarray], size: int) -> Iterator[tuple[str, slice, Tensor]]:
    n = len(next(iter(maps.values())))
    for start in range(0, n, size):
        place = slice(start, min(start + size, n))
        for layer, values in maps.items():
            yield layer, place, torch.from_numpy(values[place])


def dissected(maps: dict[str, np.ndarray], masks: np.ndarray, quantile: float, size: int = 5) -> dict[str, np.ndarray]:
    return dissect(lambda: in_batches(maps, size), masks, quantile)


@pytest.fixture
def painted() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Maps of units that see red, green and blue, at full size, at a quarter of it, and a constant; and concepts.

    20 black images of 16 px have a red square of 4 px: concepts are where it is, where its left half is, and nothing.
    """
    images, masks = np.zeros((20, 3, 16, 16), np.float32), np.zeros((20, 3, 16, 16), bool)
    for i, (row, column) in enumerate(np.random.default_rng(0).integers(0, 4, (20, 2)) * 4):
        images[i, 0, row : row + 4, column : column + 4] = 200 + i  # all different: no ties between images
        masks[i, 0, row : row + 4, column : column + 4] = True
        masks[i, 1, row : row + 4, column : column + 2] = True
    pooled = F.avg_pool2d(torch.from_numpy(images), 4).numpy()
    return {"full": images, "pooled": pooled, "constant": np.ones((20, 2, 16, 16), np.float32)}, masks


@pytest.mark.parametrize("size", [1, 7, 20])
def test_dissection_by_hand(painted, size):
    maps, masks = painted
    # The squares are 1/16 of all places: at a quantile of 15/16 the peaks are the squares.
    found = dissected(maps, masks, 15 / 16, size)
    assert {name: iou.shape for name, iou in found.items()} == {"full": (3, 3), "pooled": (3, 3), "constant": (2, 3)}
    for name in ("full", "pooled"):
        # The square exactly; half of it, also where one place of the map stands for it all; no such concept.
        np.testing.assert_allclose(found[name][0], [1, 0.5, 0], atol=1e-6)
        assert np.isnan(found[name][1:]).all()  # the images are neither green nor blue
    assert np.isnan(found["constant"]).all()


def test_dissection_keeps_the_share_of_places_that_the_quantile_says(painted):
    maps, masks = painted
    # 5 of the 20 squares, those of the brightest images, are peaks: of 20 squares, 5 / 20.
    assert dissected(maps, masks, 1 - 5 / 320)["pooled"][0, 0] == pytest.approx(5 / 20)


def test_dissection_is_the_iou_in_pixels_of_maps_upsampled_to_the_nearest_neighbor():
    rng = np.random.default_rng(1)
    maps = rng.random((12, 3, 4, 4)).astype(np.float32)
    masks = rng.random((12, 4, 16, 16)) < 0.3
    found = dissected({"a": maps}, masks, 0.9)["a"]
    for unit in range(3):
        threshold = np.quantile(maps[:, unit], 0.9, method="inverted_cdf")
        peak = (maps[:, unit] > threshold).repeat(4, axis=1).repeat(4, axis=2)
        for concept in range(4):
            mask = masks[:, concept]
            assert found[unit, concept] == pytest.approx((peak & mask).sum() / (peak | mask).sum(), abs=1e-6)


def test_dissection_refuses_what_it_cannot_compare(painted):
    maps, masks = painted
    with pytest.raises(ValueError, match=r"fc has no maps to dissect: its output is \(5, 4\)"):
        dissected({"full": maps["full"], "fc": np.zeros((20, 4), np.float32)}, masks, 0.9)
    with pytest.raises(ValueError, match="expected those of 20 images, found 19"):
        dissected(maps, masks[1:], 0.9)
    with pytest.raises(ValueError, match="found uint8"):
        dissected(maps, masks.astype(np.uint8), 0.9)
    with pytest.raises(ValueError, match="quantile"):
        dissected(maps, masks, 1.0)


def test_the_measure_is_the_largest_overlap_on_an_even_sample_of_the_stimuli(painted, monkeypatch):
    maps, masks = painted
    concepts = {name: masks[:, i] for i, name in enumerate(("square", "half", "nothing"))}
    labels = np.arange(20) % 4
    stimuli = ImageSet(
        np.zeros((20, 16, 16, 3), np.uint8), labels, [str(i) for i in range(20)], list("abcd"), np.arange(4), concepts
    )
    activations = {name: values.mean(axis=(2, 3)) for name, values in maps.items()}
    activations["output"] = np.random.default_rng(0).standard_normal((20, 4), dtype=np.float32)
    seen = []

    class Source(ArraySource):
        def maps(self, layers: list[str], images: np.ndarray) -> Iterator[tuple[str, slice, Tensor]]:
            seen.append(len(images))
            return super().maps(layers, images)

    settings = Settings(tasks=2, explanations=1)
    monkeypatch.setattr(dissection, "QUANTILE", 15 / 16)
    recording = Recording(Source(activations, maps), stimuli, np.ones((20, 1), np.float32), settings)
    np.testing.assert_allclose(measures.dissection(recording, "full"), [1, np.nan, np.nan])
    assert np.isnan(measures.dissection(recording, "output")).all()
    assert list(overlaps(recording)) == ["full", "pooled", "constant"]
    assert seen == [20, 20]  # two passes for all layers

    monkeypatch.setattr(dissection, "IMAGES", 8)
    sampled = Recording(Source(activations, maps), stimuli, np.ones((20, 1), np.float32), settings)
    with pytest.raises(ValueError, match="maps of 20 images, asked for 8"):
        measures.dissection(sampled, "full")
