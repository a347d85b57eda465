"""Stages: functions that compute one kind of artefact each, with keys that follow from what they declare.

    @stage(version=1, reads=("interpretability.tasks",), needs=("network", "stimuli"))
    def extremes(pipeline, variant): ...

The key of an artefact is made of the stage's version, the values of the profile's keys that it ``reads``, and what it
``needs``: other stages (their keys), or facts such as the content of the stimuli. So a stale result cannot be loaded,
and nobody writes keys by hand. A unit of work is (stage, subject): a variant, a block of the network, or None.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prunelens import engine, parts
from prunelens.profile import Profile
from prunelens.store import Content, Store, fingerprint, origin
from prunelens.variants import DENSE, Variant

Subject = Variant | str | None


@dataclass(frozen=True)
class Stage:
    """A kind of artefact.

    compute: (pipeline, subject) -> content. form: "arrays", "table" or "json".
    reads: dotted keys of the profile whose values matter.
    needs: names of stages of the same subject, of stages of the dense network as "dense.NAME", or of `FACTS`.
    subject: what it is computed for: "variant", "block" or "" (once a study).
    """

    name: str
    compute: Callable[["Pipeline", Any], Content]
    form: str
    version: int
    reads: tuple[str, ...]
    needs: tuple[str, ...]
    subject: str


Fact = Callable[["Pipeline", Any], Any]
STAGES: dict[str, Stage] = {}
FACTS: dict[str, Fact] = {}  # what results depend on beside stages: JSON values


def stage(
    *,
    version: int = 1,
    form: str = "arrays",
    reads: Iterable[str] = (),
    needs: Iterable[str] = (),
    subject: str = "variant",
) -> Callable[[Callable[["Pipeline", Any], Content]], Stage]:
    """Make a function (pipeline, subject) -> content the `Stage` of its name."""

    def register(compute: Callable[["Pipeline", Any], Content]) -> Stage:
        name = compute.__name__
        STAGES[name] = Stage(name, compute, form, version, tuple(reads), tuple(needs), subject)
        return STAGES[name]

    return register


def fact(function: Fact) -> Fact:
    """Register a function (pipeline, subject) -> JSON as the fact of its name."""
    FACTS[function.__name__] = function
    return function


class Pipeline:
    """The stages of one profile on one store: computed where they are missing, else loaded."""

    def __init__(self, profile: Profile, store: Store, device: str = "auto") -> None:
        self.profile, self.store = profile, store
        self._device = device
        self._keys: dict[tuple[str, Subject], dict] = {}
        self.memory: dict[str, Any] = {}  # what stages share in this process, such as image sets
        origin()  # of the code as it was imported

    @cached_property
    def device(self) -> str:
        """Where networks are computed: "cpu" or "cuda...". Asking imports PyTorch and sets it up.

        Raises:
            ValueError: there is no such device.
        """
        import torch

        found = self._device
        if found == "auto":
            found = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = torch.device(found).type
        except RuntimeError as error:
            raise ValueError(f"device: found {found!r}, expected auto, cpu or cuda") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device: found {found}, but PyTorch sees no GPU; expected auto or cpu")
        engine.prepare(found)
        return found

    @cached_property
    def parts(self) -> parts.Parts:
        """Descriptions of what the profile names, by kind and name, each tried once."""
        return parts.load(self.profile, self.store)

    def get(self, name: str, subject: Subject = None) -> Content:
        """Load what a stage has computed for a subject, or compute and keep it."""
        key, form = self.key(name, subject), STAGES[name].form
        compute = partial(STAGES[name].compute, self, subject)
        content = self.store.get(name, self._slug(subject), key, form, compute, device=self._device)
        if (left := self.checkpoint(name, subject)).exists():  # only now that the artefact is stored
            left.unlink()
        return content

    def has(self, name: str, subject: Subject = None) -> bool:
        """Whether a stage's artefact is there."""
        return self.store.has(name, self._slug(subject), self.key(name, subject), STAGES[name].form)

    def note(self, name: str, subject: Subject = None) -> dict[str, Any] | None:
        """What is known of a stage's artefact: see `Store.note`."""
        return self.store.note(name, self._slug(subject), self.key(name, subject), STAGES[name].form)

    def processes(self) -> int:
        """How many subjects are computed at once."""
        # PyTorch has no gradients in processes that are forked where it has used a GPU.
        import torch

        return 1 if self.device != "cpu" or torch.cuda.is_available() else engine.cores()

    def ensure(
        self,
        names: str | Sequence[str],
        subjects: Iterable[Subject],
        label: str = "",
        before: Callable[[], object] | None = None,
    ) -> None:
        """Compute what is missing of some stages' artefacts, several subjects at once on a CPU.

        before: called first where something is missing, for what all processes share.
        """
        names = [names] if isinstance(names, str) else names
        found = {s: [name for name in names if not self.has(name, s)] for s in dict.fromkeys(subjects)}
        units = [(missing, subject) for subject, missing in found.items() if missing]
        if units:
            processes = self.processes()
            if before:
                before()
            engine.run(self._compute, units, label or names[0], processes)

    def _compute(self, unit: tuple[list[str], Subject]) -> None:
        names, subject = unit
        for name in names:
            self.get(name, subject)

    def key(self, name: str, subject: Subject = None) -> dict:
        """What an artefact's content depends on, as JSON."""
        if (name, subject) not in self._keys:
            found = STAGES[name]
            self._keys[name, subject] = {
                "version": found.version,
                "reads": {key: self.profile.value(key) for key in found.reads},
                "needs": {need: self._needed(need, subject) for need in found.needs},
            }
        return self._keys[name, subject]

    def _needed(self, need: str, subject: Subject) -> Any:
        if need.startswith("dense."):
            need, subject = need.removeprefix("dense."), self.dense
        if need in FACTS:
            return FACTS[need](self, subject)
        return fingerprint(self.key(need, subject if STAGES[need].subject else None))

    @property
    def dense(self) -> Variant:
        """The trained network that all others start from."""
        return Variant(DENSE, seed=self.profile.pruning.seeds[0])

    def checkpoint(self, name: str, subject: Subject = None) -> Path:
        """The file from which an interrupted computation of an artefact can go on."""
        return self.store.path(name, self._slug(subject), self.key(name, subject), ".checkpoint")

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute something once in this process."""
        if name not in self.memory:
            self.memory[name] = compute()
        return self.memory[name]

    @staticmethod
    def _slug(subject: Subject) -> str:
        return str(subject) if subject is not None else "study"
