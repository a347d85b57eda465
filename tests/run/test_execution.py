"""One notebook: what its log keeps of its output, and what its page may do."""

from pathlib import Path

import nbformat
import pytest

from prunelens.run import execution


def test_the_log_keeps_lines_but_few_states_of_a_progress_bar(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("w") as log, execution.Watch("", log, 1) as watch:
        watch._last_progress = float("-inf")
        for state in range(100):
            watch.write(f"\r\x1b[1m{state} %\x1b[0m")
        watch.write("\r100 %\n")
        watch.write("done\n")
    assert file.read_text() == "0 %\n100 %\ndone\n"
    assert watch.last_line == "done"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (["x.parquet is damaged: set aside\n\rdecode: 5%"], "x.parquet is damaged: set aside\n"),
        (["\rdecode: 5%|", "damaged\n", "\rdecode: 6%\n"], "damaged\ndecode: 6%\n"),
        (["a\nb\n\r1%\r2%\nc"], "a\nb\n2%\nc"),
        (["windows\r\nends\r\n"], "windows\nends\n"),
    ],
)
def test_no_line_is_lost_beside_a_progress_bar(tmp_path: Path, written: list[str], kept: str) -> None:
    file = tmp_path / "log"
    with file.open("w") as log, execution.Watch("", log, 1) as watch:
        for text in written:
            watch.write(text)
    assert file.read_text() == kept


def test_a_page_runs_no_script_and_holds_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (2, 2)).save(tmp_path / "private.png")
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/html": "<b>kept</b>"}),
        nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    notebook.cells = [nbformat.v4.new_markdown_cell("# A question\n\n![](private.png)"), cell]
    page = execution.to_html(notebook, "<script>a</script>")
    head, _, body = page.partition("</head>")
    policy = head.index("Content-Security-Policy")
    assert "default-src 'none'" in head and "script" not in head[:policy].partition("</title>")[2]
    assert "<title>&lt;script" in head
    assert "<b>kept</b>" in body and "data:image/png;base64,iVBORw0KGgo=" in body
    assert body.count("data:image") == 1, "a file was embedded"
