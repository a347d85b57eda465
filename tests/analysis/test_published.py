"""Headline figures are complete and agree with the tables they come from, where those are."""

import os

import pandas as pd
import pytest

from prunelens.analysis import published

needs_tables = pytest.mark.skipif(
    not os.environ.get("PRUNELENS_PUBLISHED"), reason="no published tables (PRUNELENS_PUBLISHED)"
)


def value(**where: object) -> float:
    table = published.headlines()
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table) == 1, where
    return table.value.item()


def test_headlines_are_complete() -> None:
    table = published.headlines()
    expected = "method schedule masked optimizer epochs rate conv_sparsity measure value source note"
    assert list(table.columns) == expected.split()
    assert set(table.schedule) == {"none", "one_shot", "iterative", "all"}
    assert set(table.source) == {"arXiv 2409.19727", "Zimmermann, Klindt & Brendel, NeurIPS 2024"}
    assert table.value.between(-1, 1).all()
    retrained = table[(table.schedule == "one_shot") & (table.epochs == 50) & (table.measure == "top1")]
    counts = retrained.groupby(["method", "optimizer"]).rate.agg(lambda rates: sorted(rates))
    assert len(counts) == 6 and all(rates == [0.2, 0.4, 0.6, 0.8] for rates in counts)


def test_headlines_known_numbers() -> None:
    retrained = {"schedule": "one_shot", "epochs": 50, "optimizer": "sgd"}
    assert value(method="connection_l1", masked=False, measure="top1", rate=0.8, **retrained) == 0.7051
    assert value(method="structured_l1", measure="mean_mis", rate=0.8, **retrained) == 0.7496
    assert value(method="dense", measure="top1") == 0.6994
    assert value(measure="mis_top1_r") == -0.5


def test_headlines_are_unique() -> None:
    table = published.headlines()
    assert not table.duplicated([c for c in table.columns if c != "value"]).any()


def test_full_without_a_folder_is_empty(monkeypatch) -> None:
    monkeypatch.delenv("PRUNELENS_PUBLISHED", raising=False)
    assert published.full() == {}


def test_full_names_the_missing_tables(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"published_unit_mis.parquet"):
        published.full(tmp_path)


def test_in_our_words() -> None:
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
    assert ours.method.tolist() == ["connection_l1", "tf_inceptionv1"]
    assert ours.masked.tolist() == [False, True]
    assert ours.layer.tolist() == ["inception3a.branch2.1.conv", "mixed4b_3x3_pre_relu_conv"]
    assert ours.kind.tolist() == ["conv", "output"]
    assert ours.two_afc_accuracy.tolist() == [0.95, 0.9] and ours.mis.tolist() == [0.7, 0.6]
    assert "mis_confidence" in units  # the table given is left alone


def test_in_our_words_only_retrained_connection_sparsity_is_unmasked() -> None:
    runs = pd.DataFrame({"method": ["connection_sparsity_l1", "connection_sparsity_random", "structured_l1"] * 2,
                         "optimizer": "SGD", "epochs": [0] * 3 + [50] * 3})  # fmt: skip
    assert published.in_our_words(runs).masked.tolist() == [True, True, True, False, False, True]


def test_in_our_words_of_a_table_without_networks() -> None:
    theirs = ["global_unstructured_l1", "connection_sparsity_l1", "structured_l1", "structured_l2"]
    scan = pd.DataFrame({"method": theirs, "layer": "inception3a.branch1.conv", "rate": 0.1, "top1": 0.7})
    ours = published.in_our_words(scan)
    assert ours.method.tolist() == ["unstructured_global", "connection_l1", "structured_l1", "structured_l2"]
    assert ours.layer.equals(scan.layer)


@needs_tables
def test_headlines_agree_with_the_tables() -> None:
    tables, rows = published.full(), published.headlines()
    curves = tables["retraining_curves"]
    last = curves[curves.epoch == curves.epochs]
    keys = ["method", "schedule", "masked", "optimizer", "rate"]
    both = rows[(rows.measure == "top1") & (rows.epochs == 50)].merge(last[last.epochs == 50], on=keys)
    both = both[~((both.learning_rate == 0.001) & (both.optimizer == "sgd"))]
    assert len(both) == 25  # 6 series of 4 rates and the first iterative step
    assert (both.value - both.top1).abs().max() <= 5.1e-5
    assert (both.conv_sparsity_x - both.conv_sparsity_y).abs().max() < 1e-9
    mis = rows[(rows.measure == "mean_mis") & (rows.rate > 0)].merge(tables["mean_mis"], on=[*keys, "epochs"])
    assert len(mis) == 28
    assert (mis.value - mis.mean_mis).abs().max() <= 5.1e-5
