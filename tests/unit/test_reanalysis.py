"""The paper's numbers from its published scores, and what each correction makes of them."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from prunelens import published, reanalysis
from prunelens.study import Study

needs_tables = pytest.mark.skipif(
    not os.environ.get("PRUNELENS_PUBLISHED"), reason="no published tables (PRUNELENS_PUBLISHED)"
)


@pytest.fixture(scope="module")
def tables():
    return published.full()


@pytest.fixture(scope="module")
def corrections(tables):
    return reanalysis.corrections(tables, n_resamples=500).set_index("step")


@pytest.fixture(scope="module")
def means(tables):
    return reanalysis.network_means(tables)


# ------------------------------------------------------------------------------------------- known answers


def planted(slope: float = 0.1, dead_score: float = 0.99) -> dict[str, pd.DataFrame]:
    """Two structured networks a rate with the same removed units, and the means that their masks would give."""
    generator = np.random.default_rng(0)
    tables, plotted = [], []
    removed = {0.5: set(range(5)), 0.8: set(range(8))}
    for rate in (0.5, 0.8):
        for optimizer in ("sgd", "adam"):
            layers = {"inception3a.branch1.conv": 10, "conv1.conv": 4, "fc": 6}
            for layer, size in layers.items():
                score = 0.5 + slope * rate + generator.normal(0, 0.01, size)
                dead = np.isin(range(size), list(removed[rate])) & (layer == "inception3a.branch1.conv")
                # One living unit is as easy as a dead one, in one network only.
                score[9:] = 1.0 if optimizer == "sgd" else score[9:]
                tables.append(
                    pd.DataFrame(
                        {"network": "torchvision_googlenet", "method": "structured_l1", "optimizer": optimizer,
                         "epochs": 50, "rate": rate, "layer": layer, "kind": "fc" if layer == "fc" else "conv",
                         "unit": range(size), "mis": np.where(dead, dead_score, score), "dead": dead}
                    )
                )  # fmt: skip
            network = pd.concat(tables[-3:])
            plotted.append(
                {"method": "structured_l1", "schedule": "one_shot", "optimizer": optimizer, "epochs": 50, "rate": rate,
                 "mean_mis": network[~network.dead].mis.mean(), "placeholder": False, "in_pooled_plot": True}
            )  # fmt: skip
    baseline = {"method": "tf_inceptionv1", "schedule": "none", "optimizer": "none", "epochs": 0, "rate": 0.0,
                "mean_mis": 0.9, "placeholder": False, "in_pooled_plot": False}  # fmt: skip
    return {"unit_mis": pd.concat(tables, ignore_index=True), "mean_mis": pd.DataFrame([baseline, *plotted])}


def test_dead_units_are_found_by_the_score_they_share():
    units = reanalysis.alive_units(planted())
    assert (units.alive == ~units.dead).all()
    assert units.alive.sum() < len(units)


def test_network_means_of_planted_scores():
    found = reanalysis.network_means(planted(), n_resamples=200)
    assert found.mis.to_numpy() == pytest.approx(found.published.to_numpy())
    assert found.dead.tolist() == [5, 8, 5, 8]
    assert found.fc_share.tolist() == pytest.approx([6 / 15, 0.5] * 2)
    assert (found.mis_with_dead > found.mis + 0.05).all()
    assert ((found.low < found.mis) & (found.mis < found.high)).all()


def test_output_gaps_of_planted_scores():
    """One output that scores .2 in every network; the means over outputs are the networks' own."""
    tables = planted()
    units = tables["unit_mis"]
    units.loc[(units.kind == "fc") & (units.unit == 2), "mis"] = 0.2
    gaps, means = reanalysis.output_gaps(tables), reanalysis.network_means(tables)
    assert gaps.shape == (6, 4)
    assert gaps.loc[2].to_numpy() == pytest.approx(means.mis_conv.to_numpy() - 0.2)
    assert gaps.mean().to_numpy() == pytest.approx((means.mis_conv - means.mis_fc).to_numpy())


def test_pooled_points_give_every_series_the_baseline():
    points = reanalysis.pooled_points(planted())
    assert points[points.rate == 0].mean_mis.tolist() == [0.9, 0.9]
    assert len(points) == 6 and points.series.nunique() == 2


def test_corrections_of_planted_scores():
    """A rising measure with a high point from elsewhere at rate 0 falls when pooled."""
    steps = reanalysis.corrections(planted(slope=0.3), n_resamples=100).set_index("step")
    assert steps.r["as published"] < 0 < steps.r["wrong baseline out"]
    assert steps.n["as published"] == 6 and steps.n["method as a factor"] == 4
    assert steps.groups["method as a factor"] == 2
    assert steps.r["dead units kept"] > 0.5
    without = reanalysis.corrections({"mean_mis": planted()["mean_mis"]}, n_resamples=10)
    assert len(without) == 5


def test_a_missing_table_is_named():
    with pytest.raises(KeyError, match="'retraining_curves' is not among mean_mis, unit_mis"):
        reanalysis.order_of_methods(dict(sorted(planted().items())))


def scan(bears: list[float], method: str = "structured_l1", rates=(0.2, 0.6)) -> pd.DataFrame:
    """A scan of layers that lose `bears` less or more with the rate."""
    return pd.DataFrame(
        [
            {"method": method, "layer": f"inception{number:02}.conv", "rate": rate, "top1": 0.7 - rate * (1 - bear)}
            for number, bear in enumerate(bears)
            for rate in rates
        ]
    )


def test_rank_agreement_known_answers():
    bears = np.linspace(0, 1, 30)
    same = reanalysis.rank_agreement(scan(bears), scan(bears**2, rates=(0.1, 0.6))).iloc[0]
    assert (same.r, same.n, same.rates) == (pytest.approx(1), 30, 1)
    assert same.resamples == "layers" and same.low == pytest.approx(1)
    opposite = reanalysis.rank_agreement(scan(bears), scan(1 - bears)).iloc[0]
    assert opposite.r == pytest.approx(-1)


def test_rank_agreement_compares_what_both_have():
    ours = pd.concat([scan(np.array([1, 0, 2, 3, 4, 5, 6, 7, 8]) / 9), scan([0.5], "structured_l2")])
    theirs = scan(np.arange(12) / 12)
    theirs = pd.concat([theirs, theirs.assign(layer="conv1.conv", top1=0.0)])
    found = reanalysis.rank_agreement(ours, theirs)
    assert found.method.tolist() == ["structured_l1"] and found.n.tolist() == [9]
    assert found.resamples.tolist() == ["nothing (Fisher's z over layers)"]
    perfect = reanalysis.rank_agreement(theirs, theirs).iloc[0]
    assert perfect.resamples == "nothing" and np.isnan(perfect.low)
    with pytest.raises(ValueError, match="a method in both"):
        reanalysis.rank_agreement(scan([0.5], "structured_l2"), theirs)
    with pytest.raises(ValueError, match=r"structured_l1: rates \[0.2, 0.6\] and \[0.3\]"):
        reanalysis.rank_agreement(ours, scan([0.1, 0.2], rates=(0.3,)))


# ------------------------------------------------------------------------------------ the published scores


@needs_tables
def test_the_papers_correlation_and_the_trend_it_hides(corrections):
    first, within = corrections.loc["as published"], corrections.loc["method as a factor"]
    assert (f"{first.r:.3f}", f"{first.p:.2f}", first.n) == ("0.121", "0.46", 40)
    assert first.low < 0 < first.high and first.resamples == "networks"
    assert (f"{within.r:.2f}", within.n, within.groups) == ("0.75", 20, 5)
    assert within.low > 0


@needs_tables
def test_each_correction_changes_what_it_says(corrections):
    assert corrections.n.tolist() == [40, 32, 29, 20, 20, 24, 24, 24, 24, 24]
    assert (corrections.r.iloc[1:] > 0.4).all()  # the other network at rate 0 alone hides the trend
    assert (corrections.low.iloc[1:] > 0).all()
    assert corrections.r["same units"] > corrections.r["conv units only"]


@needs_tables
def test_network_means_are_reproduced(means):
    """Random connection sparsity without a dead unit to 1e-5, and structured pruning once dead units are out."""
    assert len(means) == 24
    random = means[means.method == "connection_random_unmasked"]
    assert len(random) == 8 and (random.dead == 0).all()
    assert (random.mis - random.published).abs().max() < 1e-5
    structured = means[means.method == "structured_l1"]
    assert (structured.mis - structured.published).abs().max() < 1e-5
    assert (structured.mis_with_dead - structured.published).abs().min() > 0.04


@needs_tables
def test_network_means_are_those_of_the_study(tables, means):
    """The function that averages our own networks reproduces the published means too."""
    units = reanalysis.alive_units(tables).assign(schedule="one_shot", seed=0, margin=np.nan)
    units["variant"] = units.groupby(reanalysis.NETWORK).ngroup()
    study = SimpleNamespace(validation_set=SimpleNamespace(logits=range(1000)))
    ours = Study.network_means(study, units)
    assert np.sort(ours.mis_all) == pytest.approx(np.sort(means.published), abs=1e-5)


@needs_tables
def test_dead_units_and_composition(tables, means):
    """.750 with the dead left out, .928 with them and BatchNorm's outputs counted; fc units from 12 to 37 %."""
    worst = {"method": "structured_l1", "optimizer": "sgd", "epochs": 50, "rate": 0.8}
    row = means[(means[list(worst)] == pd.Series(worst)).all(axis=1)].iloc[0]
    assert (f"{row.mis:.3f}", f"{row.mis_with_dead:.3f}", row.dead) == ("0.750", "0.918", 5565)
    units = tables["unit_mis"]
    everything = units[(units[list(worst)] == pd.Series(worst)).all(axis=1)]
    assert everything.mis.mean() == pytest.approx(0.928, abs=6e-4)
    assert (f"{means.fc_share.min():.2f}", f"{row.fc_share:.2f}") == ("0.12", "0.37")


@needs_tables
def test_unit_trends_rise_in_every_series(tables):
    found = reanalysis.unit_trends(tables, n_resamples=200)
    assert found.networks.tolist() == [4] * 6 and found.layers.tolist() == [57] * 6
    assert found.units.tolist() == [7280] * 2 + [1715] * 4
    assert (found.low > 0).all()


@needs_tables
def test_mixed_model_of_the_published_layers(tables):
    """A slope per series; without a dead unit it is that of the same units."""
    found, trends = reanalysis.mixed_model(tables), reanalysis.unit_trends(tables, n_resamples=20)
    assert found.converged.all() and found.networks.tolist() == [4] * 6
    random = trends.method == "connection_random_unmasked"
    assert random.sum() == 2 and found.slope[random].to_numpy() == pytest.approx(trends.slope[random].to_numpy())
    assert (found.slope > 0).all() and (found.low[random] < 0).all()
    assert found.set_index("series").low["structured_l1, sgd, 50"] > 0


@needs_tables
def test_inceptionv1_layers(tables):
    found = reanalysis.inceptionv1_layers(tables, n_resamples=50)
    assert len(found) == 58 and found.counterpart.is_unique
    assert found.counterpart.iloc[[0, 3, 5, -1]].tolist() == [
        "conv1.conv", "inception3a.branch1.conv", "inception3a.branch2.1.conv", "fc",
    ]  # fmt: skip
    assert (found.position.iloc[0], found.position.iloc[-1]) == (0, 1)
    assert f"{np.average(found.mis, weights=found.units):.3f}" == "0.913"
    assert f"{found.set_index('layer').mis['mixed4b_3x3_pre_relu_conv']:.3f}" == "0.912"
    assert ((found.low < found.mis) & (found.mis < found.high)).all()


@needs_tables
def test_order_of_methods(tables):
    found = reanalysis.order_of_methods(tables).set_index(["rate", "rank"])
    best = found.xs(1, level="rank")
    assert best.method[0.8] == "connection_l1_unmasked" and best.top1[0.8] == pytest.approx(0.70506)
    assert best.method[0.2] == "unstructured_global"
    assert found.low[0.2, 2] < 0 < found.low[0.8, 2]  # a lead at .8, none at .2
    assert found.low.xs(1, level="rank").isna().all()


@needs_tables
def test_iterative_against_one_shot(tables):
    found = reanalysis.iterative_against_one_shot(tables)
    assert found.epochs_iterative.tolist() == [50, 100, 150, 200]
    assert found.epochs_one_shot.tolist() == [100, 150, 200, 60]
    last = found.iloc[-1]
    assert (last.top1_iterative, last.top1_one_shot) == (0.6859, 0.66324)
    assert last.one_shot_as_long < last.top1_one_shot
    assert (found.epochs_iterative != found.epochs_one_shot).all()


@needs_tables
def test_published_scans_agree_among_themselves(tables):
    scans = tables["sensitivity"]
    l1, l2 = (scans[scans.method == f"structured_{norm}"].assign(method="structured") for norm in ("l1", "l2"))
    found = reanalysis.rank_agreement(l1, l2, n_resamples=200).iloc[0]
    assert (found.n, found.rates) == (54, 9) and found.low > 0.9
    assert reanalysis.rank_agreement(scans, scans, n_resamples=20).n.tolist() == [54, 27, 54, 54, 54]
