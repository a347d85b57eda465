"""Stages: keys that follow from declarations, computed once, several at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prunelens import profile, stages
from prunelens.stages import FACTS, STAGES, Pipeline, fact, stage
from prunelens.store import Store
from prunelens.variants import Variant


@pytest.fixture(autouse=True)
def own_stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stages and facts of a test do not outlive it."""
    monkeypatch.setattr(stages, "STAGES", dict(STAGES))
    monkeypatch.setattr(stages, "FACTS", dict(FACTS))
    yield


def pipeline(tmp_path: Path, *overrides: str) -> Pipeline:
    return Pipeline(profile.load("smoke", list(overrides)), Store(tmp_path), "cpu")


def test_a_key_follows_from_what_a_stage_reads_and_needs(tmp_path: Path) -> None:
    weather = {"sun": 1}

    @fact
    def today(pipeline: Pipeline, subject: object) -> dict:
        return weather

    @stage(form="json", reads=("seed",), needs=("today",), subject="")
    def first(pipeline: Pipeline, subject: None) -> dict: ...

    @stage(form="json", needs=("first",))
    def second(pipeline: Pipeline, subject: Variant) -> dict: ...

    one = Variant("dense")
    key = pipeline(tmp_path).key("second", one)
    assert pipeline(tmp_path).key("second", one) == key
    assert pipeline(tmp_path, "latency_repeats=7").key("second", one) == key, "it does not read this"
    assert pipeline(tmp_path, "seed=1").key("second", one) != key
    weather["sun"] = 0
    assert pipeline(tmp_path).key("second", one) != key


def test_a_need_of_the_dense_network_is_that_of_no_other(tmp_path: Path) -> None:
    @fact
    def which(pipeline: Pipeline, subject: Variant) -> str:
        return str(subject)

    @stage(form="json", needs=("which",))
    def base(pipeline: Pipeline, subject: Variant) -> dict: ...

    @stage(form="json", needs=("dense.base",))
    def derived(pipeline: Pipeline, subject: Variant) -> dict: ...

    keys = [pipeline(tmp_path).key("derived", Variant(method)) for method in ("dense", "structured_l1")]
    assert keys[0] == keys[1]


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    calls = []

    @stage(form="json", reads=("seed",))
    def counted(pipeline: Pipeline, subject: Variant) -> dict:
        calls.append(subject)
        return {"method": subject.method}

    wanted = [Variant("dense"), Variant("structured_l1", 0.4)]
    found = pipeline(tmp_path)
    found.processes = lambda: 1
    found.ensure("counted", wanted)
    found.ensure("counted", [*wanted, Variant("connection_l1", 0.4)])
    assert [subject.method for subject in calls] == ["dense", "structured_l1", "connection_l1"]
    assert pipeline(tmp_path).get("counted", wanted[1]) == {"method": "structured_l1"}


def test_several_stages_of_a_subject_are_one_unit_of_work(tmp_path: Path) -> None:
    @stage(form="json")
    def one(pipeline: Pipeline, subject: Variant) -> dict:
        return pipeline.remember("shared", lambda: {"at": str(subject)})

    @stage(form="json")
    def two(pipeline: Pipeline, subject: Variant) -> dict:
        return pipeline.remember("shared", pytest.fail)

    found = pipeline(tmp_path)
    found.processes = lambda: 1
    found.ensure(["one", "two"], [Variant("dense")])
    assert found.get("two", Variant("dense")) == {"at": str(Variant("dense"))}


def test_nothing_is_prepared_where_nothing_is_missing(tmp_path: Path) -> None:
    @stage(form="json")
    def made(pipeline: Pipeline, subject: Variant) -> dict:
        return {}

    found = pipeline(tmp_path)
    found.processes = lambda: 1
    seen = []
    found.ensure("made", [Variant("dense")], before=lambda: seen.append(1))
    found.ensure("made", [Variant("dense")], before=pytest.fail)
    assert seen == [1]


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device: found 'abacus', expected auto, cpu or cuda"):
        _ = Pipeline(profile.load("smoke"), Store(tmp_path), "abacus").device
