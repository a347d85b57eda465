"""The study on the smoke profile: what notebooks rely on, from variants to tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from prunelens import claims, networks, profiles
from prunelens.study import Study, Variant, variants

TINY = [
    "pruning.methods=[structured_l1, connection_l1]", "pruning.rates=[0.8]", "retraining.epochs=2",
    "data.train_images=64", "data.validation_images=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study("smoke", TINY, "cpu", str(tmp_path_factory.mktemp("study")))


def test_variants_are_unique_and_controls_come_first() -> None:
    found = variants(profiles.load("imagenet"))
    assert len(set(map(str, found))) == len(found)
    assert [variant.method for variant in found[:2]] == ["dense", "random_init"]
    assert {variant.seed for variant in found if variant.method == "dense_retrained"} == {0, 1, 2}
    # Before retraining, a deterministic method has one network whatever the seed.
    assert sum(v.method == "structured_l1" and v.schedule == "none" and v.rate == 0.8 for v in found) == 1
    assert sum(v.method == "connection_random" and v.schedule == "none" and v.rate == 0.8 for v in found) == 3


def test_measured_sparsity_is_the_masks_and_nothing_without_masks(study: Study) -> None:
    table = study.accuracy().set_index("variant")
    for variant in study.variants:
        masks = study.masks(variant)
        kept = sum(int(mask.sum()) for mask in masks.values()) / max(1, sum(mask.numel() for mask in masks.values()))
        expected = 1 - kept if masks and variant.masked else 0.0
        # Half precision made a handful of the dense network's six million weights exactly zero.
        tolerance = 1e-6 if variant.masked else 0.01
        assert table.conv_sparsity[str(variant)] == pytest.approx(expected, abs=tolerance), variant


def test_iterative_masks_reach_the_rate_and_only_grow(study: Study) -> None:
    variant = Variant("structured_l1", 0.8, "iterative", 0)
    assert variant in study.variants
    first, last = (
        {
            name.removeprefix("mask/"): mask
            for name, mask in study._step(variant, step).items()
            if name.startswith("mask/")
        }
        for step in (0, 1)
    )
    assert all(not (last[name] & ~first[name]).any() for name in first)
    assert 1 - np.mean([mask.mean() for mask in last.values()]) == pytest.approx(0.8, abs=0.02)


def test_epochs_of_an_iterative_schedule_follow_each_other(study: Study) -> None:
    table = study.epochs(Variant("structured_l1", 0.8, "iterative", 0))
    assert table.epoch.tolist() == [0, 1, 2] and table.step.tolist() == [0, 0, 1]
    assert table.loss.isna().tolist() == [True, False, False]


def test_units_are_all_of_them_and_dead_ones_have_no_score(study: Study) -> None:
    chosen = [study.variants[0], Variant("structured_l1", 0.8, "none", 0)]
    units = study.units(chosen)
    assert units.groupby("variant").size().eq(7280 + 8).all()
    assert units[units.variant == str(chosen[0])].alive.all()
    pruned = units[units.variant == str(chosen[1])]
    masks = study.masks(chosen[1])
    removed = sum(
        int((~mask.any((1, 2, 3))).sum() if mask.ndim == 4 else 0)
        for mask in (m.flatten(1)[:, :, None, None] for m in masks.values())
    )
    assert (~pruned.alive).sum() >= removed > 5000
    assert pruned.loc[~pruned.alive, ["mis", "two_afc_accuracy", "margin"]].isna().all(axis=None)
    assert units[units.alive].mis.between(0, 1).all()


def test_temperature_puts_the_dense_network_midway(study: Study) -> None:
    dense = study.units([study.variants[0]]).query("kind == 'conv'")
    assert dense.mis.mean() - 0.5 == pytest.approx((dense.two_afc_accuracy.mean() - 0.5) / 2, abs=0.002)


def test_another_study_of_the_same_profile_loads_everything(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study.accuracy()
    again = Study("smoke", TINY, "cpu", str(study.figures.parents[1]))
    monkeypatch.setattr("prunelens.training.train", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr("prunelens.evaluation.logits", lambda *a, **k: pytest.fail("evaluated again"))
    pd.testing.assert_frame_equal(again.accuracy(), before)


def test_scratch_switch_trains_another_dense_network(study: Study, tmp_path: Path) -> None:
    scratch = Study("smoke", [*TINY, "network.weights=scratch"], "cpu", str(tmp_path))
    assert scratch.scratch_epochs.epoch.tolist() == [0, 1]
    assert not torch.equal(scratch.dense.fc.weight, study.dense.fc.weight)
    assert scratch.dense_key != study.dense_key


def test_auxiliary_heads_train_along_and_are_no_part_of_the_result(tmp_path: Path) -> None:
    aux = Study("smoke", [*TINY, "retraining.aux_weight=0.3"], "cpu", str(tmp_path))
    control = aux.variants[2]
    assert control.method == "dense_retrained"
    assert "weight/aux1.fc1.weight" in aux._retrained(control)
    assert not any(name.startswith("aux") for name in aux.network(control).state_dict())
    assert aux.accuracy([control]).total_sparsity.item() == 0


def test_wrong_profile_values_are_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.safetensors"):
        Study("smoke", ["network.weights=absent.safetensors"], "cpu", str(tmp_path)).accuracy()
    with pytest.raises(ValueError, match="sees no GPU" if not torch.cuda.is_available() else "never"):
        Study("smoke", [], "cuda" if not torch.cuda.is_available() else "never", str(tmp_path))


def test_claims_are_judged_from_the_tables(study: Study) -> None:
    units = study.units()
    table = claims.verdicts(study.accuracy(), study.network_means(units), study.class_scores(units))
    assert table.claim.tolist() == ["C1a", "C1b", "C2", "C3", "C4", "C5", "C6a", "C6b"]
    assert set(table.verdict) <= {"holds", "does not hold", "cannot be told", "not tested"}


def test_committed_network_is_good_on_regions_it_never_saw() -> None:
    accuracy = Study("quick", [], "cpu").accuracy([Variant("dense")]).iloc[0]
    assert accuracy.top1 >= 0.9 and accuracy.n >= 500


def test_sampled_units_exist(study: Study) -> None:
    layers = networks.unit_layers(study.dense)
    assert all(0 <= unit < layers[layer].weight.shape[0] for layer, unit in study.sampled_units())
