"""What measures look at: the units of one network on the stimuli."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from prunelens.images.imageset import BATCH, ImageSet, read_only, to_batch
from prunelens.networks.architecture import Architecture, unit_layers
from prunelens.networks.hooks import evaluating, recording
from prunelens.units import extremes, mis

Arrays = Mapping[str, np.ndarray]
Maps = Iterator[tuple[str, slice, Tensor]]  # layer, place among the images, (b, units, h, w)


@dataclass(frozen=True)
class Settings:
    """Numbers that measures depend on.

    tasks, explanations: of the MIS, N and K. scale: of the similarity, see `mis.margins`. temperature: of the MIS, in
    units of margins; None: not known yet. seed: of ties, tasks and samples.
    """

    tasks: int = 20
    explanations: int = 9
    scale: float = 1.0
    temperature: float | None = None
    seed: int = 0

    @property
    def extremes(self) -> int:
        """How many of a unit's most, and of its least, activating stimuli the tasks take."""
        return self.tasks * (self.explanations + 1)


class NetworkSource:
    """Activations of a network, which is moved to the device, and run in evaluation mode and float32."""

    def __init__(self, architecture: Architecture, network: nn.Module, device: str | torch.device = "cpu") -> None:
        self._network, self._device = network.to(device), device
        self._units = unit_layers(architecture, network)
        self.layers = list(self._units)
        self._rectified = {layer: architecture.rectified(network, layer) for layer in self.layers[:-1]}

    def batches(self, images: np.ndarray) -> Iterator[tuple[slice, Arrays, Arrays]]:
        """Batch after batch: its place among the images, and (b, units) means of all layers, and of rectified convs."""
        for place, *both in self._outputs(images, (self._units, _mean), (self._rectified, _rectified_mean)):
            yield place, *({layer: mean.cpu().numpy() for layer, mean in means.items()} for means in both)

    def maps(self, layers: Sequence[str], images: np.ndarray) -> Maps:
        """Activation maps, batch after batch."""
        modules = {layer: self._units[layer] for layer in layers}
        # Copies: the ReLU behind a conv without BatchNorm is in place.
        for place, outputs in self._outputs(images, (modules, lambda output: output.float().clone())):
            for layer in layers:
                yield layer, place, outputs[layer]

    def _outputs(
        self, images: np.ndarray, *wanted: tuple[dict[str, nn.Module], Callable[[Tensor], Tensor]]
    ) -> Iterator[tuple]:
        """Place among the images, and reduced outputs by layer for each of the wanted (modules, reduce)."""
        for start in range(0, len(images), BATCH):
            place = slice(start, min(start + BATCH, len(images)))
            with evaluating(self._network), ExitStack() as stack:
                found = [stack.enter_context(recording(self._network, *modules)) for modules in wanted]
                self._network(to_batch(images[place], self._device))
            for i, (modules, _) in enumerate(wanted):
                if missing := [name for name in modules if name not in found[i]]:
                    raise ValueError(f"the network never calls {', '.join(missing)}")
                found[i] = {name: found[i][name] for name in modules}  # in this order, not that of the calls
            yield place, *found


def _mean(output: Tensor) -> Tensor:
    return output.float() if output.ndim == 2 else output.mean((2, 3), dtype=torch.float32)


def _rectified_mean(output: Tensor) -> Tensor:
    return _mean(output.clamp(min=0))  # of a module in front of the ReLU, such as the BatchNorm of a residual branch


class ArraySource:
    """Given activations, layer -> (n, units) with the output layer last, and maps, layer -> (n, units, h, w)."""

    def __init__(self, activations: Arrays, maps: Arrays | None = None) -> None:
        self.layers, self._activations, self._maps = list(activations), activations, maps or {}

    def batches(self, images: np.ndarray) -> Iterator[tuple[slice, Arrays, Arrays]]:
        """All images at once, as `NetworkSource.batches`."""
        rectified = {layer: self._activations[layer].clip(0) for layer in self.layers[:-1]}
        yield slice(0, len(images)), self._activations, rectified

    def maps(self, layers: Sequence[str], images: np.ndarray) -> Maps:
        """All images at once, as `NetworkSource.maps`."""
        for layer in layers:
            if len(self._maps[layer]) != len(images):
                raise ValueError(f"{layer}: maps of {len(self._maps[layer])} images, asked for {len(images)}")
            yield layer, slice(0, len(images)), torch.from_numpy(self._maps[layer])


class Recording:
    """The units of one network on the stimuli. Everything is computed once, on first use; arrays are read-only.

    layers: names of the conv layers in order of the forward pass and, last, the output layer.
    stimuli: the images; their labels (n,) and outputs (classes,); concepts: name -> bool (n, size, size), or None.
    embeddings: of the stimuli under the study's similarity, (n, D); compared: their `mis.gram`, where it is known.
    found: the network's extremes, where they are known, see `extremes.of_layers`.
    """

    def __init__(
        self,
        source: NetworkSource | ArraySource,
        stimuli: ImageSet,
        embeddings: np.ndarray,
        settings: Settings | None = None,
        found: Arrays | None = None,
        compared: mis.Gram | Tensor | None = None,
    ) -> None:
        if len(embeddings) != len(stimuli):
            raise ValueError(f"embeddings: expected one for each of {len(stimuli)} stimuli, found {len(embeddings)}")
        self._source, self.layers = source, source.layers
        self.stimuli, self.labels, self.outputs = stimuli, read_only(stimuli.labels), read_only(stimuli.outputs)
        self.concepts, self.embeddings = stimuli.concepts, read_only(embeddings)
        self.settings = settings or Settings()
        self.temperature, self.seed = self.settings.temperature, self.settings.seed
        known = {"extremes": found, "compared": compared}
        self._memory: dict[str, Any] = {name: value for name, value in known.items() if value is not None}

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute once for this network what a measure needs for several layers."""
        if name not in self._memory:
            self._memory[name] = compute()
        return self._memory[name]

    @cached_property
    def _recorded(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        values: dict[str, np.ndarray] = {}
        rectified: dict[str, np.ndarray] = {}
        for place, *batch in self._source.batches(self.stimuli.images):
            for arrays, means in zip((values, rectified), batch, strict=True):
                for layer, mean in means.items():
                    if layer not in arrays:
                        arrays[layer] = np.empty((len(self.labels), mean.shape[1]), dtype=np.float32)
                    arrays[layer][place] = mean
        rectified[self.layers[-1]] = probabilities(values[self.layers[-1]])
        for array in (*values.values(), *rectified.values()):
            array.flags.writeable = False
        return values, rectified

    @property
    def activations(self) -> Arrays:
        """By layer (n, units) float32: spatial means of conv outputs before BatchNorm and ReLU; logits."""
        return self._recorded[0]

    @property
    def rectified(self) -> Arrays:
        """By layer (n, units) float32: spatial means after the ReLU; softmax probabilities of the output layer."""
        return self._recorded[1]

    @property
    def extremes(self) -> Arrays:
        """The N (K + 1) most and least activating stimuli of every unit, see `extremes.of_layers`."""
        keys = extremes.tie_keys(self.stimuli.names, self.seed)
        return self.remember("extremes", lambda: extremes.of_layers(self.activations, self.settings.extremes, keys))

    @cached_property
    def top(self) -> Arrays:
        """By layer (units, k): the most activating stimuli, the most active first."""
        return self._side("top")

    @cached_property
    def bottom(self) -> Arrays:
        """By layer (units, k): the least activating stimuli, the least active first."""
        return self._side("bottom")

    @cached_property
    def alive(self) -> Arrays:
        """By layer (units,) bool: whether a unit varies over the stimuli."""
        return self._side("alive")

    def _side(self, side: str) -> Arrays:
        return {layer: read_only(self.extremes[f"{side}/{layer}"]) for layer in self.layers}

    @cached_property
    def margins(self) -> Arrays:
        """By layer (units, tasks) float32: margins of the MIS's tasks."""
        return {layer: read_only(self.ask(layer, self.top[layer], self.bottom[layer])) for layer in self.layers}

    def ask(self, layer: str, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """Margins (units, tasks) of a layer's tasks from given extremes (units, k)."""
        compared = self.remember("compared", lambda: mis.gram(self.embeddings))
        chosen = self.settings
        return mis.margins(top, bottom, compared, chosen.tasks, chosen.explanations, self.seed, layer, chosen.scale)

    def maps(self, layers: Sequence[str], images: np.ndarray) -> Maps:
        """Conv outputs before BatchNorm and ReLU, batch after batch."""
        return self._source.maps(layers, images)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over a network's outputs, (n, outputs) -> (n, outputs) float32 in 0..1, computed in float64.

    Confident networks saturate it: float32 tells no probabilities between 1 - 6e-8 and 1 apart.
    """
    return softmax(logits.astype(np.float64), axis=1).astype(np.float32)
