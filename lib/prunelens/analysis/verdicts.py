"""How claims are judged: a claim's estimates, a margin of practical equivalence and a rule give a verdict.

A verdict follows from where the 95 % interval lies: "holds", "does not hold", "undecided" (the reason says what would
decide it) or "not tested" (the tables have no networks for it). The paper's claims are in `prunelens.analysis.claims`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from prunelens import registry
from prunelens.analysis import example
from prunelens.analysis.estimates import NONE, Estimate, holm
from prunelens.profile import Margins

HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
SHOWN = ["claim", "statement", "paper", "estimate", "verdict", "why", "figure"]  # columns of `judge` worth reading

TABLES = ("accuracy", "units", "classes")
Tables = Mapping[str, pd.DataFrame]  # by name, as `Study.tables` has them


@dataclass(frozen=True)
class Finding:
    """What a claim's function found.

    estimates: by name of the comparison (empty for a single one).
    undecided: why a comparison cannot be decided whatever its interval (too few classes, one budget), by name.
    again: a comparison at another budget, by name, and that budget in words: undecided unless both verdicts agree.
    least: the number of classes, seeds, ... from which on it can be decided; 0: no number helps.
    note: what to know beside the estimates.
    freedom: degrees of freedom of the intervals, for Holm's correction; infinite: normal theory.
    """

    estimates: Mapping[str, Estimate]
    undecided: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    freedom: float = math.inf
    again: Mapping[str, tuple[Estimate, str]] = field(default_factory=dict)
    least: int = 0


class Rule(NamedTuple):
    """When an interval holds or fails against a margin m, a value's distance from a decision, and that in words."""

    holds: Callable[[Estimate, float], bool]
    fails: Callable[[Estimate, float], bool]
    distance: Callable[[float, float], float]
    words: tuple[str, str, str]  # where the interval is that holds, fails, decides nothing


RULES = {
    "positive": Rule(lambda e, m: e.above(0), lambda e, m: e.below(m), lambda v, m: max(v, m - v),
                     ("above 0", "below {m}", "neither above 0 nor below {m}")),
    "above": Rule(lambda e, m: e.above(m), lambda e, m: e.below(m), lambda v, m: abs(v - m),
                  ("above {m}", "below {m}", "on both sides of {m}")),
    "equivalent": Rule(lambda e, m: e.within(m), lambda e, m: e.above(m) or e.below(-m), lambda v, m: abs(abs(v) - m),
                       ("within ±{m}", "outside ±{m} (Holm)", "neither within nor outside ±{m}")),
    "unrelated": Rule(lambda e, m: e.within(m), lambda e, m: e.above(0) or e.below(0),
                      lambda v, m: max(abs(v), m - abs(v)),
                      ("within ±{m}", "not around 0", "around 0 but not within ±{m}")),
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A claim, and the decorator of the function that finds its estimates in the study's tables.

    The function takes the tables and returns an `Estimate`, estimates by name of the comparison, or a `Finding`.

    name, statement: "C1a", and the claim as a sentence.
    rule: with the margin m: "positive" holds where low > 0 and fails where high < m; "above": low > m, high < m;
        "equivalent": within ±m, outside it (Holm's correction over comparisons); "unrelated": within ±m, 0 excluded.
        All comparisons have to hold, and one that fails is enough.
    margin: a field of `Margins`, or a number.
    figure: the figure that shows it; paper: the paper's numbers, as text; form: format of the estimates.
    needs: tables ("accuracy") or columns ("units.mis") without which it is not tested.
    """

    name: str
    statement: str
    rule: str
    margin: str | float
    figure: str = "-"
    paper: str = "-"
    form: str = "+.3f"
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rule not in RULES or (isinstance(self.margin, str) and self.margin not in Margins.model_fields):
            rules, margins = ", ".join(RULES), ", ".join(Margins.model_fields)
            found = f"found rule {self.rule!r} and margin {self.margin!r}"
            raise ValueError(f"claim {self.name}: {found}, expected one of {rules} and a number or one of {margins}")

    def __call__(self, function: registry.Part) -> registry.Part:
        function.claim = self  # type: ignore[attr-defined]
        return registry.describe(self.statement)(function)

    def row(self, function: Callable[[Tables], Any], tables: Tables, margins: Margins) -> dict[str, Any]:
        """The claim's row of `judge`."""
        margin, found = self.bound(margins), self.find(function, tables)
        each = self._verdicts(found, margin)
        verdict = self.verdict(found, margin)
        names = [name for name, one in each.items() if one == verdict]
        first = found.estimates[names[0]] if names else NONE
        shown = {name: format(e, self.form) for name, e in found.estimates.items() if not math.isnan(e.value)}
        estimate = "; ".join(f"{name}: {text}".removeprefix(": ") for name, text in shown.items())
        row = {"claim": self.name, "statement": self.statement, "paper": self.paper, "estimate": estimate or "-",
               "verdict": verdict, "why": self._why(found, names, verdict, margin), "figure": self.figure}  # fmt: skip
        return row | {"value": first.value, "low": first.low, "high": first.high, "over": first.over}

    def bound(self, margins: Margins) -> float:
        """The claim's margin as a number."""
        return getattr(margins, self.margin) if isinstance(self.margin, str) else self.margin

    def find(self, function: Callable[[Tables], Any], tables: Tables) -> Finding:
        """What the claim's function finds in the tables; nothing where these lack what it needs."""
        missing = [need for need in self.needs if not _has(tables, *need.split("."))]
        return Finding({}, note=f"needs {', '.join(missing)}") if missing else _finding(function(tables))

    def verdict(self, found: Finding, margin: float) -> str:
        """The verdict on what was found."""
        each = self._verdicts(found, margin).values()
        return next((one for one in (FAILS, UNTESTED, UNDECIDED, HOLDS) if one in each), UNTESTED)

    def _verdicts(self, found: Finding, margin: float) -> dict[str, str]:
        """The verdict on each comparison."""
        outside = _outside(found, margin) if self.rule == "equivalent" else found.estimates
        return {
            name: UNDECIDED if self.barred(found, name, margin) else self._decide(estimate, margin, name in outside)
            for name, estimate in found.estimates.items()
        }

    def _decide(self, estimate: Estimate, margin: float, may_fail: bool = True) -> str:
        """The verdict that an interval gives by itself."""
        rule = RULES[self.rule]
        if math.isnan(estimate.value):
            return UNTESTED
        if rule.holds(estimate, margin):
            return HOLDS
        return FAILS if may_fail and rule.fails(estimate, margin) else UNDECIDED

    def barred(self, found: Finding, name: str, margin: float) -> str:
        """Why a comparison cannot be decided whatever its interval: too little of something, not settled; else empty.

        It has not settled where it is decided, but otherwise at another budget.
        """
        if name in found.undecided or name not in found.again:
            return found.undecided.get(name, "")
        other, budget = found.again[name]
        verdict, again = (self._decide(each, margin) for each in (found.estimates[name], other))
        if verdict == again or verdict not in (HOLDS, FAILS):
            return ""
        return f"not settled: {verdict} here, {again} at {budget}, {format(other, self.form)}"

    def _why(self, found: Finding, names: list[str], verdict: str, margin: float) -> str:
        """The reasons of the comparisons that have the verdict, equal ones once."""
        if verdict == UNTESTED:
            return found.note if found.note and not found.estimates else "there are no networks for it"
        reasons: dict[str, list[str]] = {}
        for name in names:
            reason = self.barred(found, name, margin) or self._reason(found.estimates[name], verdict, margin)
            reasons.setdefault(reason, []).append(name)
        alone = len(reasons) == 1 and len(names) == len(found.estimates)
        parts = list(reasons) if alone else [f"{', '.join(who)}: {reason}" for reason, who in reasons.items()]
        return "; ".join([*parts, found.note] if found.note else parts)

    def _reason(self, estimate: Estimate, verdict: str, margin: float) -> str:
        """Where the interval lies, what it is over, and how many times as much of that would decide."""
        if math.isnan(estimate.low):
            return f"no interval from {estimate.over}"
        rule, shown = RULES[self.rule], format(margin, self.form.lstrip("+"))
        place = rule.words[[HOLDS, FAILS, UNDECIDED].index(verdict)].format(m=shown)
        reason = f"interval over {estimate.over} is {place}"
        if verdict == UNDECIDED:
            times = ((estimate.high - estimate.low) / 2 / max(rule.distance(estimate.value, margin), 1e-9)) ** 2
            return f"{reason}; {'over 100' if times > 100 else f'about {max(times, 1.1):.1f}'} times as many would do"
        if verdict == HOLDS and rule is RULES["positive"] and estimate.below(margin):
            return f"{reason}, though below {shown}, which counts as practically none"
        return reason


def judge(tables: Tables, claims: Iterable[str] | None = None, margins: Margins | None = None) -> pd.DataFrame:
    """Judge claims by a study's tables, as far as these are there.

    claims: names of built-ins or import paths; None: all built-ins. margins: of equivalence.
    Returns: claim, statement, paper, estimate (in words), verdict, why, figure; value, low, high and over of the first
    comparison that has the verdict.
    """
    rows = []
    for name in registry.built_ins("claim") if claims is None else claims:
        part = registry.find("claim", name)
        seen = tables if registry.is_built_in(name) else {key: table.copy() for key, table in tables.items()}
        rows.append(part.claim.row(part, seen, margins or Margins()))
    return pd.DataFrame(rows)


def findings(tables: Tables, claims: Iterable[str] | None = None, margins: Margins | None = None) -> pd.DataFrame:
    """The estimates that claims are judged by, a row per comparison; a claim without one has a row without a value.

    Returns: claim, comparison, verdict (the claim's), value, low, high, over, parts (JSON of the estimate's), undecided
    (why it can't be decided whatever the interval; "": it can), least (see `Finding`).
    """
    rows = []
    for name in registry.built_ins("claim") if claims is None else claims:
        part = registry.find("claim", name)
        found = part.claim.find(part, tables)
        margin = part.claim.bound(margins or Margins())
        verdict = part.claim.verdict(found, margin)
        for comparison, estimate in (found.estimates or {"": NONE}).items():
            row = {"claim": part.claim.name, "comparison": comparison, "verdict": verdict, **estimate.record()}
            rows.append(row | {"undecided": part.claim.barred(found, comparison, margin), "least": found.least})
    columns = ["claim", "comparison", "verdict", *NONE.record(), "undecided", "least"]
    return pd.DataFrame(rows, columns=columns)


def check_claim(name: str) -> None:
    """Try a claim on `example.tables`.

    Raises:
        ValueError: it is not decorated, fails, or returns no estimate; in one line.
    """
    part = registry.find("claim", name)
    if not isinstance(getattr(part, "claim", None), Claim):
        raise ValueError(f"claim {name}: found no decorator, expected @claim(...) of prunelens.analysis.claims")
    if not registry.is_built_in(name) and part.claim.name.lower() in registry.built_ins("claim"):
        raise ValueError(f"claim {name}: found the name {part.claim.name}, which a built-in claim has already")
    try:
        part.claim.row(part, example.tables(), Margins())
    except Exception as error:  # a user's function can fail in any way
        message = " ".join(str(error).split())
        raise ValueError(f"claim {name}: fails on example tables ({type(error).__name__}: {message})") from error


def keep(tables: Tables, folder: Path, claims: Iterable[str], margins: Margins) -> None:
    """Write what verdicts rest on to ``folder/evidence``, for `judge_folder`.

    Of the units' measures other than the MIS, only the dense network's values are kept, as no built-in claim needs
    others; with claims of your own, all are.
    """
    own = not all(map(registry.is_built_in, claims))
    target = folder / "evidence"
    target.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        if name == "units" and not own:
            others = [c for c in table.select_dtypes("float") if c not in ("rate", "position", "mis")]
            table = table.assign(**table[others].where(table.method == "dense"))
        table.to_parquet(target / f"{name}.parquet")
    values = margins.model_dump()
    (target / "claims.json").write_text(json.dumps({"claims": list(claims), "margins": values}, indent=1))


def judge_folder(folder: Path) -> pd.DataFrame:
    """`judge` of what `keep` wrote to a folder of figures.

    Raises:
        FileNotFoundError: the folder has no evidence. ValueError: it is damaged; names the file.
    """
    return judge(*kept(folder))


def kept(folder: Path) -> tuple[dict[str, pd.DataFrame], list[str], Margins]:
    """The tables, claims and margins that `keep` wrote to a folder of figures.

    Raises:
        FileNotFoundError: the folder has no evidence. ValueError: it is damaged; names the file.
    """
    file = folder / "evidence" / "claims.json"
    try:
        asked = json.loads(file.read_text())
        claims, margins = list(asked["claims"]), Margins(**asked["margins"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged, run notebook 08 again ({type(error).__name__}: {error})") from error
    if missing := [name for name in TABLES if not (folder / "evidence" / f"{name}.parquet").is_file()]:
        raise FileNotFoundError(f"found no {folder / 'evidence' / missing[0]}.parquet, run notebook 08 again")
    return {name: pd.read_parquet(folder / "evidence" / f"{name}.parquet") for name in TABLES}, claims, margins


def _has(tables: Tables, name: str, column: str = "") -> bool:
    return name in tables and len(tables[name]) > 0 and (not column or column in tables[name])


def _finding(found: object) -> Finding:
    if isinstance(found, Finding):
        return found
    found = {"": found} if isinstance(found, Estimate) else found
    if not isinstance(found, Mapping) or not all(isinstance(each, Estimate) for each in found.values()):
        raise TypeError(f"found a {type(found).__name__}, expected an Estimate, estimates by name, or a Finding")
    return Finding(found)


def _outside(found: Finding, margin: float) -> set[str]:
    """Comparisons whose value is beyond ±margin by Holm's procedure at 5 %, errors being those of the intervals."""
    critical = stats.t.isf(0.025, found.freedom)
    t = [(abs(e.value) - margin) / max((e.high - e.low) / 2 / critical, 1e-12) for e in found.estimates.values()]
    adjusted = holm([min(1.0, 2 * stats.t.sf(one, found.freedom)) for one in t])
    return {name for name, p in zip(found.estimates, adjusted, strict=True) if p < 0.05}
