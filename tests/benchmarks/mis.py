"""What the MIS of a whole network costs: `python tests/benchmarks/mis.py [cpu|cuda]`, about 2 minutes on 2 cores.

Prints the scoring of one network at the size of a study, the same margins with the similarity evaluated pair by
pair, and the recording of all units against a bare forward pass. On a GPU all of it runs there that uses PyTorch.
Every time is given as wall-clock and, in brackets, CPU seconds: the latter do not count other processes' share.
"""

import platform
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from prunelens import registry
from prunelens.images.imageset import BATCH, to_batch
from prunelens.networks import architectures
from prunelens.networks.architecture import Architecture, unit_layers
from prunelens.networks.hooks import evaluating
from prunelens.units import extremes, mis
from prunelens.units.recording import NetworkSource

TASKS, EXPLANATIONS, STIMULI, FEATURES = 20, 9, 4000, 1280
K = TASKS * (EXPLANATIONS + 1)
PAIRWISE_UNITS, PAIRWISE_TASKS = 50, 3  # of embeddings, and of images


def main(device: str) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")
    architecture = architectures.load("googlenet")
    network = architecture.build(1000).to(device)
    scoring({name: layer.weight.shape[0] for name, layer in unit_layers(architecture, network).items()}, device)
    for size, images in ((64, 256), (224, 32)):
        recording(architecture, network, size, images if device == "cpu" else 32 * images, device)


def scoring(widths: dict[str, int], device: str) -> None:
    """From activations to scores of every unit of layers of these widths; the same margins pair by pair for some."""
    rng = np.random.default_rng(0)
    units = sum(widths.values())
    values = {name: rng.standard_normal((STIMULI, width), dtype=np.float32) for name, width in widths.items()}
    rows = rng.standard_normal((STIMULI, FEATURES), dtype=np.float32)
    embeddings = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).to(device)
    keys = extremes.tie_keys([str(i) for i in range(STIMULI)], 0)
    ranked: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    products: list[mis.Gram | torch.Tensor] = []
    found: dict[str, np.ndarray] = {}

    def rank() -> None:
        ranked.update({layer: extremes.extremes(value, K, keys)[:2] for layer, value in values.items()})

    def gram() -> None:
        products[:] = [mis.gram(embeddings, device)]

    def margins() -> None:
        for layer, (top, bottom) in ranked.items():
            found[layer] = mis.margins(top, bottom, products[0], TASKS, EXPLANATIONS, layer=layer)

    def score() -> None:
        for values in found.values():
            mis.mis(values, 0.1)
            mis.two_afc_accuracy(values)

    before = peak_memory()
    steps = {step.__name__: best(step, device) for step in (rank, gram, margins, score)}
    print(f"\nscoring {units} units, N = {TASKS}, K = {EXPLANATIONS}, {STIMULI} stimuli, {FEATURES}-d, best of 3:")
    print("  " + ", ".join(f"{name} {show(taken)}" for name, taken in steps.items()))
    print(f"  in all {show(sum(steps.values()))}; peak memory {peak_memory():.2f} GB, {before:.2f} GB before scoring")

    layer = "inception4c.branch1.conv"
    top, bottom = (images[:PAIRWISE_UNITS] for images in ranked[layer])

    def from_embeddings() -> None:
        for layer, (top, bottom) in ranked.items():
            mis.margins(top, bottom, embeddings, TASKS, EXPLANATIONS, layer=layer)

    print(f"  margins from the embeddings, without their gram: {show(best(from_embeddings, device))}")
    by_pairs: list[np.ndarray] = []
    slow = best(lambda: by_pairs.append(pair_by_pair(top, bottom, embeddings, layer)), device) / PAIRWISE_UNITS
    np.testing.assert_allclose(found[layer][:PAIRWISE_UNITS], by_pairs[0], atol=1e-6)
    fast = steps["margins"] / units
    once = (steps["gram"] + steps["margins"]) / units
    print(f"  margins per unit: {show(fast, 1e3)} ms, {show(once, 1e3)} ms were the gram made for one network alone")
    print(f"  pair by pair, embeddings known: {show(slow, 1e3)} ms, {times(slow, fast)}, or {times(slow, once)}")

    metric = registry.find("similarity", "efficientnet_lite0")()
    pair = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pairs = 4 * EXPLANATIONS * PAIRWISE_TASKS
    slow = best(lambda: [metric.embed(pair, 2, device) for _ in range(pairs)], device) * TASKS / PAIRWISE_TASKS
    print(f"  pair by pair, efficientnet_lite0 given two images at a time: {show(slow)} s, {times(slow, fast)}")


def recording(
    architecture: Architecture, network: torch.nn.Module, size: int, n: int, device: str, pairs: int = 7
) -> None:
    """Recording and the bare forward pass of the same images, in turn; the medians of the ratios of pairs."""
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    source = NetworkSource(architecture, network, device)

    def forward() -> None:
        with evaluating(network):
            for start in range(0, n, BATCH):
                network(to_batch(images[start : start + BATCH], device)).cpu()

    ways = {"forward": forward, "convs, rectified, output": lambda: list(source.batches(images))}
    timed = [{way: seconds(run, device) for way, run in ways.items()} for _ in range(pairs + 1)][1:]
    bare = np.median([taken["forward"] for taken in timed], axis=0)
    print(f"\nrecording {n} images of {size} px: forward pass {show(bare)} s; of {pairs} pairs, the median and range")
    for way in list(ways)[1:]:
        ratios = np.array([taken[way] / taken["forward"] for taken in timed])
        (wall, cpu), (low, _), (high, _) = np.median(ratios, axis=0), ratios.min(axis=0), ratios.max(axis=0)
        print(f"  {way}: {wall:.3f}x (CPU {cpu:.3f}x), {low:.3f} to {high:.3f}")


def pair_by_pair(top: np.ndarray, bottom: np.ndarray, embeddings: torch.Tensor, layer: str) -> np.ndarray:
    """Margins (units, N) by evaluating the similarity of every query with every explanation, as it is defined."""
    chosen = mis.tasks(len(top), TASKS, EXPLANATIONS, layer=layer)
    found = np.empty((len(top), TASKS))
    for unit in range(len(top)):
        for i in range(TASKS):
            queries = embeddings[[top[unit, chosen.queries[i]], bottom[unit, chosen.queries[i]]]]
            sides = (top[unit, chosen.top[unit, i]], bottom[unit, chosen.bottom[unit, i]])
            s = [[sum(float(q @ embeddings[e]) for e in side) / EXPLANATIONS for side in sides] for q in queries]
            found[unit, i] = s[0][0] - s[0][1] - s[1][0] + s[1][1]
    return found


def seconds(run: Callable[[], object], device: str) -> np.ndarray:
    """Wall-clock and CPU seconds."""
    start = np.array([time.perf_counter(), time.process_time()])
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()]) - start


def best(run: Callable[[], object], device: str) -> np.ndarray:
    return np.min([seconds(run, device) for _ in range(3)], axis=0)


def show(taken: np.ndarray, factor: float = 1) -> str:
    return f"{factor * taken[0]:.3f} ({factor * taken[1]:.3f})"


def times(slow: np.ndarray, fast: np.ndarray) -> str:
    return f"{slow[0] / fast[0]:.0f}x ({slow[1] / fast[1]:.0f}x)"


def peak_memory() -> float:
    """The process's largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
