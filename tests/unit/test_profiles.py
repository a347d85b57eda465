"""Profiles: every shipped one loads, and every mistake is named."""

import pytest

from prunelens import profiles


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
        ("pruning.seeds=[0, 0]", r"pruning\.seeds: found \[0, 0\], expected no value twice"),
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
    ],
)
def test_mistakes_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profiles.load("quick", [override])


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
