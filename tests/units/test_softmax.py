import numpy as np
import pytest

from prunelens.images.imageset import ImageSet
from prunelens.units import measures
from prunelens.units.recording import ArraySource, Recording, Settings
from prunelens.units.softmax import rank_outputs


@pytest.fixture
def recording() -> Recording:
    """40 images of two classes, outputs 2 and 0 of three; output 1 is dead, as a logit."""
    rng, n = np.random.default_rng(0), 40
    labels = np.arange(n) % 2
    logits = rng.standard_normal((n, 3)).astype(np.float32)
    logits[:, 1] = 0
    logits[labels == 0, 2] += 10  # output 2 finds its class
    activations = {"a": rng.random((n, 2), dtype=np.float32), "fc": logits}
    images, names = np.zeros((n, 4, 4, 3), np.uint8), [str(i) for i in range(n)]
    stimuli = ImageSet(images, labels, names, ["x", "y"], np.array([2, 0]))
    rows = np.eye(2, dtype=np.float32)[labels] + rng.normal(0, 0.1, (n, 2)).astype(np.float32)
    return Recording(ArraySource(activations), stimuli, rows, Settings(2, 4, temperature=0.5))


def test_logits_of_all_stimuli_score_as_the_measures_do(recording):
    table = rank_outputs(recording, np.arange(40), np.array([2, 0, 1]))
    assert table.output.tolist() == ["logit"] * 3 + ["probability"] * 3
    assert table.unit.tolist() == [2, 0, 1] * 2 and (table.images == 40).all()
    logits = table[table.output == "logit"].set_index("unit").sort_index()
    assert logits.alive.tolist() == [True, False, True]
    for name in ("mis", "two_afc_accuracy", "margin"):
        scored = measures.score(recording, getattr(measures, name))
        np.testing.assert_allclose(logits[name], scored[scored.layer == "fc"].value, rtol=1e-6)


def test_own_class_and_ties_by_hand(recording):
    table = rank_outputs(recording, np.arange(40), np.array([2, 1])).set_index(["output", "unit"])
    two = table.loc[("logit", 2)]
    assert two.own_class == 1 and two.own_class_most == 1  # 20 images of its class, 10 extremes
    one = table.loc[("logit", 1)]
    assert one.own_class == one.own_class_most == 0  # no class
    assert one.tied_top == one.tied_bottom == 1 and two.tied_top == 0
    assert not one.alive and np.isnan(one.mis)


def test_a_softmax_that_saturates_is_told(recording):
    logits = {"a": recording.activations["a"], "fc": 200 * recording.activations["fc"]}
    sharp = Recording(ArraySource(logits), recording.stimuli, recording.embeddings, recording.settings)
    table = rank_outputs(sharp, np.arange(40), np.array([2])).set_index("output")
    assert (table.saturated_top == 1).all() and (table.saturated_bottom > 0).all()
    assert table.tied_top["probability"] == 1 and table.tied_top["logit"] == 0
    gentle = rank_outputs(recording, np.arange(40), np.array([2])).set_index("output")
    assert (gentle.saturated_bottom == 0).all()


def test_extremes_are_of_the_chosen_stimuli_only(recording):
    chosen = np.flatnonzero(recording.labels == 1)
    table = rank_outputs(recording, chosen, np.array([2, 0])).set_index(["output", "unit"])
    assert (table.images == 20).all()
    assert (table.loc["logit"].own_class == [0, 1]).all()
