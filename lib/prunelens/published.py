"""Published numbers to compare with.

Headline figures travel with the package (`headlines`). The published tables at full resolution do not:
whoever has them names their folder in the environment variable PRUNELENS_PUBLISHED (`full`).

Sources: von Rad & Seuffert, "Investigating the Effect of Network Pruning on Performance and
Interpretability", arXiv 2409.19727, with the logs and scores in their public repository; Zimmermann, Klindt &
Brendel, "Measuring Per-Unit Interpretability at Scale Without Humans", NeurIPS 2024.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

HEADLINES = Path(__file__).parent / "data" / "published_headlines.csv"

FILES = {
    "unit_mis": "published_unit_mis.parquet",
    "inceptionv1_mis": "published_inceptionv1_mis.parquet",
    "mean_mis": "published_mean_mis.csv",
    "retraining_curves": "published_retraining_curves.csv",
    "sensitivity": "published_sensitivity.csv",
}

# Their names in our words. Their code zeroes connections once and keeps no mask: retrained, it is unmasked.
METHODS = {
    "unstructured_l1": "unstructured_local",
    "global_unstructured_l1": "unstructured_global",
    "connection_sparsity_l1": "connection_l1",
    "connection_sparsity_random": "connection_random",
    "unpruned_tf_inceptionv1": "tf_inceptionv1",
    "none": "tf_inceptionv1",
}
UNMASKED = {"connection_l1": "connection_l1_unmasked", "connection_random": "connection_random_unmasked"}
COLUMNS = {
    "mis": "two_afc_accuracy",
    "mis_confidence": "mis",
    "mean_mis_confidence": "mean_mis",
    "actual_conv_sparsity": "conv_sparsity",
}


def headlines() -> pd.DataFrame:
    """The headline figures of both papers, one number a row.

    Columns: method (`tf_inceptionv1` is the TensorFlow network that the pruning paper calls unpruned; `all` a
    number about many networks), schedule (none | one_shot | iterative), optimizer, epochs (of retraining, in
    all), rate (nominal), conv_sparsity (share of the conv weights, when pruned), measure, value, source,
    note. Measures: top1 (share of the ImageNet validation set), mean_mis and mean_two_afc_accuracy (mean over
    units; the paper's "MIS confidence" is our MIS), rate_mis_r, mis_top1_r, mis_human_r (correlations).
    """
    table = pd.read_csv(HEADLINES, dtype={"epochs": "Int64", "note": str})
    return table.fillna({"note": ""})


def full(folder: str | Path | None = None) -> dict[str, pd.DataFrame] | None:
    """The published tables at full resolution, in our words, or None where there are none.

    Keys: unit_mis, inceptionv1_mis, mean_mis, retraining_curves, sensitivity. `folder` defaults to the
    environment variable PRUNELENS_PUBLISHED; unset means None. Raises FileNotFoundError where a table is
    missing.
    """
    folder = folder or os.environ.get("PRUNELENS_PUBLISHED")
    if not folder:
        return None
    return {name: _table(Path(folder) / file) for name, file in FILES.items()}


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, expected all of {', '.join(FILES.values())}")
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return in_our_words(table)


def in_our_words(table: pd.DataFrame) -> pd.DataFrame:
    """A published table with our names of columns, methods, optimizers, layers and kinds; the numbers
    stay."""
    scored = "mis_confidence" in table  # only there does their `mis` mean the 2-AFC accuracy
    table = table.rename(columns=COLUMNS if scored else {k: v for k, v in COLUMNS.items() if k != "mis"})
    if "method" in table:
        method = table.method.astype(str).replace(METHODS)
        retrained = table.epochs > 0 if "epochs" in table else np.zeros(len(table))
        table["method"] = method.where(~np.asarray(retrained, bool), method.replace(UNMASKED))
    if "optimizer" in table:
        table["optimizer"] = table.optimizer.astype(str).str.lower()
    if "network" in table:
        ours = table.network == "torchvision_googlenet"
        layer = table.layer.astype(str)
        table["layer"] = layer.mask(ours, layer.str.replace("_", "."))
        table["kind"] = table.kind.astype(str).replace("linear", "fc")
    return table
