"""A throw-away project whose notebooks the runner's tests execute."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

PARAMETERS = 'profile: str = "quick"\noverrides: list = []\ndevice: str = "auto"\nout: str = ""'

# The runner on its own, in a project elsewhere: for what can only be done to a process.
SCRIPT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from prunelens import runner

runner.ROOT = Path(sys.argv[1])
measure = SimpleNamespace(similarity="lpips")
runner.profiles.load = lambda name, overrides: SimpleNamespace(name=name, interpretability=measure)
sys.exit(runner.main(sys.argv[2:]))
"""


class Project:
    """A folder with notebooks/ and figures/ in the place of the real one; any profile name is valid in it."""

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
        return nbformat.read(self.results / "notebooks" / f"{name}.ipynb", as_version=4)

    def kept(self) -> set[str]:
        """The names in figures/quick/notebooks."""
        return {path.name for path in (self.results / "notebooks").iterdir()}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The runner as a process of its own."""
        command = [sys.executable, "-c", SCRIPT, str(self.root), *arguments]
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
    from prunelens import runner

    made = Project(tmp_path)
    monkeypatch.setattr(runner, "ROOT", made.root)
    measure = SimpleNamespace(similarity="lpips")
    profile = lambda name, overrides: SimpleNamespace(name=name, interpretability=measure)  # noqa: E731
    monkeypatch.setattr(runner.profiles, "load", profile)
    return made
