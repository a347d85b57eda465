"""What a pruning method may ask for beside the network and the rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunelens.images.imageset import ImageSet
from prunelens.networks.architecture import Architecture, parameters

Masks = dict[str, Tensor]  # by parameter name: bool, shaped as the parameter, True where it is kept

GRADIENT_BATCH = 16  # images at once, which bounds the memory


@dataclass(frozen=True)
class Context:
    """What a method sees of the study. ValueError where it asks for what its description does not declare (``needs``).

    network: the copy that the method gets, in evaluation mode on the CPU.
    seed: of `generator`. calibration: gives the calibration images. scan: gives `tolerated`.
    needs: what the method declares: "images", "sensitivity".
    before: masks of the step before in an iterative schedule; empty in a first or only step.
    """

    network: nn.Module
    architecture: Architecture
    seed: int
    calibration: Callable[[], ImageSet]
    scan: Callable[[], Mapping[str, float]]
    needs: tuple[str, ...] = ()
    before: Masks = field(default_factory=dict)

    @cached_property
    def generator(self) -> torch.Generator:
        """The source of all that a method draws at random."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def layers(self) -> dict[str, nn.Conv2d]:
        """The prunable convs by the name of their weight, in order of the forward pass."""
        names = self.architecture.prunable(self.network)
        return {f"{name}.weight": self.network.get_submodule(name) for name in names}

    def kept(self, name: str) -> Tensor:
        """A parameter's mask of the step before, which a method can only narrow; all True in a first step."""
        found = self.before.get(name)
        return torch.ones_like(self.network.get_parameter(name), dtype=torch.bool) if found is None else found

    def images(self) -> tuple[Tensor, Tensor]:
        """Calibration images of the training data: float32 (n, 3, size, size) in [0, 1], and class labels (n,)."""
        return next(self._calibration.batches(len(self._calibration), "cpu"))

    def gradients(self) -> dict[str, Tensor]:
        """Gradient, by parameter, of the mean cross-entropy among the data's classes over the calibration images."""
        return self._gradients

    @property
    def tolerated(self) -> Mapping[str, float]:
        """By layer, the rate at which the network still does well when this layer alone is pruned."""
        self._declared("sensitivity")
        return self.scan()

    @cached_property
    def _calibration(self) -> ImageSet:
        self._declared("images")
        return self.calibration()

    @cached_property
    def _gradients(self) -> dict[str, Tensor]:
        outputs, n = torch.from_numpy(self._calibration.outputs), len(self._calibration)
        self.network.zero_grad()
        with torch.enable_grad():
            for images, labels in self._calibration.batches(GRADIENT_BATCH, "cpu"):
                (functional.cross_entropy(self.network(images)[:, outputs], labels, reduction="sum") / n).backward()
        found = {name: p.grad for name, p in parameters(self.architecture, self.network)}
        self.network.zero_grad()
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def _declared(self, need: str) -> None:
        """Results are stored under what a method declares, so that it gets nothing else."""
        if need not in self.needs:
            raise ValueError(f'the method asks for {need}, found needs={self.needs}, expected needs=("{need}",)')
