import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from prunelens.images.imageset import ImageSet
from prunelens.registry import built_ins, describe
from prunelens.units import measures
from prunelens.units.recording import ArraySource, Recording, Settings


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def recorded(
    values: np.ndarray,
    embeddings: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    concepts: np.ndarray | None = None,
    top: np.ndarray | None = None,
    **settings: float,
) -> Recording:
    """One layer "a" of these activations (n, units), and two output units; concepts (n, concepts) fill a pixel."""
    n = len(values)
    labels = np.arange(n) % 2 if labels is None else labels
    classes = int(labels.max()) + 1
    known = None if concepts is None else {str(i): column[:, None, None] for i, column in enumerate(concepts.T)}
    images, names = np.zeros((n, 1, 1, 3), np.uint8), [str(i) for i in range(n)]
    stimuli = ImageSet(images, labels.astype(np.int64), names, ["c"] * classes, np.arange(classes), known)
    outputs = np.random.default_rng(0).standard_normal((n, 2), dtype=np.float32)
    source = ArraySource({"a": np.asarray(values, np.float32), "fc": outputs})
    found = None
    if top is not None:
        found = {f"{side}/{layer}": top for side in ("top", "bottom") for layer in ("a", "fc")}
    rows = np.ones((n, 2), np.float32) if embeddings is None else embeddings
    return Recording(source, stimuli, rows, Settings(**{"tasks": 1, "explanations": 1, **settings}), found)


@pytest.fixture
def rows() -> np.ndarray:
    """Embeddings of 30 images, of any length."""
    return 5 * np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


# ------------------------------------------------------------------------------- similarity of what activates


def clarity(top: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return measures.clarity(recorded(np.zeros((len(rows), len(top))), rows, top=top), "a")


def test_clarity_is_the_mean_cosine_of_pairs(rows):
    top = np.stack([np.random.default_rng(u).permutation(30)[:10] for u in range(4)])
    first, second = np.triu_indices(10, 1)
    expected = [cosines(rows)[u[first], u[second]].mean() for u in top]
    np.testing.assert_allclose(clarity(top, rows), expected, atol=1e-6)
    np.testing.assert_allclose(clarity(top, np.tile(rows[:1], (30, 1))), 1, atol=1e-5)


def test_clarity_by_hand():
    rows = np.array([[2, 0], [1, 0], [0, 3], [-1, 0]], np.float32)
    # Cosines: of 0, 1, 2: 1, 0, 0; of 0 and 3: -1, the least that two images can have.
    assert clarity(np.array([[0, 1, 2]]), rows)[0] == pytest.approx(1 / 3)
    assert clarity(np.array([[0, 3]], np.int32), rows)[0] == pytest.approx(-1)


def monosemanticity(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return measures.monosemanticity(recorded(values, rows), "a")


def test_monosemanticity_is_the_weighted_mean_cosine_of_pairs(rows):
    values = np.random.default_rng(1).standard_normal((30, 1500)).astype(np.float32)  # more than one chunk
    found = monosemanticity(values, rows)
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
    np.testing.assert_allclose(monosemanticity(values, rows), [1, 1 / 3, 1 / 3, np.nan, np.nan], atol=1e-6)
    # Neither scale nor offset of a unit matters.
    np.testing.assert_allclose(monosemanticity(3 * values[:, :3] - 5, rows), [1, 1 / 3, 1 / 3], atol=1e-6)


@pytest.mark.parametrize("measure", [measures.monosemanticity, measures.clarity, measures.margin])
def test_a_bad_embedding_is_named(measure, rows):
    rows[[4, 7], 1] = np.nan
    with pytest.raises(ValueError, match="2 of 30 images are not finite, the first of image 4"):
        measure(recorded(np.random.default_rng(0).random((30, 3)), rows), "a")


# ----------------------------------------------------------------------------------------------- selectivity


def test_class_selectivity_by_hand():
    labels = np.repeat([0, 0, 1, 2], 10)
    # Class means: (1, 0, 0) -> 1; (2, 2, 2) -> 0; (4, 1, 3) -> (4 - 2) / (4 + 2); silent -> undefined.
    values = np.repeat([[1, 2, 3, 0], [1, 2, 5, 0], [0, 2, 1, 0], [0, 2, 3, 0]], 10, axis=0)
    found = measures.class_selectivity(recorded(values, labels=labels), "a")
    np.testing.assert_allclose(found, [1, 0, 1 / 3, np.nan])
    one_class = measures.class_selectivity(recorded(values, labels=np.zeros(40, int)), "a")
    assert np.isnan(one_class).all() and len(one_class) == 4


def test_class_selectivity_leaves_out_classes_of_few_images():
    values = np.concatenate([np.repeat([[4], [2]], 10, axis=0), [[100]] * 9])
    labels = np.repeat([0, 1, 2], [10, 10, 9])
    found = measures.class_selectivity(recorded(values, labels=labels), "a")
    np.testing.assert_allclose(found, [(4 - 2) / (4 + 2)])


def test_lifetime_sparseness_by_hand():
    # One image of four: 1. All alike: 0. (3, 1, 0, 0): mean 1, mean square 2.5: (1 - 1 / 2.5) / (3 / 4) = .8.
    values = np.array([[7, 2, 3, 0], [0, 2, 1, 0], [0, 2, 0, 0], [0, 2, 0, 0]], np.float32)
    for scale in (1, 10):
        found = measures.lifetime_sparseness(recorded(scale * values), "a")
        np.testing.assert_allclose(found, [1, 0, 0.8, np.nan], atol=1e-7)


def test_a_layer_of_dead_units_has_no_measures(rows):
    dead = recorded(np.zeros((30, 3)), rows, concepts=np.eye(30, dtype=bool))
    for measure in (
        measures.monosemanticity,
        measures.class_selectivity,
        measures.lifetime_sparseness,
        measures.concept_selectivity,
    ):
        found = measure(dead, "a")
        assert found.shape == (3,) and np.isnan(found).all()


# -------------------------------------------------------------------------------------------------- concepts


def test_concept_auc_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (50, 1100)).astype(np.float32)  # ties, and more than one chunk
    concepts = rng.random((50, 3)) < 0.3
    found = measures.concept_auc(values, concepts)
    assert found.shape == (1100, 3)
    for unit in (0, 1099):
        expected = [roc_auc_score(concepts[:, c], values[:, unit]) for c in range(3)]
        np.testing.assert_allclose(found[unit], expected, atol=1e-12)


def concept_selectivity(values: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    return measures.concept_selectivity(recorded(values, concepts=concepts), "a")


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
    np.testing.assert_allclose(concept_selectivity(values, concepts), [1, 1, 1, np.nan, 1])
    np.testing.assert_allclose(concept_selectivity(values, concepts[:, :1]), [1, 1, 0.5, np.nan, 0])
    assert np.isnan(concept_selectivity(values, concepts[:, 2:])).all()


def test_concept_selectivity_reads_order_alone():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 5)).astype(np.float32)
    concepts = rng.random((60, 4)) < 0.4
    found = concept_selectivity(values, concepts)
    np.testing.assert_allclose(concept_selectivity(-np.exp(values), concepts), found)
    unrelated = rng.standard_normal((2000, 50), dtype=np.float32)
    assert concept_selectivity(unrelated, rng.random((2000, 4)) < 0.5).max() < 0.12


# ------------------------------------------------------------------------------------------- the measures, all


def test_built_in_measures_are_described_and_pass_their_own_check():
    names = ["mis", "two_afc_accuracy", "margin", "clarity", "monosemanticity", "class_selectivity",
             "lifetime_sparseness", "concept_selectivity", "dissection"]  # fmt: skip
    assert built_ins("measure") == names
    for name in names:
        measures.check_measure(getattr(measures, name))
    assert measures.mis.description.chance == 0.5 and "concepts" in measures.dissection.description.needs


def test_score_has_a_row_per_unit_and_no_values_of_dead_ones():
    values = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    values[:, 1] = 7
    rows = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    recording = recorded(values, rows, temperature=0.5)
    table = measures.score(recording, measures.mis)
    assert list(table.columns) == ["layer", "unit", "alive", "value"]
    assert table.layer.tolist() == ["a"] * 3 + ["fc"] * 2 and table.unit.tolist() == [0, 1, 2, 0, 1]
    assert table.alive.tolist() == [True, False, True, True, True]
    np.testing.assert_array_equal(table.value.isna(), ~table.alive)
    expected = 1 / (1 + np.exp(-recording.margins["a"] / 0.5))
    np.testing.assert_allclose(table.value[[0, 2]], expected.mean(axis=1)[[0, 2]], rtol=1e-6)
    for measure, expected in ((measures.two_afc_accuracy, recording.margins["fc"] > 0),
                              (measures.margin, recording.margins["fc"])):  # fmt: skip
        np.testing.assert_allclose(measures.score(recording, measure).value[3:], expected.mean(axis=1))


def test_mis_without_a_temperature_says_so():
    rows = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(ValueError, match="temperature must be positive, found None"):
        measures.mis(recorded(np.random.default_rng(0).random((8, 3)), rows), "a")


def test_a_measure_of_ones_own_is_scored_like_the_others():
    @describe("largest activation")
    def largest(recording: Recording, layer: str) -> np.ndarray:
        return recording.activations[layer].max(axis=0)

    measures.check_measure(largest)
    table = measures.score(recorded(np.array([[1, 2], [3, 0]] * 2)), largest)
    assert isinstance(table, pd.DataFrame) and table.value[:2].tolist() == [3, 2]


def test_a_value_that_is_infinite_counts_as_undefined():
    found = recorded(np.array([[1, 2], [3, 0]] * 2))
    table = measures.score(found, lambda recording, layer: np.array([1.0] + [np.inf] * (len(found.alive[layer]) - 1)))
    assert table.value[0] == 1 and table.value.isna().sum() == len(table) - table.layer.nunique()


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (lambda recording, layer: np.zeros(3), r"expected floats \(4,\), one for each unit of a, found float64 \(3,\)"),
        (lambda recording, layer: np.zeros(len(recording.alive[layer]), int), r"found int64 \(4,\)"),
        (lambda recording, layer: recording.nothing, "AttributeError"),
        (lambda recording: None, "TypeError"),
        (lambda recording, layer: np.full(len(recording.alive[layer]), np.nan), "found no finite value, expected one"),
        (lambda recording, layer: np.full(len(recording.alive[layer]), np.inf), "found no finite value, expected one"),
        (lambda recording, layer: recording.activations[layer].sort(axis=0), "read-only"),
        (
            lambda recording, layer: recording.concepts["p"].mean(axis=(1, 2)),
            "TypeError",
        ),  # without needs=("concepts",)
    ],
)
def test_check_refuses_in_one_line_what_cannot_be_scored(measure, said):
    with pytest.raises(ValueError, match=said) as error:
        measures.check_measure(measure)
    assert "\n" not in str(error.value) and str(error.value).startswith("tried on made-up units, ")
