"""The page of all results of a profile: verdicts on the claims, and figures and tables by notebook."""

import json
import time
from collections import defaultdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from prunelens.analysis.verdicts import SHOWN
from prunelens.store import write_text

TEMPLATE = Path(__file__).parents[1] / "data" / "index.html"
VERDICTS = "08_verdicts.csv"
KINDS = {".png": "PNG", ".jpg": "JPEG", ".svg": "SVG", ".csv": "table (CSV)", ".json": "how it was made (JSON)"}


def write_index(folder: Path, title: str) -> None:
    """Write index.html of what a folder of figures, tables and executed notebooks has.

    Raises:
        OSError: it cannot be written.
    """
    notebooks = {path.name[:2]: path.name.split(".")[0] for path in sorted((folder / "notebooks").glob("[0-9][0-9]_*"))}
    images = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    shown = {VERDICTS, *(f"{path.stem}.csv" for path in images)}
    parts: dict[str, list[str]] = defaultdict(list, {number: [] for number in notebooks})
    for path in images:
        parts[_number(path)].append(_figure(path))
    for path in sorted(folder.glob("*.csv")):
        if path.name not in shown:
            parts[_number(path)].append(
                f'<p class="table">Table: <a href="{escape(path.name)}">{_spaced(path.stem)}</a></p>'
            )
    headings = {number: _spaced(notebooks.get(number, number or "further")) for number in sorted(parts)}
    links = {n: _notebook(folder / "notebooks", notebooks[n]) if n in notebooks else headings[n] for n in headings}
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        date=time.strftime("%Y-%m-%d %H:%M"),
        commit=_commit(images),
        verdicts=_verdicts(folder / VERDICTS),
        contents="\n".join(f'<li><a href="#n{n}">{heading}</a></li>' for n, heading in headings.items()),
        sections="\n".join("\n".join([f'<h2 id="n{n}">{links[n]}</h2>', *parts[n]]) for n in headings),
    )
    write_text(folder / "index.html", page)


def _number(path: Path) -> str:
    """The notebook's number in a file's name, or ""."""
    return path.name[:2] if path.name[:2].isdigit() else ""


def _notebook(copies: Path, name: str) -> str:
    """A link to a notebook that ran to its end, and one to how far it came where its last run failed."""
    good, failed = copies / f"{name}.html", copies / f"{name}.failed.ipynb"
    shown = f'<a href="notebooks/{escape(good.name)}">{_spaced(name)}</a>' if good.exists() else _spaced(name)
    return shown + (f' (<a href="notebooks/{escape(failed.name)}">last run failed</a>)' if failed.exists() else "")


def _figure(image: Path) -> str:
    """A figure with its caption, and links to all its files."""
    record, name = _record(image), escape(image.name)
    files = [(image.with_suffix(suffix), kind) for suffix, kind in KINDS.items()]
    links = " · ".join(f'<a href="{escape(file.name)}">{kind}</a>' for file, kind in files if file.exists())
    alt, caption = escape(str(record.get("alt") or _spaced(image.stem))), escape(str(record.get("caption", "")))
    return (
        f'<figure id="{escape(image.stem)}"><a href="{name}"><img src="{name}" loading="lazy" alt="{alt}"></a>\n'
        f"<figcaption>{caption} <span>{links}</span></figcaption></figure>"
    )


def _verdicts(file: Path) -> str:
    if not file.exists():
        return ""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table = table[[column for column in SHOWN if column in table]]
    return f'<h2>Claims</h2>\n<div class="wide">{table.to_html(index=False, border=0)}</div>'


def _commit(images: list[Path]) -> str:
    commits = {str(_record(image).get("git_commit") or "")[:7] for image in images} - {""}
    return escape(f", code {', '.join(sorted(commits))}") if commits else ""


def _record(image: Path) -> dict[str, Any]:
    """What is kept beside a figure; {} where that is missing or damaged."""
    try:
        found = json.loads(image.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _spaced(name: str) -> str:
    """Escaped, "04_feature_visualization" as "04 feature visualization"."""
    return escape(name.replace("_", " "))
