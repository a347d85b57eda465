"""Every notebook runs on the smoke profile, writes its figures, loads when rerun, and is stored without outputs."""

import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from prunelens import claims, runner

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    assert runner.main(["smoke", "--out", str(folder), "--device", "cpu"]) == 0
    return folder


def test_there_are_nine() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_executed_whole_and_with_figures(path: Path, out: Path) -> None:
    executed = nbformat.read(out / "figures" / "smoke" / "notebooks" / path.name, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    figures = list((out / "figures" / "smoke").glob(f"{path.stem[:2]}_*.csv"))
    assert figures and all(not pd.read_csv(file).empty for file in figures)


def test_index_links_every_notebook_and_shows_every_figure(out: Path) -> None:
    index = (out / "figures" / "smoke" / "index.html").read_text()
    assert all(path.stem in index for path in NOTEBOOKS)
    assert all(file.name in index for file in (out / "figures" / "smoke").iterdir() if file.suffix in (".png", ".jpg"))


def test_verdicts_follow_from_the_tables_beside_them(out: Path) -> None:
    folder = out / "figures" / "smoke"
    again = claims.judge_again(folder).to_csv(index=False)
    assert again == (folder / "08_verdicts.csv").read_text()


def test_second_run_computes_nothing_anew(out: Path) -> None:
    before = {
        file: file.stat().st_mtime for file in (out / "runs").rglob("*") if file.is_file() and ".lock" not in file.name
    }
    started = time.time()
    assert runner.main(["smoke", "--out", str(out), "--device", "cpu", "--notebooks", "02,04-07"]) == 0
    after = {
        file: file.stat().st_mtime for file in (out / "runs").rglob("*") if file.is_file() and ".lock" not in file.name
    }
    assert after == before and max(after.values()) < started


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    assert not any("/work/" in cell.source or "def " in cell.source for cell in notebook.cells)
