"""Published numbers to compare with.

Headline figures travel with the package (`headlines`). The published tables at full resolution do not:
whoever has them names their folder in the environment variable PRUNELENS_PUBLISHED (`full`). They come out of the
authors' public files with ``python -m prunelens.published DIR [OUT]`` (`convert`), where DIR is a clone of
github.com/Uni-Tubingen-Teamproject/Network-Pruning-and-Interpretability.

Sources: von Rad & Seuffert, "Investigating the Effect of Network Pruning on Performance and
Interpretability", arXiv 2409.19727, with the logs and scores in their public repository; Zimmermann, Klindt &
Brendel, "Measuring Per-Unit Interpretability at Scale Without Humans", NeurIPS 2024.
"""

from __future__ import annotations

import ast
import collections
import os
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy._core import multiarray, numeric
from pandas._libs.internals import _unpickle_block
from pandas.core.indexes.base import _new_Index
from pandas.core.internals.managers import BlockManager

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
# InceptionV1's branches in torchvision's words; its 5x5 is a 3x3 there.
BRANCHES = {
    "1x1": "branch1",
    "3x3_bottleneck": "branch2.0",
    "3x3": "branch2.1",
    "5x5_bottleneck": "branch3.0",
    "5x5": "branch3.1",
    "pool_reduce": "branch4.1",
}
STEM = {
    "conv2d0_pre_relu_conv": "conv1.conv",
    "conv2d1_pre_relu_conv": "conv2.conv",
    "conv2d2_pre_relu_conv": "conv3.conv",
    "softmax2_pre_activation_matmul": "fc",
}
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

    Keys: unit_mis, inceptionv1_mis, mean_mis, retraining_curves, sensitivity, as far as the folder has them
    (`convert` cannot write all). `folder` defaults to the environment variable PRUNELENS_PUBLISHED; unset means
    None. Raises FileNotFoundError where the folder has none of them.
    """
    folder = folder or os.environ.get("PRUNELENS_PUBLISHED")
    if not folder:
        return None
    present = {name: Path(folder) / file for name, file in FILES.items() if (Path(folder) / file).exists()}
    if not present:
        raise FileNotFoundError(f"{folder} has no published table, expected {', '.join(FILES.values())}")
    return {name: _table(path) for name, path in present.items()}


def _table(path: Path) -> pd.DataFrame:
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


def counterpart(layer: str) -> str:
    """The layer of torchvision's GoogLeNet that does the work of a layer of the TensorFlow InceptionV1 (lucent's
    names, ``mixed3a_3x3_pre_relu_conv``). Raises ValueError for a name of another form."""
    if layer in STEM:
        return STEM[layer]
    found = re.fullmatch(r"mixed(\d[a-e])_(\w+)_pre_relu_conv", layer)
    if not found or found[2] not in BRANCHES:
        raise ValueError(f"layer {layer!r} is none of InceptionV1, expected mixed3a_1x1_pre_relu_conv and the like")
    return f"inception{found[1]}.{BRANCHES[found[2]]}.conv"


# ---------------------------------------------------------------------------------------- the authors' files

# Their names of files and of plotted series, in the words of the published tables.
NETWORK = re.compile(
    r"pruned_(?P<rate>0\.\d+)_(?P<method>connection_sparsity_l1|connection_sparsity|global_unstructured"
    r"|local_unstructured|local_structured)_(?P<optimizer>SGD|Adam)_retrained_(?P<epochs>\d+)_epochs_model"
)
FILE_METHODS = {
    "connection_sparsity_l1": "connection_sparsity_l1",
    "connection_sparsity": "connection_sparsity_random",
    "global_unstructured": "global_unstructured_l1",
    "local_unstructured": "unstructured_l1",
    "local_structured": "structured_l1",
}
SERIES = {  # method, schedule, optimizer, epochs
    "Local Structured SGD 50 epochs": ("structured_l1", "one_shot", "SGD", 50),
    "Local Structured Adam 50 epochs": ("structured_l1", "one_shot", "Adam", 50),
    "Connection Sparsity random SGD 50 epochs": ("connection_sparsity_random", "one_shot", "SGD", 50),
    "Connection Sparsity L1 50 epochs": ("connection_sparsity_l1", "one_shot", "SGD", 50),
    "Global Unstructured 50 epochs": ("global_unstructured_l1", "one_shot", "SGD", 50),
    "Connection Sparsity L1 not retrained": ("connection_sparsity_l1", "none", "none", 0),
    "Local Structured not retrained": ("structured_l1", "none", "none", 0),
    "Local Structured iterative 4x50 epochs": ("structured_l1", "iterative", "SGD", 50),
}
PLACEHOLDER = 0.7  # stands for the three networks of the iterative series that were not scored
SCANS = {
    "data_u_l_l1": "unstructured_l1",
    "data_u_l_r": "unstructured_random",
    "data_u_g_l1": "global_unstructured_l1",
}
SCAN_LINE = re.compile(r"(?:Module: (?P<layer>\S+), )?Pruning Rate: (?P<rate>[\d.]+), Accuracy: (?P<top1>[\d.e-]+)")
LOG_LINE = re.compile(
    r"Actual Pruning Rate: (?P<sparsity>[\d.]+)"
    r"|Accuracy after pruning.*: +(?P<pruned>[\d.e-]+)"
    r"|Epoch \[(?P<epoch>\d+)/.*Learning Rate: (?P<rate>[\d.e-]+), Validation Accuracy: (?P<top1>[\d.e-]+)"
    r"|.*saved as (?P<saved>pruned_\S+)"
)
DECAY = 0.9  # of the learning rate per epoch; their logs print it after the step


def convert(source: str | Path, out: str | Path) -> dict[str, int]:
    """Write the tables that `full` reads out of the authors' public files; returns the rows of each table written.

    Read are, anywhere under `source`: per-unit scores (``machine_interpretability_*.pkl``, with `unpickle`), the
    plotted network means (``interpret_plot.py``) and layer scans (``plot-string.py``), both as literals without
    running the scripts, and the logs of one-shot retraining (``slurm-*.out``). A table for which nothing is there
    is not written. Not in these files: the InceptionV1 scores of the MIS authors, the scans of structured pruning
    and of connection sparsity, and the curves of runs whose logs were not published.

    Raises NotADirectoryError, FileNotFoundError where `source` holds nothing of all this, and ValueError with the
    file's name where one cannot be read.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise NotADirectoryError(f"{source} is no folder, expected a clone of the authors' repository")
    units = _unit_scores(source)
    tables = {
        "unit_mis": units,
        "mean_mis": _plotted_means(source),
        "retraining_curves": _curves(source),
        "sensitivity": _scans(source),
    }
    written = {name: table for name, table in tables.items() if len(table)}
    if not written:
        raise FileNotFoundError(f"{source} has none of the authors' scores, scripts or logs")
    out.mkdir(parents=True, exist_ok=True)
    for name, table in written.items():
        write = table.to_csv if FILES[name].endswith(".csv") else table.to_parquet
        write(out / FILES[name], index=False)
    return {name: len(table) for name, table in written.items()}


def _unit_scores(source: Path) -> pd.DataFrame:
    """One row per unit of every scored network. A network found twice must have the same scores twice."""
    tables: dict[tuple, tuple[Path, pd.DataFrame]] = {}
    for path in sorted(source.rglob("machine_interpretability_*.pkl")):
        network = _network_of(path.stem)
        if network is None:
            warnings.warn(f"{path}: its name says no configuration that is known, left out", stacklevel=2)
            continue
        scores = _scores_of(path)
        first, known = tables.setdefault(tuple(network.values()), (path, scores.assign(**network)))
        if not known[scores.columns].equals(scores):
            raise ValueError(f"{path} and {first} score the same network differently")
    if not tables:
        return pd.DataFrame()
    columns = ["network", "method", "optimizer", "epochs", "rate", "layer", "kind", "unit", "mis", "mis_confidence"]
    return pd.concat([table[columns] for _, table in tables.values()], ignore_index=True)


def _network_of(name: str) -> dict | None:
    if name.endswith("natural_googlenet"):  # what their plots call unpruned
        return {"network": "tf_inceptionv1_lucent", "method": "none", "optimizer": "none", "epochs": 0, "rate": 0.0}
    found = NETWORK.search(name)
    if not found:
        return None
    return {"network": "torchvision_googlenet", "method": FILE_METHODS[found["method"]],
            "optimizer": found["optimizer"], "epochs": int(found["epochs"]), "rate": float(found["rate"])}  # fmt: skip


def _scores_of(path: Path) -> pd.DataFrame:
    found = unpickle(path)
    table = found.get("scores") if isinstance(found, dict) else None
    if not isinstance(table, pd.DataFrame) or not {"layer", "unit", "mis_confidence"} <= set(table):
        has = list(table) if isinstance(table, pd.DataFrame) else sorted(map(str, found)) if table is None else table
        raise ValueError(f"{path}: found {has}, expected scores with the columns layer, unit, mis_confidence")
    # Their scripts name the 2-AFC accuracy in two ways; of 20 tasks it is a multiple of .05.
    accuracy = next((c for c in ("mis", "mis_score") if c in table and _multiples(table[c], 1 / 20)), None)
    if accuracy is None:
        raise ValueError(f"{path}: found the columns {list(table)}, expected mis, a 2-AFC accuracy of 20 tasks")
    layer = table.layer.astype(str)
    kind = np.select([layer.str.contains("_bn"), layer.str.contains("fc|softmax")], ["batch_norm", "linear"], "conv")
    return pd.DataFrame(
        {
            "layer": layer.to_numpy(),
            "kind": kind,
            "unit": table.unit.astype(int).to_numpy(),
            "mis": table[accuracy].to_numpy(float),
            "mis_confidence": table.mis_confidence.to_numpy(float),
        }
    )


def _multiples(values: pd.Series, step: float) -> bool:
    return bool(np.allclose(values / step, (values / step).round(), atol=1e-4))


def _plotted_means(source: Path) -> pd.DataFrame:
    """The network means of their plot: the unpruned one, and one row per rate of every series."""
    for path in sorted(source.rglob("interpret_plot.py")):
        literals = _literals(path)
        if not {"pruning_rates", "mis_confidence"} <= set(literals):
            raise ValueError(f"{path}: found {sorted(literals)}, expected pruning_rates and mis_confidence")
        rates, series = literals["pruning_rates"], literals["mis_confidence"]
        if unknown := set(series) - set(SERIES) - {"Unpruned GoogleNet"}:
            raise ValueError(f"{path}: unknown series {sorted(unknown)}, expected {', '.join(SERIES)}")
        keys = ["method", "schedule", "optimizer", "epochs"]
        columns = [*keys, "rate", "mean_mis_confidence", "placeholder", "in_pooled_plot"]
        unpruned = ("unpruned_tf_inceptionv1", "none", "none", 0, 0.0, series["Unpruned GoogleNet"][0], False, False)
        rows = [
            (*configuration, rate, mean, configuration[1] == "iterative" and mean == PLACEHOLDER, True)
            for name, configuration in SERIES.items()
            for rate, mean in zip(rates, series.get(name, rates), strict=True)
            if name in series and rate > 0
        ]
        return pd.DataFrame([unpruned, *rows], columns=columns)
    return pd.DataFrame()


def _scans(source: Path) -> pd.DataFrame:
    for path in sorted(source.rglob("plot-string.py")):
        rows = [
            {"method": SCANS[name], "layer": line["layer"] or "all", "rate": float(line["rate"]),
             "top1": float(line["top1"])}
            for name, text in _literals(path).items()
            if name in SCANS
            for line in SCAN_LINE.finditer(text)
        ]  # fmt: skip
        return pd.DataFrame(rows)
    return pd.DataFrame()


def _literals(path: Path) -> dict[str, object]:
    """Names at the top of a script that are assigned literals; the script is not run."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _curves(source: Path) -> pd.DataFrame:
    """Top-1 per epoch of one-shot retraining. A configuration that ran several times is taken from its last job."""
    runs = {}
    for path in sorted(source.rglob("slurm-*.out"), key=lambda path: path.name):
        for name, sparsity, rate, top1 in _runs(path):
            found = NETWORK.fullmatch(name.removesuffix(".pth"))
            if found and len(top1) == int(found["epochs"]) + 1:
                key = {"method": FILE_METHODS[found["method"]], "schedule": "one_shot", "optimizer": found["optimizer"],
                       "learning_rate": rate, "epochs": int(found["epochs"]), "rate": float(found["rate"])}  # fmt: skip
                runs[tuple(key.values())] = pd.DataFrame(
                    {**key, "actual_conv_sparsity": round(sparsity, 4), "epoch": range(len(top1)), "top1": top1}
                )
    return pd.concat(runs.values(), ignore_index=True) if runs else pd.DataFrame()


def _runs(path: Path) -> Iterator[tuple[str, float, float, list[float]]]:
    """Saved file, sparsity, first learning rate and Top-1 (after pruning, then per epoch) of each run in a log.

    The saved file's name says what a run was: the header above it may be left from another configuration.
    """
    sparsity, rate, top1 = np.nan, np.nan, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = LOG_LINE.match(line)
        if not found:
            continue
        if found["sparsity"]:
            sparsity = float(found["sparsity"])
        elif found["pruned"]:
            top1 = [float(found["pruned"])]
        elif found["epoch"]:
            rate = round(float(found["rate"]) / DECAY, 6) if found["epoch"] == "1" else rate
            top1.append(float(found["top1"]))
        else:
            yield found["saved"], sparsity, rate, top1


# ------------------------------------------------------------------------------------------------- unpickling


def unpickle(path: str | Path) -> object:
    """What a pickle holds, if that is made of Python's containers, numpy arrays and pandas tables only.

    A pickle can name any function and have it called when it is read. Here names are looked up in `ALLOWED` and
    nowhere else. Raises ValueError that says which file and which name, also for a file that is no pickle.
    """
    with open(path, "rb") as file:
        try:
            return _Unpickler(file).load()
        except Exception as error:  # a damaged pickle fails in any way it likes
            raise ValueError(f"{path}: {error or type(error).__name__}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        known = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core"), name
        if known not in ALLOWED:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}, expected plain data, numpy or pandas")
        return ALLOWED[known]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as old pickles write them: the only use of codecs that they need."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused the encoding {encoding}, expected latin1")
    return text.encode("latin1")


ALLOWED = {
    **{("builtins", kind.__name__): kind for kind in (bytearray, complex, frozenset, range, set, slice)},
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
    ("numpy.core.multiarray", "scalar"): multiarray.scalar,
    ("numpy.core.numeric", "_frombuffer"): numeric._frombuffer,
    ("pandas", "DataFrame"): pd.DataFrame,
    ("pandas", "Index"): pd.Index,
    ("pandas", "RangeIndex"): pd.RangeIndex,
    ("pandas.core.frame", "DataFrame"): pd.DataFrame,
    ("pandas.core.indexes.base", "Index"): pd.Index,
    ("pandas.core.indexes.base", "_new_Index"): _new_Index,
    ("pandas.core.indexes.numeric", "Int64Index"): pd.Index,
    ("pandas.core.indexes.range", "RangeIndex"): pd.RangeIndex,
    ("pandas.core.internals.managers", "BlockManager"): BlockManager,
    ("pandas._libs.internals", "_unpickle_block"): _unpickle_block,
}


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m prunelens.published DIR [OUT]   (OUT: published)")
    target = sys.argv[2] if len(sys.argv) == 3 else "published"
    for name, rows in convert(sys.argv[1], target).items():
        print(f"{Path(target) / FILES[name]}: {rows:,} rows")
    print(f"To use them: export PRUNELENS_PUBLISHED={Path(target).resolve()}")
