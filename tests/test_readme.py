"""README's links lead to files, its commands are those there are, and the library keeps its floors."""

import re
import subprocess
import sys

import pandas as pd

from prunelens import paths, profile

README = (paths.ROOT / "README.md").read_text()


def test_links_lead_to_files() -> None:
    for document in [paths.ROOT / "README.md", *(paths.ROOT / "docs").glob("*.md")]:
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()) if "://" not in link]
        assert [link for link in links if not (document.parent / link).exists()] == [], document


def test_readme_is_short_and_names_every_profile() -> None:
    assert len(README.splitlines()) <= 200
    assert all(f"`{name}`" in README for name in profile.names())


def verdict_rows() -> list[str]:
    """README's table of verdicts: the paper's published scores and the reference run of quick."""
    reference = paths.REFERENCE
    published = pd.read_csv(reference / "published_verdicts.csv").set_index("claim")
    quick = pd.read_csv(reference / "quick" / "08_verdicts.csv").set_index("claim")

    def cell(row: pd.Series) -> str:
        single = row.verdict != "not tested" and ";" not in row.estimate
        return f"**{row.verdict}**" + (f" {row.estimate.split(': ')[-1]}" if single else "")

    return [
        f"| {name}: {row.statement} | {cell(published.loc[name])} | {cell(row)} |" for name, row in quick.iterrows()
    ]


def test_verdicts_are_those_of_the_reference_tables() -> None:
    shown = [line for line in README.splitlines() if re.match(r"\| [CQ]\d", line)]
    assert shown == verdict_rows()


def test_findings_are_those_of_the_reference_tables() -> None:
    steps = pd.read_csv(paths.REFERENCE / "published_corrections.csv").set_index("step").value
    tables = {
        name: pd.read_csv(paths.REFERENCE / "quick" / f"{name}.csv") for name in ("02_sparsity_table", "03_differences")
    }
    usual = "rate == 0.8 and schedule == 'one_shot' and epochs == epochs.min()"
    sparsity, lost = (table.query(usual).set_index("method") for table in tables.values())
    zeros = sparsity.query("not masked").conv_sparsity.item()
    lost = lost.query("masked").value
    pooled, factor = (f"{steps[step]:.2f}".lstrip("0") for step in ("as published", "method as a factor"))
    for said in (
        f"r = {pooled}. ",
        f"r is **{factor}**",
        f"**{zeros:.1%}**".replace("%", " %"),
        f"**{100 * lost['connection_l1']:.1f} points**",
        f"**{100 * lost['unstructured_global']:.1f} points**",
    ):
        assert said in " ".join(README.split()), said


def test_commands_are_those_of_run_all() -> None:
    told = (paths.ROOT / "run_all.sh").read_text()
    commands = set(re.findall(r"\./run_all\.sh (test|lab|compute|judge|train|plan|verify)", README))
    assert {"test", "lab", "compute", "judge"} <= commands and all(
        f"./run_all.sh {command}" in told for command in commands
    )


# What each floor may import of the library; the ground floor is the rest.
FLOORS = {
    "images": {"images"},
    "networks": {"images", "networks"},
    "pruning": {"images", "networks", "pruning"},
    "units": {"images", "networks", "pruning", "units"},
    "analysis": {"analysis"},
    "report": {"analysis", "report"},
    "run": {"analysis", "report", "run", "study"},
}


def test_imports_go_down() -> None:
    library = paths.ROOT / "lib" / "prunelens"
    for floor, allowed in FLOORS.items():
        for file in (library / floor).glob("*.py"):
            imported = set(re.findall(r"^\s*(?:from|import) prunelens\.(\w+)", file.read_text(), re.M))
            imported |= set(re.findall(r"^\s*from prunelens import ([\w, ]+)", file.read_text(), re.M))
            names = {name.strip() for each in imported for name in each.split(",")}
            assert names & {*FLOORS, "study"} <= allowed, file


def test_analysis_report_and_run_import_no_torch() -> None:
    modules = ["prunelens.study"]
    for floor in ("analysis", "report", "run"):
        files = (paths.ROOT / "lib" / "prunelens" / floor).glob("*.py")
        modules += [f"prunelens.{floor}.{file.stem}" for file in files if file.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
