"""The paper's published numbers, with the names of methods, layers and columns that the study has.

The headline figures are part of the package. The tables at full resolution are not: name their folder in the
environment variable PRUNELENS_PUBLISHED. ``tools/convert_published.py`` makes them from the authors' public files.

Sources: von Rad & Seuffert, "Investigating the Effect of Network Pruning on Performance and Interpretability",
arXiv 2409.19727, and the logs and scores of its public repository; Zimmermann, Klindt & Brendel, "Measuring Per-Unit
Interpretability at Scale Without Humans", NeurIPS 2024.
"""

import os
from pathlib import Path

import pandas as pd

HEADLINES = Path(__file__).parents[1] / "data" / "published_headlines.csv"
FILES = {
    "unit_mis": "published_unit_mis.parquet",
    "mean_mis": "published_mean_mis.csv",
    "retraining_curves": "published_retraining_curves.csv",
}
METHODS = {
    "unstructured_l1": "unstructured_local",
    "global_unstructured_l1": "unstructured_global",
    "connection_sparsity_l1": "connection_l1",
    "connection_sparsity_random": "connection_random",
    "unpruned_tf_inceptionv1": "tf_inceptionv1",
    "none": "tf_inceptionv1",
}
COLUMNS = {"mis_confidence": "mis", "mean_mis_confidence": "mean_mis", "actual_conv_sparsity": "conv_sparsity"}


def headlines() -> pd.DataFrame:
    """The headline figures of both papers, one number a row.

    Columns: method (tf_inceptionv1: the TensorFlow network that the pruning paper calls unpruned; all: many networks),
    schedule, masked, optimizer, epochs (in all), rate, conv_sparsity (when pruned), measure (top1, mean_mis,
    mean_two_afc_accuracy, and the correlations rate_mis_r, mis_top1_r, mis_human_r), value, source, note.
    """
    return pd.read_csv(HEADLINES, dtype={"epochs": "Int64", "note": str}).fillna({"note": ""})


def full(folder: str | Path = "") -> dict[str, pd.DataFrame]:
    """The published tables (keys of `FILES`) that a folder, by default $PRUNELENS_PUBLISHED, has; {} without a folder.

    Raises:
        FileNotFoundError: there is a folder and it has none of the tables.
    """
    folder = folder or os.environ.get("PRUNELENS_PUBLISHED", "")
    if not folder:
        return {}
    present = {name: Path(folder) / file for name, file in FILES.items() if (Path(folder) / file).exists()}
    if not present:
        raise FileNotFoundError(f"{folder} has no published table, expected {', '.join(FILES.values())}")
    read = {name: pd.read_csv if path.suffix == ".csv" else pd.read_parquet for name, path in present.items()}
    return {name: in_our_words(read[name](path)) for name, path in present.items()}


def in_our_words(table: pd.DataFrame) -> pd.DataFrame:
    """A published table with the study's names of columns, methods, optimizers, layers and kinds of units.

    Retrained connection sparsity gets masked = False: the paper's code sets weights to zero once and keeps no mask.
    """
    if "mis_confidence" in table:  # there `mis` is the 2-AFC accuracy
        table = table.rename(columns={"mis": "two_afc_accuracy"})
    table = table.rename(columns=COLUMNS)
    if "method" in table:
        table["method"] = table.method.astype(str).replace(METHODS)
    if "epochs" in table:
        table["optimizer"] = table.optimizer.astype(str).str.lower()
        table["masked"] = ~(table.method.str.startswith("connection") & (table.epochs > 0))
    if "network" in table:
        layer = table.layer.astype(str)
        table["layer"] = layer.mask(table.network == "torchvision_googlenet", layer.str.replace("_", "."))
        table["kind"] = table.kind.astype(str).replace("linear", "output")
    return table
