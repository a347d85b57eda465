"""The runner on notebooks that work: selection, parameters, progress, what is kept, the index page."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from prunelens import runner
from prunelens.similarity import SIMILARITIES

NAMES = ["00_setup", "01_pruning", "03_accuracy", "05_mis"]
PATHS = [Path(f"{name}.ipynb") for name in NAMES]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", NAMES),
        ("01", ["01_pruning"]),
        ("5,1", ["01_pruning", "05_mis"]),
        ("01-05", ["01_pruning", "03_accuracy", "05_mis"]),
        ("00, 03-05", ["00_setup", "03_accuracy", "05_mis"]),
        ("03,03-03", ["03_accuracy"]),
    ],
)
def test_notebooks_are_selected_in_order(wanted, expected):
    assert [path.stem for path in runner.select(PATHS, wanted)] == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("07", "no notebook 07; there are 00, 01, 03, 05"),
        ("01-04", "no notebook 04"),
        ("05-01", "the range 05-01 runs backwards"),
        ("mis", "'mis' is no number"),
        ("01,", "'' is no number"),
        ("1-2-3", "'1-2-3' is no number"),
    ],
)
def test_a_bad_selection_says_what_is_there(wanted, message):
    with pytest.raises(runner.UsageError, match=re.escape(message)):
        runner.select(PATHS, wanted)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (90000, "25:00:00")],
)
def test_clock(seconds, text):
    assert runner.clock(seconds) == text


def test_remaining_time_takes_the_mean_where_nothing_is_known():
    seconds = {"00_setup": 10.0, "01_pruning": 30.0, "03_accuracy": None}
    assert runner.to_go(PATHS[1:3], seconds) == ", about 0:50 to go"
    assert runner.to_go([], seconds) == ""
    assert runner.to_go(PATHS[:1], {"00_setup": None}) == ""


def test_the_command_to_go_on_repeats_every_option():
    request = runner.Request("quick", ["data.root=a b", "seed=1"], "cpu", "/tmp/x", "")
    assert request.command(PATHS[1:]) == (
        "./run_all.sh quick --notebooks 01,03,05 --set 'data.root=a b' --set seed=1 --device cpu --out /tmp/x"
    )


def test_relative_paths_of_the_command_line_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    request = runner.parse(["mine.yaml", "--out", "results"])
    assert (request.profile, request.out) == (str(tmp_path / "mine.yaml"), str(tmp_path / "results"))
    assert runner.parse(["smoke"]).profile == "smoke"


def test_parameters_are_read_as_python():
    source = 'a: str = "x"  # such as ["y=4"]\nb, c = 1, 2\nd = {\n    "e": 3,\n}'
    assert runner.assigned(source) == ["a", "d"]
    assert runner.assigned("not python") == []


def test_runs_in_order_with_parameters_and_keeps_everything(project, capsys):
    project.notebook("01_second", 'assert open("order").read() == "first"', "print(profile, overrides, device)")
    project.notebook("00_first", 'open("order", "w").write("first"); print("written")')
    assert runner.main(["quick", "--set", "seed=1", "--set", "a.b=[1, 2]", "--device", "cpu"]) == 0

    names = ("00_first", "01_second")
    assert project.kept() == {f"{name}.{suffix}" for name in names for suffix in ("ipynb", "html", "log")}
    assert (project.root / "order").exists(), "the kernel's folder is not the project's root"
    executed = project.executed("01_second")
    assert executed.cells[-1].outputs[0].text == "quick ['seed=1', 'a.b=[1, 2]'] cpu\n"
    assert executed.metadata.papermill.input_path == "notebooks/01_second.ipynb"
    assert executed.metadata.papermill.output_path == "figures/quick/notebooks/01_second.ipynb"
    assert "written" in (project.results / "notebooks" / "00_first.log").read_text()
    assert str(project.root) not in json.dumps(executed)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prunelens: profile quick, 2 notebooks -> figures/quick"
    assert re.fullmatch(r"\[1/2\] 00_first: started [\d:]{8}", lines[1])
    assert re.fullmatch(r"\[1/2\] 00_first: done in \d:\d\d, elapsed \d:\d\d, about \d:\d\d to go", lines[2])
    assert re.fullmatch(r"\[2/2\] 01_second: done in \d:\d\d, elapsed \d:\d\d", lines[4])
    assert lines[5].endswith("figures/quick/index.html")
    assert not any("\r" in line or "\x1b" in line for line in lines)

    page = (project.results / "index.html").read_text()
    assert all(f'href="notebooks/{name}.html"' in page for name in names)

    assert runner.main(["quick", "--notebooks", "00"]) == 0
    assert "took 0:0" in capsys.readouterr().out, "the previous run's time is not shown"


def test_out_takes_the_place_of_the_project(project, tmp_path):
    project.notebook("00_first", "print(out)")
    folder = tmp_path / "a {folder}"
    assert runner.main(["quick", "--out", str(folder)]) == 0
    assert {path.name for path in (folder / "figures" / "quick" / "notebooks").iterdir()} == {
        f"00_first.{s}" for s in ("ipynb", "html", "log")
    }
    assert not project.results.exists()


def test_a_long_cell_is_not_silent(project, monkeypatch, capsys):
    monkeypatch.setattr(runner, "HEARTBEAT", 0.3)
    slow = 'import sys, time; print("epoch 1 of 2", file=sys.stderr, flush=True); time.sleep(1.5)'
    project.notebook("00_slow", slow)
    assert runner.main(["quick"]) == 0
    assert "[1/1] 00_slow: in cell 3 of 3 for 0:0" in (out := capsys.readouterr().out)
    assert ": epoch 1 of 2\n" in out


def test_the_log_keeps_lines_but_few_states_of_a_progress_bar(tmp_path):
    file = tmp_path / "log"
    with file.open("w") as log, runner.Watch("", log, 1) as watch:
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
def test_no_line_is_lost_beside_a_progress_bar(tmp_path, written, kept):
    file = tmp_path / "log"
    with file.open("w") as log, runner.Watch("", log, 1) as watch:
        for text in written:
            watch.write(text)
    assert file.read_text() == kept


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(
    ("installed", "command"),
    [({"pip"}, ".venv/bin/python -m pip install "), (set(), "uv pip install --python .venv/bin/python ")],
)
def test_a_similarity_without_its_package_says_how_to_install_it(monkeypatch, name, installed, command):
    monkeypatch.setattr(runner.sys, "executable", str(runner.ROOT / ".venv/bin/python"))
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda module: module if module in installed else None)
    with pytest.raises(runner.UsageError, match=f"interpretability.similarity: {name} needs a package: ") as error:
        runner.check_similarity(name)
    requirement = str(error.value).partition(command)[2].strip("'")
    project = tomllib.loads((runner.ROOT / "pyproject.toml").read_text())["project"]
    assert requirement in project["dependencies"] + project["optional-dependencies"]["dreamsim"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "stlpips", "lpips"])
def test_packages_of_these_similarities_are_installed(name):
    runner.check_similarity(name)


def test_index_marks_notebooks_whose_last_run_failed(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("00_setup.html", "01_pruning.html", "01_pruning.failed.ipynb", "02_more.failed.ipynb"):
        (tmp_path / "notebooks" / name).touch()
    runner.write_index(tmp_path, "quick")
    page = (tmp_path / "index.html").read_text()
    assert '<li><a href="notebooks/00_setup.html">00 setup</a></li>' in page
    assert '01 pruning</a> (<a href="notebooks/01_pruning.failed.ipynb">last run failed</a>)</li>' in page
    assert '<li>02 more (<a href="notebooks/02_more.failed.ipynb">last run failed</a>)</li>' in page


def test_index_shows_every_figure_with_caption_and_table(tmp_path):
    for name in ("mis.png", "mis.svg", "mis.csv", "bare.png", "counts.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "mis.json").write_text(json.dumps({"caption": "MIS < chance & falling"}))
    (tmp_path / "bare.json").write_text("{half")
    runner.write_index(tmp_path, "quick")
    page = (tmp_path / "index.html").read_text()
    assert 'src="mis.png"' in page and 'src="bare.png"' in page
    assert "MIS &lt; chance &amp; falling" in page
    assert 'href="mis.svg"' in page and 'href="mis.csv"' in page
    assert 'href="bare.svg"' not in page
    assert page.count('href="counts.csv"') == 1
    assert 'src="http' not in page and 'href="http' not in page
