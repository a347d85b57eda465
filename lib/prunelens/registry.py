"""Whatever a profile names: a built-in by its name, a user's by its import path.

Methods, similarities, measures, architectures, image sources and claims are functions or classes. What tables and
figures need to know of one (label, color, whether it draws random numbers, ...) stands in its `Description`.
"""

import difflib
import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

Part = TypeVar("Part", bound=Callable[..., Any])

# By kind: the module whose described attributes are the built-ins.
KINDS = {
    "method": "prunelens.pruning.methods",
    "similarity": "prunelens.units.similarities",
    "measure": "prunelens.units.measures",
    "architecture": "prunelens.networks.architectures",
    "images": "prunelens.images.sources",
    "claim": "prunelens.analysis.claims",
}

NEEDS = {"images", "sensitivity", "concepts", "temperature"}
MARKERS = ("", *"ov^<>sDdpPhH8*Xx+.12348|_")


@dataclass(frozen=True)
class Description:
    """What the study knows of a part without running it.

    label: its name in tables and figures. color, marker: in figures (empty: the next free ones).
    random: it draws random numbers, so that other seeds give other results.
    needs: what it asks for. A method: "images" (calibration images, gradients), "sensitivity" (the scan of single
        layers). A measure: "concepts" (known concepts of the images), "temperature". An architecture: "images" (on
        which BatchNorm is inserted).
    also: names of parameters that a method prunes beside the weights of the prunable convs.
    limits, chance: of a measure's axis, and the value of a unit that says nothing; None: unknown.
    version: raise it when the part's results change.
    """

    label: str = ""
    color: str = ""
    marker: str = ""
    random: bool = False
    needs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    chance: float | None = None
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def __post_init__(self) -> None:
        if self.color and not re.fullmatch(r"#[0-9A-Fa-f]{6}", self.color):
            raise ValueError(f"@describe: found color {self.color!r}, expected such as '#009E73'")
        if self.marker not in MARKERS:
            raise ValueError(f"@describe: found marker {self.marker!r}, expected one of {' '.join(MARKERS)}")
        if not isinstance(self.needs, tuple) or not set(self.needs) <= NEEDS:
            raise ValueError(f"@describe: found needs={self.needs!r}, expected a tuple of {', '.join(sorted(NEEDS))}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Description":
        """The inverse of `to_json`: lists become tuples again."""
        known = {field.name for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})


def describe(label: str, **more: Any) -> Callable[[Part], Part]:
    """Decorate a part with its `Description`; the part itself is returned as it is."""

    def decorate(part: Part) -> Part:
        part.description = Description(label, **more)  # type: ignore[attr-defined]
        return part

    return decorate


def description(part: object, name: str) -> Description:
    """A part's description; one without a decorator is labelled by its name."""
    found = _own(part) or Description()
    return found if found.label else replace(found, label=name.rpartition(".")[2].replace("_", " "))


def _own(part: object) -> Description | None:
    found = getattr(part, "description", None)
    return found if isinstance(found, Description) else None


def is_built_in(name: str) -> bool:
    """Whether a name is that of a built-in; a user's part has the dots of an import path."""
    return "." not in name


def find(kind: str, name: str) -> Any:
    """The part of that kind and name.

    Raises:
        ValueError: no built-in has the name, or the import path names nothing that can be called; in one line.
    """
    if is_built_in(name):
        module = importlib.import_module(KINDS[kind])
        if name in built_ins(kind):
            return getattr(module, name)
        near = difflib.get_close_matches(name, built_ins(kind), 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(built_ins(kind))}"
        raise ValueError(f"{kind} {name}: unknown, {hint} (or the import path of your own: module.name)")
    module_name, _, attribute = name.rpartition(".")
    try:
        part = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # a user's module can fail in any way while it is imported
        raise ValueError(f"{kind} {name}: cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(part):
        raise ValueError(f"{kind} {name}: found a {type(part).__name__}, expected a function or a class")
    return part


def built_ins(kind: str) -> list[str]:
    """Names of the built-ins of a kind: lower-case attributes of the kind's module that have a description."""
    module = importlib.import_module(KINDS[kind])
    return [name for name, part in vars(module).items() if name.islower() and _own(part)]


def own_source(kind: str, name: str) -> str | None:
    """`source_hash` of a user's part; None for a built-in, whose results follow from versions."""
    return None if is_built_in(name) else source_hash(kind, name)


def source_hash(kind: str, name: str) -> str:
    """Hash of the source file of a part's module, without importing that module itself.

    Raises:
        ValueError: the module, or its source, cannot be found.
    """
    module = KINDS[kind] if is_built_in(name) else name.rpartition(".")[0]
    try:
        spec = importlib.util.find_spec(module)
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()  # type: ignore[union-attr, arg-type]
    except Exception as error:  # a missing parent package, a frozen or built-in module, an unreadable file
        raise ValueError(f"{kind} {name}: no source file of module {module} ({type(error).__name__})") from error
