import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from prunelens import datasets, interpretability, measures, textures


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.fixture
def rows() -> np.ndarray:
    """Embeddings of 30 images, of any length."""
    return 5 * np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


# ------------------------------------------------------------------------------- similarity of what activates


def test_clarity_is_the_mean_cosine_of_pairs(rows):
    top = np.stack([np.random.default_rng(u).permutation(30)[:10] for u in range(4)])
    first, second = np.triu_indices(10, 1)
    expected = [cosines(rows)[u[first], u[second]].mean() for u in top]
    np.testing.assert_allclose(measures.clarity(top, rows), expected, atol=1e-6)
    np.testing.assert_allclose(measures.clarity(top, np.tile(rows[:1], (30, 1))), 1, atol=1e-5)
    with pytest.raises(ValueError, match="at least 2"):
        measures.clarity(top[:, :1], rows)


def test_clarity_by_hand():
    rows = np.array([[2, 0], [1, 0], [0, 3], [-1, 0]], np.float32)
    # Cosines: of 0, 1, 2: 1, 0, 0; of 0 and 3: -1, the least that n = 2 can have.
    assert measures.clarity(np.array([[0, 1, 2]]), rows)[0] == pytest.approx(1 / 3)
    assert measures.clarity(np.array([[0, 3]]), rows)[0] == pytest.approx(-1)


def test_monosemanticity_is_the_weighted_mean_cosine_of_pairs(rows):
    values = np.random.default_rng(1).standard_normal((30, 1500)).astype(np.float32)  # more than one chunk
    found = measures.monosemanticity(values, rows)
    first, second = np.triu_indices(30, 1)
    for unit in (0, 1499):
        scaled = (values[:, unit] - values[:, unit].min()) / np.ptp(values[:, unit])
        weights = scaled[first] * scaled[second]
        expected = (weights * cosines(rows)[first, second]).sum() / weights.sum()
        assert found[unit] == pytest.approx(expected, abs=1e-5)


def test_monosemanticity_by_hand():
    rows = np.array([[1, 0], [3, 0], [0, 1], [0, 2]], np.float32)
    values = np.array(
        [
            [2, 4, 1, 7, 5],
            [2, 4, 1, 7, 0],
            [0, 4, 0, 7, 0],
            [0, 0, 1, 7, 0],
        ],
        np.float32,
    )
    # Weights (1, 1, 0, 0): one pair, cosine 1. (1, 1, 1, 0): pairs 1, 0, 0. (1, 1, 0, 1): 1, 0, 0. Dead. One image.
    np.testing.assert_allclose(measures.monosemanticity(values, rows), [1, 1 / 3, 1 / 3, np.nan, np.nan], atol=1e-6)
    # Neither scale nor offset of a unit matters.
    np.testing.assert_allclose(measures.monosemanticity(3 * values[:, :3] - 5, rows), [1, 1 / 3, 1 / 3], atol=1e-6)


@pytest.mark.parametrize(
    "measure", [measures.monosemanticity, lambda values, rows: measures.clarity(values[:2].astype(int), rows)]
)
def test_a_bad_embedding_is_named(measure, rows):
    rows[[4, 7], 1] = np.nan
    with pytest.raises(ValueError, match="2 of 30 images are not finite, the first of image 4"):
        measure(np.ones((30, 3), np.float32), rows)


# ----------------------------------------------------------------------------------------------- selectivity


def test_class_selectivity_by_hand():
    labels = np.array([0, 0, 1, 2])
    # Class means: (1, 0, 0) -> 1; (2, 2, 2) -> 0; (4, 1, 3) -> (4 - 2) / (4 + 2); silent -> undefined.
    values = np.array([[1, 2, 3, 0], [1, 2, 5, 0], [0, 2, 1, 0], [0, 2, 3, 0]], np.float32)
    np.testing.assert_allclose(measures.class_selectivity(values, labels), [1, 0, 1 / 3, np.nan])
    with pytest.raises(ValueError, match="after the ReLU"):
        measures.class_selectivity(values - 1, labels)
    with pytest.raises(ValueError, match="found 1"):
        measures.class_selectivity(values, np.zeros(4, int))
    with pytest.raises(ValueError, match="4 images, but labels of 3"):
        measures.class_selectivity(values, labels[:3])


def test_lifetime_sparseness_by_hand():
    # One image of four: 1. All alike: 0. (3, 1, 0, 0): mean 1, mean square 2.5: (1 - 1 / 2.5) / (3 / 4) = .8.
    values = np.array([[7, 2, 3, 0], [0, 2, 1, 0], [0, 2, 0, 0], [0, 2, 0, 0]], np.float32)
    np.testing.assert_allclose(measures.lifetime_sparseness(values), [1, 0, 0.8, np.nan], atol=1e-7)
    np.testing.assert_allclose(measures.lifetime_sparseness(10 * values), [1, 0, 0.8, np.nan], atol=1e-7)
    with pytest.raises(ValueError, match=r"lifetime sparseness is defined after the ReLU: found an activation of -1"):
        measures.lifetime_sparseness(values - 1)
    with pytest.raises(ValueError, match="found 1"):
        measures.lifetime_sparseness(values[:1])


def test_redundancy_by_hand():
    x = np.array([1, -1, 1, -1], np.float32)
    y = np.array([1, 1, -1, -1], np.float32)
    dead = np.full(4, 1e4, np.float32)
    # x and -3 x + 5 are one unit; y is no one else's; (3 x + 4 y) / 5 correlates .6 with x and .8 with y.
    values = np.stack([x, -3 * x + 5, y, dead], axis=1)
    np.testing.assert_allclose(measures.redundancy(values), [1, 1, 0, np.nan], atol=1e-6)
    values = np.stack([x, y, (3 * x + 4 * y) / 5], axis=1)
    np.testing.assert_allclose(measures.redundancy(values), [0.6, 0.8, 0.8], atol=1e-6)
    assert np.isnan(measures.redundancy(np.stack([x, dead], axis=1))).all()


def test_redundancy_of_many_units_is_the_largest_correlation():
    values = np.random.default_rng(0).standard_normal((40, 1100)).astype(np.float32)  # more than one chunk
    expected = np.abs(np.corrcoef(values.T))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(measures.redundancy(values), expected.max(axis=1), atol=1e-5)


def test_a_layer_of_dead_units_has_no_measures(rows):
    dead = np.zeros((30, 3), np.float32)
    labels, concepts = np.arange(30) % 2, np.eye(30, dtype=bool)
    for found in (
        measures.monosemanticity(dead, rows),
        measures.class_selectivity(dead, labels),
        measures.lifetime_sparseness(dead),
        measures.redundancy(dead),
        measures.concept_selectivity(dead, concepts),
    ):
        assert found.shape == (3,) and np.isnan(found).all()


# -------------------------------------------------------------------------------------------------- concepts


@pytest.fixture(scope="module")
def image_set() -> datasets.ImageSet:
    return textures.compose(40, 32, "validation", seed=0)


def test_concept_masks_partition_every_image(image_set):
    names, masks = measures.concept_masks(image_set)
    assert masks.shape == (40, 20, 32, 32) and masks.dtype == bool
    kinds = np.array([name.split(":")[0] for name in names])
    assert (kinds == np.repeat(["texture", "shape", "tint"], [8, 6, 6])).all() and len(set(names)) == 20
    # Every pixel has one texture and one tint; the shape's pixels have one shape.
    assert (masks[:, kinds == "texture"].sum(axis=1) == 1).all()
    assert (masks[:, kinds == "tint"].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(masks[:, kinds == "shape"].sum(axis=1), image_set.concepts["mask"])


def test_concept_masks_of_one_image(image_set):
    names, masks = measures.concept_masks(image_set)
    known = {key: value[3] for key, value in image_set.concepts.items()}
    shown = dict(zip(names, masks[3], strict=True))
    textures_, shapes, tints = list(textures.TEXTURES), textures.SHAPES, list(textures.TINTS)
    inside = known["mask"]
    np.testing.assert_array_equal(shown[f"texture:{textures_[known['background']]}"], ~inside)
    np.testing.assert_array_equal(shown[f"texture:{textures_[known['filling']]}"], inside)
    np.testing.assert_array_equal(shown[f"shape:{shapes[known['shape']]}"], inside)
    np.testing.assert_array_equal(shown[f"tint:{tints[known['background_tint']]}"], ~inside)
    np.testing.assert_array_equal(shown[f"tint:{tints[known['filling_tint']]}"], inside)
    assert sum(mask.any() for mask in shown.values()) == 5


def test_photographs_have_no_concept_masks():
    photographs = datasets.ImageSet(
        np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), ["a"], ["A"], np.zeros(1, np.int64)
    )
    with pytest.raises(ValueError, match="only the embedded data"):
        measures.concept_masks(photographs)


def test_concept_auc_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (50, 1100)).astype(np.float32)  # ties, and more than one chunk
    concepts = rng.random((50, 3)) < 0.3
    found = measures.concept_auc(values, concepts)
    assert found.shape == (1100, 3)
    for unit in (0, 1099):
        expected = [roc_auc_score(concepts[:, c], values[:, unit]) for c in range(3)]
        np.testing.assert_allclose(found[unit], expected, atol=1e-12)


def test_concept_selectivity_by_hand():
    # Concepts: on images 0, 1; on image 0; on all; on none.
    concepts = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]], bool)
    values = np.array(
        [
            [5, 1, 3, 2, 9],
            [4, 2, 1, 2, 1],
            [0, 7, 2, 2, 2],
            [0, 8, 0, 2, 3],
        ],
        np.float32,
    )
    # AUCs of the first two concepts; of the others there is none.
    expected = [[1, 1], [0, 0], [0.75, 1], [np.nan, np.nan], [0.5, 1]]
    found = measures.concept_auc(values, concepts)
    np.testing.assert_allclose(found[:, :2], expected)
    assert np.isnan(found[:, 2:]).all()
    np.testing.assert_allclose(measures.concept_selectivity(values, concepts), [1, 1, 1, np.nan, 1])
    np.testing.assert_allclose(measures.concept_selectivity(values, concepts[:, :1]), [1, 1, 0.5, np.nan, 0])
    with pytest.raises(ValueError, match="none of 2 concepts"):
        measures.concept_selectivity(values, concepts[:, 2:])
    with pytest.raises(ValueError, match="4 images, but concepts of 3"):
        measures.concept_auc(values, concepts[:3])


def test_concept_selectivity_reads_order_alone():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 5)).astype(np.float32)
    concepts = rng.random((60, 4)) < 0.4
    found = measures.concept_selectivity(values, concepts)
    np.testing.assert_allclose(measures.concept_selectivity(-np.exp(values), concepts), found)
    unrelated = interpretability.random_units(2000, 50, seed=0)
    assert measures.concept_selectivity(unrelated, rng.random((2000, 4)) < 0.5).max() < 0.12


# ---------------------------------------------------------------------------------------- Network Dissection


class Colors(nn.Module):
    """Units that see a colour channel: at full size, at a quarter of it by mean pooling, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 3, 1, bias=False)
        self.see.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
        self.shrink = nn.AvgPool2d(4)
        self.constant = nn.Conv2d(3, 2, 1)
        self.constant.weight.data.zero_()
        self.fc = nn.Linear(3, 4)
        self.unused = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.see(x)
        self.constant(x)
        return self.fc(torch.relu_(self.shrink(x)).mean((2, 3)))


@pytest.fixture
def painted() -> tuple[np.ndarray, np.ndarray]:
    """20 black images of 16 px with a red square of 4 px: and where it is, where its left half is, and nothing."""
    images, masks = np.zeros((20, 16, 16, 3), np.uint8), np.zeros((20, 3, 16, 16), bool)
    for i, (row, column) in enumerate(np.random.default_rng(0).integers(0, 4, (20, 2)) * 4):
        images[i, row : row + 4, column : column + 4, 0] = 200 + i  # all different: no ties between images
        masks[i, 0, row : row + 4, column : column + 4] = True
        masks[i, 1, row : row + 4, column : column + 2] = True
    return images, masks


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_dissection_by_hand(painted, batch_size):
    images, masks = painted
    network = Colors().train()
    layers = {"full": network.see, "pooled": network.shrink, "constant": network.constant}
    # The squares are 1/16 of all places: at a quantile of 15/16 the peaks are the squares.
    found = measures.dissect(network, layers, images, masks, batch_size, "cpu", quantile=15 / 16)
    assert {name: iou.shape for name, iou in found.items()} == {"full": (3, 3), "pooled": (3, 3), "constant": (2, 3)}
    for name in ("full", "pooled"):
        # The square exactly; half of it, also where one place of the map stands for it all; no such concept.
        np.testing.assert_allclose(found[name][0], [1, 0.5, 0], atol=1e-6)
        assert np.isnan(found[name][1:]).all()  # the images are neither green nor blue
    assert np.isnan(found["constant"]).all()
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_dissection_keeps_the_share_of_places_that_the_quantile_says(painted):
    images, masks = painted
    network = Colors()
    # 5 of the 20 squares, those of the brightest images, are peaks: of 20 squares, 5 / 20.
    found = measures.dissect(network, {"pooled": network.shrink}, images, masks, 6, "cpu", quantile=1 - 5 / 320)
    assert found["pooled"][0, 0] == pytest.approx(5 / 20)


def test_dissection_is_the_iou_in_pixels_of_maps_upsampled_to_the_nearest_neighbour():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    masks = rng.random((12, 4, 16, 16)) < 0.3
    network = Colors()
    found = measures.dissect(network, {"pooled": network.shrink}, images, masks, 5, "cpu", quantile=0.9)["pooled"]
    maps = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, 4).numpy()
    for unit in range(3):
        threshold = np.quantile(maps[:, unit], 0.9, method="inverted_cdf")
        peak = (maps[:, unit] > threshold).repeat(4, axis=1).repeat(4, axis=2)
        for concept in range(4):
            mask = masks[:, concept]
            assert found[unit, concept] == pytest.approx((peak & mask).sum() / (peak | mask).sum(), abs=1e-6)


def test_dissection_refuses_what_it_cannot_compare(painted):
    images, masks = painted
    network = Colors()
    with pytest.raises(ValueError, match=r"fc has no maps to dissect: its output is \(5, 4\)"):
        measures.dissect(network, {"see": network.see, "fc": network.fc}, images, masks, 5, "cpu")
    with pytest.raises(ValueError, match="never calls skipped"):
        measures.dissect(network, {"skipped": network.unused}, images, masks, 5, "cpu")
    with pytest.raises(ValueError, match=r"expected bool \(20, concepts, size, size\), found bool \(19, 3, 16, 16\)"):
        measures.dissect(network, {"see": network.see}, images, masks[1:], 5, "cpu")
    with pytest.raises(ValueError, match=r"found uint8"):
        measures.dissect(network, {"see": network.see}, images, masks.astype(np.uint8), 5, "cpu")
    with pytest.raises(ValueError, match="quantile"):
        measures.dissect(network, {"see": network.see}, images, masks, 5, "cpu", quantile=1.0)
    assert not any(module._forward_hooks for module in network.modules())


# -------------------------------------------------------------------------------------- feature visualizations


def test_alikeness_is_the_mean_cosine_of_all_pairs():
    pictures = np.array([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [3.0, 0.0]]])
    images = np.array([[[5.0, 0.0]], [[0.0, -1.0]]])
    np.testing.assert_allclose(measures.alikeness(pictures, images), [0.5, 0.0], atol=1e-7)


def test_consistency_is_the_mean_cosine_over_pairs_of_different_starts():
    rng = np.random.default_rng(0)
    pictures, others = rng.standard_normal((2, 4, 3, 5))
    unit = lambda rows: rows / np.linalg.norm(rows, axis=-1, keepdims=True)  # noqa: E731
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    for other in (None, others):
        second = pictures if other is None else others
        expected = np.mean([(unit(pictures)[:, i] * unit(second)[:, j]).sum(1) for i, j in pairs], axis=0)
        np.testing.assert_allclose(measures.consistency(pictures, other), expected, atol=1e-6)
    with pytest.raises(ValueError, match="different starts: found 1"):
        measures.consistency(pictures[:, :1])
