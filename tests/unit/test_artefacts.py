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

from prunelens import artefacts
from prunelens.artefacts import Store, _dirty, fingerprint


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
        found = store.arrays("stage", "slug", {"p": 1}, arrays)
        assert all(np.array_equal(found[name], arrays.result[name]) for name in arrays.result)
        assert found["scalar"].shape == ()
        pd.testing.assert_frame_equal(store.table("stage", "slug", {"p": 1}, table), table.result)
    assert (table.calls, arrays.calls) == (1, 1)


def test_another_parameter_is_another_artefact(store: Store) -> None:
    for rate in (0.4, 0.8):
        store.table("stage", "slug", {"rate": rate}, lambda rate=rate: pd.DataFrame({"rate": [rate]}))
    assert store.table("stage", "slug", {"rate": 0.8}, pytest.fail).rate.item() == 0.8


def test_fingerprint_ignores_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


NOTES = {"half a note": b"{", "a list": b"[]", "no text": b'{"sha256": "\xff\xfe"}'}


@pytest.mark.parametrize("damage", ["truncate", "flip", *NOTES])
def test_damage_is_noticed_set_aside_and_said(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    compute = Counted({"w": np.arange(1000)})
    store.arrays("stage", "slug", {}, compute)
    file = store.file("stage", "slug", {}, ".safetensors")
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:500])
    elif damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        Path(f"{file}.json").write_bytes(NOTES[damage])
    with caplog.at_level(logging.WARNING):
        found = store.arrays("stage", "slug", {}, compute)
    assert compute.calls == 2 and np.array_equal(found["w"], np.arange(1000))
    assert "is damaged" in caplog.text and file.with_name(file.name + ".damaged").exists()


def test_note_says_how_it_came_to_be(store: Store) -> None:
    store.table("stage", "slug", {"seed": 3}, lambda: pd.DataFrame({"a": [1]}))
    note = json.loads(Path(f"{store.file('stage', 'slug', {'seed': 3}, '.parquet')}.json").read_text())
    assert note["parameters"] == {"seed": 3}
    assert note["versions"].keys() >= {"torch", "python"} and len(note["library_sha256"]) == 64


def test_note_says_on_which_device(tmp_path: Path) -> None:
    for device in ("", "cuda"):
        store = Store(tmp_path / f"on {device}", device)
        store.table("stage", "slug", {}, lambda: pd.DataFrame({"a": [1]}))
        note = json.loads(Path(f"{store.file('stage', 'slug', {}, '.parquet')}.json").read_text())
        assert note["device"] == device


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
    assert not _dirty(tmp_path)
    for name in files:
        (tmp_path / name).write_text("changed")
        assert _dirty(tmp_path), name
        (tmp_path / name).write_text("as committed")
    assert not _dirty(tmp_path)


def test_failing_computation_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.table("stage", "slug", {}, lambda: 1 / 0)
    assert [file for file in store.root.rglob("*") if file.is_file() and not file.name.endswith(".lock")] == []


def test_what_a_killed_write_left_is_removed(store: Store) -> None:
    file, other = store.file("stage", "slug", {}, ".parquet"), store.file("stage", "slug", {"p": 1}, ".parquet")
    drafts = [file.with_name(f".host-{i}-{name}") for i, name in enumerate((file.name, f"{file.name}.json"))]
    others = [other.with_name(f".host-3-{other.name}"), other.with_name(f".{other.name}.lock")]
    file.parent.mkdir()
    for path in drafts + others:
        path.touch()
    store.table("stage", "slug", {}, lambda: pd.DataFrame({"a": [1]}))
    assert not any(draft.exists() for draft in drafts)
    assert all(path.exists() for path in others), "it belongs to another artefact"


def test_equal_process_numbers_on_two_hosts_write_two_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with artefacts.atomic(tmp_path / "file") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(artefacts.platform, "node", lambda: "elsewhere")
        with artefacts.atomic(tmp_path / "file") as other:
            other.write_text("other")
    assert mine != other and (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _slow(root: Path, started: Path) -> None:
    def compute() -> pd.DataFrame:
        started.touch()
        time.sleep(1)
        return pd.DataFrame({"pid": [os.getpid()]})

    Store(root).table("stage", "slug", {}, compute)


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
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Store(tmp_path).table("stage", "slug", {}, lambda: pd.DataFrame({"a": [7]})).a.item() == 7
