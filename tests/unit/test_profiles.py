"""Profiles: every shipped one loads, and every mistake is named."""

from pathlib import Path

import pytest

from prunelens import profiles
from prunelens.variants import more_variants, variants


@pytest.mark.parametrize("name", profiles.names())
def test_shipped_profiles_load_and_carry_their_own_name(name: str) -> None:
    assert profiles.load(name).name == name


def test_shipped_profiles_are_the_six() -> None:
    assert profiles.names() == ["imagenet", "imagenette", "imagenette_bvlc", "long", "quick", "smoke"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retraining.epoch=3", r"retraining\.epoch .*did you mean epochs"),
        ("retraining.epochs=1.5", r"retraining\.epochs: found 1\.5"),
        ('retraining.epochs="3"', r"retraining\.epochs: found '3'"),
        ("pruning.rates=[0.4, 1.2]", r"pruning\.rates\.1: found 1\.2"),
        ("pruning.methods=[magic]", r"pruning\.methods\.0: found 'magic', expected the import path"),
        ("pruning.rates=[0, 0.4]", r"pruning\.rates\.0: found 0, input should be greater than 0"),
        ("pruning.rates=[0.4, 0.401]", r"pruning\.rates: found \[0\.4, 0\.401\], expected no value twice, to two"),
        ("pruning.rates=[]", r"pruning\.rates: found \[\]"),
        ("sensitivity.rates=[0.4, 0.4]", r"sensitivity\.rates: found \[0\.4, 0\.4\], expected no value twice"),
        ("pruning.seeds=[0, 0]", r"pruning\.seeds: found \[0, 0\], expected no value twice"),
        ("pruning.seeds=[0, -1]", r"pruning\.seeds\.1: found -1"),
        ("seed=-1", "key seed: found -1"),
        ("interpretability.seeds=[0, -1]", r"interpretability\.seeds\.1: found -1"),
        ("latency_batches=[]", r"latency_batches: found \[\]"),
        ("pruning.first_seed_only=[connection_random]", r"pruning\.first_seed_only: found \['connection_random'\]"),
        ("sensitivity.methods=[unstructured_sensitivity]", r"sensitivity\.methods: .* itself needs the scan"),
        ("sensitivity.methods=[math.sqrt]", r"pruning method math\.sqrt: "),
        ("network.scratch.epoch=3", r"network\.scratch\.epoch \(did you mean epochs\?\)"),
        ("retraining.epochs=1", r"retraining\.epochs: found 1, expected at least one for each of the 2 steps"),
        ("pruning.iterative.epochs=[4,1]", r"pruning\.iterative\.epochs: found 1, expected at least one for each"),
        ("pruning.methods=[nowhere.magic]", r"pruning\.methods\.0: found 'nowhere\.magic'.*no module named"),
        ("pruning.controls.methods=[math.sqrt]", r"pruning method math\.sqrt: "),
        ("pruning.rewound.learning_rate=0", r"pruning\.rewound\.learning_rate: found 0"),
        ("visualization.rates=[0.3]", r"visualization: found \[0\.3\]"),
        ("visualization.units={inception4a.branch1: [0]}", r"did you mean inception4a\.branch1\.conv"),
        (
            "visualization.units={inception3b.branch2.1.conv: [0, 192]}",
            r"found inception3b\.branch2\.1\.conv 192, it has units 0 to 191",
        ),
        ("data.stimulus_images=20", r"data\.stimulus_images: found 20, .* need 400"),
        ("retraining.epochs", "expected key.path=value"),
        ("name.x=1", "name is no section"),
        ("pruning.rates=[0.4", r"override 'pruning\.rates=\[0\.4': not valid YAML"),
        ("seed=2001-13-45", "override 'seed=2001-13-45': not valid YAML: month must be"),
    ],
)
def test_mistakes_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.load("quick", [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found NoneType, expected keys"),
        (b"- seed: 1", "found list, expected keys"),
        (b"name: \xff", "not valid YAML: 'utf-8' codec"),
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
    grids = ("unmasked", "iterative", "recalibrated", "reinitialised", "rewound")
    same = [f"pruning.{key}.{wanted}" for key in grids for wanted in ("methods=[structured_l1]", "rates=[0.8]")]
    profile = profiles.load("quick", same)
    names = [str(variant) for variant in variants(profile) + more_variants(profile)]
    assert len(set(names)) == len(names)


def test_rates_by_sensitivity_need_their_scan() -> None:
    wanted = ["sensitivity.methods=[structured_l1]", "pruning.controls.methods=[unstructured_sensitivity]"]
    with pytest.raises(ValueError, match=r"sensitivity\.methods: .* needs unstructured_local"):
        profiles.load("quick", wanted)


def test_recalibration_needs_batchnorm() -> None:
    with pytest.raises(ValueError, match=r"pruning\.recalibrated: .* no BatchNorm"):
        profiles.load("imagenette_bvlc", ["pruning.recalibrated.methods=[structured_l1]"])


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("interpretability.seeds=[1]", r"interpretability.seeds: found \[1\], expected 0 among them"),
        ("visualization.units={fc: [3]}", "visualization.units: found fc, expected convs"),
        ("visualization.methods=[]", "visualization.methods"),
    ],
)
def test_what_notebooks_could_not_show_is_said_before(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.load("quick", [override])
