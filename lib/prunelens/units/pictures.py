"""Pictures of units (feature visualization): images that excite a unit as strongly as they can.

Olah et al., "Feature visualization" (Distill 2017). Objectives, image parameterization and transforms are lucent's;
here many units and starts are one batch, on the network's own device, repeatable from a seed, with nothing left behind
in the network or the global random states, and units that a start does not excite get help. Not for several threads of
a process: lucent keeps its device and its random numbers in globals.
"""

import difflib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from prunelens.images.imageset import to_batch
from prunelens.networks.hooks import evaluating, recording

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # kornia 0.4.1 still calls torch.jit.script
    from lucent.optvis import objectives, transform
    from lucent.optvis.param import color, spatial

Unit = tuple[str, int]  # dotted layer name, and channel or output

LEARNING_RATE = 0.05  # of Adam: lucent's, of Fourier coefficients
CHUNK = 32  # images, at most, that are optimized at once: bounds the memory
REDIRECTED = 16  # first steps in which a ReLU that blocks all gradients lets some through
RESTARTS = 2  # other starts for units that one does not excite


class Pictures(NamedTuple):
    """RGB images of units, each from one or more starts, and what the unit does on them.

    images: uint8 (units, starts, size, size, 3). objective: float32 (units, starts), the unit's spatial mean on exactly
    this image, untransformed. excited: bool (units, starts), the objective is above the start's; no picture of a unit
    where it is not.
    """

    images: np.ndarray
    objective: np.ndarray
    excited: np.ndarray


class _Settings(NamedTuple):
    size: int
    steps: int
    starts: int


def draw(network: nn.Module, units: Sequence[Unit], *, size: int, steps: int, seed: int, starts: int = 1) -> Pictures:
    """Optimize images for each unit, to raise its spatial mean activation.

    The activation is the layer's output: of a conv, before BatchNorm and ReLU. Adam moves the Fourier coefficients of a
    color-decorrelated image, seen through random transforms. Start j of every unit and its transforms are drawn with
    seed + j: a picture follows from network, unit and seed + j, not from other units or starts. Units listed layer by
    layer run fastest.

    In the first 16 steps a ReLU that would block the whole gradient of an image passes on what would raise its input
    (lucid's redirected gradient). A unit that a start does not excite gets up to two other ones, of seed + 1000 and
    seed + 2000.

    Raises:
        ValueError: unknown or unused layer, index out of range; before any optimization.
    """
    settings, each, shape = _Settings(size, steps, starts), max(1, CHUNK // starts), (len(units), starts)
    images = np.zeros((*shape, size, size, 3), np.uint8)
    found = Pictures(images, np.zeros(shape, np.float32), np.zeros(shape, bool))
    with _frozen(network):
        _check_units(network, units, size)
        for restart in range(RESTARTS + 1):
            left = np.flatnonzero(~found.excited.all(axis=1))
            parts = [left[first : first + each] for first in range(0, len(left), each)]
            for part in tqdm(parts, "pictures", mininterval=5, disable=not parts):
                drawn = _optimize(network, [units[i] for i in part], settings, seed + 1000 * restart)
                row, start = np.nonzero(~found.excited[part] & (drawn.excited | (restart == 0)))
                for old, new in zip(found, drawn, strict=True):
                    old[part[row], start] = new[row, start]
    return found


def responses(network: nn.Module, units: Sequence[Unit], images: np.ndarray) -> np.ndarray:
    """Activation of unit i on image i, averaged over space, as in `Pictures.objective`: float32 (units,)."""
    if not units:
        return np.empty(0, np.float32)
    with evaluating(network):
        return _mean_activations(network, units, to_batch(images, _device(network)))


# ------------------------------------------------------------------------------------------------- optimization


def _optimize(network: nn.Module, units: Sequence[Unit], settings: _Settings, seed: int) -> Pictures:
    """One chunk of `draw`. Rows of the batch: start 0, 1, ... of the first unit, then of the second, ..."""
    rows = [unit for unit in units for _ in range(settings.starts)]
    layers, device = {layer for layer, _ in units}, _device(network)
    # A sum, not a mean: each image keeps the gradient it would have alone.
    loss = objectives.Objective.sum([objectives.channel(*unit, batch=i) for i, unit in enumerate(rows)])
    with _lucent_on(device):
        parameter, image_f = _start(len(units), settings, seed)
        transform_f = _Transforms(settings, seed)
        optimizer = torch.optim.Adam([parameter], lr=LEARNING_RATE)
        before = _mean_activations(network, rows, to_batch(_rounded(image_f), device))
        for step in range(settings.steps):
            optimizer.zero_grad()
            with _redirected_relu() if step < REDIRECTED else nullcontext():
                activations = _activations(network, layers, transform_f(image_f()))
                loss(activations.__getitem__).backward()
            optimizer.step()
        images = _rounded(image_f)
    after = _mean_activations(network, rows, to_batch(images, device))
    flat = images, after, after > before
    return Pictures(*(array.reshape(len(units), settings.starts, *array.shape[1:]) for array in flat))


def scaled_transforms(size: int) -> list[Callable[[Tensor], Tensor]]:
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


class _Transforms:
    """The transforms of a batch; each start's own follow its seed, whatever the other starts."""

    def __init__(self, settings: _Settings, seed: int) -> None:
        self.transform = transform.compose(scaled_transforms(settings.size))
        self.states = [np.random.RandomState(seed + j).get_state() for j in range(settings.starts)]

    def __call__(self, images: Tensor) -> Tensor:
        parts = []
        for j, state in enumerate(self.states):
            np.random.set_state(state)
            parts.append(self.transform(images[j :: len(self.states)]))
            self.states[j] = np.random.get_state()
        return torch.stack(parts, 1).flatten(0, 1)


def _start(units: int, settings: _Settings, seed: int) -> tuple[Tensor, Callable[[], Tensor]]:
    """The Fourier coefficients that are optimized (units x starts rows), and the images in [0, 1] that they give."""
    drawn, size = [], settings.size
    for j in range(settings.starts):
        torch.default_generator.manual_seed(seed + j)  # torch.manual_seed would seed the GPUs too
        drawn.append(spatial.fft_image([1, 3, size, size])[0][0].detach())
    start = torch.cat(drawn).repeat(units, *[1] * (drawn[0].ndim - 1))
    [parameter], fft_f = spatial.fft_image([len(start), 3, size, size])
    parameter.data.copy_(start)
    # lucent's correlation of colors, which its to_valid_rgb(decorrelate=True) would move to any GPU there is.
    colors = torch.from_numpy(color.color_correlation_normalized).to(spatial.device)
    return parameter, color.to_valid_rgb(lambda: (fft_f().movedim(1, -1) @ colors.T).movedim(-1, 1))


@torch.no_grad()
def _rounded(image_f: Callable[[], Tensor]) -> np.ndarray:
    """uint8 (rows, size, size, 3)."""
    return image_f().mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


# -------------------------------------------------------------------------------------------------- activations


def _mean_activations(network: nn.Module, units: Sequence[Unit], images: Tensor) -> np.ndarray:
    """Activation of unit i on image i, averaged over space: float32 (units,)."""
    with torch.no_grad():
        found = _activations(network, {layer for layer, _ in units}, images)
    return torch.stack([found[layer][i, index].mean() for i, (layer, index) in enumerate(units)]).cpu().numpy()


class _LastLayerReached(Exception):
    """Ends a forward pass once everything asked for is recorded."""


def _activations(network: nn.Module, layers: set[str], images: Tensor) -> dict[str, Tensor]:
    """Output of each of the layers; nothing behind the deepest one is computed."""
    found: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        found[layer] = output.clone()  # the next layer may be an in-place ReLU
        if len(found) == len(layers):
            raise _LastLayerReached

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(recording(network, {layer: network.get_submodule(layer)}, partial(keep, layer)))
        with suppress(_LastLayerReached):
            network(images.contiguous(memory_format=torch.channels_last))  # up to twice as fast on a CPU
    return found


class _RedirectedReLU(torch.autograd.Function):
    """lucid's redirected gradient: where none of an image's gradient passes, what would raise negative inputs does."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradient, x, 0)
        each = tuple(range(1, x.ndim))
        blocked = (passed.amax(each) == 0) & (passed.amin(each) == 0)
        if blocked.any():  # rarely
            redirected = gradient.where((x > 0) | (gradient < 0), torch.zeros_like(gradient))
            passed[blocked] = redirected[blocked]
        return passed


@contextmanager
def _redirected_relu() -> Iterator[None]:
    """Inside, all ReLUs, functional or modules, pass their gradients on as `_RedirectedReLU`."""

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        return _RedirectedReLU.apply(x)

    with mock.patch.object(F, "relu", relu), mock.patch.object(torch, "relu", relu):
        yield


def _check_units(network: nn.Module, units: Sequence[Unit], size: int) -> None:
    layers, known = {layer for layer, _ in units}, dict(network.named_modules(remove_duplicate=False))
    for layer in sorted(layers - set(known)):
        closest = difflib.get_close_matches(layer, known, n=1)
        raise ValueError(f"unknown layer {layer!r}" + (f", did you mean {closest[0]!r}?" if closest else ""))
    with torch.no_grad():
        found = _activations(network, layers, torch.full((1, 3, size, size), 0.5, device=_device(network)))
    for layer, index in units:
        if layer not in found:
            raise ValueError(f"layer {layer!r} takes no part in the forward pass")
        if not 0 <= index < found[layer].shape[1]:
            raise ValueError(f"layer {layer!r} has units 0 to {found[layer].shape[1] - 1}, found index {index}")


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and gradients of images but not of parameters; afterwards all is as it was."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with evaluating(network), torch.inference_mode(False):
        network.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


@contextmanager
def _lucent_on(device: torch.device) -> Iterator[None]:
    """lucent on this device, not on any GPU there is; afterwards the global random states are as they were."""
    state = np.random.get_state()  # of lucent's transforms; its starts are drawn with torch's
    with (
        mock.patch.object(spatial, "device", device),
        mock.patch.object(transform, "device", device),
        torch.random.fork_rng(devices=[]),
    ):
        try:
            yield
        finally:
            np.random.set_state(state)
