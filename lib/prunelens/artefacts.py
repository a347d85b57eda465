"""Compute or load: the one place that names files and decides whether to compute.

An artefact is one file computed by one stage, ``STAGE/SLUG-HASH.EXTENSION``, the hash being that of its parameters
and of the stage's version; a JSON beside it says how it came to be. Writing is atomic, damage is noticed, and two
processes that want the same artefact compute it once.
"""

import fcntl
import hashlib
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from safetensors import SafetensorError

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
PROJECT = Path(__file__).parents[2]
RESULTS_FOLLOW = ("lib", "notebooks", "pyproject.toml", "requirements.lock", "data/*.safetensors")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "torch-lucent", "kornia", "scikit-image")


class Store:
    """Artefacts below one folder; their notes say on which device they were computed."""

    def __init__(self, root: Path, device: str = "") -> None:
        self.root, self.device = root, device

    def table(self, stage: str, slug: str, parameters: dict, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table (parquet), computed unless it is there already."""
        return self._get(stage, slug, parameters, compute, ".parquet", _write_table, pd.read_parquet)

    def arrays(self, stage: str, slug: str, parameters: dict, compute: Callable[[], Arrays]) -> Arrays:
        """Named arrays (safetensors), computed unless they are there already."""
        load = safetensors.numpy.load_file
        return self._get(stage, slug, parameters, compute, ".safetensors", _write_arrays, load)

    def file(self, stage: str, slug: str, parameters: dict, extension: str) -> Path:
        """Where the artefact lies or will lie. ``parameters`` must be JSON and hold all that its content depends on."""
        return self.root / stage / f"{slug}-{fingerprint({'stage': stage, **parameters})}{extension}"

    def _get(
        self,
        stage: str,
        slug: str,
        parameters: dict,
        compute: Callable[[], Any],
        extension: str,
        write: Callable[[Any, Path], None],
        load: Callable[[Path], Any],
    ) -> Any:
        file = self.file(stage, slug, parameters, extension)
        with locked(file):
            if _intact(file):
                return load(file)
            _remove_drafts(file)
            started = time.perf_counter()
            content = compute()
            with atomic(file) as temporary:
                write(content, temporary)
                digest = sha256(temporary)
            record = {
                "artefact": file.name,
                "sha256": digest,
                "parameters": parameters,
                "seconds": round(time.perf_counter() - started, 3),
                **provenance(),
                "device": self.device,
            }
            write_text(file.with_name(file.name + ".json"), json.dumps(record, indent=2))
            return content


def fingerprint(parameters: dict) -> str:
    """Twelve hexadecimal digits that depend on the parameters' content, not on their order."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A temporary name beside ``file``, flushed to disk and renamed to it at the end; removed where writing fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Processes on two hosts that share a disk can have one number.
    temporary = file.with_name(f".{platform.node()}-{os.getpid()}-{file.name}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in an error of its own
        raise OSError(f"{file} could not be written ({error}); everything before it is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_drafts(file: Path) -> None:
    """What killed processes wrote of the artefact, its note and its checkpoint. Call it under the lock: then nobody is
    writing them."""
    for name in (file.name, f"{file.name}.json", f"{file.stem}.checkpoint"):
        for draft in file.parent.glob(f".*-{name}"):
            draft.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    with atomic(file) as temporary:
        temporary.write_text(text)


def _write_table(table: pd.DataFrame, file: Path) -> None:
    table.to_parquet(file, index=False)


def _write_arrays(arrays: Arrays, file: Path) -> None:
    safetensors.numpy.save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file)


def _intact(file: Path) -> bool:
    """Whether the artefact is there; a damaged one is set aside, and that is said."""
    note = file.with_name(file.name + ".json")
    if not (file.exists() and note.exists()):
        return False
    try:
        if json.loads(note.read_text())["sha256"] == sha256(file):
            return True
        reason = "its content does not match its checksum"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"its note {note.name} is unreadable ({error})"
    aside = file.with_name(f"{file.name}.damaged")
    log.warning("%s is damaged: %s; set aside as %s and computed again", file, reason, aside.name)
    file.replace(aside)
    note.unlink()
    return False


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Held by one process at a time; the system releases it when a process dies, however it dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def provenance() -> dict[str, Any]:
    """What the numbers depend on besides parameters: code, package versions and machine."""
    return {
        **ORIGIN,
        "threads": torch.get_num_threads(),  # sums of floating-point numbers depend on it
    }


def _origin() -> dict[str, Any]:
    library = Path(__file__).parent
    sources = sorted(library.glob("*.py"))
    return {
        "library_sha256": hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest(),
        "git_commit": _git(library, "rev-parse", "HEAD"),
        "git_dirty": _dirty(PROJECT),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _dirty(project: Path) -> bool:
    """Whether tracked files that results follow from are not as committed. Figures do not count: runs rewrite them."""
    return bool(_git(project, "status", "--porcelain", "--untracked-files=no", "--", *RESULTS_FOLLOW))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# As imported: a notebook's kernel imports the library some time before it computes anything.
ORIGIN = _origin()
