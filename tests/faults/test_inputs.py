"""What a user gives and a study cannot use is refused before anything is computed, with key, found and expected."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prunelens import store as store_module
from prunelens.images.embedded import compose
from prunelens.networks import architectures
from prunelens.run import checks, cli
from prunelens.study import Study

TINY = [
    "pruning.methods=[structured_l1]", "pruning.rates=[0.8]", "pruning.unmasked.methods=[]",
    "pruning.iterative.methods=[]", "pruning.recalibrated.methods=[]", "pruning.controls.methods=[]",
    "pruning.unretrained.methods=[]", "pruning.doubled=[]", "sensitivity.methods=[structured_l1]",
    "interpretability.measures=[lifetime_sparseness]",
]  # fmt: skip
FOLDER = ["network.outputs=8", "data.source=folder", "data.train_images=null", "data.validation_images=null",
          "data.stimulus_images=60", "interpretability.tasks=2", "interpretability.explanations=2"]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the embedded images, weights nobody trained, and one store for all tests."""
    found = tmp_path_factory.mktemp("given")
    for split in ("train", "validation"):
        images = compose(64, 64, split, 0)
        for pixels, label, name in zip(images.images, images.labels % 8, images.names, strict=True):
            folder = found / split.replace("validation", "val") / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name.replace('/', '-')}.png")
    save_file(state(), found / "100.safetensors")
    save_file(state(8), found / "8.safetensors")
    return found


def state(outputs: int = 100) -> dict[str, torch.Tensor]:
    """Weights that nobody trained."""
    torch.manual_seed(0)
    found = architectures.load("googlenet").build(outputs, 0.25).state_dict()
    return {name: tensor.contiguous() for name, tensor in found.items()}


def study(root: Path, *overrides: str) -> Study:
    return Study("smoke", [*TINY, *overrides], "cpu", str(root / "out"))


@pytest.mark.parametrize(("outputs", "data", "chance"), [(100, [], "1.0"), (8, FOLDER, "12.5")])
def test_weights_that_do_no_better_than_guessing_are_refused(
    root: Path, outputs: int, data: list[str], chance: str
) -> None:
    found = study(root, f"network.weights={root / f'{outputs}.safetensors'}", f"data.root={root}", *data)
    said = rf"^network\.weights: the dense network is right on .* guessing gives {chance}%"
    with pytest.raises(ValueError, match=said):
        found.check()


def test_a_similarity_whose_weights_are_gone_since_they_were_tried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a compute node that shares the store with a machine where they are."""
    from prunelens.units import similarities

    found = study(root)
    found.check()

    def gone() -> None:
        raise FileNotFoundError("no weights")

    monkeypatch.setattr(similarities, "_efficientnet_lite0", gone)
    with pytest.raises(FileNotFoundError, match="no weights"):
        study(root).check()


def test_outputs_that_are_fewer_than_classes_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^images embedded: gave a class for output \d+, expected .*outputs = 5"):
        study(root, "network.outputs=5")


def test_results_of_other_code_are_said_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = checks.Request("smoke", TINY, "cpu", str(root / "out"))
    study(root).pipeline.get("stimuli"), study(root).pipeline.get("layers")
    capsys.readouterr()
    checks.study(request)
    assert capsys.readouterr().out == ""
    ours = store_module.origin()
    later = {**ours, "versions": {**ours["versions"], "torch": "99"}}
    monkeypatch.setattr(store_module, "origin", lambda: later)
    checks.study(request)
    said = capsys.readouterr().out
    assert said.startswith("prunelens: ") and said.count("\n") == 1 and f"torch {ours['versions']['torch']}" in said


def other_dtype(state: dict) -> dict:
    return {name: tensor.to(torch.int8) if tensor.ndim == 4 else tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: {name: tensor * float("nan") for name, tensor in state.items()}, "not finite"),
        (lambda state: {name: torch.zeros_like(tensor) for name, tensor in state.items()}, "all weights are zero"),
        (other_dtype, "expected floating-point numbers"),
    ],
)
def test_weights_that_are_nonsense_are_refused(
    spoil: Callable[[dict], dict], said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(spoil(state()), root / "spoilt.safetensors")
    words = [word for each in (*TINY, f"network.weights={root / 'spoilt.safetensors'}") for word in ("--set", each)]
    assert cli.main(["compute", "smoke", "--device", "cpu", "--out", str(root / "out"), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("prunelens: ") and said in error
