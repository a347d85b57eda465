"""What an earlier run lets one expect of a larger or smaller one: intervals, verdicts, and what would decide.

Half widths go with t(n - 1) / sqrt(n) of every sample that an interval is over, and the spread of an earlier run is
corrected for its small sample. The values are taken to stay as they were.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pandas as pd
from scipy.special import gammaln

from prunelens import registry
from prunelens.analysis.estimates import Estimate, Part, counted, critical, total
from prunelens.analysis.verdicts import FAILS, HOLDS, Claim, Finding
from prunelens.profile import Margins

MOST = 1000  # times as many as planned: what would take more is not looked for


def rescale(estimate: Estimate, sizes: Mapping[str, int]) -> Estimate:
    """The estimate to expect with other sizes of its samples, such as {"seeds": 12}; its value stays."""
    planned = tuple(_rescaled(part, sizes.get(part.sample, part.n)) for part in estimate.parts)
    half, before = (_half(parts) for parts in (planned, estimate.parts))
    factor = half / before if before else 1.0
    low, high = (estimate.value + factor * (end - estimate.value) for end in (estimate.low, estimate.high))
    over = " and ".join(counted(part.n, part.sample) for part in planned) or estimate.over
    return replace(estimate, low=low, high=high, over=over, parts=planned)


def _half(parts: Iterable[Part]) -> float:
    variance, freedom = total(parts)
    return critical(freedom) * math.sqrt(variance)


def _rescaled(part: Part, n: int) -> Part:
    """A part with n instead of as many as it has."""
    if n == part.n or part.n < 2:
        return part
    variance = part.variance * part.n / n
    if math.isinf(part.freedom):
        return part._replace(n=n, variance=variance)
    freedom = part.freedom * (n - 1) / (part.n - 1)
    shrunk = _shrinkage(freedom) / _shrinkage(part.freedom) if n > 1 else math.nan
    return Part(part.sample, n, variance * shrunk**2, freedom)


def _shrinkage(freedom: float) -> float:
    """Expected standard deviation of a normal sample, as a share of the true one (c4)."""
    return math.sqrt(2 / freedom) * math.exp(gammaln((freedom + 1) / 2) - gammaln(freedom / 2))


def expect(
    findings: pd.DataFrame, claims: Iterable[str], sizes: Mapping[str, int], margins: Margins | None = None
) -> pd.DataFrame:
    """What a planned run would find of each claim if values and spreads were those of an earlier one.

    findings: of the earlier run, see `verdicts.findings`. sizes: of the samples planned, in the plural.
    Returns a row per comparison: claim, comparison, earlier, expected (estimates in words), over; and of the claim:
    verdict, decides (how many of what would decide, or why no number does). A claim that the earlier run did not test
    has the verdict "no earlier run".
    """
    rows = []
    for name in claims:
        claim = registry.find("claim", name).claim
        found = findings[(findings.claim == claim.name) & findings.value.notna()]
        rows += _expected(claim, found, sizes, claim.bound(margins or Margins()))
    return pd.DataFrame(rows, columns=["claim", "comparison", "earlier", "expected", "over", "verdict", "decides"])


def _expected(claim: Claim, rows: pd.DataFrame, sizes: Mapping[str, int], margin: float) -> list[tuple[str, ...]]:
    if rows.empty:
        return [(claim.name, "", "-", "-", "-", "no earlier run", "-")]
    earlier = {row.comparison: Estimate.of(row) for row in rows.itertuples()}
    of_claim = _verdict(claim, rows, earlier, sizes, margin), _decides(claim, rows, earlier, sizes, margin)
    found = []
    for name, estimate in earlier.items():
        planned = rescale(estimate, sizes)
        words = (format(estimate, claim.form), format(planned, claim.form), planned.over)
        found.append((claim.name, name, *words, *of_claim))
    return found


def _verdict(
    claim: Claim, rows: pd.DataFrame, earlier: Mapping[str, Estimate], sizes: Mapping[str, int], margin: float
) -> str:
    """The verdict with samples of these sizes; those barred for too few are no longer where there are enough."""
    planned = {name: rescale(estimate, sizes) for name, estimate in earlier.items()}
    barred = {
        row.comparison: row.undecided or "too few"
        for row in rows.itertuples()
        if (row.undecided and not row.least) or _smallest(planned[row.comparison]) < row.least
    }
    freedom = min((total(each.parts)[1] for each in planned.values()), default=math.inf)
    return claim.verdict(Finding(planned, barred, freedom=freedom), margin)


def _smallest(estimate: Estimate) -> float:
    """The number in the sample that a claim's least number speaks of: the first."""
    return estimate.parts[0].n if estimate.parts else math.inf


def _decides(
    claim: Claim, rows: pd.DataFrame, earlier: Mapping[str, Estimate], sizes: Mapping[str, int], margin: float
) -> str:
    """The numbers of seeds, classes, ... of which each alone decides, others staying as planned."""
    parts = {part.sample: sizes.get(part.sample, part.n) for each in earlier.values() for part in each.parts}

    def decided(sample: str, n: int) -> bool:
        return _verdict(claim, rows, earlier, {**sizes, sample: n}, margin) in (HOLDS, FAILS)

    found = [_first(lambda n, sample=sample: decided(sample, n), MOST * n) for sample, n in parts.items()]
    words = [counted(n, sample) for n, sample in zip(found, parts, strict=True) if n]
    barred = [text for text, least in zip(rows.undecided, rows.least, strict=True) if text and not least]
    found_none = "no number: too near to the margin" if parts else "not known"
    return " or ".join(words) or "; ".join(dict.fromkeys(barred)) or found_none


def _first(decided: Callable[[int], bool], most: int) -> int:
    """The smallest number from 2 on at which there is a decision, which more would not undo; 0 without one."""
    if not decided(most):
        return 0
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
