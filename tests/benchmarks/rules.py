"""How often each claim's rule is wrong, and how often it decides: `python tests/benchmarks/rules.py [profile] [claims]`

Tables are simulated with the networks, seeds, classes, images and layers that the profile has (default: quick) and a
known truth; each claim's own function judges them. Prints how often each verdict is reached, false ones with a star.
On all cores; 17 CPU minutes in all on the machine whose table is in docs/decisions.md.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from simulated import LEVEL, NETWORK, RANDOM, WAY, Design, Generator, Tables, crossed

from prunelens import profile, registry
from prunelens.analysis.selection import pick, working
from prunelens.analysis.verdicts import FAILS, HOLDS, UNDECIDED
from prunelens.variants import DENSE, FIELDS

REPETITIONS = 500
VERDICTS = (HOLDS, FAILS, UNDECIDED)
LEFT_METHOD, LEFT_RATE = 0.10, 0.20  # deviations of the share that a method keeps when pruned, and a rate of it
MANY = 500  # images of a class: as good as all

Truth = tuple[float, ...]  # of each comparison of a claim
Draw = Callable[[Generator, Truth], Tables]


class Case(NamedTuple):
    """A claim, how its tables are drawn, and truths in words."""

    claim: str
    draw: Draw
    truths: dict[str, Truth]


# ----------------------------------------------------------------------------------------------- how tables are drawn


def c1(design: Design, masked: bool) -> Draw:
    retrained = pick(design.networks, schedule="one_shot")
    pruned = pick(retrained, method="connection_l1", rate=design.rate, masked=masked)
    networks = pd.concat([pick(retrained, method=DENSE), pruned], ignore_index=True)
    return lambda g, truth: design.accuracies(g, networks, 0.88 + truth[0] * (networks.rate > 0).to_numpy())


def c2(design: Design) -> Draw:
    methods = ("connection_l1", "unstructured_global", "structured_l1")
    networks = pick(design.networks, schedule="one_shot", method=methods, rate=design.rate, masked=True)

    def draw(g: Generator, truth: Truth) -> Tables:
        top1 = dict(zip(methods, 0.85 - np.cumsum([0, *truth]), strict=True))
        return design.accuracies(g, networks, networks.method.map(top1).to_numpy())

    return draw


def c3(design: Design) -> Draw:
    networks = pick(design.networks, schedule=("one_shot", "iterative"), masked=True)
    partners = networks.groupby([field for field in FIELDS if field != "schedule"]).schedule.transform("nunique")
    networks = networks[partners == 2]
    top1 = np.where(networks.method == "structured_l1", 0.70, 0.85)
    iterative = (networks.schedule == "iterative").to_numpy()
    return lambda g, truth: design.accuracies(g, networks, top1 + truth[0] * iterative)


def c4(design: Design) -> Draw:
    grid = design.with_units[(design.with_units.rate > 0) & design.with_units.masked]
    controls = pick(design.with_units, method=DENSE, schedule="none")
    networks = pd.concat([pick(grid, schedule="one_shot"), controls], ignore_index=True)
    methods, random = networks.method[networks.rate > 0].unique(), (networks.weights == "random").to_numpy()
    accuracy = design.at_chance(networks, random)

    def draw(g: Generator, truth: Truth) -> Tables:
        slope = networks.method.map(dict(zip(methods, truth, strict=True))).fillna(0).to_numpy()
        level = LEVEL + WAY * (slope * networks.rate.to_numpy() - random)
        spread = np.where(random, RANDOM, NETWORK * (networks.rate > 0))
        return accuracy | design.units(g, networks, level + spread * g.standard_normal(len(networks)))

    return draw


def c5(design: Design) -> Draw:
    """Networks pruned without retraining are at chance, unless they are so little or unstructured."""
    networks = pick(design.with_units, schedule="none").reset_index(drop=True)
    pruned, random = (networks.rate > 0).to_numpy(), (networks.weights == "random").to_numpy()
    works = networks.method.eq("unstructured_global") | (
        networks.method.eq("connection_l1") & (networks.rate < design.rate)
    )
    accuracy = design.at_chance(networks, (pruned & ~works) | random)
    methods = networks.groupby("method").ngroup().to_numpy()

    def draw(g: Generator, truth: Truth) -> Tables:
        share = truth[0] + LEFT_METHOD * g.standard_normal(methods.max() + 1)[methods]
        share += LEFT_RATE * g.standard_normal(len(networks))
        level = (
            LEVEL - WAY + WAY * np.where(pruned, share, ~random) + RANDOM * random * g.standard_normal(len(networks))
        )
        return accuracy | design.units(g, networks, level)

    return draw


def c6a(design: Design) -> Draw:
    networks = working(design.with_units).reset_index(drop=True)
    accuracy = design.at_chance(networks, networks.rate > 1)

    def draw(g: Generator, truth: Truth) -> Tables:
        level = LEVEL + NETWORK * g.standard_normal(len(networks))
        outputs = design.outputs(g, networks, truth[0], g.standard_normal(design.classes))
        return accuracy | design.units(g, networks, level, outputs)

    return draw


def c6b(design: Design, images: int) -> Draw:
    """The truth is the correlation over all classes, if accuracies are measured on this number of images of each."""
    networks = working(design.with_units).reset_index(drop=True)
    top1 = 0.9 - 0.4 * networks.rate.to_numpy() ** 2
    units = crossed(networks, design.output_places().drop(columns="units")).assign(alive=True, own_class=True)

    def tables(g: Generator, easy: np.ndarray, clear: np.ndarray) -> Tables:
        mis = design.outputs(g, networks, 0.05, clear).ravel()
        return {"units": units.assign(mis=mis), **design.accuracies(g, networks, top1, easy)}

    def kept(g: Generator) -> float:
        """How much of the correlation of what classes are drawn by is left in what is measured of them."""
        easy, clear = g.standard_normal((2, design.classes))
        found = tables(g, easy, clear)
        top1, mis = found["classes"].groupby("output").top1.mean(), found["units"].groupby("unit").mis.mean()
        return float(np.corrcoef(easy, top1)[0, 1] * np.corrcoef(clear, mis)[0, 1])

    has, design.images = design.images, images
    factor = np.mean([kept(np.random.default_rng(seed)) for seed in range(30)])
    design.images = has

    def draw(g: Generator, truth: Truth) -> Tables:
        r = truth[0] / factor
        easy, other = g.standard_normal((2, design.classes))
        return tables(g, easy, r * easy + np.sqrt(1 - r**2) * other)

    return draw


def q1(design: Design, large: bool) -> Draw:
    """The truth is the correlation of ranks in large layers, or what is expected of it in layers of these sizes."""
    convs = pick(design.layers, kind="conv")
    places = convs.loc[convs.index.repeat(convs.units)]
    networks = pick(design.networks, method=DENSE, schedule="none", weights="trained")
    units = crossed(networks, places.assign(unit=np.arange(len(places)), alive=True, own_class=True))

    def tables(g: Generator, truth: float) -> Tables:
        r = 2 * np.sin(np.pi * truth / 6)  # of normal variables whose ranks correlate by the truth
        concept, other = g.standard_normal((2, len(units)))
        return {"units": units.assign(mis=r * concept + np.sqrt(1 - r**2) * other, concept_selectivity=concept)}

    g, margin = np.random.default_rng(0), design.margins.correlation
    found = [registry.find("claim", "q1")(tables(g, margin)).estimates[""].value for _ in range(0 if large else 50)]
    factor = 1.0 if large else np.mean(found) / margin
    return lambda g, truth: tables(g, truth[0] / factor)


@cache
def cases(name: str) -> list[Case]:
    design = Design(profile.load(name))
    m, slope, r, mis = (getattr(design.margins, field) for field in ("accuracy", "slope", "correlation", "mis"))
    gains = {"none": (0.0,), "margin": (m,), "-4 points": (-0.04,), "+2 points": (0.02,), "+4 points": (0.04,)}
    few = {words: gains[words] for words in ("none", "margin")}
    pairs = {"none, none": (0.0, 0.0), "none, +15 points": (0.0, 0.15), "margin, margin": (m, m),
             "-4, +15 points": (-0.04, 0.15), "+4, +15 points": (0.04, 0.15)}  # fmt: skip
    slopes = {"none": (0.0, 0.0, 0.0), "margin": (slope, slope, slope), "-margin": (-slope, -slope, -slope),
              "margin, none, none": (slope, 0.0, 0.0), "3 margins, none, none": (3 * slope, 0.0, 0.0),
              "6 margins, none, none": (6 * slope, 0.0, 0.0)}  # fmt: skip
    kept = {"1/4": (0.25,), "1/2 (margin)": (0.5,), "3/4": (0.75,), "1": (1.0,)}
    gaps = {"none": (0.0,), "margin": (mis,), "-.01": (-0.01,), "+.02": (0.02,)}
    measured = {"none": (0.0,), "margin": (r,), "-margin": (-r,), "r = .5": (0.5,)}
    ranks = {"margin": (r,), "r = .2": (0.2,), "r = .4": (0.4,)}
    return [
        Case("c1a", c1(design, True), gains),
        Case("c1b", c1(design, False), few),
        Case("c2", c2(design), pairs),
        Case("c3", c3(design), gains),
        Case("c4", c4(design), slopes),
        Case("c5", c5(design), kept),
        Case("c6a", c6a(design), gaps),
        Case("c6b", c6b(design, design.images), measured),
        Case("c6b", c6b(design, MANY), {"margin, all images": (r,), "-margin, all images": (-r,)}),
        Case("q1", q1(design, large=False), ranks),
        Case("q1", q1(design, large=True), {"margin, large layers": (r,)}),
        Case("q3", c6a(design), gaps),
    ]


# -------------------------------------------------------------------------------------------------- counting verdicts


def false(rule: str, truth: Truth, margin: float) -> set[str]:
    """The verdicts that are false: all comparisons have to hold, and one that fails is enough."""
    t = np.array(truth)
    no, yes = {
        "positive": (t <= 0, t >= margin),
        "above": (t <= margin, t >= margin),
        "equivalent": (abs(t) >= margin, abs(t) <= margin),
        "unrelated": (abs(t) >= margin, t == 0),
    }[rule]
    return {verdict for verdict, wrong in ((HOLDS, no.any()), (FAILS, yes.all())) if wrong}


def line(name: str, number: int, words: str) -> str:
    """A line of the table: the verdicts of a case's claim under one truth."""
    case, g = cases(name)[number], np.random.default_rng([number, *words.encode()])
    function, truth, margins = registry.find("claim", case.claim), case.truths[words], profile.load(name).claims.margins
    claim, margin = function.claim, function.claim.bound(margins)
    found = [claim.verdict(claim.find(function, case.draw(g, truth)), margin) for _ in range(REPETITIONS)]
    wrong, share = false(claim.rule, truth, margin), {one: found.count(one) / REPETITIONS for one in VERDICTS}
    wrongly = sum(share[verdict] for verdict in wrong)
    cells = [f"{share[verdict]:.1%}" + "*" * (verdict in wrong) for verdict in VERDICTS]
    return " | ".join([claim.name, words, *cells, f"{wrongly:.1%}" + " (!)" * (wrongly > limit()) if wrong else "-"])


def limit() -> float:
    """What a share of false verdicts that is 5 % in truth stays below in 39 of 40 simulations."""
    return float(stats.binom.ppf(0.975, REPETITIONS, 0.05)) / REPETITIONS


def main(name: str = "quick", *claims: str) -> None:
    chosen = [
        (i, words) for i, case in enumerate(cases(name)) for words in case.truths if case.claim in claims or not claims
    ]
    design = Design(profile.load(name))
    seeds, units, networks = design.networks.seed.nunique(), design.layers.units.sum(), len(design.networks)
    print(f"Profile {name}: {seeds} seeds, {design.classes} classes of {design.images} images, {units} units, ", end="")
    print(f"{networks} networks; {REPETITIONS} tables a line.")
    print(f"*: false; (!): above 5 % by more than simulation error, {limit():.1%}.\n")
    print("| claim | truth | holds | does not hold | undecided | false |\n" + "|---" * 6 + "|")
    with ProcessPoolExecutor() as pool:
        for text in pool.map(line, [name] * len(chosen), *zip(*chosen, strict=True)):
            print(f"| {text} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
