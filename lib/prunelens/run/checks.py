"""What is checked before anything is executed: the request, the notebooks, their kernels, and all a profile names."""

import ast
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunelens import paths
from prunelens.run.messages import one_line, say

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from prunelens.study import Study


class UsageError(Exception):
    """What was asked for cannot be done, says in one line why; nothing was computed."""


class Request(NamedTuple):
    """What the user asked for on the command line."""

    profile: str
    overrides: list[str]
    device: str
    out: str

    @property
    def parameters(self) -> dict[str, Any]:
        """What every notebook's cell tagged ``parameters`` takes."""
        return self._asdict()

    def command(self, notebooks: Iterable[Path]) -> str:
        """The command that runs these notebooks as this request does."""
        words = ["./run_all.sh", self.profile, "--notebooks", ",".join(path.name[:2] for path in notebooks)]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += ["--device", self.device] if self.device != "auto" else []
        words += ["--out", self.out] if self.out else []
        return shlex.join(words)


def study(request: Request) -> "Study":
    """The study that was asked for, once all that its profile names has been found and tried (else: UsageError)."""
    from prunelens.study import Study
    from prunelens.work import foreign

    try:
        found = Study(*request)
        if request.device not in ("auto", "cpu"):
            _ = found.pipeline.device  # raises where there is none
        found.check()
        others = foreign(found)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(one_line(error)) from error
    if others:
        name, differs = next(iter(others.items()))
        say(f"prunelens: {len(others)} stored results come from other code or packages, such as {name} ({differs})")
    return found


def stages(wanted: str | None) -> list[str] | None:
    """The stages that a list like "retrained,accuracy" names (else: UsageError); None: all."""
    from prunelens.study import check_stages

    found = wanted.split(",") if wanted else None
    try:
        check_stages(found or ())
    except ValueError as error:
        raise UsageError(str(error)) from error
    return found


def notebooks(wanted: str, parameters: Iterable[str]) -> list[Path]:
    """The notebooks that ``--notebooks`` names, in order, each found fit for these parameters (else: UsageError)."""
    found = select(sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), wanted)
    for path in found:
        _check(path, parameters)
    return found


def select(found: list[Path], wanted: str) -> list[Path]:
    """The notebooks that a list like "01,05" or "00,03-06" names (else: UsageError), in order; all if it is empty."""
    numbers = {int(path.name[:2]): path for path in found}
    there = ", ".join(f"{number:02d}" for number in numbers)
    if not numbers:
        raise UsageError(f"no notebooks in {paths.NOTEBOOKS}; expected NN_name.ipynb")
    chosen: set[int] = set() if wanted else set(numbers)
    for entry in wanted.split(",") if wanted else ():
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", entry, re.ASCII)
        if not match:
            raise UsageError(f"--notebooks {wanted}: {entry!r} is no number and no range such as 03-06")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UsageError(f"--notebooks {wanted}: the range {entry.strip()} runs backwards")
        if missing := {first, last} - set(numbers):
            raise UsageError(f"--notebooks {wanted}: no notebook {min(missing):02d}; there are {there}")
        chosen.update(number for number in numbers if first <= number <= last)
    return [numbers[number] for number in sorted(chosen)]


def _check(path: Path, parameters: Iterable[str]) -> None:
    """Refuse a notebook without these parameters: papermill only warns. And one that is none, or has no kernel."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises nearly anything
        raise UsageError(f"{path.name}: not a readable notebook: {one_line(error)}") from error
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise UsageError(f"{path.name}: no cell is tagged 'parameters'")
    _check_kernel(path.name, kernel_name(notebook))
    known = assigned(tagged[0].source)
    if unknown := [name for name in parameters if name not in known]:
        there = ", ".join(known) or "none"
        raise UsageError(f"{path.name}: unknown parameter {', '.join(unknown)}; its parameters cell has: {there}")


def assigned(source: str) -> list[str]:
    """The names that a cell assigns, none if it is no Python. (Papermill's own reading misses some lines.)"""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return []
    targets = [s.target for s in statements if isinstance(s, ast.AnnAssign)]
    targets += [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def kernel_name(notebook: "NotebookNode") -> str:
    """The kernel that a notebook names."""
    return notebook.metadata.get("kernelspec", {}).get("name", "python3")


def _check_kernel(notebook: str, name: str) -> None:
    """Refuse a kernel that is not there, and a ``python3`` that is not the Python that runs this."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        there = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise UsageError(f"{notebook}: no kernel {name!r}; there are: {there}") from None
    program = Path(spec.argv[0])
    if name == "python3" and program.is_absolute() and program != Path(sys.executable):
        raise UsageError(
            f"{notebook}: kernel python3 ({spec.resource_dir}) starts {program}, expected {sys.executable}; "
            "unset JUPYTER_PATH and set JUPYTER_PREFER_ENV_PATH=1"
        )
