"""Variants: the networks of a study, as fields."""

from dataclasses import asdict, dataclass

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
    weights: what it starts from: "trained" (the dense network's), "random" (drawn anew, the masks kept) or
        "shuffled" (dealt to other places of their layer).
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
