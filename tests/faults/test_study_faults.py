"""Real faults in a running study: kill -9, Ctrl-C, a full disk. Nothing computed before is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from prunelens.study import Study

TINY = [
    "pruning.methods=[structured_l1]", "pruning.rates=[0.4, 0.8]", "pruning.unmasked.methods=[]",
    "pruning.iterative.methods=[]", "pruning.recalibrated.methods=[]", "pruning.controls.methods=[]",
    "retraining.epochs=1",
    "interpretability.measures=[mis, lifetime_sparseness]", "data.train_images=128", "data.validation_images=64",
]  # fmt: skip
SET = [word for override in TINY for word in ("--set", override)]


def start(out: Path) -> subprocess.Popen[str]:
    """The computation of accuracies and measures, as a process group of its own."""
    command = [sys.executable, "-m", "prunelens", "compute", "smoke", "--stages", "accuracy,measures"]
    return subprocess.Popen(
        [*command, "--device", "cpu", "--out", str(out), *SET],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def artefacts(out: Path) -> dict[Path, int]:
    """Notes of finished artefacts, and when each was written."""
    notes = (file for file in (out / "runs").rglob("*.json") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(out): file.stat().st_mtime_ns for file in notes if not file.name.endswith(".data.json")}


def drafts(out: Path) -> list[Path]:
    """What is half written."""
    return [file for file in out.rglob(".*-*") if not file.name.endswith(".lock")]


def wait_for(process: subprocess.Popen[str], out: Path, finished: int) -> dict[Path, int]:
    """Wait until so many artefacts are finished; they are returned."""
    while len(artefacts(out)) < finished and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be stopped"
    return artefacts(out)


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies and measures."""
    study = Study("smoke", TINY, "cpu", str(out))
    return study.accuracy(), study.units()


def test_killed_and_interrupted_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for more in (1, 4, 8):
        process = start(broken)
        wait_for(process, broken, len(artefacts(broken)) + more)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = start(broken)
    wait_for(process, broken, len(artefacts(broken)) + 2)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to the forked processes too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "prunelens: interrupted; " in err.splitlines()[-1]
    assert err.count("interrupted") == 1 and "Traceback" not in err
    kept = artefacts(broken)
    assert start(broken).wait() == start(whole).wait() == 0
    assert kept.items() <= artefacts(broken).items(), "something finished was computed again"
    assert not drafts(broken)
    for one, other in zip(tables(broken), tables(whole), strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        process = start(disk)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "prunelens: FAILED: " in err and "could not be written" in err and "Traceback" not in err
        assert len(artefacts(disk)) >= 1  # what was small enough is kept
        assert not drafts(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
