"""Real faults in a running study: kill -9, a full disk, a damaged artefact. Nothing computed before is lost."""

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
    "pruning.iterative.methods=[]",
    "data.train_images=128", "data.validation_images=64", "retraining.epochs=1",
]  # fmt: skip
SCRIPT = """
import sys
from prunelens.study import Study

study = Study("smoke", sys.argv[2:], "cpu", sys.argv[1])
study.accuracy()
study.units()
"""


def run(out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), *TINY], stderr=subprocess.DEVNULL)


def artefacts(out: Path) -> dict[Path, int]:
    runs = (file for file in (out / "runs").rglob("*.json") if file.is_file())
    return {file.relative_to(out): file.stat().st_mtime_ns for file in runs}


def half_written(out: Path) -> list[Path]:
    return [file for file in out.rglob(".*-*") if not file.name.endswith(".lock")]


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    study = Study("smoke", TINY, "cpu", str(out))
    return study.accuracy(), study.units()


def test_killed_at_three_moments_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for finished in (1, 5, 12):
        process = run(broken)
        while len(artefacts(broken)) < finished and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = artefacts(broken)
        assert len(kept) >= finished
    assert run(broken).wait() == 0
    assert kept.items() <= artefacts(broken).items(), "something finished was computed again"
    assert not half_written(broken)
    assert run(whole).wait() == 0
    for one, other in zip(tables(broken), tables(whole), strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_full_disk_is_said_and_nothing_half_written_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        study = Study("smoke", TINY, "cpu", str(disk))
        with pytest.raises(OSError, match="could not be written"):
            study.accuracy()
        assert len(artefacts(disk)) >= 1  # what was small enough is kept
        assert not half_written(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
