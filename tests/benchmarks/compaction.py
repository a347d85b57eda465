"""What compaction gives: `python tests/benchmarks/compaction.py [googlenet|bvlc_googlenet]`, some 5 minutes on 2 cores.

Prints, for weights drawn at random: how far compact outputs are from masked ones for every method and rate; the cost
of dense and compact networks with paired latencies (median of the ratios, least and most in brackets); and where the
time of a pass goes. Threads: as OMP_NUM_THREADS says.
"""

import copy
import platform
import sys
import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from prunelens import registry
from prunelens.networks import architectures, compaction, weights
from prunelens.networks.architecture import Architecture
from prunelens.networks.costs import costs, latency
from prunelens.pruning import masks
from prunelens.pruning.context import Context

SIZE, BATCHES, REPEATS = 160, (1, 32), 9
VARIANTS = [
    ("structured .4", "structured_l1", 0.4),
    ("structured .8", "structured_l1", 0.8),
    ("shared CS .4", "connection_l1_shared", 0.4),
    ("shared CS .8", "connection_l1_shared", 0.8),
    ("CS .8", "connection_l1", 0.8),
    ("random CS .8", "connection_random", 0.8),
]
METHODS = [name for name in registry.built_ins("method") if name.startswith(("structured", "connection"))]
KINDS = {
    "convolution": "mkldnn_convolution",
    "BatchNorm": "native_batch_norm",
    "ReLU": "clamp_min",
    "max pool": "max_pool2d_with_indices",
    "concatenation": "aten::cat",
    "selection": "index_select",
}


def main(name: str) -> None:
    machine = platform.processor() or platform.machine()
    print(f"{name}, {machine}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")
    architecture = architectures.load(name)
    dense = architecture.build(1000).eval()
    weights.initialize(dense, seed=0)
    agreement(architecture, dense)
    speed(architecture, dense)
    for method in ("structured_l1", "connection_l1_shared"):
        where(architecture, dense, method)


def pruned(architecture: Architecture, dense: nn.Module, method: str, rate: float) -> nn.Module:
    network, part = copy.deepcopy(dense), registry.find("method", method)
    masks.prune(network, part, rate, lambda network: Context(network, architecture, 0, dict, dict))
    return network


def agreement(architecture: Architecture, dense: nn.Module) -> None:
    """With biases and BatchNorm drawn too, so that filters of zeros write constants."""
    perturbed, images = copy.deepcopy(dense), torch.rand(2, 3, 96, 96)
    generator = torch.Generator().manual_seed(0)
    for module in perturbed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_(0.2, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.normal_(5, 10, generator=generator)
    table = {}
    for method in METHODS:
        for rate in (0.2, 0.4, 0.6, 0.8):
            network = pruned(architecture, perturbed, method, rate)
            with torch.inference_mode():
                masked, found = network(images), compaction.compact(architecture, network, 96)(images)
            table.setdefault(f"{rate:.1f}", {})[method] = float((masked - found).abs().max() / masked.abs().max())
    print("\nlargest difference between compact and masked outputs, relative to the largest output, by rate")
    print(pd.DataFrame(table).map("{:.0e}".format).to_string(), flush=True)


def speed(architecture: Architecture, dense: nn.Module) -> None:
    """All networks take turns."""
    compact, sizes = {"dense": dense}, {"dense": _cost(architecture, dense)}
    for name, method, rate in VARIANTS:
        masked = pruned(architecture, dense, method, rate)
        compact[name] = compaction.compact(architecture, masked, SIZE)
        sizes[name] = {
            **_cost(architecture, compact[name]),
            "sparse MACs": _cost(architecture, masked)["sparse MACs"],
        }
    print(f"\nmillions; MACs of one image of {SIZE} px; sparse MACs are those of the masked network's nonzero weights")
    print(pd.DataFrame(sizes).T.to_string(), flush=True)
    for batch in BATCHES:
        repeats = REPEATS if batch > 1 else 5 * REPEATS
        print(f"\nbatch {batch}: ms, and how many times faster than dense")
        print(_read(latency(compact, SIZE, batch, repeats, "cpu")).to_string(), flush=True)


def _cost(architecture: Architecture, network: nn.Module) -> dict[str, str]:
    names = {"parameters": "parameters", "bytes": "MB", "macs": "MACs", "sparse_macs": "sparse MACs"}
    return {names[name]: f"{value / 1e6:.2f}" for name, value in costs(architecture, network, SIZE).items()}


def _read(table: pd.DataFrame) -> pd.Series:
    text = [
        f"{1e3 * row.seconds:.1f} ms, {row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f})"
        for row in table.itertuples()
    ]
    return pd.Series(text, index=table.network)


def where(architecture: Architecture, dense: nn.Module, method: str) -> None:
    """Milliseconds of each part of the network (the least of several passes) and of each kind of operation."""
    small = compaction.compact(architecture, pruned(architecture, dense, method, 0.8), SIZE)
    images = torch.rand(BATCHES[-1], 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    table = pd.DataFrame(
        {"dense": _by_part(architecture, dense, images), "compact": _by_part(architecture, small, images)}
    )
    table.loc["sum"] = table.sum()
    limit = table.dense["sum"] / table.dense["stem"]
    print(
        f"\n{method} .8, batch {len(images)}: ms; a free rest beside the dense stem would be {limit:.2f} times faster"
    )
    print(table.round(1).to_string())
    table = pd.DataFrame({"dense": _by_kind(dense, images), "compact": _by_kind(small, images)})
    print(table.round(1).to_string())


@torch.inference_mode()
def _by_part(architecture: Architecture, network: nn.Module, images: torch.Tensor) -> pd.Series:
    steps = architecture.steps(network)
    seconds = np.empty((REPEATS, len(steps)))
    for turn in seconds:
        x = images
        for i, step in enumerate(steps.values()):
            start = time.perf_counter()
            x = step(x)
            turn[i] = time.perf_counter() - start
    parts = [f"blocks {name[9]}" if name.startswith("inception") else _other_part(name) for name in steps]
    return pd.Series(1e3 * seconds.min(0)).groupby(parts, sort=False).sum()


def _other_part(name: str) -> str:
    if name in ("maxpool3", "maxpool4"):
        return "pools between"
    return "head" if name in ("avgpool", "flatten", "fc") else "stem"


@torch.inference_mode()
def _by_kind(network: nn.Module, images: torch.Tensor) -> pd.Series:
    passes = 3
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(passes):
            network(images)
    found = {event.key: event.self_cpu_time_total / 1e3 / passes for event in record.key_averages()}
    times = {kind: sum(ms for key, ms in found.items() if part in key) for kind, part in KINDS.items()}
    return pd.Series({**times, "other": sum(found.values()) - sum(times.values())})


if __name__ == "__main__":
    main(*sys.argv[1:] or ["googlenet"])
