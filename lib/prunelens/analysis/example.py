"""Small synthetic tables with the columns of a study's, on which a user's claim is tried."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from prunelens.variants import Variant

CLASSES, IMAGES, EPOCHS = 100, 2000, 4
LAYERS = {"stem.conv": 8, "block1.conv": 12, "block2.conv": 12, "fc": CLASSES}
MEASURES = ("mis", "two_afc_accuracy", "margin", "clarity", "monosemanticity", "class_selectivity",
            "lifetime_sparseness", "redundancy", "concept_selectivity", "dissection")  # fmt: skip
METHODS = ("connection_l1", "unstructured_global", "structured_l1")
RATES = (0.4, 0.6, 0.8)


def networks(seeds: Sequence[int] = range(3)) -> list[Variant]:
    """The controls, three methods at three rates, and one network of every other kind."""
    found = [Variant("dense"), *(Variant("dense", weights="random", seed=seed) for seed in seeds)]
    found += [Variant(method, rate) for method in METHODS for rate in RATES]
    retrained = {"schedule": "one_shot", "epochs": EPOCHS}
    for seed in seeds:
        found += [Variant(method, rate, seed=seed, **retrained) for method in METHODS for rate in RATES]
        found += [Variant("dense", seed=seed, **retrained)]
        found += [Variant("connection_l1", 0.8, seed=seed, masked=False, **retrained)]
        found += [Variant("structured_l1", 0.8, s, seed, epochs=EPOCHS) for s in ("iterative", "rewound")]
    first = seeds[0]
    return found + [replace(v, epochs=2 * EPOCHS) for v in found if v.retrained and v.seed == first]


def tables(seed: int = 0) -> dict[str, pd.DataFrame]:
    """Tables accuracy, units and classes of `networks`: random numbers around plausible means."""
    generator = np.random.default_rng(seed)
    fields = pd.DataFrame([variant.fields() for variant in networks()])
    works = (fields.weights == "trained") & ((fields.schedule != "none") | (fields.rate == 0))
    top1 = (0.85 - 0.1 * fields.rate).where(works, 1 / CLASSES) + generator.normal(0, 0.005, len(fields))
    sparsity = 0.9 * fields.rate.where(fields.masked, 0)
    accuracy = _accuracy(fields, top1.clip(0, 1)).assign(
        conv_sparsity=sparsity, all_conv_sparsity=sparsity, total_sparsity=0.8 * sparsity, mask_sparsity=fields.rate
    )
    classes = fields.assign(mean=top1).merge(pd.DataFrame({"output": range(CLASSES)}), how="cross")
    classes["top1"] = (classes.pop("mean") + generator.normal(0, 0.05, len(classes))).clip(0, 1)
    classes = classes.assign(class_name="class " + classes.output.astype(str), n=IMAGES // CLASSES)
    return {"accuracy": accuracy, "units": _units(fields, works, generator), "classes": classes}


def _accuracy(fields: pd.DataFrame, top1: pd.Series) -> pd.DataFrame:
    """Top-1, Top-5 and their intervals, among the data's classes and among all outputs."""
    table, half = fields.assign(n=IMAGES), 2 * np.sqrt(top1 * (1 - top1) / IMAGES)
    for ending in ("", "_all_outputs"):
        found = {"top1": top1, "top1_low": top1 - half, "top1_high": top1 + half, "top5": (2 * top1).clip(0, 1)}
        table = table.assign(**{name + ending: value for name, value in found.items()})
    return table


def _units(fields: pd.DataFrame, works: pd.Series, generator: np.random.Generator) -> pd.DataFrame:
    """Every unit; networks that work score .7, others .6, outputs .1 less; a tenth of the pruned conv units is dead."""
    rows = [(layer, layer.split(".")[0], place / 3, "output" if layer == "fc" else "conv", unit, True)
            for place, (layer, units) in enumerate(LAYERS.items()) for unit in range(units)]  # fmt: skip
    units = pd.DataFrame(rows, columns=["layer", "block", "position", "kind", "unit", "own_class"])
    table = fields.assign(level=0.6 + 0.1 * works).merge(units, how="cross")
    alive = (generator.uniform(size=len(table)) > 0.1) | (table.rate == 0) | (table.kind == "output")
    level = table.pop("level") - 0.1 * (table.kind == "output")
    values = {name: (level + generator.normal(0, 0.05, len(table))).where(alive) for name in MEASURES}
    return table.assign(alive=alive, **values)
