"""Sensitivity: how much accuracy is lost when one layer alone is pruned, without retraining."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from prunelens import evaluation, networks, pruning
from prunelens.datasets import ImageSet


def scan(
    network: nn.Module,
    image_set: ImageSet,
    block: str,
    methods: Iterable[str],
    rates: Sequence[float],
    seed: int,
    batch_size: int,
    device: torch.device,
) -> pd.DataFrame:
    """Top-1 after pruning each layer of one inception block alone: a row per method, layer and rate.

    Columns: method, layer, rate, and those of ``evaluation.accuracy``. The network is left as it was; what comes
    before the block is computed once for all rows.
    """
    network.to(device).eval()
    before, after = _split(networks.stages(network), block)
    layers = {f"{name}.weight": name for name in networks.prunable_layers(network) if name.startswith(block)}
    rows = []
    with torch.inference_mode():
        inputs = [_through(before, images) for images, _ in image_set.batches(batch_size, device)]
        for method in methods:
            for rate in rates:
                masks = pruning.find(method)(network, rate, torch.Generator().manual_seed(seed))
                for name, layer in layers.items():
                    found = _pruned_accuracy(network.get_parameter(name), masks[name], inputs, after, image_set)
                    rows.append({"method": method, "layer": layer, "rate": rate, **found})
    return pd.DataFrame(rows)


def _pruned_accuracy(
    weight: nn.Parameter, mask: Tensor, inputs: list[Tensor], after: list[Callable], image_set: ImageSet
) -> dict[str, float]:
    whole = weight.detach().clone()
    try:
        weight.data.mul_(mask)
        logits = torch.cat([_through(after, batch) for batch in inputs])
    finally:
        weight.data.copy_(whole)
    return evaluation.accuracy(logits.float().cpu().numpy(), image_set)


def _split(stages: dict[str, Callable], block: str) -> tuple[list[Callable], list[Callable]]:
    first = list(stages).index(block)
    return list(stages.values())[:first], list(stages.values())[first:]


def _through(stages: list[Callable], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


def tolerated(table: pd.DataFrame, dense_top1: float, tolerance: float) -> dict[str, float]:
    """By layer, the largest scanned rate up to which Top-1 stays within ``tolerance`` of the dense network's.

    table: columns layer, rate, top1, one method. A layer that tolerates no scanned rate gets half of the smallest.
    """
    rates = {}
    for layer, rows in table.sort_values("rate").groupby("layer", sort=False):
        fine = np.logical_and.accumulate(rows.top1.to_numpy() >= dense_top1 - tolerance)
        rates[str(layer)] = float(rows.rate[fine].max() if fine.any() else rows.rate.min() / 2)
    return rates
