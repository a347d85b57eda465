"""What a feature visualization costs: `python tests/benchmarks/visualization.py`, about 10 minutes on 2 cores.

Prints images x steps per second of units drawn as one batch, and one by one by lucent's `render_vis` with the same
size, steps, parameterization and transforms, in turns; whether both drew the same; and the memory of a batch's worth of
units and of four times as many.
Other starts for units that are not excited, which lucent does not try, are left out: 24 steps are few.
Runs on a GPU where there is one, as lucent does.
"""

import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from lucent.optvis import param, render

from prunelens.networks import architectures, weights
from prunelens.units import pictures
from prunelens.units.pictures import draw, scaled_transforms

UNITS, STEPS, ROUNDS = 16, 24, 3
LAYERS = ("inception3b.branch2.1.conv", "inception4d.branch3.1.conv", "inception5a.branch4.1.conv")


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")
    # First: the peak of a process begins at what its parent held when it started it.
    for n in (32, 128):
        print(f"64 px, {n} units: peak memory {memory_of_another_process(n)} MB")
    network = googlenet(device)
    with mock.patch.object(pictures, "RESTARTS", 0):
        for size in (64, 128, 224):
            for layer in LAYERS if size < 224 else LAYERS[1:2]:
                compare(network, layer, size)


def googlenet(device: str) -> torch.nn.Module:
    network = architectures.load("googlenet").build(1000)
    weights.initialize(network, 0)
    return network.to(device).eval()


def units(layer: str, n: int) -> list[tuple[str, int]]:
    return [(layer, unit) for unit in range(n)]


def compare(network: torch.nn.Module, layer: str, size: int) -> None:
    """Seconds of a batch and of single units, in turns; the quotient of every round says how sure it is."""
    chosen = units(layer, UNITS)
    batched, single, quotients = [], [], []
    for _ in range(ROUNDS):
        batched.append(seconds(lambda: draw(network, chosen, size=size, steps=STEPS, seed=0)))
        single.append(seconds(lambda: [one_by_one(network, unit, size) for unit in chosen]))
        quotients.append(single[-1] / batched[-1])
    drawn = draw(network, chosen[:1], size=size, steps=STEPS, seed=0).images[0, 0]
    off = np.abs(drawn.astype(int) - one_by_one(network, chosen[0], size)).max()
    rate = [UNITS * STEPS / statistics.median(times) for times in (batched, single)]
    print(
        f"{size} px, {layer}: {rate[0]:.1f} images x steps/s as a batch, {rate[1]:.1f} one by one: "
        f"{statistics.median(quotients):.2f} times ({min(quotients):.2f} to {max(quotients):.2f}); "
        f"pictures differ by at most {off} of 255"
    )


def one_by_one(network: torch.nn.Module, unit: tuple[str, int], size: int) -> np.ndarray:
    """lucent's own way: its hooks stay, so that they are removed here."""
    torch.manual_seed(0)
    np.random.seed(0)
    layer, index = unit
    [image] = render.render_vis(
        network, f"{layer.replace('.', '_')}:{index}", param_f=lambda: param.image(size),
        transforms=scaled_transforms(size)[:-1], fixed_image_size=size, thresholds=(STEPS,), preprocess=False,
        progress=False, show_image=False,
    )  # fmt: skip
    for module in network.modules():
        module._forward_hooks.clear()
    return (image[0] * 255).round().astype(np.uint8)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def memory_of_another_process(n: int) -> int:
    """MB that it ever holds to draw n units: on the GPU, or of a CPU's memory with Python and the libraries."""
    found = subprocess.run([sys.executable, __file__, str(n)], check=True, stdout=subprocess.PIPE, text=True)
    return int(found.stdout)


def peak_memory(n: int) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with mock.patch.object(pictures, "RESTARTS", 0):
        draw(googlenet(device), units(LAYERS[2], n), size=64, steps=4, seed=0)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(peak_memory(int(sys.argv[1])))
    else:
        main()
