"""A report in a notebook: figures, tables and sentences, kept in a folder with what they were made from."""

import base64
import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from prunelens.registry import Description
from prunelens.report import style
from prunelens.report.text import listing
from prunelens.store import atomic, write_text
from prunelens.variants import FIELDS

NUMBERS = ["value", "low", "high"]


class Shown:
    """What a notebook shows of a figure: the image with its caption below."""

    def __init__(self, file: Path, caption: str, alt: str) -> None:
        self.file, self.caption, self.alt = file, caption, alt

    def __repr__(self) -> str:
        return f"{self.file.name}: {self.caption}"

    def _repr_html_(self) -> str:
        kind = "jpeg" if self.file.suffix == ".jpg" else "png"
        data = base64.b64encode(self.file.read_bytes()).decode()
        return (
            f'<figure style="margin: 1em 0; max-width: 52em"><img src="data:image/{kind};base64,{data}" '
            f'alt="{escape(self.alt)}" style="max-width: 100%; background: white">'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


class Report:
    """Figures and tables of one profile.

    Args:
        folder: where files go. descriptions: of methods and measures, by name, which give labels and looks.
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
            "json": lambda draft: draft.write_text(json.dumps(record, indent=2, default=str) + "\n"),
        }
        if photographs:
            writers["jpg"] = lambda draft: figure.savefig(draft, format="jpg", pil_kwargs={"quality": 85})
        else:
            writers["png"] = lambda draft: figure.savefig(draft, format="png", metadata={"Software": None})
            writers["svg"] = lambda draft: figure.savefig(draft, format="svg", metadata={"Date": None})
        with plt.style.context(style.STYLE):
            for ending, write in writers.items():
                with atomic(self.folder / f"{name}.{ending}") as draft:
                    write(draft)
        plt.close(figure)
        return Shown(self.folder / f"{name}.{'jpg' if photographs else 'png'}", caption, alt)

    def table(self, name: str, table: pd.DataFrame, columns: list[str] | None = None, rows: int = 12) -> Any:
        """Keep a table as NAME.csv and show its first rows and at most eight columns.

        columns: those to show; by default the first ones. Fields of networks are shown as one column `network`, and
        value, low and high as one column `estimate`; both can be named in columns.
        """
        write_text(self.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
        wide = readable(table)
        shown = wide[list(columns or wide.columns)[:8]].head(rows)
        told = f"{len(shown)} of {len(table)} rows. " if len(shown) < len(table) else ""
        styler = shown.style.format(precision=3, na_rep="").hide(axis="index")
        return styler.set_caption(f"{told}The whole table is {name}.csv.")

    def say(self, text: str) -> Any:
        """A sentence or list in Markdown."""
        from IPython.display import Markdown

        return Markdown(text)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the fields of networks as one column `network`, and value, low and high as one column `estimate`."""
    if "method" in table and "rate" in table:
        several = "seed" in table and table.seed.nunique() > 1
        named = table.drop(columns=[field for field in FIELDS if field in table])
        named.insert(0, "network", style.names(table, seeds=several))
        table = named.rename(columns={"method": "network"})
    if {*NUMBERS} <= {*table}:
        place = table.columns.get_loc("value")
        words = [_estimate(*row) for row in table[NUMBERS].itertuples(index=False)]
        table = table.drop(columns=NUMBERS)
        table.insert(int(place), "estimate", words)
    return table


def _estimate(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f}"


def _bars(table: pd.DataFrame) -> str:
    over = [str(one) for one in table.over.dropna().unique()] if "over" in table else []
    return f"Bars: 95 % interval over {listing(over, 'or')}." if 0 < len(over) < 4 else ""


def _alternative(figure: Figure) -> str:
    """Text in place of a figure: its title, panels and axes."""
    title = figure._suptitle.get_text() if figure._suptitle else ""  # type: ignore[attr-defined]
    panels = [axis.get_title("left") or axis.get_title() for axis in figure.axes]
    xs = [axis.get_xlabel() for axis in figure.axes] + [figure.get_supxlabel()]
    ys = [axis.get_ylabel() for axis in figure.axes] + [figure.get_supylabel()]
    parts = {"Panels": panels, "Horizontal": xs, "Vertical": ys}
    unique = {name: list(dict.fromkeys(filter(None, texts)))[:8] for name, texts in parts.items()}
    found = [f"{name}: {'; '.join(texts)}." for name, texts in unique.items() if texts]
    return " ".join(" ".join([title, *found]).split())
