"""Where things lie in the project: the one place that knows."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
RUNS = ROOT / "data" / "runs"
FIGURES = ROOT / "figures"
REFERENCE = ROOT / "data" / "reference"


def figures(out: str = "") -> Path:
    """Where figures go: below a folder of the user's choice, or in the project."""
    return Path(out) / "figures" if out else FIGURES
