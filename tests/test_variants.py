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
              ("none", "recalibrated", "one_shot", "iterative", "rewound")}  # fmt: skip
    assert trains == {"none": False, "recalibrated": False, "one_shot": True, "iterative": True, "rewound": True}


def test_controls_are_one_network_per_method_rate_and_seed() -> None:
    smoke = profile.load("smoke", ["pruning.seeds=[0, 3]"])
    found = accuracy_variants(smoke)
    recalibrated = [Variant("dense", 0.0, "recalibrated", 0), Variant("structured_l1", 0.8, "recalibrated", 0)]
    assert [v for v in found if v.schedule == "recalibrated"] == recalibrated
    assert {v.seed for v in found if v.schedule == "rewound"} == {0, 3}
    assert Variant("connection_l1", 0.8, "one_shot", 3, weights="random", epochs=2) in found


def test_doubled_rates_have_every_kind_of_retrained_network_once() -> None:
    smoke = profile.load("smoke", ["pruning.doubled=[0.8]", "pruning.seeds=[3, 0]"])
    kinds = {(v.method, v.schedule, v.masked) for v in variants(smoke, ()) if v.epochs and v.rate in (0, 0.8)}
    doubled = [v for v in accuracy_variants(smoke) if v.epochs == 4]
    assert {(v.method, v.schedule, v.masked) for v in doubled} == kinds and len(doubled) == len(kinds)
    assert {v.seed for v in doubled} == {3} and {v.rate for v in doubled} == {0, 0.8}
    none = profile.load("smoke", ["pruning.doubled=[]"])
    assert all(v.epochs <= none.retraining.epochs for v in accuracy_variants(none))


def test_unretrained_networks_are_one_each_and_none_twice() -> None:
    override = "pruning.unretrained={methods: [structured_l1, structured_random], rates: [0.6, 0.8]}"
    found = [v for v in variants(profile.load("smoke", [override]), ()) if v.schedule == "none"]
    assert len(set(found)) == len(found)
    assert [v.rate for v in found if v.method == "structured_random"] == [0.6, 0.8]
    assert sorted(v.rate for v in found if v.method == "structured_l1") == [0.4, 0.6, 0.8]
