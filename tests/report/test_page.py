"""The page of all results links and shows what is there, and nothing that is not."""

import json
from pathlib import Path

import pandas as pd
import pytest

from prunelens.analysis.verdicts import SHOWN
from prunelens.report.page import write_index


def page(folder: Path, title: str = "quick") -> str:
    write_index(folder, title)
    return (folder / "index.html").read_text(encoding="utf-8")


def test_notebooks_whose_last_run_failed_are_marked(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for name in ("00_setup.html", "00_setup.log", "01_pruning.html", "01_pruning.failed.ipynb", "02_more.failed.ipynb"):
        (tmp_path / "notebooks" / name).touch()
    found = page(tmp_path)
    assert '<h2 id="n00"><a href="notebooks/00_setup.html">00 setup</a></h2>' in found
    assert '01 pruning</a> (<a href="notebooks/01_pruning.failed.ipynb">last run failed</a>)</h2>' in found
    assert '<h2 id="n02">02 more (<a href="notebooks/02_more.failed.ipynb">last run failed</a>)</h2>' in found
    assert [f'<li><a href="#n0{i}">' in found for i in range(3)] == [True] * 3


def test_every_figure_has_its_caption_and_files(tmp_path: Path) -> None:
    for name in ("05_mis.png", "05_mis.svg", "05_mis.csv", "bare.jpg", "05_counts.csv"):
        (tmp_path / name).write_text("")
    record = {"caption": "MIS < chance & falling", "alt": 'a "line"', "git_commit": "0123456789"}
    (tmp_path / "05_mis.json").write_text(json.dumps(record))
    (tmp_path / "bare.json").write_text("{half")
    found = page(tmp_path)
    assert 'src="05_mis.png"' in found and 'src="bare.jpg"' in found
    assert "MIS &lt; chance &amp; falling" in found and 'alt="a &quot;line&quot;"' in found and 'alt="bare"' in found
    assert 'href="05_mis.svg"' in found and 'href="05_mis.csv"' in found and 'href="bare.svg"' not in found
    assert found.count('href="05_counts.csv"') == 1 and found.count('href="05_mis.csv"') == 1
    assert found.index('id="n05"') < found.index('src="05_mis.png"') < found.index('href="05_counts.csv"')
    assert "code 0123456<" in found
    assert 'src="http' not in found and 'href="http' not in found


def test_verdicts_come_first_and_are_escaped(tmp_path: Path) -> None:
    row = {**dict.fromkeys(SHOWN, "-"), "claim": "C1", "statement": "a < b", "verdict": "holds", "over": "3 seeds"}
    pd.DataFrame([row]).to_csv(tmp_path / "08_verdicts.csv", index=False)
    (tmp_path / "05_mis.png").write_text("")
    found = page(tmp_path)
    assert "<td>a &lt; b</td>" in found and "<td>holds</td>" in found and "3 seeds" not in found
    assert found.index("holds") < found.index("05_mis.png")
    assert '"08_verdicts.csv"' not in found


@pytest.mark.parametrize("title", ["<b>", "$title"])
def test_titles_are_taken_as_they_are(tmp_path: Path, title: str) -> None:
    found = page(tmp_path, title)
    assert f"<h1>prunelens: {title.replace('<', '&lt;').replace('>', '&gt;')}</h1>" in found


def test_names_of_files_are_escaped(tmp_path: Path) -> None:
    (tmp_path / '05_<b>&".png').write_text("")
    found = page(tmp_path)
    assert "<b>&" not in found and "05_&lt;b&gt;&amp;&quot;.png" in found


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OSError, match=r"index\.html"):
        write_index(tmp_path, "quick")
