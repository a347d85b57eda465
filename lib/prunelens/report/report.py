"""A report in a notebook: figures, tables and sentences, kept in a folder with what they were made from."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from prunelens.analysis.estimates import Estimate
from prunelens.registry import Description
from prunelens.report import style
from prunelens.store import atomic, write_text
from prunelens.variants import FIELDS

NUMBERS = ["value", "low", "high"]
ROWS = 12  # of a table, that are shown
FIGURE = """\
<figure style="margin: 1em 0; max-width: 56em">
<img src="data:image/{kind};base64,{data}" alt="{alt}" style="max-width: 100%; background: white">
<figcaption>{caption}</figcaption></figure>"""


class Shown:
    """What a notebook shows of a figure: the image with its caption below."""

    def __init__(self, file: Path, caption: str, alt: str) -> None:
        self.file, self.caption, self.alt = file, caption, alt

    def __repr__(self) -> str:
        return f"{self.file.name}: {self.caption}"

    def _repr_html_(self) -> str:
        kind, data = self.file.suffix[1:].replace("jpg", "jpeg"), base64.b64encode(self.file.read_bytes()).decode()
        return FIGURE.format(kind=kind, data=data, alt=escape(self.alt), caption=escape(self.caption))


class Said:
    """A text that a notebook shows as Markdown. (IPython's own reads a file that has the text as its name.)"""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


class Report:
    """Figures and tables of one profile.

    Args:
        folder: where files go. descriptions: of methods and measures, by name; they give labels and looks.
        origin: where results come from; kept beside every figure.
    """

    def __init__(self, folder: Path, descriptions: Mapping[str, Description], origin: Mapping[str, object]) -> None:
        self.folder, self.origin = Path(folder), dict(origin)
        style.register(descriptions)

    def figure(self, name: str, figure: Figure, table: pd.DataFrame, caption: str) -> Shown:
        """Keep a figure as NAME.png and .svg (one of photographs as .jpg), its table as .csv, the rest as .json.

        To the caption it adds what the bars are: what the plot says, or else what the table's column `over` does. Each
        file appears whole or not at all, and the same figure gives the same bytes.
        """
        bars = getattr(figure, "bars", "") or _bars(table)
        caption, alt = f"{caption} {bars}".strip(), _alternative(figure)
        record = {"caption": caption, "bars": bars, "alt": alt, **self.origin}
        photographs = any(image.get_array().ndim == 3 for axis in figure.axes for image in axis.images)
        writers: dict[str, Callable[[Path], Any]] = {
            "csv": lambda draft: table.to_csv(draft, index=False, lineterminator="\n"),
            "json": lambda draft: draft.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8"),
            "png": lambda draft: figure.savefig(draft, format="png", metadata={"Software": None}),
            "svg": lambda draft: figure.savefig(draft, format="svg", metadata={"Date": None}),
            "jpg": lambda draft: figure.savefig(draft, format="jpg", pil_kwargs={"quality": 85}),
        }
        kinds = ["jpg"] if photographs else ["png", "svg"]
        with plt.style.context(style.STYLE):
            for ending in [*kinds, "csv", "json"]:
                with atomic(self.folder / f"{name}.{ending}") as draft:
                    writers[ending](draft)
        plt.close(figure)
        return Shown(self.folder / f"{name}.{kinds[0]}", caption, alt)

    def table(self, name: str, table: pd.DataFrame, columns: list[str] | None = None) -> Any:
        """Keep a table as NAME.csv and show its first rows and these columns, by default the first eight.

        Fields of networks are shown as one column `network`, and value, low and high as one column `estimate`.
        """
        write_text(self.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
        shown = readable(table)
        shown = shown[columns or list(shown.columns[:8])].head(ROWS)
        shown = shown.rename(columns={column: style.label(column) for column in shown})
        told = f"{len(shown)} of {len(table)} rows. " if len(shown) < len(table) else ""
        styler = shown.style.format(precision=3, na_rep="", escape="html").hide(axis="index")
        return styler.set_caption(f"{told}The whole table is {name}.csv.")

    def say(self, text: str) -> "Said":
        """Text in Markdown."""
        return Said(text)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the fields of networks as one column `network`, and value, low and high as one column `estimate`."""
    if "method" in table and "rate" in table:
        several = "seed" in table and table.seed.nunique() > 1
        names = style.names(table, seeds=several)
        table = table.drop(columns=[field for field in FIELDS if field in table])
        table.insert(0, "network", names)
    if {*NUMBERS} <= {*table} and "estimate" not in table:
        place, rows = int(table.columns.get_loc("value")), table[NUMBERS].itertuples(index=False)
        words = [str(Estimate(*row)).removesuffix(" (no interval)") for row in rows]
        table = table.drop(columns=NUMBERS)
        table.insert(place, "estimate", words)
    return table


def _bars(table: pd.DataFrame) -> str:
    """What the column `over` of a table says, such as "3 seeds"; without the numbers where these differ."""
    if "over" not in table:
        return ""
    over = list(dict.fromkeys(table.over[table.low.notna()] if "low" in table else table.over))
    if len(over) > 1:
        over = list(dict.fromkeys(re.sub(r"^[\d,]+ |, .*", "", one).removesuffix("s") + "s" for one in over))
    words = " or ".join(filter(None, [", ".join(over[:-1]), *over[-1:]]))
    return f"Bars: 95 % interval over {words}." if over else ""


def _alternative(figure: Figure) -> str:
    """Text in place of a figure: its title, panels and axes."""
    legends = [legend.get_title().get_text() for legend in figure.legends]
    parts = {
        "Panels": [axis.get_title("left") or axis.get_title() for axis in figure.axes],
        "Horizontal": [*(axis.get_xlabel() for axis in figure.axes), figure.get_supxlabel(), *legends],
        "Vertical": [*(axis.get_ylabel() for axis in figure.axes), figure.get_supylabel()],
    }
    unique = {name: list(dict.fromkeys(filter(None, texts)))[:8] for name, texts in parts.items()}
    said = [f"{name}: {'; '.join(texts)}." for name, texts in unique.items() if texts]
    return " ".join(" ".join([figure.get_suptitle(), *said]).split())
