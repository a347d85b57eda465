"""Execute notebooks one after the other, and say how far the run is and how to go on.

Everything lands in figures/PROFILE: ``notebooks/NN_name.ipynb`` (executed), its ``.html`` and ``.log``, and
``index.html``. A notebook that fails is kept as ``NN_name.failed.ipynb``; what was finished stays.
"""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

from prunelens.run.checks import Request
from prunelens.run.execution import NotebookError, execute
from prunelens.run.messages import clock, count, display, one_line, say


def run(notebooks: list[Path], folder: Path, request: Request) -> int:
    """Execute notebooks in order, a line when each starts and ends; returns the exit status.

    A notebook that fails does not keep the later ones from running, as each computes what it needs; but if the first
    one fails, nothing has worked yet, and that is the end.
    """
    finished: list[Path] = []
    failed: list[Path] = []
    start, began = time.monotonic(), time.time()
    say(f"prunelens: profile {request.profile}, {count(notebooks)} -> {display(folder)}")
    try:
        with _interruptible():
            _run(notebooks, folder, request, finished, failed)
    except KeyboardInterrupt:  # in a notebook or between two
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of what nbclient was waiting for
        say(f"prunelens: interrupted after {clock(time.monotonic() - start)}", sys.stderr)
        _say_what_is_left(notebooks, finished, failed, folder / "notebooks", request)
        _write_index(folder)
        return 130
    if failed:
        names = ", ".join(path.stem for path in failed)
        say(f"prunelens: {len(failed)} of {count(notebooks)} FAILED: {names}", sys.stderr)
        _say_what_is_left(notebooks, finished, failed, folder / "notebooks", request)
        return 1
    say(f"prunelens: {count(notebooks)} done in {clock(time.monotonic() - start)}: {display(folder / 'index.html')}")
    _say_whether_reproduced(folder, request, began)
    return 0


def _say_whether_reproduced(folder: Path, request: Request, began: float) -> None:
    """Say in one line whether a run agrees with its reference, where there is one and the run has judged claims."""
    from prunelens import profile
    from prunelens.run import verify

    try:
        if (folder / "evidence" / "claims.json").stat().st_mtime < began:
            return
        verify.reference(folder.name)
    except OSError:
        return
    try:
        compared = verify.compare(folder, profile.load(request.profile, request.overrides))
        say(verify.summary(compared, folder.name))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        say(f"verify: the run could not be compared: {one_line(error)}")


def _run(notebooks: list[Path], folder: Path, request: Request, finished: list[Path], failed: list[Path]) -> None:
    """Execute notebooks; those that ended early, an interrupted one among them, are appended to ``failed``."""
    copies, start = folder / "notebooks", time.monotonic()
    seconds = {path.stem: previous_seconds(copies / path.name) for path in notebooks}
    for position, path in enumerate(notebooks):
        label = f"[{position + 1}/{len(notebooks)}] {path.stem}"
        last_time = f", took {clock(seconds[path.stem])} last time" if seconds[path.stem] else ""
        say(f"{label}: started {time.strftime('%H:%M:%S')}{last_time}{to_go(notebooks[position:], seconds)}")
        started = time.monotonic()
        try:
            execute(path, copies, request.parameters, label)
        except KeyboardInterrupt:
            failed.append(path)
            raise
        except (NotebookError, OSError) as error:  # OSError: its log could not be written
            say(f"{label}: FAILED after {clock(time.monotonic() - started)} in {error}", sys.stderr)
            failed.append(path)
        else:
            finished.append(path)
            seconds[path.stem] = time.monotonic() - started
            elapsed = f"elapsed {clock(time.monotonic() - start)}"
            say(f"{label}: done in {clock(seconds[path.stem])}, {elapsed}{to_go(notebooks[position + 1 :], seconds)}")
        _write_index(folder)
        if failed and position == 0:
            return


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and on SIGTERM (a batch system's), so that what is left can be said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _write_index(folder: Path) -> None:
    """Write index.html. Where it cannot be written, that is said and the run goes on: all it shows lies beside it."""
    from prunelens.report.page import write_index

    try:
        write_index(folder, folder.name)
    except OSError as error:
        say(f"prunelens: {one_line(error)}", sys.stderr)


def _say_what_is_left(
    notebooks: list[Path], finished: list[Path], failed: list[Path], copies: Path, request: Request
) -> None:
    kept = [copies / f"{path.stem}.{suffix}" for path in failed for suffix in ("failed.ipynb", "log")]
    if kept := [display(file) for file in kept if file.exists()]:
        say(f"  kept, as far as it went: {', '.join(kept)}", sys.stderr)
    if finished:
        say(f"  finished: {', '.join(path.stem for path in finished)}", sys.stderr)
    left = [path for path in notebooks if path not in finished]
    if not_run := [path.stem for path in left if path not in failed]:
        say(f"  not run: {', '.join(not_run)}", sys.stderr)
    say(f"  to go on (what was computed is loaded): {request.command(left)}", sys.stderr)


def to_go(notebooks: list[Path], seconds: dict[str, float | None]) -> str:
    """The time notebooks will take: what each took last, or else the mean of those that are known."""
    known = [taken for taken in seconds.values() if taken is not None]
    if not notebooks or not known:
        return ""
    each = [seconds[path.stem] for path in notebooks]
    return f", about {clock(sum(mean(known) if taken is None else taken for taken in each))} to go"


def previous_seconds(executed: Path) -> float | None:
    """How long the executed copy took; None where there is none, or a damaged one."""
    try:
        seconds = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
        return float(seconds) if 0 <= seconds < float("inf") else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
