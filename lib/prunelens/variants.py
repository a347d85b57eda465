"""Variants: the networks of a study, as fields."""

from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, replace

from prunelens.profile import Grid, Profile

DENSE = "dense"
RETRAINED = ("one_shot", "iterative", "rewound")  # schedules with gradient steps
FIELDS = ["method", "rate", "schedule", "seed", "masked", "weights", "epochs"]
CONFIGURATION = [field for field in FIELDS if field != "seed"]


@dataclass(frozen=True)
class Variant:
    """One network of the study.

    method: "dense", or the pruning method's name.
    rate: nominal pruning rate.
    schedule: "none" (not retrained), "recalibrated" (BatchNorm statistics measured anew, no gradient step),
        "one_shot", "iterative", or "rewound" (one-shot with the learning rates of the dense network's training).
    seed: of all that is random.
    masked: False for a network that is retrained without its masks, as the paper's code did.
    weights: what it starts from: "trained" (the dense network's) or "random" (drawn anew, the masks kept).
    epochs: of retraining, in all; 0 where there is none.
    """

    method: str
    rate: float = 0.0
    schedule: str = "none"
    seed: int = 0
    masked: bool = True
    weights: str = "trained"
    epochs: int = 0

    def __str__(self) -> str:
        """A name for files and logs; nothing reads fields from it."""
        parts = [self.method, f"{self.rate:.2f}", self.schedule, f"s{self.seed}"]
        parts += [] if self.masked else ["unmasked"]
        parts += [] if self.weights == "trained" else [self.weights]
        return "-".join(parts + ([f"e{self.epochs}"] if self.epochs else []))

    @property
    def retrained(self) -> bool:
        return self.schedule in RETRAINED

    def fields(self) -> dict[str, object]:
        """The columns of this network in every table."""
        return asdict(self)


def variants(profile: Profile, random: Container[str]) -> list[Variant]:
    """The networks that all measures judge: controls first, then the grid of methods and rates.

    random: the methods that draw random numbers; others prune the same weights with every seed.
    """
    grid, seeds, epochs = profile.pruning, profile.pruning.seeds, profile.retraining.epochs
    found = [Variant(DENSE, seed=seeds[0]), *(Variant(DENSE, seed=seed, weights="random") for seed in seeds)]
    found += [Variant(DENSE, 0.0, "one_shot", seed, epochs=epochs) for seed in seeds]
    for method in grid.methods:
        drawn = seeds if method in random else seeds[:1]
        found += [Variant(method, rate, "none", seed) for rate in grid.rates for seed in drawn]
        found += [Variant(method, rate, "one_shot", seed, epochs=epochs) for rate in grid.rates for seed in seeds]
    unmasked = _each(grid.unmasked, "one_shot", seeds, epochs)
    found += [replace(variant, masked=False) for variant in unmasked]
    found += _each(grid.iterative, "iterative", seeds, epochs)
    return list(dict.fromkeys([*found, *_each(grid.unretrained, "none", seeds[:1], 0)]))


def accuracy_variants(profile: Profile) -> list[Variant]:
    """Further networks, judged by accuracy alone: what else than a method's masks could explain its accuracy?"""
    grid, seeds, epochs = profile.pruning, profile.pruning.seeds, profile.retraining.epochs
    found = []
    if grid.recalibrated.methods:
        found = [Variant(DENSE, 0.0, "recalibrated", seeds[0]), *_each(grid.recalibrated, "recalibrated", seeds[:1], 0)]
    found += _each(grid.controls, "one_shot", seeds, epochs)
    reinitialized = _each(grid.reinitialized, "one_shot", seeds, epochs)
    found += [replace(variant, weights="random") for variant in reinitialized]
    found += _each(grid.rewound, "rewound", seeds, epochs)
    found += [
        replace(variant, epochs=2 * epochs)
        for variant in variants(profile, ())
        if grid.doubled and variant.epochs and variant.seed == seeds[0] and variant.rate in (0, *grid.doubled)
    ]
    return list(dict.fromkeys(found))


def _each(grid: Grid, schedule: str, seeds: Iterable[int], epochs: int) -> list[Variant]:
    return [
        Variant(method, rate, schedule, seed, epochs=epochs)
        for method in grid.methods
        for rate in grid.rates
        for seed in seeds
    ]


def most_pruned(profile: Profile) -> list[Variant]:
    """The dense network, and each method's one-shot network of the highest rate and the first seed."""
    grid = profile.pruning
    return [Variant(DENSE, seed=grid.seeds[0]), *_first(profile, grid.methods, [max(grid.rates)])]


def drawn(profile: Profile) -> list[Variant]:
    """Networks whose units are drawn, dense to most pruned: retrained ones of the first seed that the grid has."""
    grid, wanted = profile.pruning, profile.visualization
    methods = [method for method in wanted.methods if method in grid.methods]
    rates = [rate for rate in wanted.rates if rate in grid.rates]
    return [Variant(DENSE, seed=grid.seeds[0]), *_first(profile, methods, rates)]


def _first(profile: Profile, methods: list[str], rates: list[float]) -> list[Variant]:
    """One-shot networks of the first seed."""
    return _each(Grid(methods=methods, rates=rates), "one_shot", profile.pruning.seeds[:1], profile.retraining.epochs)
