"""The units of work of a study are what it computes, no more and no less."""

from pathlib import Path

import pytest

from prunelens.run import costs, verify
from prunelens.stages import STAGES
from prunelens.study import Study
from prunelens.work import work

TINY = [
    "pruning={methods: [structured_l1], rates: [0.8], seeds: [0], unmasked: {methods: [structured_l1], rates: [0.8]}, "
    "recalibrated: {methods: [structured_l1], rates: [0.8]}}",
    "data.train_images=32", "data.validation_images=64", "sensitivity.images=8", "sensitivity.rates=[0.8]",
    "interpretability.dissection_images=16", "interpretability.measures=[mis, dissection]", "latency_repeats=1",
    "network.scratch.epochs=1", "retraining.epochs=1", "visualization.steps=1", "visualization.atlas=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = Study("smoke", TINY, "cpu", str(tmp_path_factory.mktemp("work")))
    found.compute()
    return found


def test_the_units_are_all_that_a_study_computes(study: Study) -> None:
    listed = {
        str(study.pipeline.store.path(stage, study.pipeline._slug(subject), study.pipeline.key(stage, subject), ""))
        for stage, subjects in work(study).items()
        for subject in subjects
    }
    notes = [file for stage in STAGES for file in (study.pipeline.store.root / stage).glob("*.json")]
    endings = (".safetensors.json", ".parquet.json", ".data.json.json")
    computed = {str(file).removesuffix(end) for file in notes for end in endings if str(file).endswith(end)}
    assert listed == computed


def test_everything_computed_costs_nothing_more_and_its_seconds_are_known(study: Study) -> None:
    guesses = costs.Guesses([study])
    assert not guesses.missing(work(study), study.pipeline.note)
    found = {cost.stage: cost for cost in costs.costs(work(study), study.pipeline.note, guesses, 2)}
    assert all(cost.computed == cost.units and cost.minutes == cost.megabytes == 0 for cost in found.values())
    assert found["retrained"].units == 3 and found["retrained"].seconds > 0


def test_a_study_with_more_seeds_is_known_from_its_first(study: Study) -> None:
    out = str(study.folder.parents[1])
    more = Study("smoke", [*TINY, "pruning.seeds=[0, 1, 2]"], "cpu", out)
    guesses = costs.Guesses([more])
    assert not guesses.missing(work(more), more.pipeline.note)
    retrained = next(c for c in costs.costs(work(more), more.pipeline.note, guesses, 1) if c.stage == "retrained")
    assert (retrained.units, retrained.computed) == (9, 3) and retrained.minutes > 0
    assert retrained.megabytes == pytest.approx(6 * _megabytes(study, "retrained") / 3, rel=0.1)


def _megabytes(study: Study, stage: str) -> float:
    return sum(study.pipeline.note(stage, subject)["bytes"] for subject in work(study)[stage]) / 1e6


def test_small_studies_are_valid_and_small(study: Study) -> None:
    for factor in (1, 3):
        small = Study("smoke", [*TINY, *costs.small_numbers(study, factor)], "cpu", str(study.folder.parents[1]))
        assert len(small.everything) == 3 * study.pipeline.processes() + 4
        assert small.profile.retraining.epochs == 1 and len(small.train) <= len(study.train)


def test_results_of_other_code_are_counted(study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    n = sum(map(len, work(study).values()))
    assert verify.origins(study).startswith(f"results: {n} here, 0 by other code than the present, 0 with other")
    monkeypatch.setattr(verify, "origin", lambda: {"library_sha256": "other", "versions": {}})
    assert verify.origins(study).endswith(f"{n} by other code than the present, {n} with other package versions")
    assert "none here" in verify.origins(Study("smoke", TINY, "cpu", str(tmp_path)))
