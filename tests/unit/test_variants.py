"""The networks of a profile."""

from prunelens import profiles
from prunelens.variants import Variant, more_variants, variants


def test_variants_are_unique_and_controls_come_first() -> None:
    found = variants(profiles.load("imagenet"))
    named = [*map(str, found + more_variants(profiles.load("imagenet")))]
    assert len(set(named)) == len(named)
    assert [variant.method for variant in found[:2]] == ["dense", "random_init"]
    assert {variant.seed for variant in found if variant.method == "dense_retrained"} == {0, 1, 2}
    # Before retraining, a deterministic method has one network whatever the seed.
    assert sum(v.method == "structured_l1" and v.schedule == "none" and v.rate == 0.8 for v in found) == 1
    assert sum(v.method == "connection_random" and v.schedule == "none" and v.rate == 0.8 for v in found) == 3


def test_a_suffix_is_no_part_of_the_pruning_method() -> None:
    unmasked, fresh = Variant("connection_l1_unmasked", 0.8), Variant("structured_l1_reinitialised", 0.8)
    assert unmasked.pruning_method == "connection_l1" and not unmasked.masked
    assert fresh.pruning_method == "structured_l1" and fresh.masked


def test_schedules_that_train() -> None:
    trains = {schedule: Variant("structured_l1", 0.8, schedule).retrained for schedule in
              ("none", "recalibrated", "one_shot", "iterative", "rewound")}  # fmt: skip
    assert trains == {"none": False, "recalibrated": False, "one_shot": True, "iterative": True, "rewound": True}


def test_controls_are_one_network_per_method_rate_and_seed() -> None:
    profile = profiles.load("smoke", ["pruning.seeds=[0, 3]"])
    found = more_variants(profile)
    assert [v for v in found if v.schedule == "recalibrated"] == [Variant("structured_l1", 0.8, "recalibrated", 0)]
    assert {v.seed for v in found if v.schedule == "rewound"} == {0, 3}
    assert Variant("connection_l1_reinitialised", 0.8, "one_shot", 3) in found
