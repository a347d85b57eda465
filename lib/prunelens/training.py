"""Retraining (and training from scratch) with masks that hold."""

import logging
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from prunelens import pruning
from prunelens.artefacts import atomic, fingerprint
from prunelens.datasets import ImageSet
from prunelens.profiles import Training

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60  # of training, at most, that an interruption costs beside the epoch that it hits


def train(
    network: nn.Module,
    train_set: ImageSet,
    validate: Callable[[nn.Module], dict[str, float]],
    recipe: Training,
    *,
    seed: int,
    device: torch.device,
    masks: pruning.Masks | None = None,
    label: str = "training",
    first_epoch: int = 0,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train ``network`` in place; masked weights are zero after every optimiser step.

    The loss is the cross-entropy among the data set's own classes, so that data with few classes does not spend
    its gradient on silencing the outputs of absent ones; auxiliary heads, where the network has them, add
    ``recipe.aux_weight`` times theirs. An exponential schedule goes on from ``first_epoch``.

    With a ``checkpoint``, a file whose name follows from all that the training depends on, an interrupted training goes
    on after the last epoch that it holds and gives the same network and rows, as if there had been no interruption. One
    that is damaged or of another training is ignored, with a warning. It is still there when this returns: whoever
    called removes it, once the result is stored.

    Returns one row per epoch, from 1: epoch, learning_rate (of its first step), train_loss, train_top1 (on augmented
    images, running), seconds (without validation), and what ``validate`` says of the network after the epoch.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _train(network, train_set, validate, recipe, seed, device, masks or {}, label, first_epoch, checkpoint)


def _train(
    network: nn.Module,
    train_set: ImageSet,
    validate: Callable[[nn.Module], dict[str, float]],
    recipe: Training,
    seed: int,
    device: torch.device,
    masks: pruning.Masks,
    label: str,
    first_epoch: int,
    checkpoint: Path | None,
) -> pd.DataFrame:
    network.to(device)
    # As numbers: an optimiser step that multiplies by booleans spends as long on masks as on the weights.
    masks = {name: mask.to(device, network.get_parameter(name).dtype) for name, mask in masks.items()}
    pruning.apply(network, masks)
    steps_per_epoch = -(-len(train_set) // recipe.batch_size)
    optimizer = _optimizer(network, recipe)
    schedule = _schedule(optimizer, recipe, steps_per_epoch, first_epoch)
    known = torch.from_numpy(train_set.logits).to(device)
    generator = torch.Generator().manual_seed(seed)
    follows_from = {
        "recipe": recipe.model_dump(), "seed": seed, "first_epoch": first_epoch, "device": device.type,
        "images": len(train_set), "masks": {name: int(mask.sum()) for name, mask in masks.items()},
        "shapes": {name: tensor.shape for name, tensor in network.state_dict().items()},
    }  # fmt: skip
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    kept = _Checkpoint(checkpoint, fingerprint(follows_from), parts, generator, device)
    rows = kept.load()
    batches = {"total": recipe.epochs * steps_per_epoch, "initial": len(rows) * steps_per_epoch}
    progress = tqdm(**batches, desc=label, unit="batch", mininterval=5, leave=False)
    for epoch in range(len(rows) + 1, recipe.epochs + 1):
        started = time.perf_counter()
        learning_rate = optimizer.param_groups[0]["lr"]
        losses, hits = [], 0
        network.train()
        for images, labels in _batches(train_set, recipe, generator, device):
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                outputs = network(images)
                loss, logits = _loss(outputs, labels, known, recipe.aux_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            pruning.apply(network, masks)
            losses.append(loss.detach() * len(labels))
            hits += (logits.argmax(1) == labels).sum()
            progress.update()
        train_loss = float(torch.stack(losses).sum()) / len(train_set)
        seconds = time.perf_counter() - started
        if not np.isfinite(train_loss):
            raise FloatingPointError(f"{label}: the loss is {train_loss} in epoch {epoch}; lower the learning rate")
        rows.append(
            {
                "epoch": epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "train_top1": float(hits) / len(train_set),
                "seconds": seconds,
                **validate(network),
            }
        )
        kept.save(rows)
        progress.set_postfix(epoch=epoch, loss=f"{train_loss:.3f}")
    progress.close()
    network.eval()
    return pd.DataFrame(rows)


@dataclass
class _Checkpoint:
    """A file of all that the rest of a training follows from after an epoch; without a file, nothing is kept."""

    file: Path | None
    training: str  # tells this training from others
    parts: dict[str, nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler]
    generator: torch.Generator
    device: torch.device
    saved: float = field(default_factory=time.monotonic)

    def save(self, rows: list[dict[str, float]]) -> None:
        """Write the file, unless it was written, or the training began, less than ``CHECKPOINT_SECONDS`` ago."""
        if self.file is None or time.monotonic() - self.saved < CHECKPOINT_SECONDS:
            return
        state = {
            "training": self.training,
            "rows": rows,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),  # of dropout
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        with atomic(self.file) as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
        self.saved = time.monotonic()

    def load(self) -> list[dict[str, float]]:
        """Set everything to where the file's last epoch ended; returns the rows until then, none where it is no use."""
        state = self._read()
        if state is None:
            return []
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        return state["rows"]

    def _read(self) -> dict | None:
        if self.file is None or not self.file.exists():
            return None
        try:
            with zipfile.ZipFile(self.file) as archive:
                if damaged := archive.testzip():  # torch.load does not look at checksums
                    raise ValueError(f"its {damaged} does not match its checksum")
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            if state["training"] != self.training:
                raise ValueError("it is of another training")
            return state
        except Exception as error:  # a damaged file can raise anything
            log.warning("%s is no checkpoint to go on from: %s; the training begins anew", self.file, error)
            return None


def effective(recipe: Training, device: torch.device) -> Training:
    """The recipe as it runs on the device: a CPU without bfloat16 instructions, on which it is slow, takes float32."""
    able = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return recipe if able else recipe.model_copy(update={"precision": "float32"})


@torch.no_grad()
def recalibrate(network: nn.Module, train_set: ImageSet, recipe: Training, seed: int, device: torch.device) -> None:
    """Measure every BatchNorm's mean and variance anew, on one pass over augmented training images; nothing else moves.

    Each statistic is the plain average over the batches.

    Raises:
        ValueError: the network has no BatchNorm.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ValueError(f"recalibration: {type(network).__name__} has no BatchNorm")
    network.to(device).eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for images, _ in _batches(train_set, recipe, torch.Generator().manual_seed(seed), device):
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _loss(outputs: Tensor | tuple, labels: Tensor, known: Tensor, aux_weight: float) -> tuple[Tensor, Tensor]:
    """The loss of the main head plus ``aux_weight`` times those of the auxiliary ones; the main head's known logits."""
    heads = [outputs] if isinstance(outputs, Tensor) else [head for head in outputs if head is not None]
    losses = [functional.cross_entropy(head[:, known].float(), labels) for head in heads]
    return losses[0] + aux_weight * sum(losses[1:]), heads[0][:, known]


def _optimizer(network: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: Training, steps_per_epoch: int, first_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Stepped once per batch: the rate falls by ``gamma`` per epoch, or rises and falls in one cycle."""
    if recipe.schedule == "one_cycle":
        total = max(1, recipe.epochs * steps_per_epoch)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total, pct_start=0.2)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.gamma ** (first_epoch + step // steps_per_epoch)
    )


def _batches(
    image_set: ImageSet, recipe: Training, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(image_set), generator=generator).numpy()
    for start in range(0, len(order), recipe.batch_size):
        indices = np.sort(order[start : start + recipe.batch_size])  # sorted: a memory map reads forwards
        images = torch.from_numpy(image_set.images[indices]).to(device).permute(0, 3, 1, 2).float().div(255)
        labels = torch.from_numpy(image_set.labels[indices]).to(device)
        yield augment(images, recipe.smallest_crop, generator), labels


def augment(images: Tensor, smallest_crop: float, generator: torch.Generator) -> Tensor:
    """Random resized crop and horizontal flip of every image, on the device.

    It differs from torchvision's RandomResizedCrop in three ways: it crops what was decoded, which is the photograph's
    central square; a crop too wide or too high is clamped, not drawn again; bilinear sampling has no antialiasing.

    Args:
        images: (n, 3, height, width).
        smallest_crop: the least fraction of the area that a crop keeps (the paper: .08); aspect ratios 3/4 to 4/3.
        generator: of the CPU, whatever the images' device.
    """
    n = len(images)
    area = smallest_crop + (1 - smallest_crop) * torch.rand(n, generator=generator)
    ratio = torch.exp(torch.empty(n).uniform_(-0.2877, 0.2877, generator=generator))  # log(4/3) = .2877
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.randint(2, (n,), generator=generator) * 2 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = (1 - width) * (2 * torch.rand(n, generator=generator) - 1)
    theta[:, 1, 2] = (1 - height) * (2 * torch.rand(n, generator=generator) - 1)
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    crops = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return crops.contiguous(memory_format=torch.channels_last)
