"""The study: from a profile to every network, table and figure, each computed once and loaded ever after.

Notebooks talk to this module; it calls the pure ones (pruning, training, activations, ...) through the store.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm.auto import tqdm

from prunelens import (
    activations,
    datasets,
    evaluation,
    figures,
    interpretability,
    networks,
    profiles,
    pruning,
    similarity,
    textures,
    training,
    visualization,
)
from prunelens.artefacts import PROJECT, Arrays, Store, fingerprint, provenance, sha256, write_text
from prunelens.datasets import ImageSet
from prunelens.figures import CONTROLS

# Raise a stage's number when a change of code changes its results: its artefacts then get other names.
# "pruning" is the version of masks and initialisation, on which "training" depends too: then raise both.
VERSIONS = {
    "pruning": 1,
    "training": 1,
    "accuracy": 1,
    "latency": 1,
    "extremes": 1,
    "embeddings": 1,
    "temperature": 1,
    "scores": 1,
    "visualizations": 1,
}


@dataclass(frozen=True)
class Variant:
    """One network of the study.

    method: one of CONTROLS, a pruning method, or a pruning method with "_unmasked" behind it, which is retrained
        without its masks, as the paper's code retrained connection sparsity.
    rate: nominal pruning rate; schedule: none (not retrained), one_shot or iterative; seed: of all that is random.
    """

    method: str
    rate: float = 0.0
    schedule: str = "none"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.method}-{self.rate:.2f}-{self.schedule}-s{self.seed}"

    @property
    def masked(self) -> bool:
        return not self.method.endswith("_unmasked")

    @property
    def pruning_method(self) -> pruning.Method:
        return pruning.METHODS[self.method.removesuffix("_unmasked")]


def variants(profile: profiles.Profile) -> list[Variant]:
    """All networks of a profile, controls first."""
    grid, first = profile.pruning, profile.pruning.seeds[0]
    found = [Variant("dense", seed=first), *(Variant("random_init", seed=seed) for seed in grid.seeds)]
    found += [Variant("dense_retrained", 0.0, "one_shot", seed) for seed in grid.seeds]
    for method in grid.methods:
        # Only random methods differ between seeds before retraining.
        seeds = grid.seeds if method.endswith("_random") else [first]
        found += [Variant(method, rate, "none", seed) for rate in grid.rates for seed in seeds]
        found += [Variant(method, rate, "one_shot", seed) for rate in grid.rates for seed in grid.seeds]
    for method in grid.unmasked:
        found += [Variant(f"{method}_unmasked", rate, "one_shot", seed) for rate in grid.rates for seed in grid.seeds]
    for method in grid.iterative.methods:
        found += [Variant(method, rate, "iterative", seed) for rate in grid.iterative.rates for seed in grid.seeds]
    return found


class Study:
    """A profile at work.

    Args:
        profile: its name or path; overrides: "key.path=value" each.
        device: auto (a GPU where there is one), cpu, cuda, ...
        out: where ``runs`` and ``figures`` go; by default the project's ``data/runs`` and ``figures``.
    """

    def __init__(self, profile: str, overrides: Iterable[str] = (), device: str = "auto", out: str = "") -> None:
        self.profile = profiles.load(profile, list(overrides))
        self.device = _device(device)
        self.store = Store(Path(out) / "runs" if out else PROJECT / "data" / "runs")
        self.figures = (Path(out) if out else PROJECT) / "figures" / self.profile.name
        self.variants = variants(self.profile)
        # Weights that shrink towards zero become denormal numbers, on which some CPUs are a hundred times slower.
        torch.set_flush_denormal(True)
        figures.style()

    # ------------------------------------------------------------------------------------------------- images

    @cached_property
    def train_set(self) -> ImageSet:
        """The images that networks are trained on."""
        return self._images("train", self.profile.data.train_images)

    @cached_property
    def validation_set(self) -> ImageSet:
        """The images that accuracy is measured on."""
        return self._images("validation", self.profile.data.validation_images)

    @cached_property
    def stimuli(self) -> ImageSet:
        """The images whose activations are recorded: training images, and the profile's extra ones."""
        data = self.profile.data
        stimuli = self._images("train", data.stimulus_images)
        if data.extra_stimuli is None:
            return stimuli
        extra = self._folder(profiles.expand(data.extra_stimuli, "data.extra_stimuli"), "extra")
        return datasets.concatenate([stimuli, extra])

    def _images(self, split: str, n: int | None) -> ImageSet:
        data = self.profile.data
        if data.source == "embedded":
            if n is None:
                raise ValueError("data.train_images and data.validation_images: embedded data needs a number")
            return textures.compose(n, data.size, split, self.profile.seed)
        folder = datasets.split_root(self._root())[0 if split == "train" else 1]
        image_set = self._folder(folder, split)
        return image_set if n is None else datasets.sample(image_set, n, self.profile.seed)

    def _root(self) -> Path:
        data = self.profile.data
        if data.root is None:
            raise ValueError("data.root: found nothing, expected a folder with train/WNID and val/WNID")
        root = PROJECT / profiles.expand(data.root, "data.root")  # an absolute path stays what it is
        if data.download == "imagenette" and not (root / "train").is_dir():
            fetched = [datasets.imagenette(root, split, download=not (root / "imagenette2-160" / split).is_dir())
                       for split in ("train", "val")]  # fmt: skip
            return fetched[0].parent
        return root

    def _folder(self, folder: Path, name: str) -> ImageSet:
        cache = self.store.file("images", f"{name}-{self.profile.data.size}", {"folder": str(folder.resolve())}, "")
        known = datasets.imagenet_class_indices() if self.profile.network.outputs == 1000 else None
        return datasets.read_folder(folder, self.profile.data.size, cache, known)

    # ----------------------------------------------------------------------------------------------- networks

    @cached_property
    def dense(self) -> nn.Module:
        """The trained network that all variants start from, with the weights that ``network.weights`` names."""
        network = self._blank()
        weights = self.profile.network.weights
        if weights == "torchvision":
            networks.torchvision_weights(network)
        elif weights == "scratch":
            _restore(network, self._scratch(), "network.weights = scratch")
        else:
            networks.load_weights(network, self._weights_file())
        return network.eval()

    def _blank(self, aux_logits: bool = False) -> nn.Module:
        return networks.build(self.profile.network.architecture, self.profile.network.outputs, aux_logits)

    def _trainable(self, recipe: profiles.Training, seed: int) -> nn.Module:
        """A network with auxiliary heads, drawn from the seed, where the recipe has a loss for them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._blank(aux_logits=recipe.aux_weight > 0)

    def _weights_file(self) -> Path:
        file = profiles.expand(self.profile.network.weights, "network.weights")
        return file if file.is_absolute() or file.exists() else PROJECT / file

    @cached_property
    def dense_key(self) -> dict:
        """What the dense network's weights depend on."""
        network = self.profile.network
        key = {"architecture": network.architecture, "outputs": network.outputs}
        if network.weights == "torchvision":
            return {**key, "weights": "torchvision IMAGENET1K_V1"}
        if network.weights == "scratch":
            return {**key, "weights": fingerprint(self._scratch_key())}
        if not self._weights_file().is_file():
            raise FileNotFoundError(f"network.weights: no file {self._weights_file()}")
        return {**key, "weights": sha256(self._weights_file())}

    def _scratch_key(self) -> dict:
        network = self.profile.network
        if network.scratch is None:
            raise ValueError("network.weights = scratch, but the profile has no section network.scratch")
        recipe = training.effective(network.scratch, self.device).model_dump()
        return self._key("training", architecture=network.architecture, outputs=network.outputs, recipe=recipe,
                         train=self.train_key, validation=self.validation_key, seed=self.profile.seed)  # fmt: skip

    def _scratch(self) -> Arrays:
        def compute() -> Arrays:
            recipe, seed = training.effective(self.profile.network.scratch, self.device), self.profile.seed
            network = self._trainable(recipe, seed)
            networks.initialise(network, seed)
            return self._trained(network, recipe, seed, {}, "dense from scratch")

        return self.store.arrays("training", "dense-scratch", self._scratch_key(), compute)

    @property
    def scratch_epochs(self) -> pd.DataFrame:
        """Every epoch of the dense network's own training, where ``network.weights`` is "scratch"."""
        return pd.DataFrame(_unpack(self._scratch(), "epoch")).rename(columns=_in_our_words)

    def network(self, variant: Variant) -> nn.Module:
        """A variant's network on the CPU, in evaluation mode; trains it where it has not been trained yet."""
        network = self._blank()
        if variant.method == "random_init":
            networks.initialise(network, variant.seed)
        elif variant.schedule == "none":
            network.load_state_dict(self.dense.state_dict())
            pruning.apply(network, self.masks(variant))
        else:
            _restore(network, self._retrained(variant), str(variant))
        return network.eval()

    def masks(self, variant: Variant) -> pruning.Masks:
        """The masks a variant was pruned with; none for controls."""
        if variant.method in CONTROLS:
            return {}
        if variant.schedule == "none":
            network = self._blank()
            network.load_state_dict(self.dense.state_dict())
            return pruning.prune(network, variant.pruning_method, variant.rate, variant.seed)
        arrays = self._retrained(variant)
        return {name: torch.from_numpy(array) for name, array in _unpack(arrays, "mask").items()}

    def epochs(self, variant: Variant) -> pd.DataFrame:
        """Loss and accuracy of every epoch of a variant's retraining, steps of an iterative schedule in a row."""
        tables, before = [], 0
        for step in range(self._steps(variant)):
            table = pd.DataFrame(_unpack(self._step(variant, step), "epoch")).assign(step=step)
            # A later step's epoch 0 is the network just pruned; only the first step's has a place on the axis.
            tables.append(table[table.epoch >= min(step, 1)].assign(epoch=lambda t, before=before: t.epoch + before))
            before += int(table.epoch.max())
        columns = {"train_loss": "loss"}
        table = pd.concat(tables, ignore_index=True).assign(**asdict(variant))
        return table.rename(columns=_in_our_words).rename(columns=columns)

    def _steps(self, variant: Variant) -> int:
        return self.profile.pruning.iterative.steps if variant.schedule == "iterative" else 1

    def _step_recipe(self, variant: Variant, step: int) -> profiles.Training:
        """An iterative schedule shares the epochs of a one-shot one among its steps, the first getting what is over."""
        recipe, steps = training.effective(self.profile.retraining, self.device), self._steps(variant)
        epochs = recipe.epochs // steps + (step < recipe.epochs % steps)
        return recipe.model_copy(update={"epochs": epochs})

    def _retrained(self, variant: Variant) -> Arrays:
        return self._step(variant, self._steps(variant) - 1)

    def _step(self, variant: Variant, step: int) -> Arrays:
        """The artefact of one round of pruning and retraining: weights, masks and epochs."""
        return self.store.arrays(
            "training",
            f"{variant}-step{step + 1}",
            self._step_key(variant, step),
            lambda: self._prune_and_retrain(variant, step),
        )

    def _step_key(self, variant: Variant, step: int) -> dict:
        # Masked and unmasked variants differ by their method's name.
        recipe = self._step_recipe(variant, step).model_dump()
        return self._key("training", dense=self.dense_key, variant=asdict(variant), step=step,
                         steps=self._steps(variant), recipe=recipe, train=self.train_key,
                         validation=self.validation_key)  # fmt: skip

    def _prune_and_retrain(self, variant: Variant, step: int) -> Arrays:
        recipe = self._step_recipe(variant, step)
        network, masks = self._trainable(recipe, variant.seed), {}
        if step == 0:
            networks.load_state(network, self.dense.state_dict(), "the dense network")
        else:
            network.load_state_dict(_weights(self._step(variant, step - 1)))
        steps = self._steps(variant)
        if variant.method not in CONTROLS:
            rate = 1 - (1 - variant.rate) ** ((step + 1) / steps)
            masks = pruning.prune(network, variant.pruning_method, rate, variant.seed)
        label = f"{variant}" + (f" step {step + 1}/{steps}" if steps > 1 else "")
        # Every step sees other batches and crops than the one before.
        return self._trained(network, recipe, variant.seed + 1000 * step, masks, label, variant.masked)

    def _trained(
        self,
        network: nn.Module,
        recipe: profiles.Training,
        seed: int,
        masks: pruning.Masks,
        label: str,
        hold: bool = True,
    ) -> Arrays:
        table = training.train(
            network, self.train_set, self.validation_set, recipe,
            seed=seed, device=self.device, masks=masks if hold else None, label=label,
        )  # fmt: skip
        return {
            **{f"weight/{name}": tensor.cpu().numpy() for name, tensor in network.state_dict().items()},
            **{f"mask/{name}": mask.cpu().numpy() for name, mask in masks.items()},
            **{f"epoch/{name}": column.to_numpy() for name, column in table.items()},
        }

    @cached_property
    def prunable_share(self) -> float:
        """The fraction of all inference parameters that are weights of prunable convs."""
        prunable = sum(layer.weight.numel() for layer in networks.prunable_layers(self.dense).values())
        return prunable / sum(parameter.numel() for _, parameter in networks.parameters(self.dense))

    def network_key(self, variant: Variant) -> dict:
        """What a variant's weights depend on."""
        if variant.method == "random_init":
            network = self.profile.network
            key = {"architecture": network.architecture, "outputs": network.outputs, "random": variant.seed}
            return self._key("pruning", **key)
        if variant.schedule == "none":
            return self._key("pruning", dense=self.dense_key, variant=asdict(variant))
        return self._step_key(variant, self._steps(variant) - 1)

    def _key(self, stage: str, **parameters: object) -> dict:
        return {"version": VERSIONS[stage], **parameters}

    @cached_property
    def train_key(self) -> str:
        return _images_key(self.train_set)

    @cached_property
    def validation_key(self) -> str:
        return _images_key(self.validation_set)

    @cached_property
    def stimuli_key(self) -> str:
        return _images_key(self.stimuli)

    # ----------------------------------------------------------------------------------------------- measures

    def accuracy(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """One row per variant: what it is, its measured sparsity, and its accuracy on the validation set."""
        rows = [self._accuracy(variant) for variant in self._each(only, "accuracy")]
        return pd.concat(rows, ignore_index=True)

    def _accuracy(self, variant: Variant) -> pd.DataFrame:
        arrays = self._evaluated(variant)
        # The study's Top-1 is among the data's own classes; on ImageNet that is the same as among all outputs.
        row = {_in_our_words(name): array.item() for name, array in _unpack(arrays, "accuracy").items()}
        epochs = 0 if variant.schedule == "none" else self.profile.retraining.epochs
        return pd.DataFrame([{"variant": str(variant), **asdict(variant), "epochs": epochs, **row}])

    def confusion(self, variant: Variant) -> np.ndarray:
        """Validation images counted by class (rows) and predicted class (columns)."""
        return self._evaluated(variant)["confusion"]

    def class_accuracy(self, variant: Variant) -> pd.DataFrame:
        """Accuracy of every class among the data's classes, with the number of its images and its logit."""
        counts = self.confusion(variant)
        return pd.DataFrame(
            {
                **asdict(variant),
                "class_name": self.validation_set.class_names,
                "logit": self.validation_set.logits,
                "n": counts.sum(1),
                "top1": np.diag(counts) / counts.sum(1).clip(1),
            }
        )

    def _evaluated(self, variant: Variant) -> Arrays:
        key = self._key("accuracy", network=self.network_key(variant), images=self.validation_key)
        return self.store.arrays("accuracy", str(variant), key, lambda: self._evaluate(variant))

    def _evaluate(self, variant: Variant) -> Arrays:
        network = self.network(variant)
        sparsity = pruning.sparsity(network)
        logits = evaluation.logits(network, self.validation_set, self.profile.batch_size, self.device)
        row = {**sparsity, **evaluation.accuracy(logits, self.validation_set)}
        return {
            "confusion": evaluation.confusion(logits, self.validation_set),
            **{f"accuracy/{name}": np.float64(value) for name, value in row.items()},
        }

    def latency(self, only: Iterable[Variant]) -> pd.DataFrame:
        """Seconds per forward pass on this machine, per variant and batch size."""
        machine = {"machine": provenance()["machine"], "device": str(self.device), "threads": torch.get_num_threads()}
        tables = []
        for variant in self._each(only, "latency"):
            for batch in self.profile.latency_batches:
                key = self._key(
                    "latency", network=self.network_key(variant), batch=batch, size=self.profile.data.size, **machine
                )
                compute = lambda variant=variant, batch=batch: self._latency(variant, batch)  # noqa: E731
                tables.append(self.store.table("latency", f"{variant}-b{batch}", key, compute))
        return pd.concat(tables, ignore_index=True)

    def _latency(self, variant: Variant, batch: int) -> pd.DataFrame:
        timed = evaluation.latency(self.network(variant), self.profile.data.size, batch, 10, self.device)
        timed.pop("seconds")
        return pd.DataFrame([{"variant": str(variant), **asdict(variant), **timed}])

    def extremes(self, variant: Variant) -> Arrays:
        """Per layer "top/LAYER" and "bottom/LAYER", stimulus indices (units, N (K + 1)), and "alive/LAYER" (units,)."""
        measure = self.profile.interpretability
        k = measure.tasks * (measure.explanations + 1)
        if len(self.stimuli) < 2 * k:
            raise ValueError(f"data.stimulus_images: found {len(self.stimuli)} stimuli, {measure.tasks} tasks of "
                             f"{measure.explanations} explanations need {2 * k}")  # fmt: skip
        key = self._key(
            "extremes", network=self.network_key(variant), stimuli=self.stimuli_key, k=k, seed=self.profile.seed
        )
        return self.store.arrays("extremes", str(variant), key, lambda: self._extremes(variant, k))

    def _extremes(self, variant: Variant, k: int) -> Arrays:
        network = self.network(variant).to(self.device)
        layers = networks.unit_layers(network)
        values = activations.record(network, layers, self.stimuli.images, self.profile.batch_size, self.device)
        keys = activations.tie_keys(self.stimuli.names, self.profile.seed)
        arrays = {}
        for layer, value in values.items():
            top, bottom = activations.extremes(value, k, keys)
            arrays[f"top/{layer}"], arrays[f"bottom/{layer}"] = top.astype(np.int32), bottom.astype(np.int32)
            arrays[f"alive/{layer}"] = activations.alive(value)
        return arrays

    @cached_property
    def embeddings(self) -> np.ndarray:
        """The stimuli under the profile's similarity, once for the whole study: float32 (n, D)."""
        name = self.profile.interpretability.similarity
        key = self._key("embeddings", similarity=name, stimuli=self.stimuli_key)
        return self.store.arrays("embeddings", name, key, self._embed)["embeddings"]

    @cached_property
    def similarity(self) -> similarity.Similarity:
        return similarity.load(
            self.profile.interpretability.similarity, download=self.profile.interpretability.download
        )

    def _embed(self) -> Arrays:
        embeddings = self.similarity.embed(self.stimuli.images, self.profile.batch_size, self.device)
        return {"embeddings": similarity.compress(embeddings)}

    @cached_property
    def temperature(self) -> float:
        """The temperature of the MIS: the profile's, the published one, or fitted on the dense network's convs."""
        given = self.profile.interpretability.temperature or self.similarity.temperature
        return given or self._fitted_temperature()

    def _fitted_temperature(self) -> float:
        def compute() -> Arrays:
            return {"temperature": np.float64(interpretability.fit_temperature(self._dense_margins()))}

        key = self._key("temperature", network=self.network_key(self.variants[0]), **self._measure_key)
        return self.store.arrays("temperature", self.similarity.name, key, compute)["temperature"].item()

    @property
    def _measure_key(self) -> dict:
        """What scores depend on besides the network and a temperature that is given."""
        measure = self.profile.interpretability.model_dump(exclude={"temperature", "download"})
        versions = {stage: VERSIONS[stage] for stage in ("extremes", "embeddings")}
        return {"stimuli": self.stimuli_key, "seed": self.profile.seed, "measure": measure, "versions": versions}

    def _dense_margins(self) -> np.ndarray:
        extremes = self.extremes(self.variants[0])
        margins = [
            self._margins(extremes, layer)[extremes[f"alive/{layer}"]] for layer in networks.conv_layers(self.dense)
        ]
        return np.concatenate(margins)

    def _margins(self, extremes: Arrays, layer: str) -> np.ndarray:
        measure = self.profile.interpretability
        return interpretability.margins(
            extremes[f"top/{layer}"], extremes[f"bottom/{layer}"], self.embeddings, n_tasks=measure.tasks,
            n_explanations=measure.explanations, queries=measure.queries, seed=self.profile.seed,
            scale=self.similarity.scale, layer=layer,
        )  # fmt: skip

    def units(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """One row per unit of every variant: layer, kind, unit, alive, mis, two_afc_accuracy, margin.

        Dead units are listed with alive = False and no scores.
        """
        tables = [
            self._scores(variant).assign(variant=str(variant), **asdict(variant)) for variant in self._each(only, "MIS")
        ]
        return pd.concat(tables, ignore_index=True)

    def _scores(self, variant: Variant) -> pd.DataFrame:
        given = self.profile.interpretability.temperature
        temperature = given or {"version": VERSIONS["temperature"], "dense": self.network_key(self.variants[0])}
        key = self._key("scores", network=self.network_key(variant), temperature=temperature, **self._measure_key)
        return self.store.table("scores", str(variant), key, lambda: self._score(variant))

    def _score(self, variant: Variant) -> pd.DataFrame:
        extremes, tables = self.extremes(variant), []
        for layer in networks.unit_layers(self.dense):
            table = interpretability.summarize(self._margins(extremes, layer), self.temperature)
            alive = extremes[f"alive/{layer}"]
            table.loc[~alive, ["mis", "two_afc_accuracy", "margin"]] = np.nan
            tables.append(table.assign(layer=layer, kind="fc" if layer == "fc" else "conv", alive=alive))
        return pd.concat(tables, ignore_index=True)

    def network_means(self, units: pd.DataFrame) -> pd.DataFrame:
        """One row per variant in ``units``: dead units, and the mean MIS of its live units.

        mis_conv averages conv units, mis_fc the output units of the data's own classes, mis_fc_all those of all
        outputs, mis_layers the layers' means, and mis_all all units, as the paper does.
        """
        alive = units[units.alive]
        fc = alive[alive.kind == "fc"]
        keys = ["variant", "method", "rate", "schedule", "seed"]
        conv = alive[alive.kind == "conv"]
        table = units[keys].drop_duplicates().set_index("variant")
        return table.assign(
            dead=units[~units.alive].groupby("variant").size().reindex(table.index, fill_value=0),
            mis_conv=conv.groupby("variant").mis.mean(),
            two_afc_conv=conv.groupby("variant").two_afc_accuracy.mean(),
            margin_conv=conv.groupby("variant").margin.mean(),
            mis_fc=fc[fc.unit.isin(self.validation_set.logits)].groupby("variant").mis.mean(),
            mis_fc_all=fc.groupby("variant").mis.mean(),
            mis_layers=alive.groupby(["variant", "layer"]).mis.mean().groupby("variant").mean(),
            mis_all=alive.groupby("variant").mis.mean(),
        ).reset_index()

    def class_scores(self, units: pd.DataFrame) -> pd.DataFrame:
        """One row per variant and class: its accuracy, and MIS and alive of the fc unit that stands for it."""
        fc = units.loc[units.kind == "fc", ["variant", "unit", "mis", "alive"]]
        by_variant = {str(variant): variant for variant in self.variants}
        classes = [self.class_accuracy(by_variant[name]).assign(variant=name) for name in units.variant.unique()]
        return pd.concat(classes).merge(fc, left_on=["variant", "logit"], right_on=["variant", "unit"])

    # ----------------------------------------------------------------------------------------- visualisations

    def sampled_units(self) -> list[tuple[str, int]]:
        """The units that are visualised: a seeded sample of every layer that the profile names, the same everywhere."""
        rng = np.random.default_rng(self.profile.seed)
        layers, wanted = networks.unit_layers(self.dense), self.profile.visualization
        return [
            (layer, int(unit))
            for layer in wanted.layers
            for unit in sorted(rng.choice(layers[layer].weight.shape[0], wanted.units_per_layer, replace=False))
        ]

    def visualized_variants(self) -> list[Variant]:
        """Dense to most pruned: the dense network, then each method's retrained networks by rate, first seed."""
        wanted, seed = self.profile.visualization, self.profile.pruning.seeds[0]
        return [self.variants[0]] + [
            Variant(method, rate, "one_shot", seed) for method in wanted.methods for rate in wanted.rates
        ]

    def visualize(self, variant: Variant) -> Arrays:
        """ "images": uint8 (units, size, size, 3) of ``sampled_units``, "objective": float32 (units,)."""
        wanted = self.profile.visualization
        settings = {"size": wanted.size, "steps": wanted.steps, "seed": self.profile.seed}
        units = self.sampled_units()
        key = self._key("visualizations", network=self.network_key(variant), units=units, **settings)

        def compute() -> Arrays:
            drawn = visualization.visualize(self.network(variant).to(self.device), units, **settings)
            return {"images": drawn.images, "objective": drawn.objective}

        return self.store.arrays("visualizations", str(variant), key, compute)

    # ---------------------------------------------------------------------------------------------- reporting

    def figure(self, figure: Figure, name: str, table: pd.DataFrame, caption: str) -> Figure:
        """Save a figure as PNG and SVG with its table, caption and provenance, and return it."""
        return figures.save(figure, name, table, caption, self.figures, {"profile": self.profile.name, **provenance()})

    def table(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Save a table that belongs to no figure as CSV, and return it."""
        write_text(self.figures / f"{name}.csv", table.to_csv(index=False))
        return table

    def _each(self, only: Iterable[Variant] | None, label: str) -> Iterable[Variant]:
        return tqdm(list(self.variants if only is None else only), desc=label, unit="network", mininterval=5)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: found {name}, but PyTorch sees no GPU; expected auto or cpu")
    return device


def _images_key(image_set: ImageSet) -> str:
    """A fingerprint of names, labels and every 97th pixel value: enough to tell two image sets apart."""
    pixels = image_set.images[:: max(1, len(image_set) // 64)].reshape(-1)[::97]
    return fingerprint({"names": image_set.names, "labels": image_set.labels.tolist(), "pixels": pixels.tolist()})


def _in_our_words(name: str) -> str:
    """evaluation.accuracy's column in the study's words: "known" is what counts, "_all_outputs" the rest."""
    if "_known" in name:
        return name.replace("_known", "")
    return f"{name}_all_outputs" if name.startswith("top") else name


def _unpack(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def _weights(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in _unpack(arrays, "weight").items()}


def _restore(network: nn.Module, arrays: Arrays, origin: str) -> None:
    networks.load_state(network, _weights(arrays), origin)
