"""Variants: the networks of a profile, each a method, a rate, a schedule and a seed."""

from dataclasses import dataclass

from prunelens.profiles import Grid, Profile

CONTROLS = ("dense", "dense_retrained", "random_init")  # methods that prune nothing
SUFFIXES = ("_unmasked", "_reinitialised")


@dataclass(frozen=True)
class Variant:
    """One network of the study.

    method: one of CONTROLS, "shuffled_weights" (an anchor of the MIS), or a pruning method, which may have a suffix:
        "_unmasked" is retrained without its masks, as the paper's code retrained connection sparsity;
        "_reinitialised" keeps its masks and draws all weights anew.
    rate: nominal pruning rate.
    schedule: "none" (not retrained), "recalibrated" (BatchNorm's statistics measured anew, no gradient step),
        "one_shot", "iterative", or "rewound" (one-shot, with the learning rates of the dense network's own training).
    seed: of all that is random.
    """

    method: str
    rate: float = 0.0
    schedule: str = "none"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.method}-{self.rate:.2f}-{self.schedule}-s{self.seed}"

    @property
    def pruning_method(self) -> str:
        """The method's name without a suffix."""
        return next((self.method.removesuffix(end) for end in SUFFIXES if self.method.endswith(end)), self.method)

    @property
    def masked(self) -> bool:
        return not self.method.endswith("_unmasked")

    @property
    def retrained(self) -> bool:
        return self.schedule in ("one_shot", "iterative", "rewound")


def variants(profile: Profile) -> list[Variant]:
    """The networks that all measures judge: controls first, then the grid of methods and rates."""
    grid, first = profile.pruning, profile.pruning.seeds[0]
    found = [Variant("dense", seed=first), *(Variant("random_init", seed=seed) for seed in grid.seeds)]
    found += [Variant("dense_retrained", 0.0, "one_shot", seed) for seed in grid.seeds]
    for method in grid.methods:
        seeds = [first] if method in grid.first_seed_only else grid.seeds
        # Only random methods differ between seeds before retraining.
        drawn = seeds if method.endswith("_random") else [first]
        found += [Variant(method, rate, "none", seed) for rate in grid.rates for seed in drawn]
        found += [Variant(method, rate, "one_shot", seed) for rate in grid.rates for seed in seeds]
    found += _each(grid.unmasked, "one_shot", grid.seeds, "_unmasked")
    return found + _each(grid.iterative, "iterative", grid.seeds)


def more_variants(profile: Profile) -> list[Variant]:
    """Further networks, judged by accuracy alone: what else than a method's masks could explain its accuracy?"""
    grid = profile.pruning
    found = _each(grid.recalibrated, "recalibrated", grid.seeds[:1])
    found += _each(grid.controls, "one_shot", grid.seeds)
    found += _each(grid.reinitialised, "one_shot", grid.seeds, "_reinitialised")
    return found + _each(grid.rewound, "rewound", grid.seeds)


def _each(grid: Grid, schedule: str, seeds: list[int], suffix: str = "") -> list[Variant]:
    return [
        Variant(method + suffix, rate, schedule, seed)
        for method in grid.methods
        for rate in grid.rates
        for seed in seeds
    ]
