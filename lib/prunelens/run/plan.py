"""What a profile can be expected to find, and what it costs, before it is run."""

from pathlib import Path

import pandas as pd

from prunelens import paths, registry
from prunelens.analysis import power, verdicts
from prunelens.run import checks, verify
from prunelens.run.checks import Request
from prunelens.run.costs import Cost, Guesses, calibrate, costs
from prunelens.run.messages import columns, display, say
from prunelens.study import Study
from prunelens.work import work


def plan(request: Request) -> int:
    """Say what to expect of each claim, and the cost of each stage."""
    study = checks.study(request)
    processes = study.pipeline.processes()
    say(f"plan: profile {study.profile.name}, {len(study.everything)} networks")
    say("")
    for line in expectations(study):
        say(line)
    say("")
    planned, find, guesses = work(study), study.pipeline.note, Guesses([study])
    if guesses.missing(planned, find):
        say("measuring what units of work take, two minutes at most ...")
        guesses = Guesses([study, *calibrate(study, request.profile, request.out)])
    for line in cost_lines(costs(planned, find, guesses, processes), processes):
        say(line)
    return 0


def expectations(study: Study) -> list[str]:
    """The table of claims: what an earlier run found, what to expect, and what would decide."""
    claims, margins = [*registry.built_ins("claim"), *study.profile.claims.extra], study.profile.claims.margins
    findings, source = earlier(study.folder, study.profile.name)
    found = power.expect(findings, claims, sizes(study), margins)
    again = found.claim.duplicated()
    found.loc[again, ["claim", "verdict", "decides"]] = ""
    names = ["claim", "", "earlier run", "to expect", "over", "verdict to expect", "decided by"]
    return [*columns([names, *found.to_numpy().tolist()]), "", f"earlier run: {source}"]


def earlier(folder: Path, name: str) -> tuple[pd.DataFrame, str]:
    """Findings of the profile's last run, else of its reference, else none; and where they are from."""
    try:
        return verify.tables(folder)["claims"], display(folder / "evidence")
    except (OSError, ValueError):
        pass
    try:
        return verify.reference(name)["claims"], display(paths.REFERENCE / name)
    except OSError:
        return verdicts.findings({}), "none, so that nothing can be expected of a claim"


def sizes(study: Study) -> dict[str, int]:
    """How many of what intervals are over the profile has."""
    return {
        "seeds": len(study.profile.pruning.seeds),
        "classes": len(study.classes["outputs"]),
        "images": len(study.validation),
        "units": int(study.layers.units.sum()),
    }


def together(found: list[Cost]) -> list[Cost]:
    """Costs with one row for all measures, which are computed with each other."""
    rows: dict[str, list[Cost]] = {}
    for cost in found:
        rows.setdefault(cost.stage.partition(".")[0], []).append(cost)
    return [_total(name, costs) for name, costs in rows.items()]


def _total(name: str, found: list[Cost]) -> Cost:
    """The sum of some costs, with the mean seconds of a unit of work."""
    units, computed, seconds, minutes, size = map(sum, zip(*(cost[1:] for cost in found), strict=True))
    return Cost(name, units, computed, seconds / len(found), minutes, size)


def cost_lines(found: list[Cost], processes: int) -> list[str]:
    """The table of stages: units of work, how many are computed, seconds of each missing one, minutes and MB."""
    whole = _total("in all", found)
    rows = [["stage", "units", "computed", "seconds each", "minutes", "MB"]]
    for cost in together(found):
        numbers = (f"{cost.seconds:.2f}", f"{cost.minutes:.1f}", f"{cost.megabytes:.1f}")
        rows.append([cost.stage, str(cost.units), str(cost.computed), *numbers])
    rows.append(["in all", str(whole.units), str(whole.computed), "", f"{whole.minutes:.1f}", f"{whole.megabytes:.1f}"])
    several = f"{processes} processes" if processes > 1 else "1 process"
    told = f"about {whole.minutes:.1f} minutes in {several}, {whole.megabytes:.0f} MB; figures take more"
    return [*columns(rows, right=range(1, 6)), "", f"still to compute: {told}"]
