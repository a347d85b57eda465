"""Headline figures are complete and agree with the tables they come from, where those are."""

import codecs
import collections
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from prunelens import published
from prunelens.statistics import correlation, within_group_correlation

needs_tables = pytest.mark.skipif(
    not os.environ.get("PRUNELENS_PUBLISHED"), reason="no published tables (PRUNELENS_PUBLISHED)"
)


def value(**where) -> float:
    table = published.headlines()
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table) == 1, where
    return table.value.item()


def test_headlines_are_complete():
    table = published.headlines()
    expected = "method schedule optimizer epochs rate conv_sparsity measure value source note"
    assert list(table.columns) == expected.split()
    assert set(table.schedule) == {"none", "one_shot", "iterative", "all"}
    assert set(table.source) == {"arXiv 2409.19727", "Zimmermann, Klindt & Brendel, NeurIPS 2024"}
    assert table.value.between(-1, 1).all()
    retrained = table[(table.schedule == "one_shot") & (table.epochs == 50) & (table.measure == "top1")]
    counts = retrained.groupby(["method", "optimizer"]).rate.agg(lambda rates: sorted(rates))
    assert len(counts) == 6 and all(rates == [0.2, 0.4, 0.6, 0.8] for rates in counts)


def test_headlines_known_numbers():
    retrained = {"schedule": "one_shot", "epochs": 50, "optimizer": "sgd"}
    assert value(method="connection_l1_unmasked", measure="top1", rate=0.8, **retrained) == 0.7051
    assert value(method="structured_l1", measure="mean_mis", rate=0.8, **retrained) == 0.7496
    assert value(method="dense", measure="top1") == 0.6994
    assert value(measure="mis_top1_r") == -0.5


def test_headlines_are_unique():
    table = published.headlines()
    assert not table.duplicated([c for c in table.columns if c != "value"]).any()


def test_full_without_a_folder_is_none(monkeypatch):
    monkeypatch.delenv("PRUNELENS_PUBLISHED", raising=False)
    assert published.full() is None


def test_full_names_the_missing_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"published_unit_mis.parquet"):
        published.full(tmp_path)


def test_in_our_words():
    units = pd.DataFrame(
        {
            "network": ["torchvision_googlenet", "tf_inceptionv1_lucent"],
            "method": ["connection_sparsity_l1", "none"],
            "optimizer": ["SGD", "none"],
            "epochs": [50, 0],
            "layer": ["inception3a_branch2_1_conv", "mixed4b_3x3_pre_relu_conv"],
            "kind": ["conv", "linear"],
            "mis": [0.95, 0.9],
            "mis_confidence": [0.7, 0.6],
        }
    )
    ours = published.in_our_words(units)
    assert ours.method.tolist() == ["connection_l1_unmasked", "tf_inceptionv1"]
    assert ours.layer.tolist() == ["inception3a.branch2.1.conv", "mixed4b_3x3_pre_relu_conv"]
    assert ours.kind.tolist() == ["conv", "fc"]
    assert ours.two_afc_accuracy.tolist() == [0.95, 0.9] and ours.mis.tolist() == [0.7, 0.6]
    assert "mis_confidence" in units  # the table given is left alone


def test_in_our_words_keeps_mis_of_the_other_authors_and_unretrained_methods():
    scores = published.in_our_words(pd.DataFrame({"two_afc_accuracy": [1.0], "mis": [0.9]}))
    assert scores.mis.tolist() == [0.9]
    scan = published.in_our_words(pd.DataFrame({"method": ["connection_sparsity_l1", "unstructured_l1"]}))
    assert scan.method.tolist() == ["connection_l1", "unstructured_local"]


def test_in_our_words_of_the_layer_scans():
    theirs = ["global_unstructured_l1", "connection_sparsity_l1", "structured_l1", "structured_l2"]
    scan = pd.DataFrame({"method": theirs, "layer": "inception3a.branch1.conv", "rate": 0.1, "top1": 0.7})
    ours = published.in_our_words(scan)
    assert ours.method.tolist() == ["unstructured_global", "connection_l1", "structured_l1", "structured_l2"]
    assert ours.layer.equals(scan.layer)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv2d2_pre_relu_conv", "conv3.conv"),
        ("mixed4c_5x5_bottleneck_pre_relu_conv", "inception4c.branch3.0.conv"),
        ("mixed5b_pool_reduce_pre_relu_conv", "inception5b.branch4.1.conv"),
        ("softmax2_pre_activation_matmul", "fc"),
    ],
)
def test_counterpart(theirs, ours):
    assert published.counterpart(theirs) == ours


def test_counterpart_rejects_other_names():
    with pytest.raises(ValueError, match=r"'inception3a.branch1.conv' is none of InceptionV1"):
        published.counterpart("inception3a.branch1.conv")


# ---------------------------------------------------------------------------------------- the authors' files


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
    series = {name: iterative if "iterative" in name else rising for name in published.SERIES}
    series["Unpruned GoogleNet"] = [0.7] * 4
    script = f"import nowhere\npruning_rates = [0, 0.2, 0.4, 0.6, 0.8]\nmis_confidence = {series}\nopen('ran', 'w')\n"
    (plots / "interpret_plot.py").write_text(script)
    local = 'data_u_l_l1 = """\nModule: conv1.conv, Pruning Rate: 0.1, Accuracy: 0.69778\n"""\n'
    everywhere = 'data_u_g_l1 = """\nPruning Rate: 0.9, Accuracy: 0.0012\n"""\n'
    (plots / "plot-string.py").write_text(local + everywhere + "raise SystemExit(1)\n")
    (folder / "slurm-2.out").write_text(LOG)
    (folder / "slurm-1.out").write_text(LOG.replace("Validation Accuracy: 0.6", "Validation Accuracy: 0.1"))
    return folder


def test_convert_writes_what_full_reads(clone, tmp_path):
    rows = published.convert(clone, tmp_path / "out")
    assert rows == {"unit_mis": 9, "mean_mis": 33, "retraining_curves": 3, "sensitivity": 2}
    tables = published.full(tmp_path / "out")
    assert set(tables) == set(rows)
    units = tables["unit_mis"].set_index(["method", "kind"])
    assert set(units.index.get_level_values(0)) == {"structured_l1", "connection_random_unmasked", "tf_inceptionv1"}
    structured = units.loc["structured_l1"]
    assert structured.layer.tolist() == ["conv1.conv", "conv1.bn", "fc"]
    assert structured.index.tolist() == ["conv", "batch_norm", "fc"]
    assert structured[["optimizer", "epochs", "rate"]].drop_duplicates().values.tolist() == [["adam", 50, 0.4]]
    assert structured.unit.tolist() == [0, 0, 7]
    assert structured.two_afc_accuracy.tolist() == [0.95, 1.0, 0.6] and structured.mis.tolist() == [0.7, 0.8, 0.55]
    assert units.loc["connection_random_unmasked"].two_afc_accuracy.tolist() == [0.95, 1.0, 0.6]


def test_converted_means_curves_and_scans(clone, tmp_path):
    published.convert(clone, tmp_path / "out")
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
    scan = tables["sensitivity"]
    assert scan.values.tolist() == [
        ["unstructured_local", "conv1.conv", 0.1, 0.69778], ["unstructured_global", "all", 0.9, 0.0012],
    ]  # fmt: skip


def test_convert_runs_none_of_the_scripts(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published.convert(clone, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_convert_takes_a_network_once(clone, tmp_path):
    copy = clone / "copy" / NAME.format("local_structured_Adam_retrained_50_epochs")
    write_pickle(copy, {"scores": scores()})
    assert published.convert(clone, tmp_path / "out")["unit_mis"] == 9
    write_pickle(copy, {"scores": scores().assign(mis_confidence=0.1)})
    with pytest.raises(ValueError, match="score the same network differently"):
        published.convert(clone, tmp_path / "out")


def test_convert_rejects_what_it_cannot_read(tmp_path):
    with pytest.raises(NotADirectoryError, match="is no folder"):
        published.convert(tmp_path / "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match="none of the authors'"):
        published.convert(tmp_path, tmp_path)
    path = tmp_path / NAME.format("local_structured_SGD_retrained_50_epochs")
    write_pickle(path, {"units": 3})
    with pytest.raises(ValueError, match=r"0.4_local_structured.*found \['units'\], expected scores"):
        published.convert(tmp_path, tmp_path / "out")
    write_pickle(path, {"scores": scores().assign(mis=[0.1, 0.2, 0.33])})
    with pytest.raises(ValueError, match=r"'mis', 'mis_confidence'.*expected mis, a 2-AFC accuracy"):
        published.convert(tmp_path, tmp_path / "out")
    path.rename(tmp_path / "machine_interpretability_of_something_else.pkl")
    with pytest.warns(UserWarning, match="no configuration that is known"), pytest.raises(FileNotFoundError):
        published.convert(tmp_path, tmp_path / "out")


def test_the_command(clone, tmp_path):
    command = [sys.executable, "-m", "prunelens.published", str(clone), str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "published_unit_mis.parquet: 9 rows" in told and "export PRUNELENS_PUBLISHED=" in told
    usage = subprocess.run(command[:3], capture_output=True, text=True)
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
    read = published.unpickle(path)
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
        published.unpickle(path)
    assert not target.exists()


def test_unpickle_names_a_damaged_file(tmp_path):
    path = tmp_path / "damaged.pkl"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1", pickle.dumps(scores())[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.pkl: \S"):
            published.unpickle(path)


def test_unpickle_refuses_other_encodings(tmp_path):
    path = tmp_path / "encoded.pkl"
    path.write_bytes(pickle.dumps(Malicious(codecs.encode, "abc", "rot13")))
    with pytest.raises(ValueError, match="refused the encoding rot13, expected latin1"):
        published.unpickle(path)


@needs_tables
def test_headlines_agree_with_the_tables():
    tables, rows = published.full(), published.headlines()
    curves = tables["retraining_curves"]
    last = curves[curves.epoch == curves.epochs]
    keys = ["method", "schedule", "optimizer", "rate"]
    both = rows[(rows.measure == "top1") & (rows.epochs == 50)].merge(last[last.epochs == 50], on=keys)
    both = both[~((both.learning_rate == 0.001) & (both.optimizer == "sgd"))]
    assert len(both) == 25  # 6 series of 4 rates and the first iterative step
    assert (both.value - both.top1).abs().max() <= 5.1e-5
    assert (both.conv_sparsity_x - both.conv_sparsity_y).abs().max() < 1e-9
    mis = rows[(rows.measure == "mean_mis") & (rows.rate > 0)].merge(tables["mean_mis"], on=[*keys, "epochs"])
    assert len(mis) == 28
    assert (mis.value - mis.mean_mis).abs().max() <= 5.1e-5


@needs_tables
def test_pooling_hides_the_trend():
    """The published pooled correlation, and what is left once method is a factor."""
    table = published.full()["mean_mis"]
    baseline = table[table.rate == 0].mean_mis.item()
    pooled = table[table.in_pooled_plot]
    zeros = pd.DataFrame({"rate": [0.0] * 8, "mean_mis": [baseline] * 8})
    found = correlation(*pd.concat([pooled, zeros])[["rate", "mean_mis"]].to_numpy().T)
    assert (round(found.r, 3), found.n) == (0.121, 40)
    assert found.r == pytest.approx(value(measure="rate_mis_r"), abs=5e-4)
    retrained = pooled[(pooled.schedule == "one_shot") & ~pooled.placeholder]
    within = within_group_correlation(
        retrained.assign(series=retrained.method + retrained.optimizer), "rate", "mean_mis", "series"
    )
    assert (round(within.r, 2), within.n) == (0.75, 20)
    assert within.low > 0
