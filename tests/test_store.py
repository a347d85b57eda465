"""Compute or load: once, whole, and never stale."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunelens import store as store_module
from prunelens.store import Store, fingerprint


class Counted:
    """A computation that knows how often it ran."""

    def __init__(self, result: object) -> None:
        self.result, self.calls = result, 0

    def __call__(self) -> object:
        self.calls += 1
        return self.result


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_second_call_loads_the_same(store: Store) -> None:
    table = Counted(pd.DataFrame({"a": [1, 2], "b": ["x", None]}))
    arrays = Counted({"w": np.arange(6.0).reshape(2, 3).T, "scalar": np.float64(3), "mask": np.array([True, False])})
    for _ in range(2):
        found = store.get("stage", "slug", {"p": 1}, "arrays", arrays)
        assert all(np.array_equal(found[name], arrays.result[name]) for name in arrays.result)
        assert found["scalar"].shape == ()
        pd.testing.assert_frame_equal(store.get("stage", "slug", {"p": 1}, "table", table), table.result)
    assert (table.calls, arrays.calls) == (1, 1)


def test_another_parameter_is_another_artefact(store: Store) -> None:
    for rate in (0.4, 0.8):
        store.get("stage", "slug", {"rate": rate}, "table", lambda rate=rate: pd.DataFrame({"rate": [rate]}))
    assert store.get("stage", "slug", {"rate": 0.8}, "table", pytest.fail).rate.item() == 0.8


def test_fingerprint_ignores_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


NOTES = {"half a note": b"{", "a list": b"[]", "no text": b'{"sha256": "\xff\xfe"}'}


@pytest.mark.parametrize("damage", ["truncate", "flip", *NOTES])
def test_damage_is_noticed_set_aside_and_said(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    compute = Counted({"w": np.arange(1000)})
    store.get("stage", "slug", {}, "arrays", compute)
    file = store.path("stage", "slug", {}, ".safetensors")
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:500])
    elif damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        Path(f"{file}.json").write_bytes(NOTES[damage])
    with caplog.at_level(logging.WARNING):
        found = store.get("stage", "slug", {}, "arrays", compute)
    assert compute.calls == 2 and np.array_equal(found["w"], np.arange(1000))
    assert "is damaged" in caplog.text and file.with_name(file.name + ".damaged").exists()


def test_note_says_how_it_came_to_be(store: Store) -> None:
    store.get("stage", "slug", {"seed": 3}, "table", lambda: pd.DataFrame({"a": [1]}))
    note = json.loads(Path(f"{store.path('stage', 'slug', {'seed': 3}, '.parquet')}.json").read_text())
    assert note["key"] == {"seed": 3}
    assert note["versions"].keys() >= {"torch", "python"} and len(note["library_sha256"]) == 64


def test_note_records_what_the_caller_adds(store: Store) -> None:
    store.get("stage", "slug", {}, "table", lambda: pd.DataFrame({"a": [1]}), device="cuda")
    assert json.loads(Path(f"{store.path('stage', 'slug', {}, '.parquet')}.json").read_text())["device"] == "cuda"


def test_an_artefact_swapped_with_a_sibling_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for rate in (0.4, 0.8):
        store.get("stage", "slug", {"rate": rate}, "json", lambda rate=rate: {"rate": rate})
    files = [store.path("stage", "slug", {"rate": rate}, ".data.json") for rate in (0.4, 0.8)]
    for ending in ("", ".json"):
        one, other = (Path(f"{file}{ending}") for file in files)
        content = one.read_bytes(), other.read_bytes()
        one.write_bytes(content[1]), other.write_bytes(content[0])
    assert store.get("stage", "slug", {"rate": 0.4}, "json", lambda: {"rate": 0.4})["rate"] == 0.4
    assert "its note is that of" in caplog.text


def test_a_changed_key_in_a_note_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.get("stage", "slug", {"rate": 0.4}, "json", lambda: {"rate": 0.4})
    note = Path(f"{store.path('stage', 'slug', {'rate': 0.4}, '.data.json')}.json")
    note.write_text(note.read_text().replace('"rate": 0.4', '"rate": 0.5'))
    store.get("stage", "slug", {"rate": 0.4}, "json", lambda: {"rate": 0.4})
    assert "is damaged" in caplog.text


def test_a_changed_number_in_a_note_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.get("stage", "slug", {}, "json", lambda: {"a": 1}, device="cpu")
    note = Path(f"{store.path('stage', 'slug', {}, '.data.json')}.json")
    note.write_text(note.read_text().replace('"cpu"', '"cuda"'))
    store.get("stage", "slug", {}, "json", lambda: {"a": 1})
    assert "does not match its checksum" in caplog.text


@pytest.mark.parametrize("note", ["[]", "3", "{}", '{"sha256": 1}', "null"])
def test_a_note_that_is_something_else_is_damage(store: Store, note: str, caplog: pytest.LogCaptureFixture) -> None:
    store.get("stage", "slug", {}, "json", lambda: {"a": 1})
    file = Path(f"{store.path('stage', 'slug', {}, '.data.json')}.json")
    file.write_text(note)
    told = store.note("stage", "slug", {}, "json")
    assert told is None or store_module.differences(told)
    assert store.get("stage", "slug", {}, "json", lambda: {"a": 2}) == {"a": 2} and "is damaged" in caplog.text


def test_loading_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a finished store may be read-only, or another user's."""
    store.get("stage", "slug", {}, "json", lambda: {"a": 1})
    before = {file: file.stat().st_mtime_ns for file in store.root.rglob("*")}
    for name in ("atomic", "locked", "_remove_drafts"):
        monkeypatch.setattr(store_module, name, pytest.fail)
    assert store.get("stage", "slug", {}, "json", pytest.fail) == {"a": 1}
    assert {file: file.stat().st_mtime_ns for file in store.root.rglob("*")} == before


def test_results_of_other_code_or_packages_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.get("stage", "slug", {}, "json", lambda: {"a": 1})
    note, ours = store.note("stage", "slug", {}, "json"), store_module.origin()
    assert store_module.differences(note) == ""
    later = {**ours, "library_sha256": "0", "versions": {**ours["versions"], "torch": "99"}}
    monkeypatch.setattr(store_module, "origin", lambda: later)
    assert store_module.differences(note) == f"another version of this library, torch {ours['versions']['torch']}"
    assert store.get("stage", "slug", {}, "json", pytest.fail) == {"a": 1}, "it is loaded all the same"


def test_only_files_that_results_follow_from_make_a_commit_dirty(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    files = ["lib/p/a.py", "notebooks/profiles/q.yaml", "pyproject.toml", "requirements.lock", "data/w.safetensors"]
    others = ["figures/q/1.png", "figures/q/notebooks/00.ipynb", "README.md", "data/README.md"]
    for name in files + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    for name in others:
        (tmp_path / name).write_text("rewritten")
    assert not store_module.is_dirty(tmp_path)
    for name in files:
        (tmp_path / name).write_text("changed")
        assert store_module.is_dirty(tmp_path), name
        (tmp_path / name).write_text("as committed")
    assert not store_module.is_dirty(tmp_path)


def test_failing_computation_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.get("stage", "slug", {}, "table", lambda: 1 / 0)
    assert [file for file in store.root.rglob("*") if file.is_file() and not file.name.endswith(".lock")] == []


def test_what_a_killed_write_left_is_removed(store: Store) -> None:
    file, other = store.path("stage", "slug", {}, ".parquet"), store.path("stage", "slug", {"p": 1}, ".parquet")
    drafts = [file.with_name(f".host-{i}-{name}") for i, name in enumerate((file.name, f"{file.name}.json"))]
    others = [other.with_name(f".host-3-{other.name}"), other.with_name(f".{other.name}.lock")]
    file.parent.mkdir()
    for path in drafts + others:
        path.touch()
    store.get("stage", "slug", {}, "table", lambda: pd.DataFrame({"a": [1]}))
    assert not any(draft.exists() for draft in drafts)
    assert all(path.exists() for path in others), "it belongs to another artefact"


def test_equal_process_numbers_on_two_hosts_write_two_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store_module.atomic(tmp_path / "file") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(store_module.platform, "node", lambda: "elsewhere")
        with store_module.atomic(tmp_path / "file") as other:
            other.write_text("other")
    assert mine != other and (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _slow(root: Path, started: Path) -> None:
    def compute() -> pd.DataFrame:
        started.touch()
        time.sleep(1)
        return pd.DataFrame({"pid": [os.getpid()]})

    Store(root).get("stage", "slug", {}, "table", compute)


def test_two_processes_compute_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_slow, args=(tmp_path, tmp_path / f"started{i}")) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("started*"))) == 1


def test_killed_process_frees_the_artefact(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_slow, args=(tmp_path, tmp_path / "started"))
    process.start()
    while not (tmp_path / "started").exists():
        assert process.is_alive(), "it ended before it computed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Store(tmp_path).get("stage", "slug", {}, "table", lambda: pd.DataFrame({"a": [7]})).a.item() == 7
