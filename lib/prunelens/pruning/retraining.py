"""Retraining (and training from scratch) in one or several steps, with masks that hold."""

import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from prunelens.images.augmentation import augmented_batches
from prunelens.images.imageset import ImageSet
from prunelens.profile import Training
from prunelens.pruning.context import Masks
from prunelens.pruning.masks import apply
from prunelens.store import Arrays, atomic, fingerprint

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60  # of training, at most, that an interruption costs beside the epoch that it hits


class Step(NamedTuple):
    """A step of a schedule: prune up to this rate, then train for so many epochs."""

    rate: float
    epochs: int


def steps(rate: float, epochs: int, n: int) -> list[Step]:
    """Split a schedule into ``n`` steps that prune the same share of what is left.

    The last has an equal share of the epochs, at least a third, as nothing repairs the last mask after it; of the
    others the first get surplus epochs.
    """
    last = -(-epochs // min(n, 3))
    shares = [(epochs - last) // (n - 1) + (step < (epochs - last) % (n - 1)) for step in range(n - 1)]
    rates = [1 - (1 - rate) ** ((step + 1) / n) for step in range(n - 1)]
    return [Step(*each) for each in zip([*rates, rate], [*shares, last], strict=True)]


def retrain(
    network: nn.Module,
    train_set: ImageSet,
    steps: Sequence[Step],
    prune: Callable[[nn.Module, float, Masks | None], Masks],
    validate: Callable[[nn.Module], dict[str, Any]],
    recipe: Training,
    *,
    seed: int,
    device: torch.device | str,
    masked: bool = True,
    label: str = "training",
    checkpoint: Path | None = None,
) -> Arrays:
    """Prune and train ``network`` in place, step by step; masked weights are zero after every optimizer step.

    prune: (network, rate, masks of the step before) -> masks; sets the pruned weights to zero.
    validate: numbers or arrays that the table holds of the network after each epoch.
    masked: False trains without the masks.
    checkpoint: a file whose name follows from all that the result depends on. An interrupted call goes on after the
        last epoch that it holds, as if there had been no interruption. The caller removes it.

    Returns what `pack` does. Columns of the epochs: epoch (from 1, over all steps), step (from 0), step_rate,
    learning_rate (at first), loss (nats) and train_top1 (running, on augmented images), seconds (without validation),
    bfloat16 (whether it ran in that precision: not every processor can), and what ``validate`` returned.
    FloatingPointError: the loss is no longer finite.
    """
    device = torch.device(device)
    network.to(device)
    follows_from = [recipe.model_dump(), seed, steps, masked, device.type, len(train_set)]
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    kept = _Checkpoint(checkpoint, fingerprint([*follows_from, shapes]))
    begun = kept.load()  # a step, or nothing
    masks, rows = begun.get("masks", {}), begun.get("rows", [])
    for number in range(begun.get("step", 0), len(steps)):
        rate, epochs = steps[number]
        if not begun:
            masks = prune(network, rate, masks if masked and number else None)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed + 1000 * number)  # every step sees other batches and crops than the one before
            part = recipe.model_copy(update={"epochs": epochs})
            trainer = _Trainer(network, train_set, part, seed + 1000 * number, device, masks if masked else {})
            trainer.restore(begun)
            last = sum(step.epochs for step in steps[: number + 1])
            for epoch in range(len(rows) + 1, last + 1):
                row = {"epoch": epoch, "step": number, "step_rate": rate, **trainer.epoch(f"{label} epoch {epoch}")}
                rows.append(row | {name: np.asarray(value).tolist() for name, value in validate(network).items()})
                ends = epoch == last and number + 1 < len(steps)
                kept.save({"step": number, "masks": masks, "rows": rows, **trainer.state()}, at_once=ends)
        begun = {}
    return pack(network.eval(), masks, rows)


def pack(network: nn.Module, masks: Masks, rows: Sequence[dict[str, Any]] = ()) -> Arrays:
    """Put a network, its masks and its epochs into arrays: "weight/NAME", "mask/NAME" and "epoch/COLUMN"."""
    return {
        **{f"weight/{name}": tensor.cpu().numpy() for name, tensor in network.state_dict().items()},
        **{f"mask/{name}": mask.cpu().numpy() for name, mask in masks.items()},
        **{f"epoch/{name}": np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())},
    }


class _Trainer:
    """All that the rest of a step follows from, beside PyTorch's own generator, which is seeded before."""

    def __init__(
        self, network: nn.Module, train_set: ImageSet, recipe: Training, seed: int, device: torch.device, masks: Masks
    ) -> None:
        self.network, self.train_set, self.recipe, self.device = network, train_set, recipe, device
        # As numbers: an optimizer step that multiplies by booleans spends as long on masks as on the weights.
        self.masks = {name: mask.to(device, network.get_parameter(name).dtype) for name, mask in masks.items()}
        apply(network, self.masks)
        self.optimizer = _optimizer(network, recipe)
        self.schedule = _schedule(self.optimizer, recipe, -(-len(train_set) // recipe.batch_size))
        self.outputs = torch.from_numpy(train_set.outputs).to(device)
        self.generator = torch.Generator().manual_seed(seed)
        # A CPU without bfloat16 instructions would be slow.
        able = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
        self.bfloat16 = able and recipe.precision == "bfloat16"

    def epoch(self, label: str) -> dict[str, float]:
        """Train on all images once."""
        started, learning_rate, losses, hits = time.perf_counter(), self.optimizer.param_groups[0]["lr"], [], 0
        untouched = self.schedule.last_epoch == 0  # no step has been made
        size, crop, n = self.recipe.batch_size, self.recipe.smallest_crop, len(self.train_set)
        batches = augmented_batches(self.train_set, size, crop, self.generator, self.device)
        self.network.train()
        for images, labels in tqdm(batches, label, -(-n // size), unit="batch", mininterval=5, leave=False):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                loss, logits = _loss(self.network(images), labels, self.outputs, self.recipe.aux_weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            apply(self.network, self.masks)
            losses.append(loss.detach() * len(labels))
            hits += (logits.argmax(1) == labels).sum()
        loss = float(torch.stack(losses).sum()) / n
        if not np.isfinite(loss):
            at_once = untouched and not losses[0].isfinite()
            cure = "before any step, see network.weights" if at_once else "lower the learning rate"
            raise FloatingPointError(f"{label}: the loss is {loss}; {cure}")
        seconds = time.perf_counter() - started
        return {"learning_rate": learning_rate, "loss": loss, "train_top1": float(hits) / n, "seconds": seconds,
                "bfloat16": self.bfloat16}  # fmt: skip

    def state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "parts": [part.state_dict() for part in (self.network, self.optimizer, self.schedule)],
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),  # of dropout
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave; an empty state changes nothing."""
        if not state:
            return
        for part, found in zip((self.network, self.optimizer, self.schedule), state["parts"], strict=True):
            part.load_state_dict(found)
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)


class _Checkpoint:
    """A file of where a training, told from others by a fingerprint, has come to; without a file nothing is kept."""

    def __init__(self, file: Path | None, training: str) -> None:
        self.file, self.training, self.saved = file, training, time.monotonic()

    def save(self, state: dict[str, Any], at_once: bool = False) -> None:
        """Write the file, unless it was written, or the training began, less than ``CHECKPOINT_SECONDS`` ago."""
        if self.file is None or (not at_once and time.monotonic() - self.saved < CHECKPOINT_SECONDS):
            return
        with atomic(self.file) as draft, draft.open("wb") as stream:
            torch.save({"training": self.training, **state}, stream)
        self.saved = time.monotonic()

    def load(self) -> dict[str, Any]:
        """Read what was saved; empty, with a warning where the file is damaged or of another training."""
        if self.file is None or not self.file.exists():
            return {}
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
            return {}


def _loss(outputs: Tensor | tuple, labels: Tensor, known: Tensor, aux_weight: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy and logits of the main head, plus ``aux_weight`` times the auxiliary heads' cross-entropies.

    It is among the data's own classes, so that few classes do not spend their gradient on silencing absent outputs.
    """
    heads = [outputs] if isinstance(outputs, Tensor) else [head for head in outputs if head is not None]
    losses = [functional.cross_entropy(head[:, known].float(), labels) for head in heads]
    return losses[0] + aux_weight * sum(losses[1:]), heads[0][:, known]


def _optimizer(network: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), **common)
    return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **common)


def _schedule(optimizer: torch.optim.Optimizer, recipe: Training, batches: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Stepped once per batch: the rate falls by ``gamma`` per epoch, or rises and falls in one cycle."""
    if recipe.schedule == "one_cycle":
        total = max(1, recipe.epochs * batches)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total, pct_start=0.2)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.gamma ** (step // batches))


@torch.no_grad()
def recalibrate(network: nn.Module, train_set: ImageSet, recipe: Training, seed: int, device: str) -> None:
    """Measure every BatchNorm's mean and variance anew, as averages over the batches of one pass over augmented images.

    Raises:
        ValueError: the network has no BatchNorm.
    """
    norms = {module: module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    if not norms:
        raise ValueError(f"recalibration: {type(network).__name__} has no BatchNorm")
    network.to(device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    generator = torch.Generator().manual_seed(seed)
    for images, _ in augmented_batches(train_set, recipe.batch_size, recipe.smallest_crop, generator, device):
        network(images)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    network.eval()
