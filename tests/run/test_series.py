"""Runs of notebooks that work: order, parameters, progress, what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prunelens.run import cli, execution, series
from prunelens.run.checks import Request

if TYPE_CHECKING:
    from conftest import Project

PATHS = [Path(f"{name}.ipynb") for name in ("00_setup", "01_pruning", "03_accuracy")]


def test_remaining_time_takes_the_mean_where_nothing_is_known() -> None:
    seconds = {"00_setup": 10.0, "01_pruning": 30.0, "03_accuracy": None}
    assert series.to_go(PATHS[1:3], seconds) == ", about 0:50 to go"
    assert series.to_go([], seconds) == ""
    assert series.to_go(PATHS[:1], {"00_setup": None}) == ""


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        ('{"metadata": {"papermill": {"duration": 12.5}}}', 12.5),
        ("[]", None),
        ("[" * 20, None),
        ("12", None),
        ('{"metadata": {"papermill": {"duration": null}}}', None),
        ('{"metadata": {"papermill": {"duration": "soon"}}}', None),
        ('{"metadata": {"papermill": {"duration": NaN}}}', None),
        ('{"metadata": {"papermill": {"duration": -1}}}', None),
        ('{"metadata": []}', None),
        ("\xff", None),
        (None, None),
    ],
)
def test_a_damaged_copy_counts_as_none(tmp_path: Path, content: str | None, seconds: float | None) -> None:
    if content is not None:
        (tmp_path / "copy").write_text(content, encoding="latin-1")
    assert series.previous_seconds(tmp_path / "copy") == seconds


def test_runs_in_order_with_parameters_and_keeps_everything(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.notebook("01_second", 'assert open("order").read() == "first"', "print(profile, overrides, device)")
    project.notebook("00_first", 'open("order", "w").write("first"); print("written")')
    (project.results / "notebooks").mkdir(parents=True)
    (project.results / "notebooks" / "00_first.ipynb").write_text("[]")
    assert cli.main(["run", "quick", "--set", "seed=1", "--set", "a.b=[1, 2]", "--device", "cpu"]) == 0

    names = ("00_first", "01_second")
    assert project.kept() == {f"{name}.{suffix}" for name in names for suffix in ("ipynb", "html", "log")}
    assert (project.root / "order").exists(), "the kernel's folder is not the project's root"
    executed = project.executed("01_second")
    assert executed.cells[-1].outputs[0].text == "quick ['seed=1', 'a.b=[1, 2]'] cpu\n"
    assert executed.metadata.papermill.input_path == "notebooks/01_second.ipynb"
    assert executed.metadata.papermill.output_path == "figures/quick/notebooks/01_second.ipynb"
    assert "written" in (project.results / "notebooks" / "00_first.log").read_text()
    assert str(project.root) not in json.dumps(executed)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prunelens: profile quick, 2 notebooks -> figures/quick"
    assert re.fullmatch(r"\[1/2\] 00_first: started [\d:]{8}", lines[1])
    assert re.fullmatch(r"\[1/2\] 00_first: done in \d:\d\d, elapsed \d:\d\d, about \d:\d\d to go", lines[2])
    assert re.fullmatch(r"\[2/2\] 01_second: done in \d:\d\d, elapsed \d:\d\d", lines[4])
    assert lines[5].endswith("figures/quick/index.html")
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert (project.results / "index.html").exists()

    assert cli.main(["run", "quick", "--notebooks", "00"]) == 0
    assert "took 0:0" in capsys.readouterr().out, "the previous run's time is not shown"


def test_out_takes_the_place_of_the_project(project: Project, tmp_path: Path) -> None:
    project.notebook("00_first", "print(out)")
    folder = tmp_path / "a {folder}"
    assert cli.main(["run", "quick", "--out", str(folder)]) == 0
    assert {path.name for path in (folder / "figures" / "quick" / "notebooks").iterdir()} == {
        f"00_first.{s}" for s in ("ipynb", "html", "log")
    }
    assert not project.results.exists()


def test_kernels_find_the_modules_of_the_callers_folder(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my_own_methods.py").write_text("rate = 0.25")
    project.notebook("00_first", "import my_own_methods; print(my_own_methods.rate)")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["run"]) == 0
    assert project.executed("00_first").cells[-1].outputs[0].text == "0.25\n"


def test_what_the_library_says_of_damage_is_not_left_to_the_log(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a long cell is not silent."""
    monkeypatch.setattr(execution, "HEARTBEAT", 0.3)
    warning = 'import logging; logging.getLogger("prunelens.store").warning("a.parquet is damaged: its note")'
    slow = 'import sys, time; print("epoch 1 of 2", file=sys.stderr, flush=True); time.sleep(1.5)'
    project.notebook("00_slow", warning, slow)
    assert cli.main(["run", "quick"]) == 0
    out = capsys.readouterr().out
    assert "[1/1] 00_slow: a.parquet is damaged: its note\n" in out
    assert "[1/1] 00_slow: in cell 4 of 4 for 0:0" in out and ": epoch 1 of 2\n" in out


def test_the_command_to_go_on_repeats_every_option() -> None:
    request = Request("quick", ["data.root=a b", "seed=1"], "cpu", "/tmp/x")
    assert request.command(PATHS[1:]) == (
        "./run_all.sh quick --notebooks 01,03 --set 'data.root=a b' --set seed=1 --device cpu --out /tmp/x"
    )
