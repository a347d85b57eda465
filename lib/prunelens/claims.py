"""The paper's claims C1 to C6, judged by a profile's tables. Every number and verdict is computed from them.

A verdict is "holds" or "does not hold" where a 95 % interval or test decides, "cannot be told" where it does not, and
"not tested" where the profile has no networks for it.
"""

from collections.abc import Iterable

import pandas as pd

from prunelens import statistics
from prunelens.statistics import Interval

SMALLEST_EFFECT = 0.3  # a correlation smaller than this counts as none (Cohen's "medium")


def verdicts(accuracy: pd.DataFrame, means: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """One row per claim: claim, statement, paper, ours, verdict, where (the figure or table that shows it).

    Args:
        accuracy: one row per network (``Study.accuracy``).
        means: one row per network, mean MIS of its units (``Study.network_means``).
        classes: one row per network and class, top1 and its output unit's mis (``Study.class_scores``).
    """
    retrained = accuracy[accuracy.schedule == "one_shot"]
    judged = [
        _gain(retrained, "C1a", "connection_l1", "with masks"),
        _gain(retrained, "C1b", "connection_l1_unmasked", "without masks, as coded"),
        _order_of_methods(retrained),
        _iterative(accuracy),
        _rate_and_mis(means),
        _broken_networks(accuracy, means, 1 / classes.logit.nunique()),
        _last_layer(means),
        _class_accuracy(classes),
    ]
    return pd.DataFrame(judged, columns=["claim", "statement", "paper", "ours", "verdict", "where"])


def _gain(retrained: pd.DataFrame, claim: str, method: str, how: str) -> tuple[str, ...]:
    highest = retrained.rate.max()
    gain = _difference(retrained, (method, highest), ("dense_retrained", 0.0))
    found = retrained[(retrained.method == method) & (retrained.rate == highest)]
    zeros = f"; {found.conv_sparsity.mean():.1%} of the conv weights are zero" if len(found) else ""
    return (claim, f"connection sparsity at {highest:g}, {how}, gains Top-1", ".705 against .699 dense, 50 epochs",
            f"{_show(gain)} against dense, retrained{zeros}", _sign(gain), "03_net_gain")  # fmt: skip


def _order_of_methods(retrained: pd.DataFrame) -> tuple[str, ...]:
    """Judged at the highest rate, as the paper's claim is; the other rates are shown."""
    pairs = [("connection_l1", "unstructured_global"), ("unstructured_global", "structured_l1")]
    rates = sorted((rate for rate in retrained.rate.unique() if rate > 0), reverse=True)
    found = {
        (better, worse, rate): _difference(retrained, (better, rate), (worse, rate))
        for rate in rates
        for better, worse in pairs
    }
    verdict = _all_hold([_sign(interval) for (_, _, rate), interval in found.items() if rate == rates[0]])
    ours = "; ".join(f"{better} - {worse} at {rate:g}: {_show(i)}" for (better, worse, rate), i in found.items()) or "-"
    return ("C2", "connection sparsity (masked) > unstructured > structured", ".705, .676, .443 at .8", ours, verdict,
            "03_accuracy_by_rate")  # fmt: skip


def _iterative(accuracy: pd.DataFrame) -> tuple[str, ...]:
    steps = accuracy[accuracy.schedule == "iterative"].drop_duplicates(["method", "rate"])
    found = [
        (row, _difference(accuracy, (row.method, row.rate), (row.method, row.rate), ("iterative", "one_shot")))
        for row in steps.itertuples()
    ]
    verdict = _all_hold([_sign(interval) for _, interval in found])
    ours = "; ".join(f"{row.method} at {row.rate:g}: {_show(interval)}" for row, interval in found) or "-"
    return ("C3", "iterative is better than one-shot at equal epochs", ".686 against .663 at .84 (unequal epochs)",
            ours, verdict, "03_accuracy_by_rate")  # fmt: skip


def rate_series(means: pd.DataFrame) -> pd.DataFrame:
    """The retrained networks that are as sparse as their rate says, one row per configuration, with a column series.

    Seeds of one configuration share the dense parent and the mask: they are averaged, not counted. A series is a
    method and a schedule with more than one rate. Unmasked networks are left out: their rate is none.
    """
    chosen = means[(means.rate > 0) & (means.schedule != "none") & ~means.method.str.endswith("_unmasked")]
    numbers = chosen.select_dtypes("number").columns.difference(["seed", "rate"])
    table = chosen.groupby(["method", "schedule", "rate"], sort=False)[list(numbers)].mean().reset_index()
    table["series"] = table.method.where(table.schedule == "one_shot", table.method + ", " + table.schedule)
    return table[table.groupby("series").rate.transform("size") > 1].reset_index(drop=True)


def _rate_and_mis(means: pd.DataFrame) -> tuple[str, ...]:
    series = rate_series(means)
    r = statistics.within_group_correlation(series, "rate", "mis_conv", "series")
    test = statistics.equivalence(r.r, r.n, SMALLEST_EFFECT, groups=max(1, series.series.nunique()))
    return ("C4", "MIS does not correlate with the rate", "r = .12, pooled, n = 40",
            f"r = {r.r:.2f} ({r.low:.2f} to {r.high:.2f}) within methods, n = {r.n}",
            _ABSENT[test.verdict] if len(series) else "not tested", "06_rate")  # fmt: skip


def _broken_networks(accuracy: pd.DataFrame, means: pd.DataFrame, chance: float) -> tuple[str, ...]:
    """How far networks at chance stand between the random networks (0) and the dense one (1)."""
    table = means.merge(accuracy[["variant", "top1_low"]], on="variant")
    dense, random = (table[table.method == name].mis_conv.mean() for name in ("dense", "random_init"))
    broken = table[(table.top1_low <= chance) & (table.rate > 0)]
    statement = "networks at chance stay closer to the dense network's MIS than to a random one's"
    paper = ".66 to .70 at .1 % Top-1, dense .70"
    if not len(broken):
        return ("C5", statement, paper, "no network is at chance", "not tested", "05_mis_by_rate")
    if dense <= random:
        ours = f"a random network ({random:.3f}) scores no lower than the dense one ({dense:.3f})"
        return ("C5", statement, paper, ours, "cannot be told", "05_mis_by_rate")
    share = statistics.mean_interval((broken.mis_conv - random) / (dense - random))
    half = Interval(share.mean - 0.5, share.low - 0.5, share.high - 0.5)
    where = f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"
    return ("C5", statement, paper, f"{where} of the way from random to dense, {len(broken)} networks", _sign(half),
            "05_mis_by_rate")  # fmt: skip


def _last_layer(means: pd.DataFrame) -> tuple[str, ...]:
    """Over trained networks, one row per configuration; the output units are those of the data's classes."""
    trained = (
        means[means.method != "random_init"].groupby(["method", "schedule", "rate"])[["mis_conv", "mis_fc"]].mean()
    )
    gap = statistics.mean_interval(trained.mis_conv - trained.mis_fc)
    lower = int((trained.mis_fc < trained.mis_conv).sum())
    return ("C6a", "the last layer has lower MIS than the convs", "lower in every network",
            f"conv - fc = {_show(gap)}; lower in {lower} of {len(trained)}", _sign(gap), "05_mis_by_layer")  # fmt: skip


def _class_accuracy(classes: pd.DataFrame) -> tuple[str, ...]:
    """Over classes, each averaged over the networks: networks of one dense parent are no independent draws."""
    chosen = classes[
        classes.alive & (classes.method != "random_init") & ((classes.schedule != "none") | (classes.rate == 0))
    ]
    # Centered within networks, so that a class whose unit is dead in some is not the mean of other networks.
    centered = chosen[["top1", "mis"]] - chosen.groupby("variant")[["top1", "mis"]].transform("mean")
    table = centered.groupby(chosen.logit).mean()
    r = statistics.correlation(table.top1, table.mis)
    test = statistics.equivalence(r.r, r.n, SMALLEST_EFFECT)
    return ("C6b", "class accuracy does not correlate with its output unit's MIS", "no correlation",
            f"r = {r.r:.2f} ({r.low:.2f} to {r.high:.2f}) over {r.n} classes, dense and retrained networks averaged",
            _ABSENT[test.verdict] if len(table) else "not tested", "06_class_accuracy")  # fmt: skip


def _difference(
    accuracy: pd.DataFrame,
    left: tuple[str, float],
    right: tuple[str, float],
    schedules: tuple[str, str] = ("one_shot", "one_shot"),
) -> Interval:
    """Top-1 of one (method, rate) minus another's; NaN where the profile lacks one.

    With several seeds Student's interval over the seeds' paired differences; with one seed Newcombe's over images.
    """
    a, b = (
        accuracy[(accuracy.method == method) & (accuracy.rate == rate) & (accuracy.schedule == schedule)].set_index(
            "seed"
        )
        for (method, rate), schedule in zip((left, right), schedules, strict=True)
    )
    seeds = a.index.intersection(b.index)
    if len(seeds) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    differences = (a.top1 - b.top1).loc[seeds]
    if len(seeds) > 1:
        return statistics.mean_interval(differences)
    low, high = statistics.difference_interval(a.top1.loc[seeds[0]], b.top1.loc[seeds[0]], int(a.n.loc[seeds[0]]))
    return Interval(float(differences.iloc[0]), low, high)


_ABSENT = {"equivalent": "holds", "related": "does not hold", "undecided": "cannot be told"}


def _all_hold(verdicts: list[str]) -> str:
    """A claim about several comparisons fails with any of them and holds with all; about none it is not tested."""
    return next(
        (v for v in ("does not hold", "not tested", "cannot be told") if v in verdicts),
        "holds" if verdicts else "not tested",
    )


def _sign(interval: Interval) -> str:
    if interval.mean != interval.mean:
        return "not tested"
    if interval.low > 0:
        return "holds"
    return "does not hold" if interval.high < 0 else "cannot be told"


def _show(interval: Interval) -> str:
    if interval.mean != interval.mean:
        return "-"
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def summary(table: pd.DataFrame) -> Iterable[str]:
    """One line of text per verdict."""
    return (f"{row.claim}, {row.statement}: **{row.verdict}** ({row.ours})" for row in table.itertuples())
