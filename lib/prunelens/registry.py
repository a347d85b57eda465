"""Whatever a profile names: a built-in by its name, a user's by its import path.

Methods, similarities, measures, architectures, image sources and claims are functions or classes. What tables and
figures need to know of one (label, color, whether it draws random numbers, ...) stands in its `Description`.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib.machinery import ModuleSpec, PathFinder
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

# Whose code is not a user's: the standard library, installed packages, this library.
BUILT_IN = ("built-in", "frozen")
INSTALLED = (*site.getsitepackages(), site.getusersitepackages())
FOREIGN = (sysconfig.get_path("stdlib"), *INSTALLED, str(Path(__file__).parent))

NEEDS = {"images", "sensitivity", "concepts", "temperature"}
MARKERS = ("", *"ov^<>sDdpPhH8*Xx+.12348|_")


TOP1 = "Top-1 accuracy"  # the label of accuracy


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
    module, _, attribute = name.rpartition(".")
    imported = module in sys.modules
    try:
        part = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a user's module can fail in any way while it is imported
        raise ValueError(f"{kind} {name}: cannot be imported ({type(error).__name__}: {error})") from error
    if not imported:
        check_unchanged(kind, name)
    if not callable(part):
        raise ValueError(f"{kind} {name}: found a {type(part).__name__}, expected a function or a class")
    return part


def built_ins(kind: str) -> list[str]:
    """Names of the built-ins of a kind: lower-case attributes of the kind's module that have a description."""
    module = importlib.import_module(KINDS[kind])
    return [name for name, part in vars(module).items() if name.islower() and _own(part)]


_first_read: dict[tuple[str, Path], str] = {}  # hash by name and file of a user's part


def own_source(kind: str, name: str) -> str | None:
    """Hash of what a user's part is made of: its module, and all modules of the user's own that this imports.

    As first read in this process, without importing that module: code that was imported does not change with its file.
    None for a built-in, whose results follow from versions.

    Raises:
        ValueError: the module, or its source, cannot be found.
    """
    return None if is_built_in(name) else _source(kind, name)[0]


def check_unchanged(kind: str, name: str) -> None:
    """Refuse a user's part whose source is no longer what this process read first: which of both runs is not known.

    Raises:
        ValueError: it has changed; or as `own_source`.
    """
    first, now = _source(kind, name)
    if first != now:
        raise ValueError(f"{kind} {name}: its source has changed since it was read; start again (restart the kernel)")


def _source(kind: str, name: str) -> tuple[str, str]:
    """Hashes of what a user's part is made of: as first read, and now."""
    module, sources = name.rpartition(".")[0], {}
    try:
        if not _read(module, module.split(".")[0], sources):
            raise ModuleNotFoundError
    except Exception as error:  # a missing package, a frozen or built-in module, an unreadable file
        raise ValueError(f"{kind} {name}: no source file of module {module} ({type(error).__name__})") from error
    now = hashlib.sha256(b"".join(sources.values())).hexdigest()
    return _first_read.setdefault((name, next(iter(sources))), now), now


def _read(module: str, own: str, sources: dict[Path, bytes]) -> bool:
    """Add the source of a module, of its packages, and of all of a user's own modules that these import.

    own: the top-level name of the user's part. Returns whether the module has a source. Nothing is imported.
    """
    names, read = module.split("."), False
    spec = importlib.util.find_spec(names[0])
    for n in range(1, len(names) + 1):
        if n > 1:
            spec = PathFinder.find_spec(".".join(names[:n]), spec.submodule_search_locations or [])
        if spec is None:  # what is imported from a module is no module
            return False
        file = Path(spec.origin or "")
        read = file.suffix == ".py"
        if read and file not in sources:
            sources[file] = file.read_bytes()
            for imported in _imports(sources[file], spec):
                if _is_own(imported.split(".")[0], own):
                    _read(imported, own, sources)
    return read


def _imports(source: bytes, spec: ModuleSpec) -> Iterator[str]:
    """Absolute names of all that a module imports, be they modules or not; none if it is no Python."""
    try:
        statements = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = "." * statement.level + (statement.module or "")
            base = importlib.util.resolve_name(base, spec.parent)
            yield from (f"{base}.{alias.name}" for alias in statement.names)


def _is_own(top: str, own: str) -> bool:
    """Whether a top-level module is the user's own: that of the part, or none of `FOREIGN`."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a notebook's __main__
        return False
    places = [*(spec.submodule_search_locations or [spec.origin])] if spec and spec.origin not in BUILT_IN else []
    return top == own or any(not any(Path(place).is_relative_to(f) for f in FOREIGN) for place in places)
