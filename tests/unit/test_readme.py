"""README's verdicts are those of the committed tables, which follow from the evidence beside them; links lead."""

import re
from pathlib import Path

import pandas as pd
import pytest

from prunelens import claims

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("profile", ["quick", "long", "imagenette_bvlc"])
def test_every_verdict_is_that_of_the_committed_table(profile: str) -> None:
    verdicts = pd.read_csv(PROJECT / "figures" / profile / "08_verdicts.csv")
    rows = [[cell.strip() for cell in line.split("|")] for line in README.splitlines() if line.startswith("|")]
    column = next(row for row in rows if row[1] == "claim or question").index(f"`{profile}`")
    for row in verdicts.itertuples():
        shown = next(cells for cells in rows if cells[1].startswith(f"{row.claim}:"))
        assert shown[column] == f"{row.verdict}: {row.ours}"


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


@pytest.mark.parametrize("folder", sorted(file.parent for file in PROJECT.glob("figures/*/08_units.parquet")))
def test_committed_verdicts_follow_from_the_committed_tables(folder: Path) -> None:
    assert claims.judge_again(folder).to_csv(index=False) == (folder / "08_verdicts.csv").read_text()
