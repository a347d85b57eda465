"""Every way a run can go wrong ends with a message naming notebook and cell, and a status other than 0."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.channels import HBChannel

from prunelens import profiles, runner

REAL_LOAD = profiles.load  # the project fixture replaces it


def run(project, capsys, *arguments: str) -> tuple[int, str, str]:
    status = runner.main(["quick", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def wait_for(condition, seconds: float = 300) -> None:
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
def untouched(project):
    """A good first notebook that must not be executed when something after it is wrong."""
    project.notebook("00_good", "print(1)")
    yield
    assert not project.results.exists(), "something was executed although the request was wrong"


def test_unknown_parameter(project, untouched, capsys):
    project.notebook("01_old", parameters='profile: str = "quick"\ndevice: str = "auto"')
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_old.ipynb: unknown parameter overrides, out; its parameters cell has: profile, device" in err


def test_no_parameters_cell(project, untouched, capsys):
    project.notebook("01_untagged", "profile = 'quick'", parameters=None)
    status, _, err = run(project, capsys)
    assert (status, err) == (2, "prunelens: 01_untagged.ipynb: no cell is tagged 'parameters'\n")


def test_missing_kernel(project, untouched, capsys):
    project.notebook("01_kernel", kernel="julia-0.3")
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_kernel.ipynb: no kernel 'julia-0.3'; there are: " in err and "python3" in err


def test_kernel_python3_of_another_python(project, untouched, capsys, monkeypatch, tmp_path):
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        '{"argv": ["/opt/other/bin/python"], "display_name": "p", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    status, _, err = run(project, capsys)
    assert status == 2
    assert "starts /opt/other/bin/python" in err and "unset JUPYTER_PATH" in err


def test_broken_notebook_file(project, untouched, capsys):
    (project.notebooks / "01_broken.ipynb").write_text('{"cells": [')
    status, _, err = run(project, capsys)
    assert status == 2
    assert "01_broken.ipynb: not a readable notebook" in err


def test_unknown_notebook(project, untouched, capsys):
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
def test_wrong_profile_key_or_type(project, untouched, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(runner.profiles, "load", REAL_LOAD)
    status, _, err = run(project, capsys, *arguments)
    assert status == 2
    assert message in err


def test_unknown_profile(project, untouched, capsys, monkeypatch):
    monkeypatch.setattr(runner.profiles, "load", REAL_LOAD)
    assert runner.main(["qick"]) == 2
    assert "'qick'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "- 1"])
def test_a_profile_that_is_empty_or_a_list(project, untouched, capsys, monkeypatch, tmp_path, content):
    monkeypatch.setattr(runner.profiles, "load", REAL_LOAD)
    (tmp_path / "mine.yaml").write_text(content)
    assert runner.main([str(tmp_path / "mine.yaml"), "--set", "seed=1"]) == 2
    assert "expected keys with values" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(project, untouched, capsys):
    status, out, err = run(project, capsys, "--out", "/dev/null")
    assert (status, out) == (2, "")
    assert "/dev/null/figures/quick/notebooks can't be made: Not a directory (see --out)" in err


def test_a_similarity_whose_package_is_missing(project, untouched, capsys, monkeypatch):
    monkeypatch.setattr(runner.profiles, "load", REAL_LOAD)
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda module: module if module == "pip" else None)
    status, _, err = run(project, capsys, "--set", "interpretability.similarity=dreamsim")
    assert status == 2
    assert err.endswith("dreamsim needs a package: " + f"{runner.sys.executable} -m pip install 'dreamsim>=0.2.1'\n")


def test_unknown_option(project, untouched, capsys):
    with pytest.raises(SystemExit) as stopped:
        runner.main(["quick", "--divice", "cpu"])
    assert stopped.value.code == 2
    assert "--divice" in capsys.readouterr().err


# ---------------------------------------------------------------- while a notebook is executed: status 1


def test_a_raising_cell_ends_its_notebook_alone(project, capsys):
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


def test_a_first_notebook_that_fails_is_the_end(project, capsys):
    project.notebook("00_bad", "1 / 0")
    project.notebook("01_later", "print(3)")
    status, out, err = run(project, capsys)
    assert status == 1
    assert "01_later: started" not in out and "not run: 01_later\n" in err
    assert "./run_all.sh quick --notebooks 00,01\n" in err


def test_a_failure_keeps_the_earlier_good_copy_and_a_success_removes_the_failed_one(project, capsys):
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


@pytest.mark.parametrize(
    "leave", ["import sys; sys.exit(0)", "import sys; sys.exit(3)", "exit()", "quit()", "raise SystemExit"]
)
def test_a_cell_that_exits_early(project, capsys, leave):
    project.notebook("00_leaves", f'print("so far")\n{leave}', "print(2)")
    status, _, err = run(project, capsys)
    assert status == 1
    assert "00_leaves: FAILED after " in err
    assert ' in cell 3 of 4 (print("so far")): ended the notebook early' in err
    assert "  | so far\n" in err
    assert "00_leaves.ipynb" not in project.kept() and "00_leaves.failed.ipynb" in project.kept()


def test_exit_in_the_last_cell_counts_too(project, capsys):
    project.notebook("00_leaves", "exit()")
    assert run(project, capsys)[0] == 1


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_a_kernel_that_dies(project, capsys, end):
    project.notebook("00_dies", f'import os\nprint("so far", flush=True)\n{end}', "print(2)")
    status, _, err = run(project, capsys)
    assert status == 1
    assert "00_dies: FAILED after " in err
    assert " in cell 3 of 4 (import os): the kernel died" in err
    assert "00_dies.ipynb" not in project.kept() and "00_dies.failed.ipynb" in project.kept()


def test_a_cell_that_was_skipped(project, capsys):
    path = project.notebook("00_skips", "print(1)", "print(2)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["skip-execution"]
    nbformat.write(notebook, path)
    status, _, err = run(project, capsys)
    assert status == 1
    assert "was not executed: print(1)" in err


@pytest.mark.parametrize("kept", [True, False])
def test_a_copy_that_cannot_be_kept(project, capsys, monkeypatch, kept):
    """What makes HTML fails, or nothing more can be written: no copy of how far it came, no index either."""
    for path in ("00_good", "01_bad", "02_later"):
        project.notebook(path, "print(1)")
    to_html, write = runner.to_html, runner.write

    def broken_to_html(notebook, title):
        if title == "01_bad":
            raise ValueError("no template")
        return to_html(notebook, title)

    def full_disk(path, content):
        if path.name.startswith("01_bad") or path.name == "index.html":
            raise OSError("no space left")
        write(path, content)

    monkeypatch.setattr(runner, *(("to_html", broken_to_html) if kept else ("write", full_disk)))
    status, out, err = run(project, capsys)
    reason = "ValueError: no template" if kept else "OSError: no space left"
    assert status == 1
    assert f" in no cell, its copy could not be kept: {reason}\n" in err and "02_later: done" in out
    assert {name for name in project.kept() if "01_bad" in name} == (
        {"01_bad.failed.ipynb", "01_bad.log"} if kept else {"01_bad.log"}
    )
    assert (project.results / "index.html").exists() == kept and ("prunelens: no space left\n" in err) != kept


def test_a_log_that_cannot_be_written(project, capsys):
    for path in ("00_good", "01_bad", "02_later"):
        project.notebook(path, "print(1)")
    (project.results / "notebooks" / "01_bad.log").mkdir(parents=True)
    status, out, err = run(project, capsys)
    assert status == 1
    assert "[3/3] 02_later: done" in out
    assert "[2/3] 01_bad: FAILED after " in err and "Is a directory" in err


# ---------------------------------------------------------------- done to the process from outside


@pytest.fixture
def waiting(project):
    """A run whose notebook says its kernel's process and then waits, as the next one's has started; ended, whatever the
    test did."""
    project.notebook("00_waits", 'import os; open("pid", "w").write(str(os.getpid())); import time; time.sleep(600)')
    (project.root / "said.py").write_text('import os\nopen("next_pid", "w").write(str(os.getpid()))')
    project.notebook("01_next", "import said")
    process = project.start("quick")
    files = [Path(project.root / name) for name in ("pid", "next_pid")]
    wait_for(lambda: process.poll() is not None or all(file.exists() and file.read_text() for file in files))
    assert process.poll() is None, process.communicate()[0]
    yield process, [int(file.read_text()) for file in files]
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_clean(project, waiting, number):
    process, kernels = waiting
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "00_waits: interrupted" in output and "Traceback" not in output
    assert "not run: 01_next\n" in output and "./run_all.sh quick --notebooks 00,01\n" in output
    assert not any(map(alive, kernels))
    assert project.kept() == {"00_waits.failed.ipynb", "00_waits.log"}


def test_a_killed_run_leaves_no_kernel_computing(waiting):
    process, kernels = waiting
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, kernels)))


@pytest.mark.parametrize("step", ["start_kernel", "stop_kernel"])
def test_an_interruption_between_notebooks_says_what_is_left(project, capsys, monkeypatch, step):
    project.notebook("00_good", "print(1)")
    project.notebook("01_next", "print(2)")
    project.notebook("02_later", "print(3)")
    work, stopped = getattr(runner, step), []

    def interrupted(argument: object) -> object:
        if not stopped and "00_good.ipynb" in project.kept():
            stopped.append(1)
            raise KeyboardInterrupt
        return work(argument)

    monkeypatch.setattr(runner, step, interrupted)
    status, _, err = run(project, capsys)
    assert status == 130
    assert "finished: 00_good\n" in err and "./run_all.sh quick --notebooks 01,02\n" in err


# ---------------------------------------------------------------- the next notebook's kernel, started in advance

WAIT_FOR_PID = """
import os, time
from pathlib import Path
for _ in range(2000):
    if Path("pid").exists() and Path("pid").read_text(): break
    time.sleep(0.05)
else: raise TimeoutError
"""


@pytest.fixture
def ahead(project):
    """A module which says the process that imports it, and notebook 01, which imports it."""
    (project.root / "said.py").write_text('import os\nopen("pid", "w").write(str(os.getpid()))')
    project.notebook("01_next", "if True:\n    pass\nimport said", "import os; print(os.getpid())")
    return Path(project.root / "pid")


def test_a_kernel_imports_while_the_notebook_before_it_runs(project, capsys, ahead):
    project.notebook("00_first", WAIT_FOR_PID)
    status, *said = run(project, capsys)
    assert status == 0, said
    assert project.executed("01_next").cells[-1].outputs[0].text.strip() == ahead.read_text()
    assert not alive(int(ahead.read_text()))
    assert not [thread for thread in threading.enumerate() if isinstance(thread, HBChannel)], "a client is not closed"


def test_a_kernel_started_in_advance_ends_with_the_run(project, capsys, ahead):
    project.notebook("00_first", f"{WAIT_FOR_PID}\nraise ValueError")
    assert run(project, capsys)[0] == 1
    assert not alive(int(ahead.read_text()))


def test_a_kernel_that_dies_before_its_turn_is_started_again(project, capsys, ahead):
    project.notebook("00_first", f'{WAIT_FOR_PID}\npid = int(Path("pid").read_text())\nos.kill(pid, 9); print(pid)')
    status, *said = run(project, capsys)
    assert status == 0, said
    assert project.executed("00_first").cells[-1].outputs[0].text.strip() != ahead.read_text()


def test_a_notebook_that_becomes_unreadable_fails_alone(project, capsys):
    path = str(project.notebook("01_next", "print(2)"))
    project.notebook("00_first", f"open({path!r}, 'w').close()")
    project.notebook("02_later", "print(3)")
    status, out, err = run(project, capsys)
    assert status == 1
    assert "[2/3] 01_next: FAILED after" in err and "[3/3] 02_later: done" in out


def test_an_import_that_fails_is_said_of_its_cell(project, capsys):
    project.notebook("00_first", "import absent_module")
    status, _, err = run(project, capsys)
    assert status == 1
    assert "in cell 3 of 3 (import absent_module): ModuleNotFoundError" in err
