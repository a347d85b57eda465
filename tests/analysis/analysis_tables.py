"""Tables of networks and units made by hand, for the tests of the analysis."""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from prunelens.variants import Variant

IMAGES = 1000


def one_shot(method: str, rate: float, seed: int = 0, epochs: int = 4, **more: object) -> Variant:
    return Variant(method, rate, "one_shot", seed, epochs=epochs, **more)


def networks(values: dict[Variant, float], name: str = "top1", n: int = IMAGES) -> pd.DataFrame:
    """A row per variant: its fields, the value, n, and the lower end of Wilson's interval of top1."""
    table = pd.DataFrame([{**variant.fields(), name: value, "n": n} for variant, value in values.items()])
    if name == "top1":
        table["top1_low"] = proportion_confint(table.top1 * n, n, method="wilson")[0]
    return table


def units(variants: list[Variant], layers: dict[str, int] | None = None) -> pd.DataFrame:
    """Live units of variants: by default two conv layers of ten units and an output layer of nine, one of no class."""
    layers = layers or {"a.conv": 10, "b.conv": 10, "fc": 9}
    rows = [
        (layer, layer.split(".")[0], position, "output" if layer == "fc" else "conv", unit, (layer, unit) != ("fc", 8))
        for position, (layer, size) in enumerate(layers.items())
        for unit in range(size)
    ]
    places = pd.DataFrame(rows, columns=["layer", "block", "position", "kind", "unit", "own_class"])
    fields = pd.DataFrame([variant.fields() for variant in variants])
    return fields.merge(places, how="cross").assign(alive=True, mis=0.8)


def classes(variants: list[Variant], top1: np.ndarray) -> pd.DataFrame:
    """Classes whose output units are 0, 1, ..., with the same accuracies in every network."""
    rows = pd.DataFrame({"output": range(len(top1)), "top1": top1, "n": 100})
    fields = pd.DataFrame([variant.fields() for variant in variants])
    return fields.merge(rows.assign(class_name="class " + rows.output.astype(str)), how="cross")
