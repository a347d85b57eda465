"""Weights: drawn, and loaded with a check of names, shapes and numbers."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def initialize(network: nn.Module, seed: int) -> None:
    """Draw every conv and fc weight anew (He et al. 2015, normal, fan in), biases zero, BatchNorm to identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            module.weight.data.copy_(noise)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a safetensors file (any float precision) into a network of the same architecture.

    Auxiliary heads are ignored: torchvision's were never trained.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds another architecture's tensors (names the first that differ), or numbers
            that are none.
    """
    if not file.is_file():
        raise FileNotFoundError(f"network.weights: found no file {file}, expected a safetensors file")
    if file.suffix in (".pt", ".pth"):
        raise ValueError(
            f"network.weights: found {file}, expected a safetensors file; to convert a state dict: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)"
        )
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"network.weights: {file} is damaged or no safetensors file ({error})") from error
    load_state(network, found, str(file))


def load_state(network: nn.Module, found: dict[str, Tensor], origin: str) -> None:
    """Load tensors into a network after comparing names and shapes; ``origin`` names them in the error.

    Auxiliary heads are left as they are, whether ``found`` has them or not.
    """
    expected = network.state_dict()
    found = {_plain(name): tensor for name, tensor in found.items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith("aux")}
    optional = {name for name in expected if name.startswith("aux") or name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - optional)
    unknown = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name}: found {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"{origin} holds weights of another architecture than {type(network).__name__}: "
            f"missing {_first(missing)}; unknown {_first(unknown)}; other shapes {_first(shapes)}"
        )
    _require_numbers(found, expected, origin)
    network.load_state_dict({**expected, **found})


def _plain(name: str) -> str:
    """A tensor's name without what DataParallel and torch.compile put before it."""
    return name.removeprefix("_orig_mod.").removeprefix("module.")


def _require_numbers(found: dict[str, Tensor], expected: dict[str, Tensor], origin: str) -> None:
    for name, tensor in found.items():
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{origin}: found {name} of type {tensor.dtype}, expected floating-point numbers")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{origin}: {name} has values that are not finite")
    weights = [tensor for name, tensor in found.items() if name.endswith("weight")]
    if weights and not any(tensor.any() for tensor in weights):
        raise ValueError(f"{origin}: all weights are zero")


def _first(names: list[str]) -> str:
    return "none" if not names else f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
