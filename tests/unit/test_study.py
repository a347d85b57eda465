"""The study on the smoke profile: what notebooks rely on, from variants to tables."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from prunelens import claims, datasets, measures, networks
from prunelens.study import Study
from prunelens.variants import Variant

TINY = [
    "pruning.methods=[structured_l1, connection_l1]", "pruning.rates=[0.8]", "retraining.epochs=2",
    "data.train_images=64", "data.validation_images=64", "sensitivity.images=8",
    "interpretability.dissection_images=64", "latency_repeats=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study("smoke", TINY, "cpu", str(tmp_path_factory.mktemp("study")))


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
    table = study.epochs([Variant("structured_l1", 0.8, "iterative", 0)])
    assert table.epoch.tolist() == [0, 1, 2] and table.step.tolist() == [0, 0, 1]
    assert table.loss.isna().tolist() == [True, False, False]


@pytest.mark.parametrize("schedule", ["one_shot", "iterative"])
def test_epochs_begin_and_end_with_networks_whose_accuracy_is_known(study: Study, schedule: str) -> None:
    variant = Variant("structured_l1", 0.8, schedule, 0)
    epochs = study.epochs([variant]).set_index("epoch")
    first = Variant("structured_l1", 0.8 if schedule == "one_shot" else 1 - (1 - 0.8) ** 0.5, "none", 0)
    before, after = study._evaluate(study.network(first)), study._evaluate(study.network(variant))
    for column in ("top1", "top1_known", "top5_known"):
        shown = column.replace("_known", "") if "_known" in column else f"{column}_all_outputs"
        assert epochs[shown].iloc[0] == before[f"accuracy/{column}"]
        assert epochs[shown].iloc[-1] == after[f"accuracy/{column}"]


def test_a_retrained_network_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, variant, evaluate = Study("smoke", TINY, "cpu", str(tmp_path)), Variant("dense_retrained", 0, "one_shot"), []
    real = Study._evaluate
    monkeypatch.setattr(Study, "_evaluate", lambda self, network: evaluate.append(1) or real(self, network))
    fresh.network(variant)
    assert len(evaluate) == fresh.profile.retraining.epochs
    found = fresh.accuracy([variant])
    assert len(evaluate) == fresh.profile.retraining.epochs
    monkeypatch.undo()
    arrays = fresh._evaluate(fresh.network(variant))
    assert found.top1.item() == arrays["accuracy/top1_known"] and found.conv_sparsity.item() == 0
    np.testing.assert_array_equal(fresh.confusion(variant), arrays["confusion"])


def test_iterative_and_one_shot_networks_are_compared_at_every_number_of_epochs(study: Study) -> None:
    table = study.iterative_by_epochs()
    assert table[["epochs", "schedule", "method"]].to_numpy().tolist() == [
        [epochs, schedule, "structured_l1"] for epochs in (2, 3) for schedule in ("one_shot", "iterative")
    ]
    same = study.accuracy(variant for variant in study.variants if str(variant) in set(table.variant))
    pd.testing.assert_frame_equal(table[table.epochs == 2], same)
    longer = study._retrained_for(3)
    assert longer.epochs([Variant("structured_l1", 0.8, "iterative")]).epoch.tolist() == [0, 1, 2, 3]
    assert study.profile.retraining.epochs == 2


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


def test_anchors_lie_above_and_below_all_units(study: Study) -> None:
    made = study.anchors().groupby("anchor", sort=False).mis
    assert made.size().to_dict() == {
        "planted unit": 1, "random": 200, "shuffled images": 7280, "shuffled weights": 7280,
    }  # fmt: skip
    means, units = made.mean(), study.units()
    assert means["planted unit"] > units.mis.max()
    assert means[["random", "shuffled images"]].to_numpy() == pytest.approx(0.5, abs=0.02)
    dense = units[(units.variant == str(study.variants[0])) & (units.kind == "conv")].mis.mean()
    assert 0.5 < means["shuffled weights"] < dense


def test_reinitialised_networks_keep_the_masks_and_no_weight(study: Study) -> None:
    variant, trained = (Variant(name, 0.8, "one_shot", 0) for name in ("connection_l1_reinitialised", "connection_l1"))
    assert variant in study.more_variants
    masks = study.masks(variant)
    assert all(torch.equal(mask, study.masks(trained)[name]) for name, mask in masks.items())
    network, other = study.network(variant), study.network(trained)
    assert all(not network.get_parameter(name)[~mask].any() for name, mask in masks.items())
    assert not torch.isclose(network.conv1.conv.weight, other.conv1.conv.weight).any()


def test_recalibrated_networks_differ_from_pruned_ones_in_statistics_alone(study: Study) -> None:
    variant = Variant("structured_l1", 0.8, "recalibrated", 0)
    assert variant in study.more_variants
    before = study.network(Variant("structured_l1", 0.8, "none", 0)).state_dict()
    after = study.network(variant).state_dict()
    moved = {name.rsplit(".", 1)[1] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    assert study.accuracy([variant]).epochs.item() == 0


def test_a_rewound_schedule_has_the_dense_networks_learning_rates(study: Study) -> None:
    rewound, usual = (study.epochs([Variant("structured_l1", 0.8, name, 0)]) for name in ("rewound", "one_shot"))
    assert usual.learning_rate[1:].tolist() == pytest.approx([0.01, 0.009])
    assert rewound.learning_rate.max() > 0.05  # on its cycle to .1


def test_learning_rates_of_an_iterative_schedule(study: Study) -> None:
    variant = Variant("structured_l1", 0.8, "iterative", 0)
    goes_on = Study("smoke", [*TINY, "pruning.iterative.restart=false"], "cpu", str(study.figures.parents[1]))
    assert study.epochs([variant]).learning_rate[1:].tolist() == pytest.approx([0.01, 0.01])
    assert goes_on.epochs([variant]).learning_rate[1:].tolist() == pytest.approx([0.01, 0.009])


def test_layers_that_tolerate_more_are_pruned_more(study: Study) -> None:
    variant = Variant("unstructured_sensitivity", 0.8, "none", 0)
    pruned = {name.removesuffix(".weight"): 1 - mask.float().mean() for name, mask in study.masks(variant).items()}
    tolerated = study.tolerated
    order = sorted(pruned, key=tolerated.get)
    assert all(pruned[a] <= pruned[b] + 1e-3 for a, b in pairwise(order))
    assert study.accuracy([variant]).conv_sparsity.item() == pytest.approx(0.8, abs=1e-3)


def test_a_method_of_ones_own_runs_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from prunelens.networks import prunable_layers

def first_filters(network, rate, generator):
    masks = {}
    for name, layer in prunable_layers(network).items():
        mask = layer.weight.new_ones(layer.weight.shape, dtype=bool)
        mask[: int(rate * len(mask))] = False
        masks[f"{name}.weight"] = mask
    return masks
"""
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    own = Study("smoke", [*TINY, "pruning.methods=[structured_l1, mine.first_filters]"], "cpu", str(tmp_path / "out"))
    variant = Variant("mine.first_filters", 0.8, "none", 0)
    assert variant in own.variants
    assert own.accuracy([variant]).conv_sparsity.item() == pytest.approx(0.8, abs=0.02)
    key = own.network_key(variant)
    assert "first_filters" in key["code"]  # another function of this name is another network


def test_costs_of_masked_and_compact_networks(study: Study) -> None:
    found = study.costs([Variant("structured_l1", 0.8), Variant("connection_l1", 0.8)])
    assert len(found) == 5 * len(study.profile.latency_batches)
    rows = found[found.batch_size == 8].set_index(["method", "form"])
    dense, masked, small = (
        rows.loc[key] for key in (("dense", "dense"), ("structured_l1", "masked"), ("structured_l1", "compact"))
    )
    assert dense.macs == masked.macs > 2 * small.macs and masked.parameters == dense.parameters > 2 * small.parameters
    assert small.bytes < dense.bytes / 2 and small.macs < masked.sparse_macs  # its inputs shrink too
    assert (found[found.method == "dense"].speedup == 1).all()


def test_another_study_of_the_same_profile_loads_everything(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study.accuracy()
    again = Study("smoke", TINY, "cpu", str(study.figures.parents[1]))
    monkeypatch.setattr("prunelens.training.train", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr("prunelens.evaluation.logits", lambda *a, **k: pytest.fail("evaluated again"))
    pd.testing.assert_frame_equal(again.accuracy(), before)


def test_scratch_switch_trains_another_dense_network(study: Study, tmp_path: Path) -> None:
    scratch = Study("smoke", [*TINY, "network.weights=scratch"], "cpu", str(tmp_path))
    assert scratch.scratch_epochs.epoch.tolist() == [1]
    assert not torch.equal(scratch.dense.fc.weight, study.dense.fc.weight)
    assert scratch.dense_key != study.dense_key


def test_auxiliary_heads_train_along_and_are_no_part_of_the_result(tmp_path: Path) -> None:
    aux = Study("smoke", [*TINY, "retraining.aux_weight=0.3"], "cpu", str(tmp_path))
    control = aux.variants[2]
    assert control.method == "dense_retrained"
    assert "weight/aux1.fc1.weight" in aux._computed(control)
    assert not any(name.startswith("aux") for name in aux.network(control).state_dict())
    assert aux.accuracy([control]).total_sparsity.item() == 0


def test_wrong_profile_values_are_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.safetensors"):
        Study("smoke", ["network.weights=absent.safetensors"], "cpu", str(tmp_path)).accuracy()
    with pytest.raises(ValueError, match="sees no GPU" if not torch.cuda.is_available() else "never"):
        Study("smoke", [], "cuda" if not torch.cuda.is_available() else "never", str(tmp_path))


def test_a_training_that_is_killed_before_it_is_stored_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelens.training.CHECKPOINT_SECONDS", 0)
    variant, killed = Variant("structured_l1", 0.8, "one_shot", 0), Study("smoke", TINY, "cpu", str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("prunelens.study._pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.network(variant)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    monkeypatch.setattr("prunelens.training._batches", lambda *_: pytest.fail("trained again"))
    assert killed.epochs([variant]).epoch.tolist() == [0, 1, 2]
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_claims_are_judged_from_the_tables(study: Study) -> None:
    units = study.units()
    epochs = study.epochs([variant for variant in study.variants if variant.schedule == "one_shot"])
    means, classes = study.network_means(units), study.class_scores(units)
    table = claims.verdicts(study.accuracy(), epochs, units, means, classes)
    assert table.claim.tolist() == ["C1a", "C1b", "C2", "C3", "C4", "C5", "C6a", "C6b"]
    assert set(table.verdict) <= {"holds", "does not hold", "cannot be told", "not tested"}


def test_committed_network_is_good_on_regions_it_never_saw() -> None:
    accuracy = Study("quick", ["data.validation_images=800"], "cpu").accuracy([Variant("dense")]).iloc[0]
    assert accuracy.top1 >= 0.9 and accuracy.n >= 500


def test_visualized_units_are_the_profiles_and_a_sample_of_every_block(study: Study) -> None:
    layers = networks.unit_layers(study.dense)
    units = study.visualized_units()
    assert ("inception5a.branch4.1.conv", 118) in units and len(set(units)) == len(units) == 1 + 9
    assert all(0 <= unit < layers[layer].weight.shape[0] for layer, unit in units)
    assert [layer for layer, _ in units] == sorted((layer for layer, _ in units), key=list(layers).index)
    assert units == study.visualized_units()
    atlas = study.atlas_units()
    assert len(atlas) == 9 and all(layer.startswith(block) for block, chosen in atlas.items() for layer, _ in chosen)
    assert {unit for chosen in atlas.values() for unit in chosen} >= set(units), "the atlas shows the units to follow"


def test_pictures_of_dead_units_are_not_drawn_and_not_judged(study: Study) -> None:
    dense, pruned = study.visualized_variants()
    extremes, units = study.extremes(pruned), study.visualized_units()
    alive = np.array([extremes[f"alive/{layer}"][unit] for layer, unit in units])
    assert alive.any() and not alive.all(), "structured pruning at .8 kills some of ten units"
    drawn = study.visualize(pruned)
    assert not drawn["exciting/images"][~alive].any() and not drawn["exciting/excited"][~alive].any()
    assert drawn["exciting/images"][alive].any((1, 2, 3, 4)).all()

    quality = study.visual_quality()
    numbers = quality[["reached", "like_top", "like_random", "consistency", "like_dense", "picture_mis"]]
    judged = quality.variant == str(pruned)
    assert numbers[judged].isna().all(axis=1).to_numpy().tolist() == (~alive).tolist()
    of_dense = quality[quality.variant == str(dense)]
    np.testing.assert_allclose(of_dense.like_dense, of_dense.consistency, rtol=1e-6)


def test_an_atlas_holds_three_kinds_of_pictures(study: Study) -> None:
    block, units = next(iter(study.atlas_units().items()))
    drawn = study.atlas(block)
    for kind in ("exciting", "inhibiting", "natural"):
        assert drawn[f"{kind}/images"].shape == (len(units), 1, 64, 64, 3)
    assert not np.array_equal(drawn["exciting/images"], drawn["natural/images"])
    assert (drawn["exciting/objective"] > drawn["inhibiting/objective"]).all()


def test_large_sets_of_stimuli_are_streamed_to_the_same_extremes(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = Variant("structured_l1", 0.8, "none", 0)  # with dead units
    network, k = study.network(variant), study._wanted_extremes
    expected = study._extremes(network, networks.unit_layers, k)
    monkeypatch.setattr("prunelens.study.LARGE", len(study.stimuli) - 1)
    monkeypatch.setattr("prunelens.activations.record", lambda *a: pytest.fail("held all activations in memory"))
    found = study._extremes(network, networks.unit_layers, k)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert not all(found[name].all() for name in found if name.startswith("alive/"))


def test_last_layer_ranks_the_same_units_by_logit_and_by_probability(study: Study) -> None:
    dense = study.variants[0]
    found = study.last_layer([dense])
    assert found.groupby(["output", "stimuli"]).unit.apply(list).map(sorted).tolist() == [list(range(8))] * 4
    rows = found.set_index(["output", "stimuli"]).sort_index()
    columns = ["unit", "mis", "mis_low", "mis_high", "two_afc_accuracy", "margin"]
    known = study.units([dense]).query("kind == 'fc'")
    logits = rows.loc[("logit", "as they are")]
    pd.testing.assert_frame_equal(logits[columns].reset_index(drop=True), known[columns].reset_index(drop=True))
    counts = np.bincount(study.stimuli.labels)
    assert (logits.images == 128).all() and np.allclose(logits.own_class_most, (counts / 30).clip(max=1))
    balanced = rows.loc[("logit", "balanced")]
    assert (balanced.images == 8 * counts.min()).all() and balanced.own_class_most.nunique() == 1
    assert (rows.own_class <= rows.own_class_most).all() and (logits.own_class > 2 / 8).all()
    assert not logits.mis.equals(rows.loc[("probability", "as they are")].mis)


def test_last_layer_counts_ties_and_saturation(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit 0 has probability 1 on half of the images and 0 on the others, unit 1 the other way round."""
    half = np.arange(128) % 2 == 0
    logits = np.full((128, 8), -500, np.float32)
    logits[half, 0] = logits[~half, 1] = 500 + np.arange(64)
    monkeypatch.setattr("prunelens.activations.record", lambda *a: {"fc": logits})
    found = study._rank_outputs(study.variants[0]).set_index(["output", "stimuli", "unit"])
    seen = ["tied_top", "tied_bottom", "saturated_top", "saturated_bottom"]
    for unit in (0, 1):
        assert found.loc[("logit", "as they are", unit), seen].tolist() == [0, 1, 1, 1]
        assert found.loc[("probability", "as they are", unit), seen].tolist() == [1, 1, 1, 1]
    constant = found.loc[("probability", "as they are", 2)]
    assert not constant.alive and np.isnan(constant.mis)


def test_last_layer_leaves_out_a_balanced_set_that_is_too_small(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelens.datasets.balanced", lambda *a: np.arange(59))  # 2 x 6 tasks x (4 + 1) are needed
    assert set(study._rank_outputs(study.variants[0]).stimuli) == {"as they are"}


def test_dissection_names_the_concept_that_each_unit_overlaps_best(study: Study) -> None:
    dense = study.variants[0]
    found = study.dissection([dense])
    assert len(found) == 7280 and found.dissection.between(0, 1).all()
    seen = datasets.sample(study.stimuli, 64, 0)
    names, masks = measures.concept_masks(seen)
    layer = "inception3a.branch1.conv"
    network = study.network(dense)
    expected = measures.dissect(network, {layer: network.get_submodule(layer)}, seen.images, masks, 64, "cpu", 0.9)
    rows = found[found.layer == layer]
    assert rows.unit.tolist() == list(range(64))
    np.testing.assert_allclose(rows.dissection, expected[layer].max(axis=1), atol=1e-6)
    best = [names[i] for i in expected[layer].argmax(axis=1)]
    assert np.mean(rows.concept == best) > 0.95 and {name.split(":")[0] for name in rows.concept} <= {"texture", "shape", "tint"}  # noqa: E501 # fmt: skip


@pytest.mark.parametrize(
    ("override", "stage"),
    [
        ("interpretability.dissection_quantile=.95", "dissection"),
        ("interpretability.dissection_images=32", "dissection"),
        ("visualization.diverse_starts=3", "diverse"),
        ("latency_repeats=3", "costs"),
        ("interpretability.anchor_units=9", None),
    ],
)
def test_a_number_of_one_stage_makes_another_artefact_of_that_stage_alone(
    study: Study, override: str, stage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, dense = Study("smoke", [*TINY, override], "cpu", str(study.store.root.parent)), study.variants[0]

    def files(one: Study) -> dict[str, Path]:
        found = {}

        def get(stage: str, slug: str, parameters: dict, compute: object) -> pd.DataFrame:
            found[slug if slug == "diverse" else stage] = one.store.file(stage, slug, parameters, "")
            return pd.DataFrame()

        with monkeypatch.context() as patched:
            patched.setattr(one.store, "table", get)
            one.dissection([dense]), one.costs([dense]), one.measures([dense]), one.units([dense])
            patched.setattr(one, "diverse_units", list)
            patched.setattr(one.store, "arrays", get)
            one.diverse()
        return found

    before, after = files(study), files(other)
    assert {"dissection", "costs", "measures", "scores", "diverse"} == set(before)
    assert [name for name in before if before[name] != after[name]] == ([stage] if stage else [])


def test_the_most_pruned_networks_are_the_methods_one_shot_and_retrained(study: Study) -> None:
    assert [str(variant) for variant in study.most_pruned] == [
        "dense-0.00-none-s0", "structured_l1-0.80-one_shot-s0", "connection_l1-0.80-one_shot-s0",
    ]  # fmt: skip
    assert set(study.most_pruned) <= set(study.variants)


@pytest.mark.parametrize(
    ("override", "redrawn", "judged_anew"),
    [
        ("data.stimulus_images=144", True, True),  # which units live, and their natural extremes, follow from them
        ("visualization.steps=5", True, True),
        ("visualization.starts=3", True, True),
        ("seed=1", True, True),
        ("interpretability.similarity=stlpips", False, True),
        ("visualization.diversity=2.0", False, False),
    ],
)
def test_pictures_and_their_judgement_follow_what_they_depend_on(
    study: Study, override: str, redrawn: bool, judged_anew: bool
) -> None:
    other = Study("smoke", [*TINY, override], "cpu", str(study.store.root.parent))
    units, variant = [("inception5a.branch4.1.conv", 118)], study.variants[0]
    keys = [(one._units_key(variant, units), one._measure_key) for one in (study, other)]
    assert (keys[0][0] != keys[1][0]) == redrawn
    assert (keys[0] != keys[1]) == judged_anew
