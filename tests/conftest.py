"""A throw-away project whose notebooks the tests of the command line execute."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from prunelens import paths
from prunelens.run import checks

PARAMETERS = 'profile: str = "quick"\noverrides: list = []\ndevice: str = "auto"\nout: str = ""'

# The command line on its own, in a project elsewhere: for what can only be done to a process.
SCRIPT = """
import signal
import sys
from pathlib import Path

from prunelens import __main__

signal.signal(signal.SIGINT, __main__.stop)
sys.path.insert(0, sys.argv[2])
import conftest

conftest.move(Path(sys.argv[1]), setattr)
sys.argv[1:] = sys.argv[3:]
sys.exit(__main__.main())
"""


def study(request: checks.Request) -> SimpleNamespace:
    """In the place of a study: any profile name is valid. In a folder called WAIT, checking it takes long."""
    if request.out.endswith("WAIT"):
        print("checking", flush=True)
        time.sleep(600)
    return SimpleNamespace(folder=Path(request.out or paths.ROOT) / "figures" / request.profile)


def move(root: Path, setattr_: object) -> None:
    """Make ``root`` the project."""
    setattr_(paths, "ROOT", root)
    setattr_(paths, "NOTEBOOKS", root / "notebooks")
    setattr_(checks, "study", study)


class Project:
    """A folder with notebooks/ and figures/ in the place of the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notebooks = root / "notebooks"
        self.results = root / "figures" / "quick"
        self.notebooks.mkdir()

    def notebook(self, name: str, *cells: str, parameters: str | None = PARAMETERS, kernel: str = "python3") -> Path:
        """Store notebooks/NAME.ipynb: a heading, a parameters cell unless None, these code cells."""
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": kernel, "display_name": kernel}})
        notebook.metadata["language_info"] = {"name": "python"}
        notebook.cells = [nbformat.v4.new_markdown_cell("# A question")]
        if parameters is not None:
            notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = self.notebooks / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    def executed(self, name: str) -> nbformat.NotebookNode:
        """The executed copy of a notebook."""
        return nbformat.read(self.results / "notebooks" / f"{name}.ipynb", as_version=4)

    def kept(self) -> set[str]:
        """The names in figures/quick/notebooks."""
        return {path.name for path in (self.results / "notebooks").iterdir()}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command line as a process of its own."""
        command = [sys.executable, "-c", SCRIPT, str(self.root), str(Path(__file__).parent), *arguments]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A background job ignores Ctrl-C, and so would all that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without notebooks, in the place of the real one."""
    made = Project(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    move(made.root, monkeypatch.setattr)
    return made
