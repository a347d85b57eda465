"""Every notebook runs on the smoke profile, writes its figures, loads when rerun, and is stored without outputs."""

import ast
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from prunelens import paths
from prunelens.analysis import verdicts
from prunelens.run import cli

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    assert cli.main(["run", "smoke", "--out", str(folder), "--device", "cpu"]) == 0
    return folder


def code(path: Path) -> list[str]:
    """The code cells of a notebook."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_nine() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_executed_whole_and_with_tables(path: Path, out: Path) -> None:
    executed = nbformat.read(out / "figures" / "smoke" / "notebooks" / path.name, as_version=4)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    tables = list((out / "figures" / "smoke").glob(f"{path.stem[:2]}_*.csv"))
    assert tables and all(file.stat().st_size for file in tables)


def test_no_sentence_says_nan_or_inf(out: Path) -> None:
    for path in NOTEBOOKS:
        executed = nbformat.read(out / "figures" / "smoke" / "notebooks" / path.name, as_version=4)
        outputs = [o for cell in executed.cells if cell.cell_type == "code" for o in cell.outputs]
        for text in (o.data.get("text/markdown", "") for o in outputs if "data" in o):
            assert "nan" not in text.split() and "inf" not in text.split() and "nan%" not in text, text


def test_index_links_every_notebook_and_shows_every_figure(out: Path) -> None:
    index = (out / "figures" / "smoke" / "index.html").read_text()
    assert all(path.stem in index for path in NOTEBOOKS)
    assert all(file.name in index for file in (out / "figures" / "smoke").iterdir() if file.suffix in (".png", ".jpg"))


def test_verdicts_follow_from_the_tables_beside_them(out: Path) -> None:
    folder = out / "figures" / "smoke"
    again = verdicts.judge_folder(folder).to_csv(index=False, lineterminator="\n")
    assert again == (folder / "08_verdicts.csv").read_text()


def files(out: Path) -> dict[Path, float]:
    """What a run computed, with the time of its writing."""
    found = (file for file in (out / "runs").rglob("*") if file.is_file() and ".lock" not in file.name)
    return {file: file.stat().st_mtime for file in found}


def test_second_run_computes_nothing_anew_and_imports_no_torch(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, started = files(out), time.time()
    blocked = out / "blocked" / "torch"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('a notebook whose results are there imports torch')")
    monkeypatch.setenv("PYTHONPATH", str(blocked.parent))
    assert cli.main(["run", "smoke", "--out", str(out), "--device", "cpu"]) == 0
    assert files(out) == before and max(before.values()) < started


def test_smoke_runs_on_resnet18(tmp_path: Path) -> None:
    tiny = [
        "network.architecture=resnet18", "data.train_images=64", "data.validation_images=64", "visualization.steps=2",
        "sensitivity.images=8", "latency_repeats=2", "network.scratch.epochs=2",
    ]  # fmt: skip
    overrides = [word for override in tiny for word in ("--set", override)]
    assert cli.main(["run", "smoke", "--out", str(tmp_path), "--device", "cpu", *overrides]) == 0
    costs = pd.read_csv(tmp_path / "figures" / "smoke" / "03_costs.csv")
    costs = costs[costs.method.isin(["structured_l1", "connection_l1"])]
    assert costs[costs.form == "compact"].parameters.max() < costs[costs.form == "dense"].parameters.min()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_calls(path: Path) -> None:
    for source in code(path):
        assert len([line for line in source.splitlines() if line.strip()]) <= 15, source
        assert not any(word in source for word in (".groupby(", ".merge(", ".pivot", str(paths.ROOT))), source
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(source))), source


def test_notebooks_are_short() -> None:
    assert sum(len([line for line in cell.splitlines() if line.strip()]) for p in NOTEBOOKS for cell in code(p)) <= 700
