"""Execute one notebook with papermill, strictly: whatever ends it early is an error that names the cell."""

import logging
import re
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from prunelens import paths
from prunelens.run.checks import kernel_name
from prunelens.run.messages import clock, display, first_line, say
from prunelens.store import write_text

HEARTBEAT = 30.0  # seconds between the lines that say a long cell is still running
TAIL = 25  # lines of a failing cell's output that are shown
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# In warnings of the library, which the log alone would hide:
NOTABLE = re.compile(r"is damaged|is no checkpoint|unreadable files|are not numbers")


class NotebookError(Exception):
    """A notebook did not run to its end."""


class EarlyExit(Exception):
    """A cell ended the notebook: sys.exit(), exit() or quit()."""


def execute(path: Path, copies: Path, parameters: dict[str, Any], label: str) -> None:
    """Execute one notebook; its copy appears in ``copies`` only once it is complete.

    Raises:
        NotebookError: a cell raised, ended the notebook or was not executed; the kernel died; or what was executed
            could not be kept.
        OSError: its log could not be written.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # it was readable when the run began
        raise NotebookError(f"no cell, it is not readable: {type(error).__name__}: {error}") from error
    partial = copies / f"{path.stem}.failed.ipynb"
    with tempfile.TemporaryDirectory() as scratch, (copies / f"{path.stem}.log").open("w", encoding="utf-8") as log:
        saved = Path(scratch) / path.name
        with Watch(label, log, len(notebook.cells)) as watch:
            try:
                _papermill(notebook, saved, parameters, watch)
                executed = nbformat.read(saved, as_version=4)
                _check_executed(executed)
                _keep(executed, copies / path.name, path)
            except BaseException as error:
                _keep_partial(saved, partial, path)
                if isinstance(error, Exception) and not isinstance(error, NotebookError):
                    raise NotebookError(_explain(error, watch)) from error
                raise
    partial.unlink(missing_ok=True)


def _papermill(notebook: NotebookNode, saved: Path, parameters: dict[str, Any], watch: "Watch") -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs is reported here, once
    papermill.execute_notebook(
        notebook,
        saved,
        parameters=parameters,
        kernel_name=kernel_name(notebook),
        language="python",
        cwd=paths.ROOT,
        progress_bar=False,
        stdout_file=watch,
        stderr_file=watch,
        start_timeout=300,  # seconds; a busy machine's imports
        iopub_timeout=120,
        shutdown_kernel="immediate",  # nothing is left to be done there
        # An interrupted kernel would log tracebacks of its own, and every kernel writes a history in the home folder.
        extra_arguments=["--log-level=50", "--HistoryManager.hist_file=:memory:"],
        coalesce_streams=True,  # in the executed copy a progress bar is its last state
        on_cell_start=watch.cell_starts,
        on_cell_executed=watch.cell_executed,
    )


def _check_executed(notebook: NotebookNode) -> None:
    """Refuse cells that were not executed: papermill ends well all the same."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            raise EarlyExit(f"was not executed: {first_line(cell.source)}")


def _keep(executed: NotebookNode, copy: Path, path: Path) -> None:
    executed = _tidied(executed, path, copy)
    try:
        write_text(copy.with_suffix(".html"), to_html(executed, path.stem))
        write_text(copy, nbformat.writes(executed))
    except Exception as error:  # the disk, or what turns a notebook into HTML
        raise NotebookError(f"no cell, its copy could not be kept: {type(error).__name__}: {error}") from error


def _keep_partial(saved: Path, partial: Path, path: Path) -> None:
    """Keep what a failed notebook got to; an interruption may have left nothing readable."""
    try:
        write_text(partial, nbformat.writes(_tidied(nbformat.read(saved, as_version=4), path, partial)))
    except (OSError, ValueError, AttributeError):
        partial.unlink(missing_ok=True)


def _tidied(notebook: NotebookNode, path: Path, copy: Path) -> NotebookNode:
    """Papermill notes where it read and wrote; keep no path of this machine."""
    notebook.metadata.papermill.update(input_path=f"notebooks/{path.name}", output_path=display(copy))
    return notebook


def to_html(notebook: NotebookNode, title: str) -> str:
    """One page with its images in it, which runs no script and reads no other file."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_file=str(files("prunelens").joinpath("data/notebook.html.j2")))
    exporter.log.setLevel(logging.ERROR)  # it warns of every figure that lacks alternative text
    return exporter.from_notebook_node(notebook, {"metadata": {"name": title}})[0]


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
        """Called by nbclient."""
        if "injected-parameters" not in cell.metadata.get("tags", []):
            self.number += 1
        self.cell, self.last_line, self._cell_start = cell, "", time.monotonic()
        if cell.cell_type == "code":
            at = f"cell {self.number} of {self.cells} at {time.strftime('%H:%M:%S')}"
            self.log.write(f"\n--- {at}: {first_line(cell.source)}\n")

    def cell_executed(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        """Called by nbclient. Papermill takes an exit with status 0 for success; here every exit is an error."""
        reply = execute_reply["content"]
        asked = any(payload.get("source") == "ask_exit" for payload in reply.get("payload", []))
        if asked or reply.get("ename") == "SystemExit":
            raise EarlyExit("ended the notebook early (exit)")

    def write(self, text: str) -> None:
        """Log every line; of one that overwrites itself (a progress bar), one state in ten seconds."""
        for line in re.split(r"(?<=\n)", ANSI.sub("", text).replace("\r\n", "\n")):
            shown = next((state.strip() for state in reversed(line.split("\r")) if state.strip()), "")
            self.last_line = shown or self.last_line
            if NOTABLE.search(line):
                say(f"{self.label}: {shown}")
            if "\r" not in line:
                self.log.write(line)
            elif shown and (line.endswith("\n") or time.monotonic() - self._last_progress >= 10):
                self._last_progress = time.monotonic()
                self.log.write(shown + "\n")
        self.log.flush()

    def flush(self) -> None:
        """Written text is always flushed."""

    def where(self) -> str:
        """The cell that is executed."""
        return f"cell {self.number} of {self.cells}" if self.number else "no cell, the kernel is not ready"

    def _beat(self) -> None:
        said = time.monotonic()
        while not self._stop.wait(HEARTBEAT / 30):
            now = time.monotonic()
            if now - max(said, self._cell_start) >= HEARTBEAT:
                said = now
                output = f": {self.last_line[:100]}" if self.last_line else ""
                say(f"{self.label}: in {self.where()} for {clock(now - self._cell_start)}{output}")


def _explain(error: Exception, watch: Watch) -> str:
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
    output = "".join(f"\n  | {line}" for line in _output(watch.cell)[-TAIL:])
    return f"{watch.where()}{source}: {reason}{output}"


def _output(cell: NotebookNode | None) -> list[str]:
    """The lines a cell wrote and, last, the traceback it ended with."""
    outputs = cell.get("outputs", []) if cell else []
    written = "".join(o.text for o in outputs if o.output_type == "stream")
    raised = "\n".join("\n".join(o.traceback) for o in outputs if o.output_type == "error")
    return [line.rstrip() for line in ANSI.sub("", f"{written}\n{raised}").splitlines() if line.strip()]
