"""The examples of docs/extending.md work as they stand there, and a broken part of each kind is refused in one line."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from prunelens import paths
from prunelens.analysis import verdicts
from prunelens.report import Report, plots, style
from prunelens.run import cli
from prunelens.study import Study

DOCUMENT = (paths.ROOT / "docs" / "extending.md").read_text()
EXAMPLES = {name: code for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, re.S)}

OWN = [
    "pruning.methods=[structured_l1, taylor.taylor]", "interpretability.similarity=tiny_colors.TinyColors",
    "interpretability.measures=[mis, kurtosis.kurtosis, concept_selectivity]", "data.source=bars.bars",
    "network.architecture=three_convs.ThreeConvsArchitecture", "network.outputs=2", "network.width=1.0",
    "claims.extra=[dead_units.dead_units]", "visualization.methods=[taylor.taylor]",
]  # fmt: skip
TINY = ["data.train_images=64", "data.validation_images=64", "sensitivity.images=8", "latency_repeats=2",
        "pruning.doubled=[]"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder outside the project with one file for each example."""
    found = tmp_path_factory.mktemp("mine")
    for name, code in EXAMPLES.items():
        (found / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(found)
        yield found
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return Study("smoke", [*OWN, *TINY], "cpu", str(folder / "out"))


def test_there_is_an_example_of_every_kind() -> None:
    assert sorted(EXAMPLES) == [
        "bars.py",
        "dead_units.py",
        "kurtosis.py",
        "taylor.py",
        "three_convs.py",
        "tiny_colors.py",
    ]


def test_commands_of_the_document_name_its_examples() -> None:
    named = re.findall(r"--set '?\S*?[=\[ ,](\w+)\.(\w+)", DOCUMENT)
    assert {f"{module}.py" for module, _ in named} == set(EXAMPLES)


def test_a_method_of_ones_own_is_in_tables_and_figures(study: Study) -> None:
    accuracy = study.accuracy()
    own = accuracy[accuracy.method == "taylor.taylor"]
    assert len(own) == 4 and own.mask_sparsity[own.rate == 0.8].between(0.79, 0.81).all()
    Report(study.folder, study.descriptions, study.origin)
    assert style.names(own)[0].startswith("Taylor, 0.4")
    figure = plots.by_rate(accuracy, "top1", study.chance)
    assert "Taylor" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert study.descriptions["taylor.taylor"].color in {line.get_color() for a in figure.axes for line in a.lines}


def test_a_measure_of_ones_own_is_in_tables_and_figures(study: Study) -> None:
    units = study.units()
    name = "kurtosis.kurtosis"
    assert units.loc[units.alive, name].notna().all() and units.loc[~units.alive, name].isna().all()
    Report(study.folder, study.descriptions, study.origin)
    figure = plots.by_rate(units[units.kind == "conv"], name)
    assert figure.axes[0].get_ylabel() == "excess kurtosis"


def test_images_and_architecture_of_ones_own_are_what_is_studied(study: Study) -> None:
    assert study.classes["names"] == ["horizontal", "vertical"] and study.chance == 0.5
    assert study.layers.layer.tolist() == ["stem.conv", "one.conv", "two.conv", "fc"]
    units = study.units([study.dense])
    assert units[units.kind == "conv"].concept_selectivity.between(0, 1).all(), "the red square is a known concept"
    costs = study.costs()
    small = costs[(costs.form == "compact") & (costs.method == "structured_l1")]
    assert small.parameters.max() < study.layers.parameters[0]


def test_a_claim_of_ones_own_is_judged_beside_the_papers(study: Study) -> None:
    judged = verdicts.judge(study.tables(), ["c1a", *study.profile.claims.extra], study.profile.claims.margins)
    own = judged.set_index("claim").loc["X1"]
    assert own.verdict in ("holds", "undecided", "does not hold") and own.figure == "05_means"


@pytest.mark.slow
def test_notebooks_show_them_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder))
    overrides = [word for override in [*OWN, *TINY] for word in ("--set", override)]
    out = folder / "out"
    assert cli.main(["run", "smoke", "--out", str(out), "--device", "cpu", "--notebooks", "03,05-08", *overrides]) == 0
    figures = out / "figures" / "smoke"
    assert "taylor.taylor" in set(pd.read_csv(figures / "03_differences.csv").method)
    assert "kurtosis.kurtosis" in set(pd.read_csv(figures / "06_measure_slopes.csv").measure)
    assert "X1" in set(pd.read_csv(figures / "08_verdicts.csv").claim)


RANDOM = """
import torch
def part(network, rate, context):
    draw = lambda w: torch.rand(w.shape, generator=context.generator) > rate
    return {name: draw(layer.weight) for name, layer in context.layers.items()}
"""
TAKEN = """
from prunelens.analysis.claims import claim
@claim("C1a", "mine", rule="positive", margin=0.1)
def part(tables): ...
"""
BROKEN = {
    "method": ("pruning.methods=[structured_l1, broken.part]",
               "def part(network, rate, context): return {'fc.weight': None}"),
    "similarity": ("interpretability.similarity=broken.part",
                   "class part:\n    def embed(self, images, batch_size, device): return images.mean()"),
    "measure": ("interpretability.measures=[mis, broken.part]", "def part(recording, layer): return 3"),
    "architecture": ("network.architecture=broken.part", "class part: ..."),
    "images": ("data.source=broken.part", "def part(split, n, size, seed): return None"),
    "claim": ("claims.extra=[broken.part]", "def part(tables): return 1"),
}  # fmt: skip


BROKEN_TOO = [
    ("method", RANDOM),  # does not say that it draws random numbers
    ("method", "raise SystemExit(5)"),  # a script
    ("claim", TAKEN),
]


@pytest.mark.parametrize("kind, source", [*((kind, source) for kind, (_, source) in BROKEN.items()), *BROKEN_TOO])
def test_a_broken_part_is_refused_before_anything_is_computed(
    kind: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    override = BROKEN[kind][0]
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert cli.main(["run", "smoke", "--out", str(tmp_path / "out"), "--set", override]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"prunelens: {kind} broken.part: ") and "\n" not in said
    assert not (tmp_path / "out" / "figures").exists()
    assert not list((tmp_path / "out").rglob("*.safetensors"))


LATE = """
import numpy as np
from prunelens.images.imageset import ImageSet
def part(split, n, size, seed):
    seeds = [i if i >= 8 and {overlap} else 1000 * (split == "train") + i for i in range(n)]
    images = np.stack([np.random.default_rng(s).integers(0, 256, (size, size, 3), dtype=np.uint8) for s in seeds])
    names, classes = [f"{{split}}{{i}}" for i in range(n)], np.arange({classes})
    return ImageSet(images, np.arange(n) % {classes}, names, [str(k) for k in classes], classes)
"""


@pytest.mark.parametrize(
    "overlap, classes, said", [(True, 8, "are among the training images"), (False, 120, "network.outputs = 100")]
)
def test_images_that_are_wrong_in_real_numbers_are_refused(
    overlap: bool, classes: int, said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "late.py").write_text(LATE.format(overlap=overlap, classes=classes))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "late", raising=False)
    overrides = [word for override in ["data.source=late.part", *TINY] for word in ("--set", override)]
    assert cli.main(["compute", "smoke", "--out", str(tmp_path / "out"), *overrides]) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("prunelens: images late.part: ") and said in errors and "\n" not in errors
