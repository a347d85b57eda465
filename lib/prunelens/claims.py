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
        _connection_gain(retrained),
        _order_of_methods(retrained),
        _iterative(accuracy),
        _rate_and_mis(means),
        _broken_networks(accuracy, means, 1 / classes.class_name.nunique()),
        _last_layer(means),
        _class_accuracy(classes),
    ]
    return pd.DataFrame(judged, columns=["claim", "statement", "paper", "ours", "verdict", "where"])


def _connection_gain(retrained: pd.DataFrame) -> tuple[str, ...]:
    highest = retrained.rate.max()
    gain = _difference(retrained, ("connection_l1", highest), ("dense_retrained", 0.0))
    grown = retrained[(retrained.method == "connection_l1_unmasked") & (retrained.rate == highest)].conv_sparsity
    unmasked = f"; without masks {grown.mean():.1%} of the weights stay zero" if len(grown) else ""
    return (
        "C1", f"connection sparsity at {highest:g} gains Top-1", ".705 against .699 dense, 50 epochs",
        f"{_show(gain)} against dense retrained{unmasked}", _sign(gain), "03_net_gain",
    )  # fmt: skip


def _order_of_methods(retrained: pd.DataFrame) -> tuple[str, ...]:
    pairs = [("connection_l1", "unstructured_global"), ("unstructured_global", "structured_l1")]
    rates = sorted(rate for rate in retrained.rate.unique() if rate > 0)
    found = [_difference(retrained, (better, rate), (worse, rate)) for better, worse in pairs for rate in rates]
    names = [f"{better} - {worse} at {rate:g}" for better, worse in pairs for rate in rates]
    signs = [_sign(interval) for interval in found]
    verdict = next((v for v in ("does not hold", "not tested", "cannot be told") if v in signs), "holds")
    ours = "; ".join(f"{name}: {_show(interval)}" for name, interval in zip(names, found, strict=True))
    return ("C2", "connection sparsity > unstructured > structured", ".705, .676, .443 at .8", ours, verdict,
            "03_accuracy_by_rate")  # fmt: skip


def _iterative(accuracy: pd.DataFrame) -> tuple[str, ...]:
    steps = accuracy[accuracy.schedule == "iterative"].drop_duplicates(["method", "rate"])
    found = [
        (row, _difference(accuracy, (row.method, row.rate), (row.method, row.rate), ("iterative", "one_shot")))
        for row in steps.itertuples()
    ]
    signs = [_sign(interval) for _, interval in found] or ["not tested"]
    verdict = next((v for v in ("does not hold", "cannot be told", "not tested") if v in signs), "holds")
    ours = "; ".join(f"{row.method} at {row.rate:g}: {_show(interval)}" for row, interval in found) or "-"
    return ("C3", "iterative is better than one-shot at equal epochs", ".686 against .663 at .84 (unequal epochs)",
            ours, verdict, "03_accuracy_by_rate")  # fmt: skip


def _rate_and_mis(means: pd.DataFrame) -> tuple[str, ...]:
    retrained = means[(means.rate > 0) & (means.schedule != "none")]
    r = statistics.within_group_correlation(retrained, "rate", "mis_conv", "method")
    test = statistics.equivalence(r.r, r.n, SMALLEST_EFFECT, groups=retrained.method.nunique())
    verdict = {"equivalent": "holds", "related": "does not hold", "undecided": "cannot be told"}[test.verdict]
    return ("C4", "MIS does not correlate with the rate", "r = .12, pooled, n = 40",
            f"r = {r.r:.2f} ({r.low:.2f} to {r.high:.2f}) within methods, n = {r.n}", verdict, "06_rate")  # fmt: skip


def _broken_networks(accuracy: pd.DataFrame, means: pd.DataFrame, chance: float) -> tuple[str, ...]:
    """How far networks near chance stand between the random network (0) and the dense one (1)."""
    table = means.merge(accuracy[["variant", "top1"]], on="variant")
    dense, random = (table[table.method == name].mis_conv.mean() for name in ("dense", "random_init"))
    broken = table[(table.top1 < 2 * chance) & (table.rate > 0)]
    share = statistics.mean_interval((broken.mis_conv - random) / (dense - random))
    half = Interval(share.mean - 0.5, share.low - 0.5, share.high - 0.5)
    where = f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"
    ours = f"{where} of the way from random to dense, {len(broken)} networks"
    return ("C5", "networks near chance keep at least half of their MIS", ".66 to .70 at .1 % Top-1, dense .70",
            ours if len(broken) else "-", _sign(half) if len(broken) else "not tested", "05_mis_by_rate")  # fmt: skip


def _last_layer(means: pd.DataFrame) -> tuple[str, ...]:
    trained = means[means.method != "random_init"]
    gap = statistics.mean_interval(trained.mis_conv - trained.mis_fc)
    return ("C6a", "the last layer has lower MIS than the convs", "lower in every network",
            f"conv - fc = {_show(gap, 'MIS')} over {len(trained)} networks", _sign(gap), "05_mis_by_layer")  # fmt: skip


def _class_accuracy(classes: pd.DataFrame) -> tuple[str, ...]:
    alive = classes[classes.alive & (classes.method != "random_init")]
    r = statistics.within_group_correlation(alive, "top1", "mis", "variant")
    test = statistics.equivalence(r.r, r.n, SMALLEST_EFFECT, groups=alive.variant.nunique())
    verdict = {"equivalent": "holds", "related": "does not hold", "undecided": "cannot be told"}[test.verdict]
    return ("C6b", "class accuracy does not correlate with its output unit's MIS", "no correlation",
            f"r = {r.r:.2f} ({r.low:.2f} to {r.high:.2f}) within networks, n = {r.n}", verdict,
            "06_class_accuracy")  # fmt: skip


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


def _sign(interval: Interval) -> str:
    if interval.mean != interval.mean:
        return "not tested"
    if interval.low > 0:
        return "holds"
    return "does not hold" if interval.high < 0 else "cannot be told"


def _show(interval: Interval, unit: str = "") -> str:
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})" + (f" {unit}" if unit else "")


def summary(table: pd.DataFrame) -> Iterable[str]:
    """One line of text per verdict."""
    return (f"{row.claim}, {row.statement}: **{row.verdict}** ({row.ours})" for row in table.itertuples())
