"""What a study costs: units of work by stage, with seconds and bytes known from results of this machine.

Results of the study itself are used where a stage has any, else those of two small studies of the same network, size of
images and measures, which are computed for it (and kept, like all results). Their seconds are extended to the planned
numbers as a straight line in what a stage's time grows with (`amount`).
"""

import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

from prunelens.profile import Profile
from prunelens.stages import Subject
from prunelens.store import origin
from prunelens.study import Study
from prunelens.variants import Variant
from prunelens.work import Work, notes

LONGEST = 120.0  # seconds that small studies may take in all
PRUNED = "structured_l1"  # the method of small studies
OF_TASKS = ("measure.mis", "measure.two_afc_accuracy", "measure.margin")

Note = dict[str, Any]
Known = Callable[[str, Subject], Note | None]


class Guess(NamedTuple):
    """What a unit of work would take."""

    seconds: float
    bytes: float


class Cost(NamedTuple):
    """What a stage costs: units of work, how many are computed, seconds of one; minutes and MB of the missing ones.

    Minutes are those on the wall, with several processes.
    """

    stage: str
    units: int
    computed: int
    seconds: float
    minutes: float
    megabytes: float


def costs(planned: Work, known: Known, guess: Callable[[str, Subject], Guess], processes: int) -> list[Cost]:
    """The cost of every stage.

    known: the note of a unit's artefact, None where it is missing. guess: what a missing unit would take.
    """
    found = []
    for stage, subjects in planned.items():
        notes = [known(stage, subject) for subject in subjects]
        guesses = [guess(stage, subject) for subject, note in zip(subjects, notes, strict=True) if note is None]
        seconds = [each.seconds for each in guesses]
        each = seconds or [note["seconds"] for note in notes]
        wall = makespan(seconds, processes if subjects != [None] else 1)
        size = sum(each.bytes for each in guesses) / 1e6
        found.append(Cost(stage, len(notes), len(notes) - len(guesses), sum(each) / max(len(each), 1), wall / 60, size))
    return found


def makespan(seconds: Iterable[float], processes: int) -> float:
    """When the last of some units ends, if each of several processes takes the next one as soon as it is free."""
    free = [0.0] * processes
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


# ------------------------------------------------------------------------------------------------ what is known


def here(note: Note) -> bool:
    """Whether a result was computed on this machine."""
    return note.get("machine") == origin()["machine"]


class Guesses:
    """What missing units would take, from results of this study or of smaller ones.

    studies: the planned one first; where a stage has no result there, the next ones are asked.
    """

    def __init__(self, studies: Sequence[Study]) -> None:
        self.planned = studies[0]
        self._points = [_points(study) for study in studies]

    def missing(self, planned: Work, find: Known) -> bool:
        """Whether there are stages of which nothing is known that have missing units."""
        seen = set().union(*self._points)
        return any(
            _kind(stage, subject) not in seen and find(stage, subject) is None
            for stage, subjects in planned.items()
            for subject in subjects
        )

    def __call__(self, stage: str, subject: Subject) -> Guess:
        kind, x = _kind(stage, subject), amount(self.planned, stage, subject)
        own, *others = [found.get(kind) for found in self._points]
        points = [own] if own else [point for point in others if point]
        if not points:
            return Guess(math.nan, math.nan)
        return Guess(_line(points, x), points[-1][2] * growth(self.planned, stage, points[-1][3]))


Point = tuple[float, float, float, Study]  # amount, seconds, bytes, and the study


def _points(study: Study) -> dict[str, Point]:
    """By kind of unit, the median amount, seconds and bytes of a study's results of this machine."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for stage, subject, note in notes(study):
        if here(note):
            row = amount(study, stage, subject), note["seconds"], note["bytes"]
            found.setdefault(_kind(stage, subject), []).append(row)
    return {kind: (*(median(column) for column in zip(*rows, strict=True)), study) for kind, rows in found.items()}


def _line(points: Sequence[Point], x: float) -> float:
    """Seconds at an amount: in proportion to one point, or on the line through two where it rises."""
    (x1, y1, *_), (x2, y2, *_) = points[0], points[-1]
    if x2 > x1 and y2 > y1:
        return y1 + (y2 - y1) * (x - x1) / (x2 - x1)
    return y2 * x / x2


def _kind(stage: str, subject: Subject) -> str:
    """Units of work of one kind take alike; the accuracy of a retrained network is known from its last epoch."""
    retrained = isinstance(subject, Variant) and subject.retrained
    return f"{stage}, retrained" if stage == "accuracy" and retrained else stage


def amount(study: Study, stage: str, subject: Subject) -> float:
    """What a unit's seconds grow with, in units that only count against each other."""
    profile, kind = study.profile, _kind(stage, subject)
    seen, scan = profile.interpretability, profile.sensitivity
    training = 3 * len(study.train) + len(study.validation)  # a gradient step is worth three forward passes
    if kind == "retrained":
        return subject.epochs * training
    return {
        "scratch": lambda: profile.network.scratch.epochs * training,
        "recalibrated": lambda: len(study.train),
        "accuracy": lambda: len(study.validation),
        "sensitivity": lambda: scan.images * len(scan.methods) * len(scan.rates) * _layers(study, subject),
        "sensitivity_dense": lambda: scan.images,
        "costs": lambda: profile.latency_repeats * sum(profile.latency_batches),
        "pictures": lambda: profile.visualization.steps,
        "measure.dissection": lambda: 1,  # as many stimuli in every study
        **dict.fromkeys(OF_TASKS, lambda: seen.tasks * seen.explanations),
        **dict.fromkeys(["embeddings", "extremes"], lambda: profile.data.stimulus_images),
    }.get(kind, lambda: profile.data.stimulus_images if kind.startswith("measure.") else 1)()


def _layers(study: Study, block: Subject) -> int:
    return int((study.layers.prunable & (study.layers.block == block)).sum())


def growth(study: Study, stage: str, small: Study) -> float:
    """How many times as many bytes a result has as in a small study."""
    now, then = study.profile, small.profile
    return {
        "extremes": now.interpretability.extremes / then.interpretability.extremes,
        "embeddings": now.data.stimulus_images / then.data.stimulus_images,
    }.get(stage, 1.0)


# ---------------------------------------------------------------------------------------------------- small studies


def calibrate(study: Study, name: str, out: str) -> list[Study]:
    """Compute one or two small studies; a second one where `LONGEST` allows it."""
    started, found = time.monotonic(), []
    for factor in (1, 3):
        small = Study(name, [*study.overrides, *small_numbers(study, factor)], study.device, out)
        small.compute()
        found.append(small)
        if 4 * (time.monotonic() - started) > LONGEST:
            break
    return found


def small_numbers(study: Study, factor: int) -> list[str]:
    """Overrides that make a study small: a few images, an epoch, one method, as many seeds as processes."""
    profile: Profile = study.profile
    classes, rate = len(study.classes["outputs"]), max(profile.pruning.rates)
    tasks = min(factor, profile.interpretability.tasks)
    stimuli = 8 * (profile.interpretability.explanations + 1)
    images = {
        "train": (factor * max(profile.retraining.batch_size, classes), len(study.train)),
        "validation": (factor * max(32, classes), len(study.validation)),
        "stimulus": (factor * max(stimuli, 10 * classes), profile.data.stimulus_images),
    }
    seeds = list(range(study.pipeline.processes()))
    grid = f"methods: [{PRUNED}], rates: [{rate}]"
    more = f", recalibrated: {{{grid}}}" if profile.pruning.recalibrated.methods else ""
    return [
        *(f"data.{name}_images={min(pair)}" for name, pair in images.items()),
        f"pruning={{{grid}, seeds: {seeds}{more}}}",
        f"sensitivity.rates=[{rate}]",
        f"sensitivity.images={min(8 * factor, profile.sensitivity.images)}",
        "retraining.epochs=1",
        *(["network.scratch.epochs=1"] if profile.network.scratch else []),
        f"interpretability.tasks={tasks}",
        f"visualization.steps={2 * factor}",
        f"visualization.methods=[{PRUNED}]",
        f"visualization.rates=[{rate}]",
        f"latency_repeats={factor}",
    ]
