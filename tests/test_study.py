"""The study on the smoke profile: what notebooks rely on, from variants to tables."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from prunelens.images import stages as images
from prunelens.pruning import stages as pruning
from prunelens.study import Study
from prunelens.units import stages as units
from prunelens.variants import FIELDS, Variant

TINY = [
    "pruning.methods=[structured_l1, connection_l1]", "pruning.rates=[0.8]", "pruning.unmasked.rates=[0.8]",
    "pruning.unretrained.rates=[0.8]",
    "data.train_images=64", "data.validation_images=64", "sensitivity.images=8",
    "latency_repeats=2", "network.scratch.epochs=2",
]  # fmt: skip
ONE_SHOT = Variant("structured_l1", 0.8, "one_shot", epochs=2)
ITERATIVE = Variant("structured_l1", 0.8, "iterative", epochs=2)
PRUNED = Variant("structured_l1", 0.8)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study("smoke", TINY, "cpu", str(tmp_path_factory.mktemp("study")))


def out(study: Study) -> str:
    """Where a study keeps its runs and figures."""
    return str(study.folder.parents[1])


def arrays(study: Study, variant: Variant, prefix: str) -> dict[str, np.ndarray]:
    """Masks or weights of a retrained network."""
    return pruning.part(study.pipeline.get("retrained", variant), prefix)


def test_measured_sparsity_is_the_masks_and_nothing_without_masks(study: Study) -> None:
    table = study.accuracy()
    masked = table[table.masked & (table.rate > 0)]
    np.testing.assert_allclose(masked.conv_sparsity, masked.mask_sparsity, atol=1e-6)
    assert masked.mask_sparsity.between(0.78, 0.82).all()
    unmasked = table[~table.masked]
    assert len(unmasked) and (unmasked.mask_sparsity > 0.78).all() and (unmasked.conv_sparsity < 0.3).all()


def test_every_table_begins_with_the_fields(study: Study) -> None:
    for table in (study.accuracy(), study.epochs(), study.class_accuracy(), study.layer_sparsity(), study.units()):
        assert list(table.columns[: len(FIELDS)]) == FIELDS
        assert {Variant(**row) for row in table[FIELDS].drop_duplicates().to_dict("records")} <= set(study.everything)


def test_layer_sparsity_is_the_rate_in_every_layer(study: Study) -> None:
    table = study.layer_sparsity([PRUNED])
    assert table.layer.tolist() == study.layers[study.layers.prunable].layer.tolist()
    assert table.sparsity.between(0.7, 0.8).all()


def test_iterative_masks_reach_the_rate(study: Study) -> None:
    masks = arrays(study, ITERATIVE, "mask")
    assert 1 - np.mean([mask.mean() for mask in masks.values()]) == pytest.approx(0.8, abs=0.03)


def test_epochs_of_an_iterative_schedule_follow_each_other(study: Study) -> None:
    table = study.epochs([ITERATIVE])
    assert table.epoch.tolist() == [0, 1, 2] and table.step.tolist() == [0, 0, 1]
    assert table.step_rate.tolist() == pytest.approx([1 - 0.2**0.5, 1 - 0.2**0.5, 0.8])
    assert table.loss.isna().tolist() == [True, False, False]
    assert table.learning_rate[1:].tolist() == pytest.approx([0.01, 0.01]), "every step begins anew"


@pytest.mark.parametrize("variant", [ONE_SHOT, ITERATIVE], ids=str)
def test_epochs_begin_and_end_with_networks_whose_accuracy_is_known(study: Study, variant: Variant) -> None:
    epochs = study.epochs([variant]).set_index("epoch")
    first = Variant("structured_l1", 0.8 if variant is ONE_SHOT else 1 - 0.2**0.5)
    for place, network in ((0, first), (-1, variant)):
        found = pruning._evaluate(study.pipeline, pruning.network(study.pipeline, network))
        for column in ("top1", "top1_all_outputs", "top5", "conv_sparsity"):
            assert epochs[column].iloc[place] == found[column]


def test_a_retrained_network_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, control, evaluated = (
        Study("smoke", TINY, "cpu", str(tmp_path)),
        Variant("dense", 0.0, "one_shot", epochs=2),
        [],
    )
    fresh.accuracy([fresh.dense])
    real = pruning._evaluate
    monkeypatch.setattr(pruning, "_evaluate", lambda *found: evaluated.append(1) or real(*found))
    monkeypatch.setattr("prunelens.engine.cores", lambda: 1)
    fresh.accuracy([control]), fresh.class_accuracy([control])
    assert len(evaluated) == 2, "once an epoch"


def test_doubled_budgets_are_variants_of_their_own(study: Study) -> None:
    longer = [variant for variant in study.accuracy_variants if variant.epochs == 4]
    assert {variant.schedule for variant in longer} == {"one_shot", "iterative"}
    assert study.epochs(longer).groupby("schedule").epoch.max().eq(4).all()


def test_units_are_all_of_them_and_dead_ones_have_no_score(study: Study) -> None:
    table = study.units([study.dense, PRUNED])
    width = study.layers.units.sum()
    assert table.groupby("rate").size().tolist() == [width, width]
    assert table[table.rate == 0].alive.all()
    pruned = table[table.rate > 0]
    assert 0.5 < (~pruned.alive).mean() < 0.9
    assert pruned.loc[~pruned.alive, study.measures].isna().all(axis=None)
    assert table[table.alive].mis.between(0, 1).all()
    assert table.groupby("kind").own_class.all().all(), "all outputs of the embedded data stand for a class"
    assert table.dissection.notna().groupby(table.kind).any().to_dict() == {"conv": True, "output": False}


def test_temperature_puts_the_dense_network_midway(study: Study) -> None:
    dense = study.units([study.dense])
    dense = dense[dense.kind == "conv"]
    assert dense.mis.mean() - 0.5 == pytest.approx((dense.two_afc_accuracy.mean() - 0.5) / 2, abs=0.002)


def test_a_measure_without_its_concepts_is_left_out(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"concept_selectivity", "dissection"} <= set(study.measures)
    monkeypatch.setattr(study.pipeline, "get", lambda *stage: {"n": 128, "concepts": []})
    assert not {"concept_selectivity", "dissection"} & set(study.measures)


def test_recalibrated_networks_differ_from_pruned_ones_in_statistics_alone(study: Study) -> None:
    variant = Variant("structured_l1", 0.8, "recalibrated")
    assert variant in study.accuracy_variants
    before = pruning.network(study.pipeline, PRUNED).state_dict()
    after = pruning.network(study.pipeline, variant).state_dict()
    moved = {name.rsplit(".", 1)[1] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    assert study.accuracy([variant]).mask_sparsity.item() == study.accuracy([PRUNED]).mask_sparsity.item()


def test_layers_that_tolerate_more_are_pruned_more(study: Study) -> None:
    table = study.layer_sparsity([Variant("unstructured_sensitivity", 0.8)]).set_index("layer").sparsity
    tolerated = pruning.tolerated(study.pipeline)
    order = sorted(table.index, key=tolerated.get)
    weights = study.layers.set_index("layer").weights  # a layer's sparsity is a whole number of these
    assert all(table[a] <= table[b] + 1 / weights[a] + 1 / weights[b] for a, b in pairwise(order))


def test_costs_of_masked_and_compact_networks(study: Study) -> None:
    found = study.costs()
    rows = found[(found.batch_size == 8) & (found.method == "structured_l1")].set_index("form")
    assert set(rows.index) == {"dense", "masked", "compact"}
    assert rows.macs["dense"] == rows.macs["masked"] > 2 * rows.macs["compact"]
    assert rows.parameters["masked"] == rows.parameters["dense"] > 2 * rows.parameters["compact"]
    assert rows.bytes["compact"] < rows.bytes["dense"] / 2 and rows.macs["compact"] <= rows.sparse_macs["masked"]
    assert (found[found.form == "dense"].speedup == 1).all()


def test_another_study_of_the_same_profile_loads_everything(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study.accuracy(), study.units([study.dense])
    again = Study("smoke", TINY, "cpu", out(study))
    monkeypatch.setattr("prunelens.store.Store.get", _only_loads(type(again.pipeline.store).get))
    for one, other in zip((again.accuracy(), again.units([again.dense])), before, strict=True):
        pd.testing.assert_frame_equal(one, other)


def _only_loads(get: Callable) -> Callable:
    def checked(
        store: object, stage: str, slug: str, key: dict, form: str, compute: object, **record: object
    ) -> object:
        return get(store, stage, slug, key, form, lambda: pytest.fail(f"{stage} {slug} is computed again"), **record)

    return checked


def test_auxiliary_heads_train_along_and_are_no_part_of_the_result(tmp_path: Path) -> None:
    heads = ["network.weights=data/googlenet_embedded.safetensors", "retraining.aux_weight=0.3",
             "data.train_images=16", "data.validation_images=16", "retraining.epochs=2"]  # fmt: skip
    aux, control = Study("smoke", [*TINY, *heads], "cpu", str(tmp_path)), Variant("dense", 0.0, "one_shot", epochs=2)
    assert aux.accuracy([control]).total_sparsity.item() == pytest.approx(0, abs=1e-6)
    assert "aux1.fc1.weight" in arrays(aux, control, "weight")
    assert not any(name.startswith("aux") for name in pruning.network(aux.pipeline, control).state_dict())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.weights=absent.safetensors", r"network\.weights: found no file .*absent\.safetensors"),
        ("network.architecture=googlenett", "architecture googlenett: unknown, did you mean googlenet"),
        ("pruning.methods=[structured_11]", "method structured_11: unknown, did you mean structured_l1"),
        ("pruning.methods=[math.sqrt]", "method math.sqrt: "),
        ("interpretability.similarity=efficientnet", "similarity efficientnet: unknown"),
        ("interpretability.measures=[mis, clarit]", "measure clarit: unknown, did you mean clarity"),
        ("data.source=embeded", "images embeded: unknown, did you mean embedded"),
        ("claims.extra=[C9]", "claim C9: unknown"),
        
        ("visualization.units={inception4a.branch1: [0]}", r"did you mean inception4a\.branch1\.conv"),
        ("visualization.units={inception3b.branch2.1.conv: [0, 48]}", "found .* 48, it has units 0 to 47"),
        ("visualization.units={fc: [3]}", r"visualization\.units: found 'fc'"),
        ("sensitivity.methods=[unstructured_sensitivity]", r"sensitivity\.methods: .* itself needs the scan"),
        ("sensitivity.methods=[structured_l1]", r"sensitivity\.methods: .* needs unstructured_local"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_anything_is_computed(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        Study("smoke", [override], "cpu", str(tmp_path)).check()
    computed = [file for file in (tmp_path / "runs").rglob("*") if file.is_file() and not file.name.startswith(".")]
    assert [file for file in computed if file.parent.name not in ("parts", "layers", "classes", "images")] == []


def test_an_auxiliary_loss_needs_heads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aux_weight: found more than 0, but resnet18 has no auxiliary heads"):
        wanted = ["network.architecture=resnet18", "retraining.aux_weight=0.3"]
        Study("smoke", wanted, "cpu", str(tmp_path)).check()


def test_recalibration_needs_batchnorm(tmp_path: Path) -> None:
    wanted = ["network.architecture=bvlc_googlenet", "network.width=1.0", "pruning.recalibrated.rates=[0.8]"]
    with pytest.raises(ValueError, match=r"pruning\.recalibrated: .* no BatchNorm"):
        Study("smoke", wanted, "cpu", str(tmp_path)).check()


def test_a_training_that_is_killed_before_it_is_stored_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelens.pruning.retraining.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("prunelens.engine.cores", lambda: 1)
    killed = Study("smoke", TINY, "cpu", str(tmp_path))
    killed.accuracy([killed.dense])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("prunelens.pruning.retraining.pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.epochs([ONE_SHOT])
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    monkeypatch.setattr("prunelens.pruning.retraining.augmented_batches", lambda *_: pytest.fail("trained again"))
    assert killed.epochs([ONE_SHOT]).epoch.tolist() == [0, 1, 2]
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_committed_network_is_good_on_regions_it_never_saw(tmp_path: Path) -> None:
    committed = ["network.weights=data/googlenet_embedded.safetensors", "data.validation_images=800"]
    found = Study("smoke", committed, "cpu", str(tmp_path)).accuracy([Variant("dense")]).iloc[0]
    assert 0.88 <= found.top1 <= 0.94 and found.n == 800


def test_drawn_units_are_the_profiles_and_a_sample_of_every_block(study: Study) -> None:
    named = Study("smoke", [*TINY, "visualization.units={inception5a.branch4.1.conv: [7]}"], "cpu", out(study))
    order = list(study.layers.layer)
    chosen = named.drawn_units
    assert ("inception5a.branch4.1.conv", 7) in chosen and len(set(chosen)) == len(chosen) == 1 + 9
    assert [layer for layer, _ in chosen] == sorted((layer for layer, _ in chosen), key=order.index)


def test_pictures_of_dead_units_are_not_drawn_and_not_judged(study: Study) -> None:
    dense, pruned = study.drawn
    found = study.pipeline.get("alive", pruned)
    alive = np.array([found[layer][unit] for layer, unit in study.drawn_units])
    assert alive.any() and not alive.all(), "structured pruning at .8 kills some of nine units"
    drawn = study.pictures(pruned)
    assert not drawn["images"][~alive].any() and not drawn["excited"][~alive].any()
    assert drawn["images"][alive].any((1, 2, 3, 4)).all()
    quality = study.picture_quality()
    numbers = quality[["reached", "like_top", "consistency", "like_dense"]]
    assert numbers[quality.rate > 0].isna().all(axis=1).to_numpy().tolist() == (~alive).tolist()
    of_dense = quality[quality.method == dense.method]
    np.testing.assert_allclose(of_dense.like_dense, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("interpretability.explanations=2", {"extremes", "measure.clarity", "pictures", "picture_quality"}),
        ("latency_repeats=3", {"costs"}),
        ("visualization.steps=5", {"pictures", "picture_quality"}),
        ("interpretability.similarity=stlpips", {"measure.clarity", "picture_quality"}),
        ("retraining.learning_rate=0.02", {"retrained"}),
    ],
)
def test_a_number_makes_other_artefacts_of_the_stages_that_read_it(
    study: Study, override: str, changed: set[str]
) -> None:
    other = Study("smoke", [*TINY, override], "cpu", out(study))
    of_dense = {"accuracy", "extremes", "pictures", "picture_quality"}
    for one in (study, other):
        units.measure_stage(one.pipeline, "clarity")
    keys = [
        {name: one.pipeline.key(name, one.dense) for name in (*of_dense, "measure.clarity")}
        | {"costs": one.pipeline.key("costs", PRUNED), "retrained": one.pipeline.key("retrained", ONE_SHOT)}
        for one in (study, other)
    ]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == changed


def test_the_most_pruned_networks_are_the_methods_one_shot_and_retrained(study: Study) -> None:
    methods = [(variant.method, variant.rate, variant.schedule) for variant in study.most_pruned]
    assert methods == [("dense", 0.0, "none"), ("structured_l1", 0.8, "one_shot"), ("connection_l1", 0.8, "one_shot")]
    assert set(study.most_pruned) <= set(study.variants)


def test_stages_compute_without_notebooks_and_an_unknown_one_is_named(study: Study) -> None:
    study.compute(["pruned"])
    assert all(study.pipeline.has("pruned", variant) for variant in study.pruned)
    with pytest.raises(ValueError, match="--stages: found dreams, expected some of sensitivity, "):
        study.compute(["dreams"])


def test_stimuli_are_training_images(study: Study) -> None:
    names = set(images.stimuli(study.pipeline).names)
    assert len(names) == study.profile.data.stimulus_images and all(name.startswith("train/") for name in names)
