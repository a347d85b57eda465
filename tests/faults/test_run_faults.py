"""Every way a run can go wrong ends with a message naming notebook and cell, and a status other than 0."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from jupyter_client.channels import HBChannel

from prunelens.run import checks, cli, execution, series

if TYPE_CHECKING:
    from conftest import Project

    Captured = pytest.CaptureFixture[str]

REAL_STUDY = checks.study  # the project fixture replaces it


def run(project: Project, capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["run", "quick", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended but was not yet collected does not."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(status) and not status.startswith("Z")


# ---------------------------------------------------------------- before anything is executed: status 2


@pytest.fixture
def untouched(project: Project) -> Iterator[None]:
    """A good first notebook that must not be executed when something after it is wrong."""
    project.notebook("00_good", "print(1)")
    yield
    assert not project.results.exists(), "something was executed although the request was wrong"


def test_unknown_parameter(project: Project, untouched: None, capsys: Captured) -> None:
    project.notebook("01_old", parameters='profile: str = "quick"\ndevice: str = "auto"')
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_old.ipynb: unknown parameter overrides, out; its parameters cell has: profile, device" in err


def test_no_parameters_cell(project: Project, untouched: None, capsys: Captured) -> None:
    project.notebook("01_untagged", "profile = 'quick'", parameters=None)
    status, _, err = run(project, capsys)
    assert (status, err) == (2, "prunelens: 01_untagged.ipynb: no cell is tagged 'parameters'\n")


def test_missing_kernel(project: Project, untouched: None, capsys: Captured) -> None:
    project.notebook("01_kernel", kernel="julia-0.3")
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_kernel.ipynb: no kernel 'julia-0.3'; there are: " in err and "python3" in err


def test_kernel_python3_of_another_python(
    project: Project, untouched: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        '{"argv": ["/opt/other/bin/python"], "display_name": "p", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    status, _, err = run(project, capsys)
    assert status == 2
    assert "starts /opt/other/bin/python" in err and "unset JUPYTER_PATH" in err


def test_broken_notebook_file(project: Project, untouched: None, capsys: Captured) -> None:
    (project.notebooks / "01_broken.ipynb").write_text('{"cells": [')
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_broken.ipynb: not a readable notebook" in err


def test_unknown_notebook(project: Project, untouched: None, capsys: Captured) -> None:
    status, _, err = run(project, capsys, "--notebooks", "00,12")
    assert (status, err) == (2, "prunelens: --notebooks 00,12: no notebook 12; there are 00\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "data.sise=64"], "unknown key data.sise (did you mean size?)"),
        (["--set", "data.size=large"], "key data.size: found 'large'"),
        (["--set", "seed"], "override 'seed': expected key.path=value"),
        (["--set", "pruning.rates=[0.4"], "override 'pruning.rates=[0.4': not valid YAML"),
    ],
)
def test_wrong_profile_key_or_type(
    project: Project,
    untouched: None,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(checks, "study", REAL_STUDY)
    status, _, err = run(project, capsys, *arguments)
    assert status == 2
    assert message in err


def test_unknown_profile(project: Project, untouched: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "study", REAL_STUDY)
    assert cli.main(["run", "qick"]) == 2
    assert "'qick'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "- 1"])
def test_a_profile_that_is_empty_or_a_list(
    project: Project, untouched: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setattr(checks, "study", REAL_STUDY)
    (tmp_path / "mine.yaml").write_text(content)
    assert cli.main(["run", str(tmp_path / "mine.yaml"), "--set", "seed=1"]) == 2
    assert "expected keys with values" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(project: Project, untouched: None, capsys: Captured) -> None:
    status, out, err = run(project, capsys, "--out", "/dev/null")
    assert (status, out) == (2, "")
    assert "/dev/null/figures/quick/notebooks can't be made: Not a directory (see --out)" in err


# ---------------------------------------------------------------- while a notebook is executed: status 1


def test_a_raising_cell_ends_its_notebook_alone(project: Project, capsys: Captured) -> None:
    project.notebook("00_good", "print(1)")
    project.notebook("01_bad", "x = 1", 'print("epoch 7")\nraise ValueError("rate 2 is no rate")', "y = 2")
    project.notebook("02_later", "print(3)")
    status, out, err = run(project, capsys, "--set", "seed=1")
    assert status == 1
    assert "[1/3] 00_good: done" in out and "[3/3] 02_later: done" in out and "notebooks done in" not in out
    assert "[2/3] 01_bad: FAILED after " in err
    assert ' in cell 4 of 5 (print("epoch 7")): ValueError: rate 2 is no rate' in err
    assert "  | epoch 7\n" in err and "  | ValueError: rate 2 is no rate\n" in err
    assert "\x1b" not in err
    assert "prunelens: 1 of 3 notebooks FAILED: 01_bad\n" in err
    assert "finished: 00_good, 02_later\n" in err and "not run" not in err
    assert "./run_all.sh quick --notebooks 01 --set seed=1\n" in err
    assert {"00_good.ipynb", "00_good.html", "01_bad.failed.ipynb", "01_bad.log", "02_later.ipynb"} <= project.kept()
    assert not {"01_bad.ipynb", "01_bad.html"} & project.kept()
    assert "00_good.html" in (project.results / "index.html").read_text()


def test_a_first_notebook_that_fails_is_the_end(project: Project, capsys: Captured) -> None:
    project.notebook("00_bad", "1 / 0")
    project.notebook("01_later", "print(3)")
    status, out, err = run(project, capsys)
    assert status == 1
    assert "01_later: started" not in out and "not run: 01_later\n" in err
    assert "./run_all.sh quick --notebooks 00,01\n" in err


def test_a_failure_keeps_the_earlier_good_copy_and_a_success_removes_the_failed_one(
    project: Project, capsys: Captured
) -> None:
    project.notebook("00_notebook", "print('good')")
    assert run(project, capsys)[0] == 0
    before = (project.results / "notebooks" / "00_notebook.ipynb").read_bytes()
    project.notebook("00_notebook", "1 / 0")
    assert run(project, capsys)[0] == 1
    assert (project.results / "notebooks" / "00_notebook.ipynb").read_bytes() == before
    failed = nbformat.read(project.results / "notebooks" / "00_notebook.failed.ipynb", as_version=4)
    assert "ZeroDivisionError" in str(failed.cells)
    project.notebook("00_notebook", "print('good')")
    assert run(project, capsys)[0] == 0
    assert "00_notebook.failed.ipynb" not in project.kept()


def stopped(project: Project, capsys: Captured, cell: str) -> str:
    """What is said of a notebook that this cell stops; it is kept as far as it went."""
    project.notebook("00_stops", cell, "print(2)")
    status, _, err = run(project, capsys)
    assert status == 1
    assert "00_stops: FAILED after " in err
    assert "00_stops.ipynb" not in project.kept() and "00_stops.failed.ipynb" in project.kept()
    return err


@pytest.mark.parametrize(
    "leave", ["import sys; sys.exit(0)", "import sys; sys.exit(3)", "exit()", "quit()", "raise SystemExit"]
)
def test_a_cell_that_exits_early(project: Project, capsys: Captured, leave: str) -> None:
    err = stopped(project, capsys, f'print("so far")\n{leave}')
    assert ' in cell 3 of 4 (print("so far")): ended the notebook early' in err
    assert "  | so far\n" in err


def test_exit_in_the_last_cell_counts_too(project: Project, capsys: Captured) -> None:
    project.notebook("00_leaves", "exit()")
    assert run(project, capsys)[0] == 1


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_a_kernel_that_dies(project: Project, capsys: Captured, end: str) -> None:
    err = stopped(project, capsys, f'import os\nprint("so far", flush=True)\n{end}')
    assert " in cell 3 of 4 (import os): the kernel died" in err


def test_a_cell_that_was_skipped(project: Project, capsys: Captured) -> None:
    path = project.notebook("00_skips", "print(1)", "print(2)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["skip-execution"]
    nbformat.write(notebook, path)
    status, _, err = run(project, capsys)
    assert status == 1
    assert "was not executed: print(1)" in err


@pytest.mark.parametrize("kept", [True, False])
def test_a_copy_that_cannot_be_kept(
    project: Project, capsys: Captured, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """What makes HTML fails, or nothing more can be written: no copy of how far it came, no index either."""
    for path in ("00_good", "01_bad", "02_later"):
        project.notebook(path, "print(1)")
    to_html, write = execution.to_html, execution.write_text

    def broken_to_html(notebook: nbformat.NotebookNode, title: str) -> str:
        if title == "01_bad":
            raise ValueError("no template")
        return to_html(notebook, title)

    def full_disk(path: Path, content: str) -> None:
        if path.name.startswith("01_bad"):
            raise OSError("no space left")
        write(path, content)

    def no_index(folder: Path, title: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(execution, *(("to_html", broken_to_html) if kept else ("write_text", full_disk)))
    if not kept:
        page = importlib.import_module("prunelens.report.page")
        monkeypatch.setattr(page, "write_index", no_index)
    status, out, err = run(project, capsys)
    reason = "ValueError: no template" if kept else "OSError: no space left"
    assert status == 1
    assert f" in no cell, its copy could not be kept: {reason}\n" in err and "02_later: done" in out
    assert {name for name in project.kept() if "01_bad" in name} == (
        {"01_bad.failed.ipynb", "01_bad.log"} if kept else {"01_bad.log"}
    )
    assert (project.results / "index.html").exists() == kept and ("prunelens: no space left\n" in err) != kept


def test_a_log_that_cannot_be_written(project: Project, capsys: Captured) -> None:
    for path in ("00_good", "01_bad", "02_later"):
        project.notebook(path, "print(1)")
    (project.results / "notebooks" / "01_bad.log").mkdir(parents=True)
    status, out, err = run(project, capsys)
    assert status == 1
    assert "[3/3] 02_later: done" in out
    assert "[2/3] 01_bad: FAILED after " in err and "Is a directory" in err


# ---------------------------------------------------------------- done to the process from outside


@pytest.fixture
def waiting(project: Project) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run whose notebook says its kernel's process and then waits; ended, whatever the test did."""
    project.notebook("00_waits", 'import os; open("pid", "w").write(str(os.getpid())); import time; time.sleep(600)')
    project.notebook("01_next", "print(1)")
    process, file = project.start("run", "quick"), project.root / "pid"
    wait_for(lambda: process.poll() is not None or (file.exists() and file.read_text()))
    assert process.poll() is None, process.communicate()[0]
    yield process, int(file.read_text())
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_clean(project: Project, waiting: tuple[subprocess.Popen[str], int], number: int) -> None:
    process, kernel = waiting
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "prunelens: interrupted after " in output and "Traceback" not in output
    assert "not run: 01_next\n" in output and "./run_all.sh quick --notebooks 00,01\n" in output
    wait_for(lambda: not alive(kernel))
    assert project.kept() == {"00_waits.failed.ipynb", "00_waits.log"}


@pytest.mark.parametrize("seconds", [0.3, 0.6, 0.9, 1.2, 1.5, 2.0])
def test_an_interruption_is_one_line_at_any_moment(project: Project, seconds: float) -> None:
    """While modules are imported, while a kernel starts, or in a cell."""
    project.notebook("00_waits", "import time; time.sleep(600)")
    process = project.start("run", "quick")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.count("interrupted") == 1 and "Traceback" not in output and "Error" not in output


def test_an_interruption_before_the_first_notebook_says_how_to_go_on(project: Project) -> None:
    project.notebook("00_good", "print(1)")
    process = project.start("run", "quick", "--out", "WAIT")  # the stand-in for a study waits
    assert process.stdout.readline() == "checking\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ("prunelens: interrupted; to go on (what was computed is loaded), run the same command again\n")


def test_an_interruption_between_notebooks_says_what_is_left(
    project: Project, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00_good", "01_next", "02_later"):
        project.notebook(name, "print(1)")

    def interrupted(*_: object) -> str:
        if "00_good.ipynb" in project.kept():
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(series, "to_go", interrupted)
    status, _, err = run(project, capsys)
    assert status == 130
    assert "finished: 00_good\n" in err and "./run_all.sh quick --notebooks 01,02\n" in err


def test_a_killed_run_leaves_no_kernel_computing(waiting: tuple[subprocess.Popen[str], int]) -> None:
    process, kernel = waiting
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not alive(kernel))


def test_a_notebook_that_becomes_unreadable_fails_alone(project: Project, capsys: Captured) -> None:
    path = str(project.notebook("01_next", "print(2)"))
    project.notebook("00_first", f"open({path!r}, 'w').close()")
    project.notebook("02_later", "print(3)")
    status, out, err = run(project, capsys)
    assert status == 1
    assert "[2/3] 01_next: FAILED after" in err and "[3/3] 02_later: done" in out


def test_every_notebook_has_a_kernel_of_its_own_that_ends_with_it(project: Project, capsys: Captured) -> None:
    for name in ("00_first", "01_next"):
        project.notebook(name, "import os; print(os.getpid())")
    assert run(project, capsys)[0] == 0
    pids = [int(project.executed(name).cells[-1].outputs[0].text) for name in ("00_first", "01_next")]
    assert len(set(pids)) == 2 and not any(map(alive, pids))
    assert not [thread for thread in threading.enumerate() if isinstance(thread, HBChannel)], "a client is not closed"


def test_an_import_that_fails_is_said_of_its_cell(project: Project, capsys: Captured) -> None:
    project.notebook("00_first", "import absent_module")
    status, _, err = run(project, capsys)
    assert status == 1
    assert "in cell 3 of 3 (import absent_module): ModuleNotFoundError" in err
