"""Compare a run with the reference tables of its profile, or keep the run as the reference."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from prunelens import paths
from prunelens.analysis import reproduction, verdicts
from prunelens.analysis.estimates import Estimate
from prunelens.profile import Profile
from prunelens.run.messages import display, say
from prunelens.store import origin, write_text
from prunelens.study import Study
from prunelens.work import notes

QUOTED = ("02_sparsity_table", "03_differences", "08_verdicts")  # tables of a run that README quotes
TEXT = ("claim", "comparison", "verdict", "over", "undecided", "network", "quantity")
WORDS = {"differs": "differs", "missing": "is missing here", "verdict": "has the opposite verdict"}

NOT_COMPARED = {
    "no interval": "numbers of a single seed have no interval and are not compared",
    "other stimuli": "numbers with intervals over units are not compared: these speak of no other stimuli or networks",
}
OF_STIMULI = ("seed", "data.", "interpretability.", "network.")  # keys that stimuli and the dense network follow from

Tables = dict[str, pd.DataFrame]


def tables(folder: Path) -> Tables:
    """What is compared of a run, from the evidence in its folder of figures.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged; names the file.
    """
    found, claims, margins = verdicts.kept(folder)
    return {"claims": verdicts.findings(found, claims, margins), "numbers": reproduction.numbers(found)}


def reference(name: str) -> Tables:
    """The reference tables of a profile.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = paths.REFERENCE / name
    files = {table: folder / f"{table}.csv" for table in ("claims", "numbers")}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise FileNotFoundError(f"found no {display(missing[0])}; `verify {name} --keep` makes a run the reference")
    texts = dict.fromkeys(TEXT, str)
    return {table: pd.read_csv(file, dtype=texts).fillna(dict.fromkeys(TEXT, "")) for table, file in files.items()}


def keep(folder: Path, profile: Profile) -> Path:
    """Make a run the reference of its profile: its tables and those that README quotes replace what was there."""
    found, target = tables(folder), paths.REFERENCE / profile.name
    target.mkdir(parents=True, exist_ok=True)
    for file in target.glob("*.csv"):
        file.unlink()
    for name, table in found.items():
        write_text(target / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    for name in QUOTED:
        if (folder / f"{name}.csv").is_file():
            shutil.copyfile(folder / f"{name}.csv", target / f"{name}.csv")
    record = {"profile": profile.model_dump(), **origin()}
    write_text(target / "record.json", json.dumps(record, indent=1) + "\n")
    return target


def compare(folder: Path, profile: Profile) -> pd.DataFrame:
    """Compare a run with its reference, see `reproduction.compare`.

    Raises:
        FileNotFoundError: one of them is not there. ValueError: the run's evidence is damaged.
    """
    ours, theirs = tables(folder), reference(profile.name)
    return reproduction.compare(ours, theirs, not any(key.startswith(OF_STIMULI) for key in changed(profile)))


def summary(compared: pd.DataFrame, name: str) -> str:
    """One line: how much of a run agrees with the reference, and what does not."""
    counts = []
    known = compared[~compared.outcome.isin(list(NOT_COMPARED))]
    for what, rows in {"claims": known[known.claim != ""], "numbers": known[known.claim == ""]}.items():
        bad = set(_wrong(rows)[_key(what)])
        counts.append(f"{rows[_key(what)].nunique() - len(bad)} of {rows[_key(what)].nunique()} {what}")
    wrong = list(dict.fromkeys(_wrong(known).name))
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    told = f"; not: {', '.join(wrong[:3])}{more}" if wrong else ""
    return f"verify: {' and '.join(counts)} agree with {display(paths.REFERENCE / name)}{told}"


def _key(what: str) -> str:
    return "claim" if what == "claims" else "name"


def _wrong(compared: pd.DataFrame) -> pd.DataFrame:
    return compared[compared.outcome.isin(list(WORDS))]


def lines(compared: pd.DataFrame) -> list[str]:
    """A line for each number that does not agree, and one for those that could not be compared."""
    found = []
    for row in _wrong(compared).itertuples():
        ours = Estimate(row.value, row.low, row.high)
        theirs = Estimate(row.reference, row.reference_low, row.reference_high)
        p = f", p = {row.p_holm:.2g} (Holm)" if row.outcome == "differs" and not math.isnan(row.p_holm) else ""
        found.append(f"  {row.name}: {ours:.4f}, reference {theirs:.4f}: {WORDS[row.outcome]}{p}")
    counts = compared.outcome.value_counts()
    return found + [f"  {counts[outcome]} {why}" for outcome, why in NOT_COMPARED.items() if outcome in counts]


def changed(profile: Profile) -> dict[str, str]:
    """The profile's keys whose values are not those of the reference, and both values in words."""
    try:
        there = _flat(json.loads((paths.REFERENCE / profile.name / "record.json").read_text())["profile"])
    except (OSError, ValueError, KeyError):
        return {}
    here = _flat(json.loads(profile.model_dump_json()))
    keys = [key for key in {**here, **there} if here.get(key) != there.get(key) and key != "about"]
    return {key: f"{here.get(key)} (reference: {there.get(key)})" for key in keys}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A profile's values by dotted key."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def verify(folder: Path, profile: Profile) -> int:
    """Say what agrees with the reference and what does not; returns 0 if all agrees, else 1.

    Raises:
        FileNotFoundError, ValueError: there is nothing to compare, or it is damaged.
    """
    compared = compare(folder, profile)
    if compared.outcome.isin(list(NOT_COMPARED)).all():
        raise ValueError(f"{display(paths.REFERENCE / profile.name)} has nothing that can be compared")
    say(summary(compared, profile.name))
    for line in lines(compared):
        say(line)
    if keys := changed(profile):
        say(f"  the profile is not the reference's: {', '.join(f'{key} {both}' for key, both in keys.items())}")
    return int(len(_wrong(compared)) > 0)


def origins(study: Study) -> str:
    """How many of the study's results were computed by other code or package versions than the present, in a line."""
    now, found = origin(), [note for _, _, note in notes(study)]
    if not found:
        return "results: none here, so that nothing is known of their code and versions"
    code = sum(note.get("library_sha256") != now["library_sha256"] for note in found)
    versions = sum(note.get("versions") != now["versions"] for note in found)
    return f"results: {len(found)} here, {code} by other code than the present, {versions} with other package versions"
