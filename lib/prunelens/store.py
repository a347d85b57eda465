"""Compute or load: the one place that names artefacts and decides whether to compute.

An artefact is one file, ``STAGE/SLUG-HASH.EXTENSION``, where the hash is that of its key: all that its content depends
on. A JSON note beside it says how it came to be. Writing is atomic, damage is noticed, and two processes that want the
same artefact compute it once.
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
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
from safetensors import SafetensorError

from prunelens.paths import ROOT

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
Content = Arrays | pd.DataFrame | dict[str, Any]
AFTER = ("report", "run")  # floors of this library that no artefact depends on
RESULTS_FOLLOW = ("lib", "notebooks", "pyproject.toml", "requirements.lock", "data/*.safetensors")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "torch-lucent", "kornia", "scikit-image")


class Store:
    """Artefacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(
        self, stage: str, slug: str, key: dict, form: str, compute: Callable[[], Content], **record: object
    ) -> Content:
        """Load an artefact, or compute and keep it.

        key: JSON, all that the content depends on. form: "arrays", "table" or "json" (see `FORMS`).
        record: what else the note should say, such as the device.
        """
        extension, write, load = FORMS[form]
        file = self.path(stage, slug, key, extension)
        if _intact(file, key):
            return load(file)
        with locked(file):
            if _intact(file, key):  # another process was faster
                return load(file)
            _remove_drafts(file)
            started = time.perf_counter()
            content = compute()
            with atomic(file) as draft:
                write(content, draft)
                digest = sha256(draft)
            seconds = round(time.perf_counter() - started, 3)
            note = {"artefact": file.name, "sha256": digest, "key": key, "seconds": seconds, **record, **origin()}
            write_text(_note(file), json.dumps({**note, "note_sha256": fingerprint(note)}, indent=2))
            return content

    def has(self, stage: str, slug: str, key: dict, form: str) -> bool:
        """Whether the artefact and its note are there (their content is checked when it is loaded)."""
        file = self.path(stage, slug, key, FORMS[form][0])
        return file.exists() and _note(file).exists()

    def note(self, stage: str, slug: str, key: dict, form: str) -> dict[str, Any] | None:
        """What the note of an artefact says, and its size in `bytes`; None where there is no artefact."""
        file = self.path(stage, slug, key, FORMS[form][0])
        try:
            return {**json.loads(_note(file).read_text()), "bytes": file.stat().st_size}
        except (OSError, ValueError, TypeError):  # of damage, loading tells
            return None

    def path(self, stage: str, slug: str, key: dict, extension: str) -> Path:
        """Where the artefact lies or will lie."""
        return self.root / stage / f"{slug}-{fingerprint({'stage': stage, **key})}{extension}"


def fingerprint(key: object) -> str:
    """Twelve hexadecimal digits that depend on the content of JSON values, not on the order of keys."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def sha256(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """Write to the temporary name that this yields; it is flushed and renamed to ``file`` at the end.

    Raises:
        OSError: writing failed; names the file. The temporary file is removed and an older ``file`` stays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Processes on two hosts that share a disk can have one number.
    draft = file.with_name(f".{platform.node()}-{os.getpid()}-{file.name}")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(file)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in an error of its own
        raise OSError(f"{file} could not be written ({error}); everything before it is kept") from error
    finally:
        draft.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic(file) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a file, as one process at a time can; the system releases it when the process dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write_table(table: pd.DataFrame, file: Path) -> None:
    table.to_parquet(file, index=False)


def write_arrays(arrays: Arrays, file: Path) -> None:
    """Write arrays as safetensors, which takes the memory of an array as it lies: in C order."""
    safetensors.numpy.save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file)


def _write_json(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _load_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


FORMS: dict[str, tuple[str, Callable[[Any, Path], None], Callable[[Path], Any]]] = {
    "arrays": (".safetensors", write_arrays, safetensors.numpy.load_file),
    "table": (".parquet", _write_table, pd.read_parquet),
    "json": (".data.json", _write_json, _load_json),
}


def _note(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _intact(file: Path, key: dict) -> bool:
    """Whether the artefact is there and is what its note says; damaged files are set aside with a warning."""
    if not (file.exists() and _note(file).exists()):
        return False
    reason = _damage(file, key)
    if not reason:
        return True
    aside = file.with_name(f"{file.name}.damaged")
    log.warning("%s is damaged: %s; set aside as %s and computed again", file, reason, aside.name)
    file.replace(aside)
    _note(file).unlink()
    return False


def _damage(file: Path, key: dict) -> str:
    try:
        note = json.loads(_note(file).read_text())
        if (checksum := note.pop("note_sha256", None)) not in (None, fingerprint(note)):
            return f"its note {_note(file).name} does not match its checksum {checksum}"
        if note["sha256"] != sha256(file):
            return "its content does not match its checksum"
        if note["artefact"] != file.name or fingerprint(note["key"]) != fingerprint(key):
            return f"its note is that of {note['artefact']}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its note {_note(file).name} is unreadable ({error})"
    return ""


def _remove_drafts(file: Path) -> None:
    """Remove what killed processes wrote of an artefact. Call it under the lock: then nobody is writing."""
    for name in (file.name, _note(file).name, f"{file.stem}.checkpoint"):
        for draft in file.parent.glob(f".*-{name}"):
            draft.unlink(missing_ok=True)


def differences(note: dict[str, Any]) -> str:
    """What other code or packages than this process's a note names, in words; "" where it names none."""
    ours = origin()
    code = [] if note.get("library_sha256") == ours["library_sha256"] else ["another version of this library"]
    versions = note.get("versions", {}).items()
    theirs = [f"{name} {found}" for name, found in versions if ours["versions"].get(name) != found]
    return ", ".join(code + theirs)


@cache
def origin() -> dict[str, Any]:
    """What results depend on besides keys: code, package versions and machine, as of the first call."""
    library = Path(__file__).parent
    sources = sorted(set(library.rglob("*.py")) - {file for top in AFTER for file in (library / top).rglob("*.py")})
    return {
        "library_sha256": hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest(),
        "git_commit": _git(library, "rev-parse", "HEAD"),
        "git_dirty": is_dirty(ROOT),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def is_dirty(project: Path) -> bool:
    """Whether tracked files that results follow from are not as committed. Figures do not count: runs rewrite them."""
    return bool(_git(project, "status", "--porcelain", "--untracked-files=no", "--", *RESULTS_FOLLOW))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
