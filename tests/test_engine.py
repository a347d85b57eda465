"""Processes beside each other: the same artefacts as one after another, and clear ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from prunelens import engine


def test_every_item_is_worked_on_by_other_processes_of_one_thread(tmp_path):
    def work(name: str) -> str:
        (tmp_path / name).write_text(f"{os.getpid()} {torch.get_num_threads()} {engine.cores()}")
        time.sleep(0.2)

    engine.prepare("cpu")
    engine.run(work, list("abcd"), "letters", 2)
    found = [file.read_text().split() for file in sorted(tmp_path.iterdir())]
    assert len(found) == 4
    assert {tuple(rest) for _, *rest in found} == {("1", "1")}
    assert len({pid for pid, *_ in found} - {str(os.getpid())}) == 2


def test_one_item_or_one_process_needs_no_fork():
    seen = []
    engine.run(seen.append, [1], "one", 2)
    engine.run(seen.append, [2, 3], "gpu", 1)
    assert seen == [1, 2, 3]


def test_an_exception_goes_on_to_the_caller_and_nothing_more_is_begun(tmp_path):
    def work(i: int) -> None:
        if i == 1:
            raise FloatingPointError("the loss is nan")
        time.sleep(0.5)
        (tmp_path / str(i)).touch()

    with pytest.raises(FloatingPointError, match="the loss is nan"):
        engine.run(work, range(20), "training", 2)
    assert {file.name for file in tmp_path.iterdir()} <= {"0", "2"} and (tmp_path / "0").exists()


def test_an_exception_that_cannot_be_pickled_is_told_in_words():
    class Local(Exception):
        pass

    def work(i: int) -> None:
        raise Local("no such file on the server")

    with pytest.raises(RuntimeError, match="Local: no such file on the server"):
        engine.run(work, range(2), "download", 2)


def test_a_killed_process_is_named():
    with pytest.raises(RuntimeError, match="training: one of 2 processes was killed"):
        engine.run(lambda i: os.kill(os.getpid(), signal.SIGKILL), range(2), "training", 2)


def test_gradients_are_those_of_one_process(tmp_path):
    weight = torch.randn(8, 3, 3, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def work(i: int) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(torch.conv2d(images[i : i + 2], weight).square().sum(), weight)
        torch.save(gradient, tmp_path / str(i))
        return gradient

    here = [work(i) for i in range(3)]  # backward has run in this process before it is forked
    engine.run(work, range(3), "gradients", 2)
    assert all(torch.equal(torch.load(tmp_path / str(i)), gradient) for i, gradient in enumerate(here))


def test_orphans_end(tmp_path):
    code = f"""
import os, time, torch
from pathlib import Path
from prunelens import engine
def work(i):
    Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(60)
engine.run(work, range(2), "sleep", 2)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if len(list(tmp_path.iterdir())) == 2:
            break
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    children = [int(file.name) for file in tmp_path.iterdir()]
    assert len(children) == 2
    for _ in range(100):
        if not any(_runs(child) for child in children):
            return
        time.sleep(0.1)
    pytest.fail("an orphan goes on")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_cores_are_those_that_omp_num_threads_allows(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert engine.cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert engine.cores() == len(os.sched_getaffinity(0))
