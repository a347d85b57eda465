"""The command line: what reaches a study, what comes back, and how little it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from prunelens.run import checks, cli
from prunelens.run.checks import Request


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))


class Asked:
    """A study that notes what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **parts: object) -> None:
        self.requests: list[Request] = []
        self.parts = parts
        monkeypatch.setattr(checks, "study", self._study)

    def _study(self, request: Request) -> SimpleNamespace:
        self.requests.append(request)
        return SimpleNamespace(**self.parts)


def test_relative_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Asked(monkeypatch, compute=lambda stages: None)
    assert cli.main(["compute", "mine.yaml", "--out", "results", "--set", "seed=1", "--device", "cuda:1"]) == 0
    assert cli.main(["compute", "smoke"]) == 0
    assert asked.requests == [
        Request(str(tmp_path / "mine.yaml"), ["seed=1"], "cuda:1", str(tmp_path / "results")),
        Request("smoke", [], "auto", ""),
    ]
    assert sys.path[0] == str(tmp_path)


def test_compute_asks_for_stages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[object] = []
    Asked(monkeypatch, compute=found.append)
    assert cli.main(["compute", "smoke", "--stages", "retrained,accuracy"]) == cli.main(["compute", "smoke"]) == 0
    assert found == [["retrained", "accuracy"], None]


def test_a_stage_that_is_none_is_refused_before_anything_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch)
    assert cli.main(["compute", "smoke", "--stages", "accuracy,sparsty"]) == 2
    assert capsys.readouterr().err.startswith("prunelens: --stages: found sparsty, expected some of sensitivity, ")
    assert not asked.requests


def test_kernels_find_the_modules_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They start in another folder, where a relative path would mean another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["lib", ".", "", "/elsewhere"]))
    Asked(monkeypatch, compute=lambda stages: None)
    assert cli.main(["compute", "smoke"]) == 0
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), str(tmp_path / "lib"), "/elsewhere"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            ValueError("method my.method: masks of 3\nlayers"),
            1,
            "prunelens: FAILED: method my.method: masks of 3 layers",
        ),
        (OSError("x.parquet could not be written"), 1, "prunelens: FAILED: x.parquet could not be written"),
        (RuntimeError("one of 2 processes was killed"), 1, "prunelens: FAILED: one of 2 processes was killed"),
        (FloatingPointError("the loss is nan"), 1, "prunelens: FAILED: the loss is nan"),
    ],
)
def test_a_computation_that_fails_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int, said: str
) -> None:
    def compute(stages: list[str] | None) -> None:
        raise error

    Asked(monkeypatch, compute=compute)
    assert cli.main(["compute", "smoke"]) == status
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1


def test_another_exception_of_a_users_part_is_said_in_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Asked(monkeypatch, compute=lambda stages: {}["no such name"])
    assert cli.main(["compute", "smoke"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1] == "prunelens: FAILED: KeyError: 'no such name'"


@pytest.mark.parametrize("file", ["", "file/new/dense.safetensors"])
def test_train_to_an_unwritable_place_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str
) -> None:
    (tmp_path / "file").write_text("")
    asked = Asked(monkeypatch)
    assert cli.main(["train", "smoke", str(tmp_path / file)]) == 2
    assert not asked.requests and capsys.readouterr().err.startswith("prunelens: ")


def test_train_writes_half_precision_weights_and_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {
        "weight/conv.weight": np.asfortranarray(weight),  # as weights in channels-last order
        "weight/bn.num_batches_tracked": np.array(70000),
        "epoch/top1": np.array([0.5, 0.75]),
    }
    found = {"scratch": arrays, "accuracy": {"network": {"top1": 0.74}}}
    pipeline = SimpleNamespace(get=lambda stage, variant=None: found[stage], dense=None)
    asked = Asked(
        monkeypatch, pipeline=pipeline, profile=SimpleNamespace(model_dump=lambda: {"name": "quick", "seed": 3})
    )
    file = tmp_path / "new" / "dense.safetensors"
    assert cli.main(["train", "quick", str(file), "--set", "seed=3"]) == 0
    weights = ("scratch", file)
    assert asked.requests == [Request("quick", ["seed=3", f"network.weights={w}"], "auto", "") for w in weights]
    stored = load_file(file)
    np.testing.assert_array_equal(stored["conv.weight"], weight.astype(np.float16), strict=True)
    assert stored["bn.num_batches_tracked"] == 70000
    record = json.loads(file.with_name("dense.safetensors.json").read_text())
    assert record["profile"] == {"name": "quick", "seed": 3} and record["epochs"] == {"top1": [0.5, 0.75]}
    assert record["top1"] == 0.74, "not that of the weights as written"
    assert "git_commit" in record and "versions" in record


def test_judge_says_verdict_estimate_and_reason_of_each_claim(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def judge_folder(folder: Path) -> pd.DataFrame:
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: no tables")
        row = {
            "claim": "C1",
            "verdict": "undecided",
            "statement": "Pruning helps.",
            "estimate": "+1%",
            "why": "2 seeds",
        }
        return pd.DataFrame([row, {**row, "claim": "C2", "verdict": "holds", "why": ""}])

    monkeypatch.setitem(sys.modules, "prunelens.analysis.verdicts", SimpleNamespace(judge_folder=judge_folder))
    assert cli.main(["judge", str(tmp_path)]) == 0
    assert (
        capsys.readouterr().out
        == "C1 undecided: Pruning helps.\n    +1%\n    2 seeds\nC2 holds: Pruning helps.\n    +1%\n"
    )
    assert cli.main(["judge", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith(f"prunelens: judge {tmp_path}/nowhere: ")


@pytest.mark.parametrize("arguments", [[], ["walk"], ["compute"], ["judge"], ["run", "quick", "--divice", "cpu"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: prunelens" in capsys.readouterr().err


def test_the_command_line_is_light() -> None:
    heavy = {"torch", "pandas", "papermill", "nbconvert", "nbformat", "matplotlib", "pydantic"}
    code = f"import sys, prunelens.run.cli; assert not {heavy!r} & sys.modules.keys(), {heavy!r} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
