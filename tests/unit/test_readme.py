"""README's numbers are those of committed tables, and its links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("profile", ["quick", "imagenette_bvlc"])
def test_every_verdict_is_that_of_the_committed_table(profile: str) -> None:
    verdicts = pd.read_csv(PROJECT / "figures" / profile / "08_verdicts.csv")
    for row in verdicts.itertuples():
        assert f"{row.verdict}: {row.ours}" in README, row.claim


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []
