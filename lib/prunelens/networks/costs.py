"""What a network costs: parameters, multiply-accumulates, bytes, and seconds on this machine."""

import copy
import time
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunelens.networks.architecture import Architecture, parameters
from prunelens.networks.hooks import evaluating, recording


def size(architecture: Architecture, network: nn.Module, pixels: int) -> dict[str, int]:
    """Count what inference on one image of ``pixels`` x ``pixels`` takes.

    parameters; macs: multiply-accumulates of convs and matrix products, zeros included (torch.utils.flop_counter, which
    counts two operations for each); sparse_macs: those whose weight is not zero; bytes: of the weights and statistics
    in float32.
    """
    counted = dict(parameters(architecture, network))
    image = next(iter(counted.values())).new_zeros(1, 3, pixels, pixels)
    modules = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    with evaluating(network), recording(network, modules, _places) as places:
        with FlopCounterMode(display=False) as counter:
            network(image)
    macs = counter.get_total_flops() // 2
    zeros = sum(n * (m.weight.numel() - int(m.weight.count_nonzero()))
                for name, n in places.items() for m in [modules[name]])  # fmt: skip
    state = {name: tensor for name, tensor in network.state_dict().items() if not architecture.is_aux(name)}
    return {
        "parameters": sum(parameter.numel() for parameter in counted.values()),
        "macs": macs,
        "sparse_macs": macs - zeros,
        "bytes": sum(_bytes(tensor) for tensor in state.values()),
    }


def _places(output: Tensor) -> int:
    """How often a layer applies its weights to an image."""
    return output[0, 0].numel()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())


def latency(
    networks: Mapping[str, nn.Module], size: int, batch_size: int, repeats: int, device: torch.device | str
) -> pd.DataFrame:
    """Wall-clock time of forward passes of `batch_size` random images of `size` pixels: a row per network.

    The networks take turns, `repeats` rounds after three that warm up, so that what slows the machine for a
    while slows all of them. Evaluation mode, channels last, bfloat16 autocast on a GPU, which is waited for
    before every reading of the clock. Copies are timed: the networks given stay as they are. Columns: network
    (its name), batch_size, size, seconds, seconds_low, seconds_high (median, least and most), images_per_second
    at the median, and speedup, speedup_low, speedup_high: the first network's seconds over this one's in the same
    round (median, least and most).
    """
    device = torch.device(device)
    copies = {
        name: copy.deepcopy(network).to(device, memory_format=torch.channels_last) for name, network in networks.items()
    }
    images = torch.rand(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    seconds = np.empty((3 + repeats, len(copies)))
    with ExitStack() as stack:
        for network in copies.values():
            stack.enter_context(evaluating(network))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"))
        for turn in range(len(seconds)):
            seconds[turn] = [_seconds(network, images) for network in copies.values()]
    seconds = seconds[3:]
    table = pd.DataFrame({"network": list(copies), "batch_size": batch_size, "size": size})
    for name, values in (("seconds", seconds), ("speedup", seconds[:, :1] / seconds)):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = (
            np.median(values, 0), values.min(0), values.max(0),
        )  # fmt: skip
    return table.assign(images_per_second=batch_size / table.seconds)


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    def wait() -> None:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    wait()
    start = time.perf_counter()
    network(images)
    wait()
    return time.perf_counter() - start
