"""Sensitivity: how much accuracy is lost when one layer alone is pruned, without retraining."""

import copy
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from prunelens.images.imageset import ImageSet
from prunelens.networks.architecture import Architecture, Step
from prunelens.pruning import accuracy
from prunelens.pruning.masks import MakeContext, Method, prune


def scan(
    network: nn.Module,
    architecture: Architecture,
    image_set: ImageSet,
    block: str,
    methods: Mapping[str, Method],
    rates: Sequence[float],
    make_context: MakeContext,
    *,
    batch_size: int,
    device: torch.device | str,
) -> pd.DataFrame:
    """Measure Top-1 after pruning each layer of one block alone: a row per method, layer and rate.

    Columns: method, layer, rate, and those of `accuracy.accuracy`. The network is left as it was; what comes before the
    block is computed once for all rows.
    """
    network.to(device).eval()
    steps = architecture.steps(network)
    first = list(steps).index(block)
    before, after = list(steps.values())[:first], list(steps.values())[first:]
    layers = [layer for layer in architecture.prunable(network) if architecture.block(layer) == block]
    with torch.inference_mode():
        inputs = [_through(before, images) for images, _ in image_set.batches(batch_size, device)]
    rows = []
    for name, method in methods.items():
        for rate in rates:
            masks = prune(copy.deepcopy(network), method, rate, make_context)
            for layer in layers:
                logits = _pruned_logits(network.get_submodule(layer).weight, masks[f"{layer}.weight"], inputs, after)
                rows.append({"method": name, "layer": layer, "rate": rate, **accuracy.accuracy(logits, image_set)})
    return pd.DataFrame(rows)


@torch.inference_mode()
def _pruned_logits(weight: nn.Parameter, mask: Tensor, inputs: list[Tensor], after: list[Step]) -> np.ndarray:
    whole = weight.detach().clone()
    try:
        weight.data.mul_(mask.to(weight.device))
        return torch.cat([_through(after, batch) for batch in inputs]).float().cpu().numpy()
    finally:
        weight.data.copy_(whole)


def _through(steps: list[Step], x: Tensor) -> Tensor:
    return reduce(lambda x, step: step(x), steps, x)
