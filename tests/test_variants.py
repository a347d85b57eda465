"""The networks of a profile."""

import pickle

from prunelens import profile
from prunelens.variants import FIELDS, Variant, accuracy_variants, variants

RANDOM = {"connection_random"}


def test_variants_are_unique_and_controls_come_first() -> None:
    imagenet = profile.load("imagenet")
    found = variants(imagenet, RANDOM)
    named = [*map(str, found + accuracy_variants(imagenet))]
    assert len(set(named)) == len(named)
    assert found[:2] == [Variant("dense"), Variant("dense", weights="random")]
    assert {v.seed for v in found if v.method == "dense" and v.retrained} == {0, 1, 2}
    # Before retraining, a deterministic method has one network whatever the seed.
    assert sum(v.method == "structured_l1" and v.schedule == "none" and v.rate == 0.8 for v in found) == 1
    assert sum(v.method == "connection_random" and v.schedule == "none" and v.rate == 0.8 for v in found) == 3


def test_fields_are_columns_and_survive_pickling() -> None:
    unmasked = Variant("connection_l1", 0.8, "one_shot", 3, masked=False, epochs=2)
    assert list(unmasked.fields()) == FIELDS
    assert pickle.loads(pickle.dumps(unmasked)) == unmasked == Variant(**unmasked.fields())


def test_names_differ_in_every_field() -> None:
    one = Variant("structured_l1", 0.8, "one_shot", 0, epochs=2)
    others = [("method", "dense"), ("rate", 0.4), ("schedule", "iterative"), ("seed", 1), ("masked", False),
              ("weights", "random"), ("epochs", 4)]  # fmt: skip
    assert len({str(one), *(str(Variant(**one.fields() | {name: value})) for name, value in others)}) == 8


def test_schedules_that_train() -> None:
    trains = {schedule: Variant("structured_l1", 0.8, schedule).retrained for schedule in
              ("none", "recalibrated", "one_shot", "iterative")}  # fmt: skip
    assert trains == {"none": False, "recalibrated": False, "one_shot": True, "iterative": True}


def test_controls_are_one_network_per_method_rate_and_seed() -> None:
    smoke = profile.load("smoke", ["pruning.seeds=[0, 3]"])
    found = accuracy_variants(smoke)
    recalibrated = [Variant("dense", 0.0, "recalibrated", 0), Variant("structured_l1", 0.8, "recalibrated", 0)]
    assert [v for v in found if v.schedule == "recalibrated"] == recalibrated
    controls = {v.seed for v in found if v.method == "unstructured_sensitivity" and v.schedule == "one_shot"}
    assert controls == {0, 3}


def test_budgets_of_iterative_networks_have_their_one_shot_partners() -> None:
    found = accuracy_variants(profile.load("smoke", ["pruning.iterative.epochs=[5]"]))
    assert {v.schedule for v in found if v.epochs == 5} == {"one_shot", "iterative"}
