"""What a network costs: parameters, multiply-accumulates, bytes, and seconds on this machine."""

import copy
import time
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunelens.networks.architecture import Architecture, parameters
from prunelens.networks.hooks import evaluating, recording


def costs(architecture: Architecture, network: nn.Module, size: int) -> dict[str, int]:
    """Count what inference on one image of ``size`` x ``size`` pixels takes.

    parameters; macs: multiply-accumulates of convs and matrix products, zeros included (half of the operations that
    torch.utils.flop_counter counts); sparse_macs: without those whose weight is zero; bytes: of weights and statistics
    in float32.

    Pooling, BatchNorm and activations do not count. Local response normalization, which torch.nn.LocalResponseNorm
    computes without any operation that counts, does here: as the 1x1 conv over all its channels that it is computed by,
    in full at any sparsity. It is 7.5 % of the original GoogLeNet, which no pruning takes.
    """
    counted = [parameter for _, parameter in parameters(architecture, network)]
    layers = {module: module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    counter = FlopCounterMode(display=False)
    with evaluating(network), counter, recording(network, layers, lambda output: output[0, 0].numel()) as places:
        network(counted[0].new_zeros(1, 3, size, size))
    zeros = {layer: layer.weight.numel() - int(layer.weight.count_nonzero()) for layer in places}
    macs = counter.get_total_flops() // 2
    state = [tensor for name, tensor in network.state_dict().items() if not architecture.is_aux(name)]
    return {
        "parameters": sum(parameter.numel() for parameter in counted),
        "macs": macs,
        "sparse_macs": macs - sum(places[layer] * zeros[layer] for layer in places),
        "bytes": sum(tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in state),
    }


def latency(
    networks: Mapping[str, nn.Module], size: int, batch_size: int, repeats: int, device: torch.device | str
) -> pd.DataFrame:
    """Time forward passes of ``batch_size`` random images of ``size`` pixels: a row per network.

    Copies of the networks take turns, ``repeats`` rounds after three that warm up, so that what slows the machine for a
    while slows all of them: in evaluation mode, channels last, with bfloat16 autocast on a GPU. Columns: network (its
    name), batch_size, size, seconds, seconds_low, seconds_high (median, least and most), speedup, speedup_low,
    speedup_high (the first network's seconds over this one's in the same round: median, least and most) and
    images_per_second at the median.
    """
    device = torch.device(device)
    copies = [copy.deepcopy(n).to(device, memory_format=torch.channels_last) for n in networks.values()]
    images = torch.rand(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    with ExitStack() as stack:
        for network in copies:
            stack.enter_context(evaluating(network))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"))
        seconds = np.array([[_seconds(network, images) for network in copies] for _ in range(3 + repeats)])[3:]
    table = pd.DataFrame({"network": list(networks), "batch_size": batch_size, "size": size})
    for name, values in (("seconds", seconds), ("speedup", seconds[:, :1] / seconds)):
        table[name], table[f"{name}_low"] = np.median(values, 0), values.min(0)
        table[f"{name}_high"] = values.max(0)
    return table.assign(images_per_second=batch_size / table.seconds)


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    wait = torch.cuda.synchronize if images.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    network(images)
    wait()
    return time.perf_counter() - start
