"""What `plan` says of claims and costs."""

from pathlib import Path

import pytest

from prunelens import paths
from prunelens.analysis import example, verdicts
from prunelens.profile import Margins
from prunelens.run import cli, plan
from prunelens.run.costs import Cost


def test_earlier_runs_come_before_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    folder = tmp_path / "figures" / "smoke"
    findings, source = plan.earlier(folder, "smoke")
    assert source.startswith("none") and findings.value.isna().all()
    verdicts.keep(example.tables(), folder, ["c1a"], Margins())
    assert plan.earlier(folder, "smoke")[1] == str(folder / "evidence")
    assert cli.main(["verify", "smoke", "--keep", "--out", str(tmp_path)]) == 0
    findings, source = plan.earlier(tmp_path / "nowhere", "smoke")
    assert source == str(tmp_path / "reference" / "smoke") and findings.claim.tolist() == ["C1a"]


def test_costs_are_a_table_with_sums() -> None:
    found = [
        Cost("retrained", 12, 2, 3.0, 0.5, 20.0),
        Cost("measure.mis", 4, 4, 1.0, 0.0, 0.0),
        Cost("measure.clarity", 4, 0, 3.0, 0.25, 1.0),
    ]
    assert plan.cost_lines(found, 2) == [
        "stage      units  computed  seconds each  minutes    MB",
        "retrained     12         2          3.00      0.5  20.0",
        "measure        8         4          2.00      0.2   1.0",
        "in all        20         6                    0.8  21.0",
        "",
        "still to compute: about 0.8 minutes in 2 processes, 21 MB; figures take more",
    ]


def test_plan_measures_what_it_does_not_know_and_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr("prunelens.run.costs.LONGEST", 0.0)  # one small study
    command = ["plan", "smoke", "--device", "cpu", "--set", "interpretability.measures=[mis]", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "measuring" in out and "nan" not in out and "C1a" in out and "no earlier run" in out
    last = out.splitlines()[-1]
    assert last.startswith("still to compute: about ") and float(last.split("about ")[1].split()[0]) > 0
    results = set((tmp_path / "runs").rglob("*"))
    assert cli.main(command) == 0
    assert set((tmp_path / "runs").rglob("*")) == results
