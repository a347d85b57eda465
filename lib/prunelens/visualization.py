"""Feature visualization: images that excite a unit as strongly as they can (Olah et al., Distill 2017).

Objectives, image parameterisation and transforms are lucent's. This module only drives them: many units as
one batch, on the network's own device and at its own image size, repeatable from a seed, with nothing left
behind in the network or the global random states. One call at a time per process, not from several threads:
lucent keeps its device and its random numbers in globals.
"""

import difflib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from tqdm import tqdm

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # kornia 0.4.1 still calls torch.jit.script
    from lucent.optvis import objectives, transform
    from lucent.optvis.param import color, spatial

Transform = Callable[[Tensor], Tensor]


class Visualization(NamedTuple):
    """One RGB image per unit, and the activation that the unit reaches on it.

    The objective is the unit's spatial mean on exactly this image, untransformed and in its natural scale.
    """

    images: UInt8[np.ndarray, "units size size 3"]
    objective: Float32[np.ndarray, "units"]


def visualize(
    network: nn.Module,
    units: Sequence[tuple[str, int]],
    *,
    size: int,
    steps: int,
    seed: int,
    learning_rate: float = 0.05,
    sign: int = 1,
    chunk: int = 16,
) -> Visualization:
    """Optimise one image for each unit, to raise (sign=1) or lower (sign=-1) its spatial mean activation.

    Units are (dotted layer name, channel or logit index). The activation is the layer's output: for a conv,
    that is before BatchNorm and ReLU. The network takes RGB in [0, 1] and normalises it itself. Adam moves
    the Fourier coefficients of a colour-decorrelated image, seen through random transforms.

    A unit's picture follows from network, unit and seed, not from the other units: all share one start and
    one sequence of transforms. At most `chunk` images are optimised at once, which bounds the memory. The
    forward pass ends at the chunk's deepest layer, so units listed layer by layer run fastest.

    Raises:
        ValueError: unknown or unused layer, index out of range, wrong sign; all before any optimisation.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign is {sign!r}, expected 1 (excite) or -1 (inhibit)")
    images = np.empty((len(units), size, size, 3), np.uint8)
    objective = np.empty(len(units), np.float32)
    chunks = [slice(first, first + chunk) for first in range(0, len(units), chunk)]
    with _frozen(network):
        _check_units(network, units, size)
        with tqdm(total=len(chunks) * steps, desc="visualize", unit="step") as progress:
            for part in chunks:
                images[part] = _optimize(network, units[part], size, steps, seed, learning_rate, sign, progress)
                objective[part] = _mean_activations(network, units[part], images[part])
    return Visualization(images, objective)


def scaled_transforms(size: int) -> list[Transform]:
    """lucent's standard transforms, pad and jitters scaled from 224 pixels to `size`; the size is kept."""
    scale = size / 224
    return [
        transform.pad(round(12 * scale), mode="constant", constant_value=0.5),
        transform.jitter(max(2, round(8 * scale))),  # 2 is the least that lucent takes
        transform.random_scale([1 + (i - 5) / 50 for i in range(11)]),
        transform.random_rotate([*range(-10, 11), 0, 0, 0, 0, 0]),
        transform.jitter(max(2, round(4 * scale))),
        nn.Upsample(size=size, mode="bilinear", align_corners=True),
    ]


def _optimize(
    network: nn.Module,
    units: Sequence[tuple[str, int]],
    size: int,
    steps: int,
    seed: int,
    learning_rate: float,
    sign: int,
    progress: tqdm,
) -> np.ndarray:
    """One chunk of `visualize`: uint8 (units, size, size, 3)."""
    layers = {layer for layer, _ in units}
    # A sum, not a mean: each image keeps the gradient it would have alone.
    loss = sign * objectives.Objective.sum(
        [objectives.channel(layer, index, batch=i) for i, (layer, index) in enumerate(units)]
    )
    with _lucent_on(_device(network)), _seeded(seed):
        params, image_f = _image(len(units), size)
        transform_f = transform.compose(scaled_transforms(size))
        optimizer = torch.optim.Adam(params, lr=learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            activations = _activations(network, layers, transform_f(image_f()))
            loss(activations.__getitem__).backward()
            optimizer.step()
            progress.update()
        with torch.no_grad():
            return image_f().mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _image(batch: int, size: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """lucent's param.image with one start for the whole batch: (Fourier coefficients, image in [0, 1])."""
    [start], _ = spatial.fft_image([1, 3, size, size])
    [spectrum], fft_f = spatial.fft_image([batch, 3, size, size])
    spectrum.data.copy_(start.data.expand_as(spectrum))
    # to_valid_rgb(decorrelate=True) would move the colours to a GPU whenever there is one.
    colors = torch.from_numpy(color.color_correlation_normalized).to(spectrum.device)
    return [spectrum], color.to_valid_rgb(lambda: (fft_f().movedim(1, -1) @ colors.T).movedim(-1, 1))


def _mean_activations(network: nn.Module, units: Sequence[tuple[str, int]], images: np.ndarray) -> np.ndarray:
    """Activation of unit i on image i, averaged over space: float32 (units,)."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(_device(network)).float().div(255)
    with torch.no_grad():
        activations = _activations(network, {layer for layer, _ in units}, batch)
    means = [activations[layer][i, index].mean().item() for i, (layer, index) in enumerate(units)]
    return np.array(means, np.float32)


class _LastLayerReached(Exception):
    """Ends a forward pass once everything asked for is recorded."""


def _activations(network: nn.Module, layers: set[str], images: Tensor) -> dict[str, Tensor]:
    """Output of each of the layers; nothing behind the deepest one is computed. No hook outlives the call."""
    recorded: dict[str, Tensor] = {}

    def record(name: str, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        recorded[name] = output.clone()  # the next layer may be an in-place ReLU
        if len(recorded) == len(layers):
            raise _LastLayerReached

    hooks = [network.get_submodule(name).register_forward_hook(partial(record, name)) for name in layers]
    try:
        network(images.contiguous(memory_format=torch.channels_last))  # up to twice as fast on a CPU
    except _LastLayerReached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return recorded


def _check_units(network: nn.Module, units: Sequence[tuple[str, int]], size: int) -> None:
    layers = dict.fromkeys(layer for layer, _ in units)
    known = dict(network.named_modules(remove_duplicate=False))
    for layer in layers:
        if layer not in known:
            closest = difflib.get_close_matches(layer, known, n=1)
            hint = f", did you mean {closest[0]!r}?" if closest else ""
            raise ValueError(f"unknown layer {layer!r}{hint}")
    gray = torch.full((1, 3, size, size), 0.5, device=_device(network))
    with torch.no_grad():
        activations = _activations(network, set(layers), gray)
    for layer, index in units:
        if layer not in activations:
            raise ValueError(f"layer {layer!r} takes no part in the forward pass")
        width = activations[layer].shape[1]
        if not 0 <= index < width:
            raise ValueError(f"layer {layer!r} has units 0 to {width - 1}, found index {index}")


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; afterwards every module and parameter as it was."""
    training = {module: module.training for module in network.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in requires_grad.items():
            parameter.requires_grad_(flag)


@contextmanager
def _lucent_on(device: torch.device) -> Iterator[None]:
    """lucent picks its device when imported (a GPU if there is one); inside, it uses this one."""
    with mock.patch.object(spatial, "device", device), mock.patch.object(transform, "device", device):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, torch (lucent's starts, drawn on the CPU) and numpy (its transforms) follow the seed."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
