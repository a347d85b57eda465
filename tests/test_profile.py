"""Profiles: every shipped one loads, and every mistake is named."""

from pathlib import Path

import pytest

from prunelens import profile as profiles
from prunelens.variants import accuracy_variants, variants


@pytest.mark.parametrize("name", profiles.names())
def test_shipped_profiles_load_and_carry_their_own_name(name: str) -> None:
    assert profiles.load(name).name == name


def test_shipped_profiles_are_the_five() -> None:
    assert profiles.names() == ["imagenet", "imagenette", "imagenette_bvlc", "quick", "smoke"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retraining.epoch=3", r"retraining\.epoch .*did you mean epochs"),
        ("retraining.epochs=1.5", r"retraining\.epochs: found 1\.5"),
        ('retraining.epochs="3"', r"retraining\.epochs: found '3'"),
        ("pruning.rates=[0.4, 1.2]", r"pruning\.rates\.1: found 1\.2"),
        ("pruning.rates=[0, 0.4]", r"pruning\.rates\.0: found 0, input should be greater than 0"),
        ("pruning.rates=[0.4, 0.401]", r"pruning\.rates: found \[0\.4, 0\.401\], expected no value twice, to two"),
        ("pruning.rates=[]", r"pruning\.rates: found \[\]"),
        ("sensitivity.rates=[0.4, 0.4]", r"sensitivity\.rates: found \[0\.4, 0\.4\], expected no value twice"),
        ("pruning.seeds=[0, 0]", r"pruning\.seeds: found \[0, 0\], expected no value twice"),
        ("pruning.seeds=[0, -1]", r"pruning\.seeds\.1: found -1"),
        ("seed=-1", "key seed: found -1"),
        ("latency_batches=[]", r"latency_batches: found \[\]"),
        ("network.scratch.epoch=3", r"network\.scratch\.epoch \(did you mean epochs\?\)"),
        ("retraining.epochs=1", r"retraining\.epochs: found 1, expected at least one for each of the 2 steps"),
        ("pruning.iterative.steps=4", r"retraining\.epochs: found 2, .* 4 steps .* and a third of all after the last"),
        ("data.stimulus_images=799", r"data\.stimulus_images: found 799 .* 10 .* 9 .* take 200 .* at least 800"),
        ("retraining.epochs", "expected key.path=value"),
        ("seed.x=1", "seed is no section"),
        ("name=other", "found the key name, expected none"),
        ("pruning.rates=[0.4", r"override 'pruning\.rates=\[0\.4': not valid YAML"),
        ("pruning.methods=[dense]", r"pruning\.methods\.0: found 'dense', expected a pruning method"),
        ("seed=010", "key seed: found '010'"),
        ("seed=1:30", "key seed: found '1:30'"),
        ("seed=2001-13-45", "key seed: found '2001-13-45'"),
        ("data.train_images=", "found no value; write null for none"),
        ("retraining.weight_decay=.inf", "weight_decay: found '.inf'"),
        ("data.size=8", "data.size: found 8"),
        ("network.outputs=1000000000", "network.outputs: found 1000000000"),
        ("data.source=folder", "data.root: found nothing, expected a folder"),
        ("retraining.weight_decay=2.0", r"weight_decay: found 2\.0"),
        ("retraining.learning_rate=1e9", "learning_rate: found 1000000000"),
        ("retraining.aux_weight=.nan", "aux_weight: found '.nan'"),
        ("retraining.epochs=100000000", "retraining.epochs: found 100000000"),
        ("seed=99999999999999999999", "key seed: found 99999999999999999999"),
        ("data.classes=[a, b]", r"data\.classes: found 2 names, expected \d+ \(network\.outputs\)"),
        ("network.normalization={mean: [0.5], deviation: [0.5]}", r"normalization\.mean: found \[0\.5\]"),
        ("network.normalization={mean: [0, 0, 0], deviation: [1, 1, 0]}", r"deviation\.2: found 0"),
        ("sensitivity.images=5000", r"sensitivity\.images: found 5000, expected at most \d+, .* data\.train_images"),
        ("pruning.controls={methods: [structured_l2], rates: []}", r"pruning\.controls\.rates: found none"),
        ("data.resize=256", r"data\.resize, data\.interpolation: found values, but images embedded are no folder"),
        ("data.interpolation=bicubic", "found values, but images embedded are no folder"),
    ],
)
def test_mistakes_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.load("quick", [override])


def test_photographs_are_not_resized_to_less_than_the_crop() -> None:
    with pytest.raises(ValueError, match=r"data\.resize: found 200, expected at least data\.size = 224"):
        profiles.load("imagenet", ["data.resize=200"])
    assert profiles.load("imagenet", ["data.resize=224"]).data.resize == 224


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found NoneType, expected keys"),
        (b"- seed: 1", "found list, expected keys"),
        (b"seed: \xff", "not valid YAML: 'utf-8' codec"),
        (b"name: copied", "found the key name, expected none"),
        (b"name: [", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    for overrides in ([], ["seed=1"]):
        with pytest.raises(ValueError, match=rf"mine\.yaml: {message}"):
            profiles.load(str(tmp_path / "mine.yaml"), overrides)


@pytest.mark.parametrize("rate", [0.8, 0.804])
def test_no_variant_stands_in_two_grids(rate: float) -> None:
    wanted = f"pruning.controls={{methods: [structured_l2, structured_l1], rates: [{rate}]}}"
    with pytest.raises(ValueError, match=r"pruning\.controls: found structured_l1 at rate 0\.80, which is in pruning"):
        profiles.load("quick", [wanted])


def test_a_grid_of_another_schedule_repeats_methods_and_rates() -> None:
    grids = ("unmasked", "iterative", "recalibrated")
    same = [f"pruning.{key}.{wanted}" for key in grids for wanted in ("methods=[structured_l1]", "rates=[0.8]")]
    profile = profiles.load("quick", same)
    names = [str(variant) for variant in variants(profile, ()) + accuracy_variants(profile)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["...yaml", "<b>.yaml", ".yaml", "-x.yaml", "a\nb.yaml"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text((profiles.PROFILES / "smoke.yaml").read_text())
    with pytest.raises(ValueError, match="key name: found"):
        profiles.load(str(tmp_path / name))


def test_a_copied_profile_has_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "my copy-2.yaml").write_text((profiles.PROFILES / "smoke.yaml").read_text())
    assert profiles.load(str(tmp_path / "my copy-2.yaml")).name == "my copy-2"


def test_override_sets_a_value_and_scientific_notation_is_a_number() -> None:
    profile = profiles.load("quick", ["retraining.learning_rate=1e-3", "pruning.seeds=[0,1]"])
    assert profile.retraining.learning_rate == 0.001
    assert profile.pruning.seeds == [0, 1]


def test_missing_profile_lists_those_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"quik.*smoke"):
        profiles.load("quik")


def test_unset_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNELENS_NOWHERE", raising=False)
    with pytest.raises(ValueError, match=r"data\.root = \$PRUNELENS_NOWHERE/x.*PRUNELENS_NOWHERE is not set"):
        profiles.expand("$PRUNELENS_NOWHERE/x", "data.root")
