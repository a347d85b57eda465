"""A run that is kept as the reference is reproduced by itself; what the command line says and returns otherwise."""

import json
from pathlib import Path

import pandas as pd
import pytest

from prunelens import paths, profile
from prunelens.analysis import example, verdicts
from prunelens.profile import Margins
from prunelens.run import cli, series, verify
from prunelens.run.checks import Request

CLAIMS = ["c1a", "c6a"]


def evidence(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    verdicts.keep(tables, folder, CLAIMS, Margins())


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of smoke, which is its reference."""
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(cli, "_say_origins", lambda request: None)
    folder = tmp_path / "figures" / "smoke"
    evidence(folder, example.tables())
    (folder / "08_verdicts.csv").write_text("claim\nC1a\n")
    assert cli.main(["verify", "smoke", "--keep", "--out", str(tmp_path)]) == 0
    return tmp_path


def test_a_run_agrees_with_itself(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["verify", "smoke", "--out", str(out)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("verify: 2 of 2 claims and ") and first.endswith(f" agree with {out}/reference/smoke")
    assert all("have no interval" in line for line in others)


def test_the_reference_is_small_and_says_where_it_comes_from(out: Path) -> None:
    folder = out / "reference" / "smoke"
    assert {file.name for file in folder.iterdir()} == {"claims.csv", "numbers.csv", "08_verdicts.csv", "record.json"}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000
    record = json.loads((folder / "record.json").read_text())
    assert record["profile"]["name"] == "smoke" and "versions" in record
    (folder / "old.csv").write_text("stale")
    verify.keep(out / "figures" / "smoke", profile.load("smoke"))
    assert not (folder / "old.csv").exists()


def test_a_difference_is_said_in_a_line_and_by_the_status(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = example.tables()
    tables["accuracy"].loc[tables["accuracy"].method == "structured_l1", "mask_sparsity"] += 0.01
    evidence(out / "figures" / "smoke", tables)
    capsys.readouterr()
    assert cli.main(["verify", "smoke", "--set", "seed=3", "--out", str(out)]) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert "; not: structured_l1 0.40 none mask_sparsity, " in first and first.endswith(" more")
    name = "structured_l1 0.80 rewound 4 epochs mask_sparsity"
    assert f"  {name}: 0.8100 (no interval), reference 0.8000 (no interval): differs" in others
    assert others[-1] == "  the profile is not the reference's: seed 3 (reference: 0)"


def test_numbers_over_units_are_not_compared_with_those_of_other_stimuli(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = example.tables()
    tables["units"]["mis"] += 0.2
    evidence(out / "figures" / "smoke", tables)
    command = ["verify", "smoke", "--out", str(out)]
    assert cli.main(command) == 1
    capsys.readouterr()
    assert cli.main([*command, "--set", "data.stimulus_images=200"]) == 0
    assert "intervals over units are not compared" in capsys.readouterr().out


def test_with_nothing_to_compare_the_status_is_another(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "smoke", "--out", str(out / "elsewhere")]) == 2
    assert "evidence" in capsys.readouterr().err
    (out / "reference" / "smoke" / "claims.csv").unlink()
    assert cli.main(["verify", "smoke", "--out", str(out)]) == 2
    assert "`verify smoke --keep` makes a run the reference" in capsys.readouterr().err


def test_a_run_ends_with_the_line_if_it_has_judged_claims(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    folder = out / "figures" / "smoke"
    request = Request("smoke", [], "auto", str(out))
    series._say_whether_reproduced(folder, request, began=0.0)
    assert capsys.readouterr().out.startswith("verify: 2 of 2 claims and ")
    series._say_whether_reproduced(folder, request, began=float("inf"))
    assert capsys.readouterr().out == "", "the evidence is of an earlier run"
    (folder / "evidence" / "units.parquet").write_bytes(b"damaged")
    series._say_whether_reproduced(folder, request, began=0.0)
    assert capsys.readouterr().out.startswith("verify: the run could not be compared: ")
