"""What a report keeps is complete and repeatable, and a notebook shows it with its caption."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from report_examples import DESCRIPTIONS, make_accuracies

from prunelens.report import Report, plots, style
from prunelens.report.report import readable
from prunelens.variants import Variant


def report(folder: Path) -> Report:
    return Report(folder, DESCRIPTIONS, {"profile": "quick", "git_commit": "abc"})


def drawn() -> Figure:
    return plots.by_rate(make_accuracies(), "top1", title="Accuracy falls")


def estimates(over: list[str]) -> pd.DataFrame:
    variant = Variant("structured_l1", 0.8, "one_shot", epochs=2)
    numbers = {"value": 0.1, "low": 0.05, "high": 0.15, "top1": 0.5}
    return pd.DataFrame([{**variant.fields(), **numbers, "over": one} for one in over]).drop(columns="seed")


def test_a_figure_is_kept_with_its_table_and_what_it_was_made_from(tmp_path: Path) -> None:
    figure, table = drawn(), make_accuracies()
    folder = tmp_path / "new"
    report(folder).figure("accuracy", figure, table, "Accuracy – by rate.")
    assert not plt.fignum_exists(figure.number)
    assert {path.name for path in folder.iterdir()} == {f"accuracy.{end}" for end in ("png", "svg", "csv", "json")}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "accuracy.csv"), table)
    record = json.loads((folder / "accuracy.json").read_text())
    assert record["profile"] == "quick" and record["git_commit"] == "abc" and record["bars"] == plots.SEEDS
    assert record["caption"] == f"Accuracy – by rate. {plots.SEEDS}"
    assert record["alt"].startswith("Accuracy falls Panels: as pruned; retrained. Horizontal: nominal pruning rate.")
    height, width, _ = plt.imread(folder / "accuracy.png").shape
    assert width == 1050 and height == pytest.approx(150 * figure.get_figheight(), abs=1)


def test_a_notebook_shows_the_image_with_its_caption_and_alternative_text(tmp_path: Path) -> None:
    shown = report(tmp_path).figure("a", drawn(), make_accuracies(), "Top-1 < 1 & falling.")
    html = shown._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in html and "<figcaption>Top-1 &lt; 1 &amp; falling." in html
    assert re.search(r'alt="Accuracy falls [^"]+"', html)
    assert repr(shown).startswith("a.png: Top-1 < 1")


@pytest.mark.parametrize(
    ("over", "bars"),
    [
        (["3 seeds"], "over 3 seeds."),
        (["3 seeds", "3 seeds"], "over 3 seeds."),
        (["3 seeds", "1,000 images, one seed"], "over seeds or images."),
        (["7,280 units", "1 unit", "12 units"], "over units."),
    ],
)
def test_the_caption_says_what_the_bars_are(tmp_path: Path, over: list[str], bars: str) -> None:
    table = estimates(over)
    report(tmp_path).figure("a", plots.estimates(table, "x"), table, "A caption.")
    assert json.loads((tmp_path / "a.json").read_text())["caption"] == f"A caption. Bars: 95 % interval {bars}"


def test_rows_without_an_interval_have_no_say_in_what_the_bars_are(tmp_path: Path) -> None:
    table = estimates(["3 seeds", "2 networks: too few"])
    table.loc[1, ["low", "high"]] = np.nan
    report(tmp_path).figure("a", plots.estimates(table, "x"), table, "")
    assert json.loads((tmp_path / "a.json").read_text())["bars"] == "Bars: 95 % interval over 3 seeds."


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        report(tmp_path / folder).figure("a", drawn(), make_accuracies(), "")
    for ending in ("png", "svg", "csv", "json"):
        assert (tmp_path / "first" / f"a.{ending}").read_bytes() == (tmp_path / "second" / f"a.{ending}").read_bytes()


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(tmp_path).figure("a", drawn(), make_accuracies(), "old")
    old = (tmp_path / "a.csv").read_bytes()

    def fail(self: pd.DataFrame, path: Path, **options: object) -> None:
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        report(tmp_path).figure("a", drawn(), make_accuracies(), "new")
    assert (tmp_path / "a.csv").read_bytes() == old
    assert not list(tmp_path.glob(".*"))


def test_a_figure_of_photographs_is_a_jpeg(tmp_path: Path) -> None:
    figure, axis = plt.subplots()
    axis.imshow(np.zeros((4, 4, 3), np.uint8))
    shown = report(tmp_path).figure("photographs", figure, pd.DataFrame({"a": [1]}), "A caption.")
    assert {path.suffix for path in tmp_path.iterdir()} == {".jpg", ".csv", ".json"}
    assert (tmp_path / "photographs.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert "data:image/jpeg;base64" in shown._repr_html_()


def test_a_table_is_kept_whole_and_shown_in_part(tmp_path: Path) -> None:
    table = make_accuracies()
    shown = report(tmp_path).table("accuracy", table)
    assert len(pd.read_csv(tmp_path / "accuracy.csv")) == len(table)
    assert list(shown.data)[:2] == ["network", "Top-1 accuracy"] and len(shown.data) == 12
    assert f"12 of {len(table)} rows. The whole table is accuracy.csv." in shown.to_html()
    assert list(report(tmp_path).table("b", table, ["top1", "network"]).data) == ["Top-1 accuracy", "network"]
    wide = pd.DataFrame(np.zeros((1, 20)), columns=[f"c{i}" for i in range(20)])
    assert report(tmp_path).table("wide", wide).data.shape == (1, 8)


def test_texts_in_tables_are_escaped(tmp_path: Path) -> None:
    html = report(tmp_path).table("a", pd.DataFrame({"class_name": ["<script>"]})).to_html()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_readable_names_networks_and_puts_estimates_into_words() -> None:
    table = readable(estimates(["3 seeds"]))
    assert table.iloc[0].to_dict() == {
        "network": "structured, L1, 0.8", "estimate": "0.100 (0.050 to 0.150)", "top1": 0.5, "over": "3 seeds",
    }  # fmt: skip
    assert readable(make_accuracies()).network.is_unique  # several seeds are named
    worded = pd.DataFrame({"estimate": ["+1 %"], "value": [0.01], "low": [0.0], "high": [0.02]})
    pd.testing.assert_frame_equal(readable(worded), worded)
    other = pd.DataFrame({"layer": ["a"], "units": [3]})
    pd.testing.assert_frame_equal(readable(other), other)


def test_say_is_markdown(tmp_path: Path) -> None:
    assert report(tmp_path).say("**text**")._repr_markdown_() == "**text**"


def test_a_report_registers_its_looks(tmp_path: Path) -> None:
    style.register({})
    report(tmp_path)
    assert style.look({"method": "structured_l1"}).label == "structured, L1"


def test_the_report_imports_no_torch() -> None:
    modules = ["report", "report.plots", "report.unit_plots", "report.galleries", "report.page"]
    lines = [f"import prunelens.{name}" for name in modules] + ["import sys", "assert 'torch' not in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize("name", [".", "private.txt"])
def test_a_text_that_is_the_name_of_a_file_stays_a_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.txt").write_text("secret")
    assert report(tmp_path).say(name)._repr_markdown_() == name
