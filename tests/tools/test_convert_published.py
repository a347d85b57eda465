"""The converter of the authors' files: what it reads, and what it refuses to run."""

import codecs
import collections
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunelens.analysis import published

SCRIPT = Path(__file__).parents[2] / "tools" / "convert_published.py"
spec = importlib.util.spec_from_file_location("convert_published", SCRIPT)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def scores(mis: str = "mis") -> pd.DataFrame:
    """Scores as the authors' pickles hold them; strings as objects, as pandas wrote them in 2024."""
    table = pd.DataFrame(
        {"layer": ["conv1_conv", "conv1_bn", "fc"], "unit": ["0", "0", "7"], mis: [0.95, 1.0, 0.6],
         "mis_confidence": [0.7, 0.8, 0.55], "note": [np.float32(1)] * 3}
    )  # fmt: skip
    return table.astype({"layer": object, "unit": object}).set_axis(pd.Index(table.columns, dtype=object), axis=1)


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))


NAME = "machine_interpretability_dreamsim_natural_pruned_googlenet_50_Epochs_pruned_0.4_{}_model.pkl"
LOG = """JobId=1 JobName=name
Training for 10 epochs with learning rate 0.001 and optimizer SGD and scheduler ExponentialLR
Actual Pruning Rate: 0.3822005349688308
Accuracy after pruning every module with 0.4:  0.001
Epoch [1/2], Training Loss: 7.0, Learning Rate: 0.009000000000000001, Validation Accuracy: 0.5
Epoch [2/2], Training Loss: 5.6, Learning Rate: 0.008100000000000001, Validation Accuracy: 0.6
Accuracy after retraining: 0.6
Final pruned and retrained model saved as pruned_0.4_local_structured_Adam_retrained_2_epochs_model.pth
Actual Pruning Rate: 0.5728
Accuracy after pruning every module with 0.6:  0.001
Epoch [1/2], Training Loss: 7.0, Learning Rate: 0.009000000000000001, Validation Accuracy: 0.4
Final pruned and retrained model saved as pruned_0.6_local_structured_SGD_retrained_2_epochs_model.pth
"""


@pytest.fixture
def clone(tmp_path):
    """A folder laid out like the authors' repository, with a few rows of everything."""
    folder = tmp_path / "clone"
    write_pickle(folder / "Results" / NAME.format("local_structured_Adam_retrained_50_epochs"), {"scores": scores()})
    write_pickle(folder / NAME.format("connection_sparsity_SGD_retrained_50_epochs"), {"scores": scores("mis_score")})
    write_pickle(folder / "machine_interpretability_dreamsim_natural_googlenet.pkl", {"scores": scores(), "k": 9})
    plots = folder / "Plotting"
    plots.mkdir()
    rising = [0.7, 0.6, 0.65, 0.7, 0.75]
    iterative = [0.7, 0.7, 0.7, 0.7, 0.71]
    series = {name: iterative if "iterative" in name else rising for name in tool.SERIES}
    series["Unpruned GoogleNet"] = [0.7] * 4
    script = f"import nowhere\npruning_rates = [0, 0.2, 0.4, 0.6, 0.8]\nmis_confidence = {series}\nopen('ran', 'w')\n"
    (plots / "interpret_plot.py").write_text(script)
    (folder / "slurm-2.out").write_text(LOG)
    (folder / "slurm-1.out").write_text(LOG.replace("Validation Accuracy: 0.6", "Validation Accuracy: 0.1"))
    return folder


def test_convert_writes_what_full_reads(clone, tmp_path):
    rows = tool.convert(clone, tmp_path / "out")
    assert rows == {"unit_mis": 9, "mean_mis": 33, "retraining_curves": 3}
    tables = published.full(tmp_path / "out")
    assert set(tables) == set(rows)
    units = tables["unit_mis"].set_index(["method", "kind"])
    assert set(units.index.get_level_values(0)) == {"structured_l1", "connection_random", "tf_inceptionv1"}
    structured = units.loc["structured_l1"]
    assert structured.layer.tolist() == ["conv1.conv", "conv1.bn", "fc"]
    assert structured.index.tolist() == ["conv", "batch_norm", "output"]
    assert structured[["optimizer", "epochs", "rate"]].drop_duplicates().values.tolist() == [["adam", 50, 0.4]]
    assert structured.unit.tolist() == [0, 0, 7]
    assert structured.two_afc_accuracy.tolist() == [0.95, 1.0, 0.6] and structured.mis.tolist() == [0.7, 0.8, 0.55]
    assert units.loc["connection_random"].two_afc_accuracy.tolist() == [0.95, 1.0, 0.6]


def test_converted_means_and_curves(clone, tmp_path):
    tool.convert(clone, tmp_path / "out")
    tables = published.full(tmp_path / "out")
    means = tables["mean_mis"]
    assert (means.in_pooled_plot.sum(), means.placeholder.sum()) == (32, 3)
    assert means[means.placeholder].schedule.unique().tolist() == ["iterative"]
    assert means[means.rate == 0].mean_mis.tolist() == [0.7]
    curve = tables["retraining_curves"]  # of the last job, under the name that was saved, not the header's
    assert curve[["method", "optimizer", "learning_rate", "epochs", "rate"]].drop_duplicates().values.tolist() == [
        ["structured_l1", "adam", 0.01, 2, 0.4]
    ]
    assert curve.top1.tolist() == [0.001, 0.5, 0.6] and curve.conv_sparsity.tolist() == [0.3822] * 3


def test_convert_runs_none_of_the_scripts(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool.convert(clone, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_convert_takes_a_network_once(clone, tmp_path):
    copy = clone / "copy" / NAME.format("local_structured_Adam_retrained_50_epochs")
    write_pickle(copy, {"scores": scores()})
    assert tool.convert(clone, tmp_path / "out")["unit_mis"] == 9
    write_pickle(copy, {"scores": scores().assign(mis_confidence=0.1)})
    with pytest.raises(ValueError, match="score the same network differently"):
        tool.convert(clone, tmp_path / "out")


def test_convert_rejects_what_it_cannot_read(tmp_path):
    with pytest.raises(NotADirectoryError, match="is no folder"):
        tool.convert(tmp_path / "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match="none of the authors'"):
        tool.convert(tmp_path, tmp_path)
    path = tmp_path / NAME.format("local_structured_SGD_retrained_50_epochs")
    write_pickle(path, {"units": 3})
    with pytest.raises(ValueError, match=r"0.4_local_structured.*found \['units'\], expected scores"):
        tool.convert(tmp_path, tmp_path / "out")
    write_pickle(path, {"scores": scores().assign(mis=[0.1, 0.2, 0.33])})
    with pytest.raises(ValueError, match=r"'mis', 'mis_confidence'.*expected mis, a 2-AFC accuracy"):
        tool.convert(tmp_path, tmp_path / "out")
    path.rename(tmp_path / "machine_interpretability_of_something_else.pkl")
    with pytest.warns(UserWarning, match="no configuration that is known"), pytest.raises(FileNotFoundError):
        tool.convert(tmp_path, tmp_path / "out")


def test_the_command(clone, tmp_path):
    command = [sys.executable, str(SCRIPT), str(clone), str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "published_unit_mis.parquet: 9 rows" in told and "export PRUNELENS_PUBLISHED=" in told
    usage = subprocess.run(command[:2], capture_output=True, text=True)
    assert usage.returncode == 1 and "usage: " in usage.stderr


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_unpickle_reads_plain_data(tmp_path, protocol):
    content = {
        "list": [1, 2.5, None, True, "text", b"bytes", (1, {2})],
        "array": np.arange(6.0).reshape(2, 3),
        "scalar": np.float64(0.25),
        "ordered": collections.OrderedDict(a=1),
        "table": scores()[["layer", "mis_confidence"]][1:],
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    read = tool.unpickle(path)
    assert read["list"] == content["list"] and read["scalar"] == 0.25 and read["ordered"] == {"a": 1}
    assert (read["array"] == content["array"]).all() and read["table"].equals(content["table"])


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda target: (os.system, f"touch {target}"), f"{os.name}.system"),
        (lambda target: (eval, f"open({str(target)!r}, 'w')"), "builtins.eval"),
        (lambda target: (subprocess.call, ["touch", str(target)]), "subprocess.call"),
        (lambda target: (getattr, "text", "upper"), "builtins.getattr"),
    ],
)
def test_unpickle_refuses_to_run_anything(tmp_path, call, name):
    target, path = tmp_path / "touched", tmp_path / "malicious.pkl"
    path.write_bytes(pickle.dumps({"scores": Malicious(*call(target))}))
    with pytest.raises(ValueError, match=rf"malicious.pkl: refused to load {name}"):
        tool.unpickle(path)
    assert not target.exists()


def test_unpickle_names_a_damaged_file(tmp_path):
    path = tmp_path / "damaged.pkl"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1", pickle.dumps(scores())[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.pkl: \S"):
            tool.unpickle(path)


def test_unpickle_refuses_other_encodings(tmp_path):
    path = tmp_path / "encoded.pkl"
    path.write_bytes(pickle.dumps(Malicious(codecs.encode, "abc", "rot13")))
    with pytest.raises(ValueError, match="refused the encoding rot13, expected latin1"):
        tool.unpickle(path)
