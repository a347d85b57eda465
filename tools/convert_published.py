"""Write the tables that `prunelens.analysis.published.full` reads out of the paper's authors' public files.

    python tools/convert_published.py DIR [OUT]   (OUT: published)

DIR is a clone of github.com/Uni-Tubingen-Teamproject/Network-Pruning-and-Interpretability. None of its scripts is run,
and its pickles are read without calling anything that they name.
"""

import ast
import collections
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

from prunelens.analysis.published import FILES

# The authors' names of files and of plotted series, in the words of the published tables.
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
LOG_LINE = re.compile(
    r"Actual Pruning Rate: (?P<sparsity>[\d.]+)"
    r"|Accuracy after pruning.*: +(?P<pruned>[\d.e-]+)"
    r"|Epoch \[(?P<epoch>\d+)/.*Learning Rate: (?P<rate>[\d.e-]+), Validation Accuracy: (?P<top1>[\d.e-]+)"
    r"|.*saved as (?P<saved>pruned_\S+)"
)
DECAY = 0.9  # of the learning rate per epoch; their logs print it after the step


def convert(source: str | Path, out: str | Path) -> dict[str, int]:
    """Write the published tables found in the authors' files; returns the number of rows of each.

    Reads, anywhere under `source`: per-unit scores (``machine_interpretability_*.pkl``), the plotted network means
    (``interpret_plot.py``), and the logs of one-shot retraining (``slurm-*.out``). A table without a source is not
    written. The curves of runs without published logs are not in these files.

    Raises:
        NotADirectoryError: `source` is no folder.
        FileNotFoundError: it has none of these files.
        ValueError: one of them cannot be read; names the file.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise NotADirectoryError(f"{source} is no folder, expected a clone of the authors' repository")
    units = _unit_scores(source)
    tables = {
        "unit_mis": units,
        "mean_mis": _plotted_means(source),
        "retraining_curves": _curves(source),
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
    # The scripts name the 2-AFC accuracy in two ways; of 20 tasks it is a multiple of .05.
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
    """The network means of the authors' plot: the unpruned network, then one row per series and rate."""
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


def _literals(path: Path) -> dict[str, object]:
    """The literals that a script assigns to names at its top level."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _curves(source: Path) -> pd.DataFrame:
    """Top-1 per epoch of one-shot retraining; of a configuration that ran several times, the last job's."""
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

    A run is named by the file it saved, as headers in the logs may be those of another configuration.
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
    """Read a pickle of plain containers, numpy arrays and pandas tables.

    A pickle can name any function and have it called on reading. Here names are looked up in `ALLOWED` alone.

    Raises:
        ValueError: it names anything else, or is damaged; says which file and which name.
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


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit("usage: python tools/convert_published.py DIR [OUT]   (OUT: published)")
    target = Path(arguments[1] if len(arguments) == 2 else "published")
    for name, rows in convert(arguments[0], target).items():
        print(f"{target / FILES[name]}: {rows:,} rows")
    print(f"To use them: export PRUNELENS_PUBLISHED={target.resolve()}")


if __name__ == "__main__":
    main(sys.argv[1:])
