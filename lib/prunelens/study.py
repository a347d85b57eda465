"""The study: from a profile to every network, table and figure, each computed once and loaded ever after.

Notebooks talk to this module; it calls the pure ones (pruning, training, activations, ...) through the store.
"""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Image as DisplayedImage
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from torch import nn

from prunelens import (
    activations,
    compaction,
    datasets,
    evaluation,
    figures,
    interpretability,
    measures,
    networks,
    processes,
    profiles,
    pruning,
    sensitivity,
    similarity,
    textures,
    training,
    visualization,
)
from prunelens.artefacts import PROJECT, Arrays, Store, atomic, fingerprint, provenance, sha256, write_text
from prunelens.datasets import ImageSet
from prunelens.variants import CONTROLS, Variant, more_variants, variants

# Raise a stage's number when a change of code changes its results: its artefacts then get other names.
# "pruning" is the version of masks and initialisation, on which "training" depends too: then raise both.
VERSIONS = {
    "sensitivity": 1,
    "pruning": 2,
    "training": 3,
    "accuracy": 2,
    "costs": 1,
    "extremes": 1,
    "embeddings": 2,
    "temperature": 1,
    "anchors": 1,
    "scores": 2,
    "measures": 1,
    "last_layer": 1,
    "dissection": 1,
    "visualizations": 3,
    "visual_quality": 2,
}

SCORES = ["mis", "mis_low", "mis_high", "two_afc_accuracy", "margin"]  # of a unit; a dead one has none
# Stimuli. Of more, extremes are found batch after batch, and margins are read from embeddings: neither the matrix of
# all activations nor that of all pairs of images would fit into memory.
LARGE = 20_000
# Numbers of a measure, not of a study, beside those that profiles hold: whoever changes one raises its stage's version.
CLASS_IMAGES = 10  # stimuli, at least, of a class whose mean activation counts for class_selectivity
SPECTRUM_IMAGES = 512  # stimuli, at most, whose natural spectrum the atlas's pictures have


class Study:
    """A profile at work.

    Args:
        profile: its name or path; overrides: "key.path=value" each.
        device: auto (a GPU where there is one), cpu, cuda, ...
        out: where ``runs`` and ``figures`` go; by default the project's ``data/runs`` and ``figures``.
    """

    def __init__(self, profile: str, overrides: Iterable[str] = (), device: str = "auto", out: str = "") -> None:
        self.overrides = list(overrides)
        self.profile = profiles.load(profile, self.overrides)
        self.device = _device(device)
        self.store = Store(Path(out) / "runs" if out else PROJECT / "data" / "runs", str(self.device))
        self.figures = (Path(out) if out else PROJECT) / "figures" / self.profile.name
        self.variants = variants(self.profile)
        self.more_variants = more_variants(self.profile)
        seeds = self.profile.interpretability.seeds
        self.scored = [variant for variant in self.variants if seeds is None or variant.seed in seeds]
        # Weights that shrink towards zero become denormal numbers, on which some CPUs are a hundred times slower.
        torch.set_flush_denormal(True)
        # TensorFloat-32 would tie or swap what ranks images, and make results depend on the batch size.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if self.device.type == "cpu":
            # Several networks are computed at once instead.
            torch.set_num_threads(1)
            threadpool_limits(1, "blas")
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
        def compute(checkpoint: Path) -> Arrays:
            recipe, seed = training.effective(self.profile.network.scratch, self.device), self.profile.seed
            network = self._trainable(recipe, seed)
            networks.initialise(network, seed)
            validate = lambda network: _row(self._evaluate(network))  # noqa: E731
            table = training.train(network, self.train_set, validate, recipe, seed=seed, device=self.device,
                                   label="dense from scratch", checkpoint=checkpoint)  # fmt: skip
            return _pack(network, {}, table)

        return self._trained("dense-scratch", self._scratch_key(), compute)

    @property
    def scratch_epochs(self) -> pd.DataFrame:
        """Every epoch of the dense network's own training, where ``network.weights`` is "scratch"."""
        return pd.DataFrame(_unpack(self._scratch(), "epoch")).rename(columns=_in_our_words)

    def network(self, variant: Variant) -> nn.Module:
        """A variant's network on the CPU, in evaluation mode; trains it where it has not been trained yet."""
        if variant.method == "random_init":
            network = self._blank()
            networks.initialise(network, variant.seed)
        elif variant.method == "shuffled_weights":
            network = self._blank()
            network.load_state_dict(self.dense.state_dict())
            networks.shuffle_weights(network, variant.seed)
        elif variant.schedule == "none":
            network, _ = self._pruned(variant)
        else:
            network = self._blank()
            _restore(network, self._computed(variant), str(variant))
        return network.eval()

    def masks(self, variant: Variant) -> pruning.Masks:
        """The masks a variant was pruned with, by parameter name; none for controls."""
        if variant.method in CONTROLS:
            return {}
        if variant.schedule == "none":
            return self._pruned(variant)[1]
        return {name: torch.from_numpy(array) for name, array in _unpack(self._computed(variant), "mask").items()}

    def _pruned(self, variant: Variant) -> tuple[nn.Module, pruning.Masks]:
        """The dense network pruned as the variant says, not retrained, and its masks."""
        network = self._blank()
        network.load_state_dict(self.dense.state_dict())
        return network, self._prune(network, variant, variant.rate)

    def _prune(self, network: nn.Module, variant: Variant, rate: float) -> pruning.Masks:
        if variant.method in CONTROLS:
            return {}
        method = pruning.find(variant.pruning_method)
        if method is pruning.unstructured_sensitivity:
            method = partial(method, tolerated=self.tolerated)
        return pruning.prune(network, method, rate, variant.seed, self.profile.pruning.affine)

    def sensitivity(self) -> pd.DataFrame:
        """Top-1 after pruning one layer alone, for the profile's methods and rates, on training images."""
        wanted, images = self.profile.sensitivity, self._sensitivity_images
        settings = {"methods": wanted.methods, "rates": wanted.rates, "seed": self.profile.seed}
        blocks = [name for name in networks.stages(self.dense) if name.startswith("inception")]

        def scanned(block: str) -> pd.DataFrame:
            key = self._key("sensitivity", dense=self.dense_key, images=_images_key(images), block=block, **settings,
                            code=[pruning.source(method) for method in wanted.methods])  # fmt: skip
            compute = lambda: sensitivity.scan(  # noqa: E731
                self.dense, images, block, batch_size=self.profile.batch_size, device=self.device, **settings
            )
            return self.store.table("sensitivity", block, key, compute)

        processes.run(scanned, blocks, "sensitivity", self.device)
        return pd.concat([scanned(block) for block in blocks], ignore_index=True).rename(columns=_in_our_words)

    @cached_property
    def sensitivity_dense(self) -> float:
        """Top-1 of the dense network on the images of the sensitivity scan."""
        images = self._sensitivity_images
        key = self._key("sensitivity", dense=self.dense_key, images=_images_key(images))

        def compute() -> Arrays:
            logits = evaluation.logits(self.dense, images, self.profile.batch_size, self.device)
            return {"top1": np.float64(evaluation.accuracy(logits, images)["top1_known"])}

        return self.store.arrays("sensitivity", "dense", key, compute)["top1"].item()

    @property
    def _sensitivity_images(self) -> ImageSet:
        return datasets.sample(self.train_set, self.profile.sensitivity.images, self.profile.seed)

    @cached_property
    def tolerated(self) -> dict[str, float]:
        """By layer, the rate of unstructured pruning that costs this layer alone no more than the tolerance."""
        table = self.sensitivity().query("method == 'unstructured_local'")
        return sensitivity.tolerated(table, self.sensitivity_dense, self.profile.sensitivity.tolerance)

    def epochs(self, chosen: Iterable[Variant]) -> pd.DataFrame:
        """Loss and accuracy of every epoch of each variant's retraining, steps of an iterative schedule in a row."""
        return self._rows(self._epochs, chosen, "retraining")

    def _epochs(self, variant: Variant) -> pd.DataFrame:
        tables, before = [self._epoch_0(variant)], 0
        for step in range(self._steps(variant)):
            table = pd.DataFrame(_unpack(self._step(variant, step), "epoch")).assign(step=step)
            tables.append(table.assign(epoch=table.epoch + before))
            before += self._step_epochs(variant, step)
        table = pd.concat(tables, ignore_index=True)[tables[-1].columns]
        return table.rename(columns=_in_our_words).rename(columns={"train_loss": "loss"})

    def _epoch_0(self, variant: Variant) -> pd.DataFrame:
        """The network as it was pruned first, before any retraining; none where its weights were drawn anew."""
        if variant.method.endswith("_reinitialised"):
            return pd.DataFrame()
        method = "dense" if variant.method in CONTROLS else variant.pruning_method
        # A method that draws, as one of a user's may, prunes another network with each seed.
        alike = method == "dense" or (method in pruning.METHODS and not method.endswith("_random"))
        seed = self.variants[0].seed if alike else variant.seed
        row = _row(self._evaluated(Variant(method, self._step_rate(variant, 0), "none", seed)))
        return pd.DataFrame([{"epoch": 0, "seconds": 0.0, **row, "step": 0}])

    def _steps(self, variant: Variant) -> int:
        return self.profile.pruning.iterative.steps if variant.schedule == "iterative" else 1

    def _recipe(self, variant: Variant) -> profiles.Training:
        recipe = training.effective(self.profile.retraining, self.device)
        if variant.schedule != "rewound":
            return recipe
        return recipe.model_copy(update=self.profile.pruning.rewound.model_dump(include={"learning_rate", "schedule"}))

    def _step_rate(self, variant: Variant, step: int) -> float:
        """The share that is pruned after a step; every step takes the same share of what is left."""
        done = (step + 1) / self._steps(variant)
        return variant.rate if done == 1 else 1 - (1 - variant.rate) ** done

    def _step_epochs(self, variant: Variant, step: int) -> int:
        """An iterative schedule shares the epochs of a one-shot one among its steps, the first getting what is over."""
        epochs, steps = self.profile.retraining.epochs, self._steps(variant)
        return epochs // steps + (step < epochs % steps)

    def _first_epoch(self, variant: Variant, step: int) -> int:
        """The epoch at which the learning rate of a step goes on."""
        if self.profile.pruning.iterative.restart:
            return 0
        return sum(self._step_epochs(variant, earlier) for earlier in range(step))

    def _computed(self, variant: Variant) -> Arrays:
        """The artefact that holds a variant's weights and masks."""
        if variant.schedule == "recalibrated":
            return self._recalibrated(variant)
        return self._step(variant, self._steps(variant) - 1)

    def _recalibrated(self, variant: Variant) -> Arrays:
        def compute() -> Arrays:
            network, masks = self._pruned(variant)
            training.recalibrate(network, self.train_set, self._recipe(variant), variant.seed, self.device)
            return _pack(network, masks)

        return self.store.arrays("training", str(variant), self.network_key(variant), compute)

    def _step(self, variant: Variant, step: int) -> Arrays:
        """The artefact of one round of pruning and retraining: weights, masks and epochs."""
        compute = partial(self._prune_and_retrain, variant, step)
        return self._trained(f"{variant}-step{step + 1}", self._step_key(variant, step), compute)

    def _trained(self, slug: str, key: dict, compute: Callable[[Path], Arrays]) -> Arrays:
        """The artefact of a training, which goes on from its checkpoint if it was cut off."""
        checkpoint = self.store.file("training", slug, key, ".checkpoint")
        arrays = self.store.arrays("training", slug, key, lambda: compute(checkpoint))
        checkpoint.unlink(missing_ok=True)  # only now that the artefact is stored
        return arrays

    def _step_key(self, variant: Variant, step: int) -> dict:
        # Masked and unmasked variants differ by their method's name.
        recipe = self._recipe(variant).model_copy(update={"epochs": self._step_epochs(variant, step)}).model_dump()
        return self._key("training", **self._pruning_key(variant), step=step, steps=self._steps(variant),
                         first_epoch=self._first_epoch(variant, step), recipe=recipe, train=self.train_key,
                         validation=self.validation_key)  # fmt: skip

    def _pruning_key(self, variant: Variant) -> dict:
        """What a variant's masks depend on."""
        key = {"dense": self.dense_key, "variant": asdict(variant), "affine": self.profile.pruning.affine}
        if variant.method in CONTROLS:
            return key
        if variant.pruning_method == "unstructured_sensitivity":
            key["tolerated"] = self.tolerated
        return {**key, "code": pruning.source(variant.pruning_method)}

    def _prune_and_retrain(self, variant: Variant, step: int, checkpoint: Path) -> Arrays:
        recipe = self._recipe(variant).model_copy(update={"epochs": self._step_epochs(variant, step)})
        network = self._trainable(recipe, variant.seed)
        if step == 0:
            networks.load_state(network, self.dense.state_dict(), "the dense network")
        else:
            network.load_state_dict(_weights(self._step(variant, step - 1)))
        steps = self._steps(variant)
        masks = self._prune(network, variant, self._step_rate(variant, step))
        if variant.method.endswith("_reinitialised"):
            networks.initialise(network, variant.seed)
        evaluated: Arrays = {}

        def validate(network: nn.Module) -> dict[str, float]:
            evaluated.update(self._evaluate(network))
            return _row(evaluated)

        # Every step sees other batches and crops than the one before.
        table = training.train(
            network, self.train_set, validate, recipe, seed=variant.seed + 1000 * step, device=self.device,
            masks=masks if variant.masked else None, first_epoch=self._first_epoch(variant, step),
            label=f"{variant}" + (f" step {step + 1}/{steps}" if steps > 1 else ""), checkpoint=checkpoint,
        )  # fmt: skip
        return _pack(network, masks, table) | {f"evaluated/{name}": array for name, array in evaluated.items()}

    def mask_sparsity(self, variant: Variant) -> float:
        """The share of the prunable convs' weights that a variant's masks take."""
        masks, layers = self.masks(variant), networks.prunable_layers(self.dense)
        taken = sum((~masks[f"{name}.weight"]).sum().item() for name in layers if f"{name}.weight" in masks)
        return taken / sum(layer.weight.numel() for layer in layers.values())

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
        if variant.method == "shuffled_weights":
            return self._key("pruning", dense=self.dense_key, shuffled=variant.seed)
        if variant.schedule == "none":
            return self._key("pruning", **self._pruning_key(variant))
        if variant.schedule == "recalibrated":
            recipe = self._recipe(variant).model_dump(include={"batch_size", "smallest_crop"})
            return self._key("training", **self._pruning_key(variant), recipe=recipe, train=self.train_key)
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
        return self._rows(self._accuracy, self.variants if only is None else only, "accuracy")

    def _accuracy(self, variant: Variant) -> pd.DataFrame:
        arrays = self._evaluated(variant)
        # The study's Top-1 is among the data's own classes; on ImageNet that is the same as among all outputs.
        row = {_in_our_words(name): array.item() for name, array in sorted(_unpack(arrays, "accuracy").items())}
        epochs = self.profile.retraining.epochs if variant.retrained else 0
        return pd.DataFrame([{"variant": str(variant), **asdict(variant), "epochs": epochs, **row}])

    def iterative_by_epochs(self) -> pd.DataFrame:
        """`accuracy` of iterative networks and of one-shot ones like them, for each of several numbers of epochs.

        The numbers are ``retraining.epochs`` and those of ``pruning.iterative.epochs``.
        """
        iterative = {variant for variant in self.variants if variant.schedule == "iterative"}
        compared = [v for v in self.variants if v.retrained and replace(v, schedule="iterative") in iterative]
        if not compared:
            return self.accuracy(self.variants[:1])[:0]
        numbers = sorted({self.profile.retraining.epochs, *self.profile.pruning.iterative.epochs})
        return pd.concat([self._retrained_for(epochs).accuracy(compared) for epochs in numbers], ignore_index=True)

    def _retrained_for(self, epochs: int) -> "Study":
        """This study with another number of epochs of retraining."""
        study = copy(self)
        retraining = self.profile.retraining.model_copy(update={"epochs": epochs})
        study.profile = self.profile.model_copy(update={"retraining": retraining})
        return study

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

        def compute() -> Arrays:
            # The last epoch of a retraining has evaluated the network already.
            known = _unpack(self._computed(variant), "evaluated") if variant.retrained else {}
            return known or self._evaluate(self.network(variant))

        return self.store.arrays("accuracy", str(variant), key, compute)

    def _evaluate(self, network: nn.Module) -> Arrays:
        """What `accuracy` and `confusion` say of a network."""
        sparsity = pruning.sparsity(network)
        logits = evaluation.logits(network, self.validation_set, self.profile.batch_size, self.device)
        row = {**sparsity, **evaluation.accuracy(logits, self.validation_set)}
        return {
            "confusion": evaluation.confusion(logits, self.validation_set),
            **{f"accuracy/{name}": np.float64(value) for name, value in row.items()},
        }

    def costs(self, chosen: Iterable[Variant]) -> pd.DataFrame:
        """What networks cost as masked and as compacted tensors: a row per variant, form and batch size.

        form: "dense", "masked" or "compact"; parameters, conv_sparsity (measured), macs and sparse_macs (theoretical,
        of one image), bytes (the file's, float32), and the columns of ``evaluation.latency`` (measured on this machine
        in turns, ``latency_repeats`` of them, against the dense network).
        """
        chosen, repeats = list(chosen), self.profile.latency_repeats
        machine = {"machine": provenance()["machine"], "device": str(self.device), "threads": torch.get_num_threads()}
        key = self._key("costs", networks=[self.network_key(variant) for variant in chosen], repeats=repeats,
                        batches=self.profile.latency_batches, size=self.profile.data.size, **machine)  # fmt: skip
        return self.store.table("costs", f"{len(chosen)}-networks", key, lambda: self._costs(chosen))

    def _costs(self, chosen: list[Variant]) -> pd.DataFrame:
        size, repeats = self.profile.data.size, self.profile.latency_repeats
        forms = {("dense", self.variants[0]): self.dense}
        for variant in chosen:
            forms["masked", variant] = self.network(variant)
            forms["compact", variant] = compaction.compact(self.network(variant))
        sizes = [
            {"network": f"{variant} {form}", "variant": str(variant), **asdict(variant), "form": form,
             "conv_sparsity": pruning.sparsity(network)["conv_sparsity"],
             **compaction.cost(network, size)[["parameters", "macs", "sparse_macs", "bytes"]].sum().astype(int)}
            for (form, variant), network in forms.items()
        ]  # fmt: skip
        timed = {f"{variant} {form}": network for (form, variant), network in forms.items()}
        latencies = [
            evaluation.latency(timed, size, batch, repeats, self.device) for batch in self.profile.latency_batches
        ]
        return pd.DataFrame(sizes).merge(pd.concat(latencies), on="network")

    def extremes(self, variant: Variant) -> Arrays:
        """Per layer "top/LAYER" and "bottom/LAYER", stimulus indices (units, N (K + 1)), and "alive/LAYER" (units,)."""
        k = self._wanted_extremes
        key = self._key(
            "extremes", network=self.network_key(variant), stimuli=self.stimuli_key, k=k, seed=self.profile.seed
        )
        return self.store.arrays(
            "extremes", str(variant), key, lambda: self._extremes(self.network(variant), networks.unit_layers, k)
        )

    @property
    def _wanted_extremes(self) -> int:
        """N (K + 1) of each side. Raises ValueError for fewer stimuli than that twice."""
        measure = self.profile.interpretability
        k = measure.tasks * (measure.explanations + 1)
        if len(self.stimuli) < 2 * k:
            raise ValueError(f"data.stimulus_images: found {len(self.stimuli)} stimuli, {measure.tasks} tasks of "
                             f"{measure.explanations} explanations need {2 * k}")  # fmt: skip
        return k

    def _extremes(self, network: nn.Module, layers_of: Callable[[nn.Module], dict[str, nn.Module]], k: int) -> Arrays:
        network.to(self.device)
        layers, images = layers_of(network), self.stimuli.images
        keys = activations.tie_keys(self.stimuli.names, self.profile.seed)
        if len(images) > LARGE:
            stream = activations.Extremes(k, keys)
            for batch, values in activations.batches(network, layers, images, self.profile.batch_size, self.device):
                stream.update(np.arange(batch.start, batch.stop), values)
            found = {layer: stream.result(layer) for layer in layers}
        else:
            values = activations.record(network, layers, images, self.profile.batch_size, self.device)
            found = {name: (*activations.extremes(v, k, keys), activations.alive(v)) for name, v in values.items()}
        arrays = {}
        for layer, (top, bottom, alive) in found.items():
            arrays[f"top/{layer}"], arrays[f"bottom/{layer}"] = top.astype(np.int32), bottom.astype(np.int32)
            arrays[f"alive/{layer}"] = alive
        return arrays

    @cached_property
    def embeddings(self) -> np.ndarray:
        """The stimuli under the profile's similarity, once for the whole study: float32 (n, D)."""
        name = self.profile.interpretability.similarity
        key = self._key("embeddings", similarity=name, stimuli=self.stimuli_key)
        return self.store.arrays("embeddings", name, key, self._embed)["embeddings"].astype(np.float32)

    @cached_property
    def gram(self) -> interpretability.Gram | torch.Tensor:
        """What margins are read from: the stimuli's inner products, or the embeddings of too many of them for that."""
        embeddings = torch.from_numpy(self.embeddings).to(self.device)
        return interpretability.gram(embeddings) if len(self.stimuli) <= LARGE else embeddings

    @cached_property
    def similarity(self) -> similarity.Similarity:
        return similarity.load(
            self.profile.interpretability.similarity, download=self.profile.interpretability.download
        )

    def _embed(self) -> Arrays:
        embeddings = self.similarity.embed(self.stimuli.images, self.profile.batch_size, self.device)
        return {"embeddings": similarity.halve(similarity.compress(embeddings))}

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
        measure = self.profile.interpretability.model_dump(include={"similarity", "tasks", "explanations", "queries"})
        versions = {stage: VERSIONS[stage] for stage in ("extremes", "embeddings")}
        return {"stimuli": self.stimuli_key, "seed": self.profile.seed, "measure": measure, "versions": versions}

    @property
    def _temperature_key(self) -> dict:
        """What the temperature depends on besides ``_measure_key``."""
        fitted = {"version": VERSIONS["temperature"], "dense": self.network_key(self.variants[0])}
        return {"temperature": self.profile.interpretability.temperature or fitted}

    def _dense_margins(self) -> np.ndarray:
        extremes = self.extremes(self.variants[0])
        margins = [
            self._margins(extremes, layer)[extremes[f"alive/{layer}"]] for layer in networks.conv_layers(self.dense)
        ]
        return np.concatenate(margins)

    def _margins(self, extremes: Arrays, layer: str, embeddings: np.ndarray | None = None) -> np.ndarray:
        measure = self.profile.interpretability
        compared = self.gram if embeddings is None else embeddings
        return interpretability.margins(
            extremes[f"top/{layer}"], extremes[f"bottom/{layer}"], compared, n_tasks=measure.tasks,
            n_explanations=measure.explanations, queries=measure.queries, seed=self.profile.seed,
            scale=self.similarity.scale, layer=layer,
        )  # fmt: skip

    def units(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """One row per unit of every variant whose seed is scored: layer, kind, unit, alive, mis, two_afc_accuracy,
        margin, and mis_low and mis_high, a 95 % interval over its tasks.

        Dead units are listed with alive = False and no scores.
        """
        _ = self.gram  # for all processes
        return self._rows(self._scores, self.scored if only is None else only, "MIS")

    def _scores(self, variant: Variant) -> pd.DataFrame:
        key = self._key("scores", network=self.network_key(variant), **self._temperature_key, **self._measure_key)
        return self.store.table("scores", str(variant), key, lambda: self._score(variant))

    def _score(self, variant: Variant) -> pd.DataFrame:
        table = self._score_layers(self.extremes(variant), networks.unit_layers(self.dense))
        return table.assign(kind=np.where(table.layer == "fc", "fc", "conv"))

    def _score_layers(self, extremes: Arrays, layers: Iterable[str]) -> pd.DataFrame:
        margins = {layer: self._margins(extremes, layer) for layer in layers}
        units = [np.arange(len(found)) for found in margins.values()]
        table = interpretability.summarize(np.concatenate([*margins.values()]), self.temperature)
        alive = np.concatenate([extremes[f"alive/{layer}"] for layer in margins])
        table.loc[~alive, SCORES] = np.nan
        layers = np.repeat([*margins], [len(found) for found in units])
        return table.assign(unit=np.concatenate(units), alive=alive, layer=layers)

    def batch_norms(self) -> pd.DataFrame:
        """One row per BatchNorm unit of `most_pruned`: layer (its conv's), unit, alive, mis, and conv_mis of the conv
        unit that it follows. Empty for a network without BatchNorm.

        A BatchNorm unit is its conv unit, shifted and scaled: it has the conv's extremes, or with a negative
        scale the conv's extremes with their sides exchanged. It gets the conv's tasks.
        """
        if not activations.batch_norm_layers(self.dense):
            return pd.DataFrame(columns=["layer", "unit", "alive", "mis", "conv_mis", *Variant.__dataclass_fields__])
        return self._rows(self._batch_norms, self.most_pruned, "BatchNorms")

    def _batch_norms(self, variant: Variant) -> pd.DataFrame:
        convs = self._scores(variant).set_index(["layer", "unit"]).mis
        table = self._batch_norm_scores(variant)
        return table.assign(conv_mis=convs.reindex(pd.MultiIndex.from_frame(table[["layer", "unit"]])).to_numpy())

    def _batch_norm_scores(self, variant: Variant) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            extremes = self._extremes(self.network(variant), _batch_norms_by_conv, self._wanted_extremes)
            return self._score_layers(extremes, networks.conv_layers(self.dense))

        key = self._key("scores", network=self.network_key(variant), **self._temperature_key, **self._measure_key)
        return self.store.table("scores", f"{variant}-batch-norms", key | {"of": "BatchNorm"}, compute)

    def anchors(self) -> pd.DataFrame:
        """What the scale of the MIS means here: one row per anchor and unit, with the columns of a unit's scores.

        anchor: "planted unit", the highest MIS of ``interpretability.anchor_units`` planted ones
        (``interpretability.planted_units``), each of which tells two groups of stimuli apart that are as unlike as a
        search found them: one row, which is a maximum and so a bound in practice, not a sample of units, and its
        interval is that of a unit that was picked for its score. "random", as many units whose activations are random
        numbers; "shuffled images", the dense network's conv units with the images' embeddings dealt to other images;
        "shuffled weights", the live conv units of the dense network with its weights dealt to other places of their
        layers.
        """
        shuffled = self.network_key(Variant("shuffled_weights", seed=self.variants[0].seed))
        key = self._key("anchors", dense=self.network_key(self.variants[0]), shuffled=shuffled,
                        units=self.profile.interpretability.anchor_units, **self._temperature_key,
                        **self._measure_key)  # fmt: skip
        return self.store.table("anchors", "anchors", key, self._anchors)

    def _anchors(self) -> pd.DataFrame:
        k, units, seed = self._wanted_extremes, self.profile.interpretability.anchor_units, self.profile.seed
        planted = self._score_made(interpretability.planted_units(self.embeddings, k, units, seed))
        random = self._score_made(interpretability.random_units(len(self.stimuli), units, seed))
        tables = [planted.nlargest(1, "mis").assign(anchor="planted unit"), random.assign(anchor="random")]
        extremes = self.extremes(self.variants[0])
        for layer in networks.conv_layers(self.dense):
            dealt = interpretability.shuffled(self.embeddings, self.profile.seed, layer)
            margins = self._margins(extremes, layer, dealt)[extremes[f"alive/{layer}"]]
            tables.append(interpretability.summarize(margins, self.temperature).assign(anchor="shuffled images"))
        dealt = self._scores(Variant("shuffled_weights", seed=self.variants[0].seed))
        tables.append(dealt[dealt.alive & (dealt.kind == "conv")].assign(anchor="shuffled weights"))
        return pd.concat(tables, ignore_index=True)

    def _score_made(self, values: np.ndarray) -> pd.DataFrame:
        """Scores of units with the given activations (stimuli, units), as those of a layer without a name."""
        keys = activations.tie_keys(self.stimuli.names, self.profile.seed)
        top, bottom = activations.extremes(values, self._wanted_extremes, keys)
        return interpretability.summarize(self._margins({"top/": top, "bottom/": bottom}, ""), self.temperature)

    def measures(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """One row per conv unit of every variant (by default controls and retrained ones of the first seed): other
        measures than the MIS.

        Columns: layer, unit, alive; clarity, monosemanticity, class_selectivity, lifetime_sparseness, redundancy (see
        ``measures``), and on the embedded data, whose concepts are known, concept_selectivity.
        """
        first = self.variants[0].seed
        judged = [v for v in self.variants if v.seed == first and (v.retrained or v.rate == 0)]
        return self._rows(self._measured, judged if only is None else only, "measures")

    def _measured(self, variant: Variant) -> pd.DataFrame:
        key = self._key("measures", network=self.network_key(variant), **self._measure_key)
        return self.store.table("measures", str(variant), key, lambda: self._measure(variant))

    def _measure(self, variant: Variant) -> pd.DataFrame:
        network = self.network(variant).to(self.device)
        convs, rectified = networks.conv_layers(network), activations.rectified_layers(network)
        values = activations.record(
            network, convs | rectified, self.stimuli.images, self.profile.batch_size, self.device
        )
        extremes, labels, tables = self.extremes(variant), self.stimuli.labels, []
        ours = np.bincount(labels)[labels] >= CLASS_IMAGES  # extra stimuli have one image a class: no class mean
        known = self.stimuli.concepts is not None
        concepts = measures.concept_masks(self.stimuli)[1].any(axis=(2, 3)) if known else None
        for layer, block in zip(convs, rectified, strict=True):
            top = extremes[f"top/{layer}"]
            columns = {
                "clarity": measures.clarity(top, self.embeddings),
                "monosemanticity": measures.monosemanticity(values[layer], self.embeddings),
                "class_selectivity": measures.class_selectivity(values[block][ours], labels[ours]),
                "lifetime_sparseness": measures.lifetime_sparseness(values[block]),
                "redundancy": measures.redundancy(values[layer]),
            }
            if concepts is not None:
                columns["concept_selectivity"] = measures.concept_selectivity(values[layer], concepts)
            alive = extremes[f"alive/{layer}"]
            table = pd.DataFrame(columns)
            table.loc[~alive] = np.nan
            tables.append(table.assign(layer=layer, unit=np.arange(len(table)), alive=alive))
        return pd.concat(tables, ignore_index=True)

    @property
    def most_pruned(self) -> list[Variant]:
        """The dense network, and each method's one-shot retrained network of the highest rate and the first seed."""
        wanted = self.profile.pruning
        return [self.variants[0]] + [
            Variant(method, max(wanted.rates), "one_shot", wanted.seeds[0]) for method in wanted.methods
        ]

    def last_layer(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """The output units of the data's own classes, ranked by logit and by softmax probability, for each variant
        (by default ``most_pruned``): one row per output, stimuli and unit.

        output: "logit" or "probability", of the softmax over all outputs.
        stimuli: "as they are", or "balanced": equally many of each of the data's classes and none of others
        (``datasets.balanced``). A set of fewer than 2 N (K + 1) images has no rows.
        images: in the set; alive, mis, mis_low, mis_high, two_afc_accuracy, margin: as in ``units``, which has the rows
        of logits on the stimuli as they are.
        own_class: share of the top images that are of the unit's class, and own_class_most: its largest possible value.
        tied_top, tied_bottom: share of extremes that have another's value (``activations.tied``).
        saturated_top: share of top images whose probability is above 1 - 1e-6; saturated_bottom: of bottom images
        whose probability is exactly 0 as a float32.
        """
        return self._rows(self._last_layer, self.most_pruned if only is None else only, "last layer")

    def _last_layer(self, variant: Variant) -> pd.DataFrame:
        key = self._key("last_layer", network=self.network_key(variant), classes=self.validation_set.logits.tolist(),
                        **self._temperature_key, **self._measure_key)  # fmt: skip
        return self.store.table("last_layer", str(variant), key, lambda: self._rank_outputs(variant))

    def _rank_outputs(self, variant: Variant) -> pd.DataFrame:
        network, k = self.network(variant).to(self.device), self._wanted_extremes
        logits = activations.record(
            network, {"fc": network.fc}, self.stimuli.images, self.profile.batch_size, self.device
        )["fc"]
        outputs = {"logit": logits, "probability": activations.probabilities(logits)}
        sets = {
            "as they are": np.arange(len(self.stimuli)),
            "balanced": datasets.balanced(self.stimuli, self.validation_set.logits, self.profile.seed),
        }
        tables = [
            self._rank_output(values, outputs["probability"], chosen, k).assign(output=output, stimuli=name)
            for name, chosen in sets.items() if len(chosen) >= 2 * k
            for output, values in outputs.items()
        ]  # fmt: skip
        return pd.concat(tables, ignore_index=True)

    def _rank_output(self, values: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray, k: int) -> pd.DataFrame:
        """values, probabilities: (stimuli, outputs); chosen: stimuli that may be extremes."""
        values, probabilities = values[chosen], probabilities[chosen]
        keys = activations.tie_keys(self.stimuli.names, self.profile.seed)[chosen]
        top, bottom = activations.extremes(values, k, keys)
        of_class = self.stimuli.logits[self.stimuli.labels][chosen] == np.arange(values.shape[1])[:, None]
        at_top, at_bottom = (np.take_along_axis(probabilities.T, ranked, axis=1) for ranked in (top, bottom))
        table = interpretability.summarize(
            self._margins({"top/fc": chosen[top], "bottom/fc": chosen[bottom]}, "fc"), self.temperature
        ).assign(
            images=len(chosen),
            alive=activations.alive(values),
            own_class=np.take_along_axis(of_class, top, axis=1).mean(axis=1),
            own_class_most=(of_class.sum(axis=1) / k).clip(max=1),
            tied_top=activations.tied(values, top),
            tied_bottom=activations.tied(values, bottom),
            saturated_top=(at_top > 1 - 1e-6).mean(axis=1),
            saturated_bottom=(at_bottom == 0).mean(axis=1),
        )
        table.loc[~table.alive, SCORES] = np.nan
        return table.iloc[self.validation_set.logits]

    def dissection(self, only: Iterable[Variant] | None = None) -> pd.DataFrame:
        """Network Dissection of every conv unit of each variant (by default random weights and ``most_pruned``).

        Columns: layer, unit, dissection (the largest IoU of its peaks with a known concept, over concepts, 0..1) and
        concept (which one); both are missing for a unit without peaks.

        A unit's peaks are its activations above the quantile ``interpretability.dissection_quantile`` of them on at
        most ``interpretability.dissection_images`` stimuli, equally many of each class. Bau et al. take .995, for
        concepts that are rare. Each texture of the embedded data is on about an eighth of all pixels, where so few
        peaks have an IoU of at most .04, the paper's threshold; the highest tenth can nearly fill a texture, and so .9
        is the profiles' default; see ``measures.dissect``. Raises ValueError where no concepts are known.
        """
        chosen = [Variant("random_init", seed=self.variants[0].seed), *self.most_pruned] if only is None else only
        return self._rows(self._dissected, chosen, "dissection")

    def _dissected(self, variant: Variant) -> pd.DataFrame:
        wanted = self.profile.interpretability
        key = self._key("dissection", network=self.network_key(variant), stimuli=self.stimuli_key,
                        quantile=wanted.dissection_quantile, n=wanted.dissection_images,
                        seed=self.profile.seed)  # fmt: skip
        return self.store.table("dissection", str(variant), key, lambda: self._dissect(variant))

    def _dissect(self, variant: Variant) -> pd.DataFrame:
        wanted = self.profile.interpretability
        seen = datasets.sample(self.stimuli, min(wanted.dissection_images, len(self.stimuli)), self.profile.seed)
        concepts, masks = measures.concept_masks(seen)
        network = self.network(variant).to(self.device)
        found = measures.dissect(
            network, networks.conv_layers(network), seen.images, masks, self.profile.batch_size, self.device,
            wanted.dissection_quantile,
        )  # fmt: skip
        tables = []
        for layer, overlap in found.items():
            best = np.array(concepts, dtype=object)[np.nan_to_num(overlap).argmax(axis=1)]
            table = pd.DataFrame({"layer": layer, "unit": np.arange(len(overlap)), "dissection": overlap.max(axis=1)})
            tables.append(table.assign(concept=np.where(table.dissection.notna(), best, None)))
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
        """One row per variant and class: its accuracy, and MIS and alive of the fc unit that stands for it.

        own_class_most: the largest possible share of the unit's N (K + 1) top stimuli that are of its class, 0..1.
        """
        of_class = self.stimuli.logits[self.stimuli.labels]
        fc = units.loc[units.kind == "fc", ["variant", "unit", "mis", "alive"]]
        by_variant = {str(variant): variant for variant in self.variants}
        classes = [self.class_accuracy(by_variant[name]).assign(variant=name) for name in units.variant.unique()]
        scores = pd.concat(classes).merge(fc, left_on=["variant", "logit"], right_on=["variant", "unit"])
        most = {logit: min(1.0, (of_class == logit).sum() / self._wanted_extremes) for logit in scores.logit.unique()}
        return scores.assign(own_class_most=scores.logit.map(most))

    # ----------------------------------------------------------------------------------------- visualisations

    def visualized_units(self) -> list[tuple[str, int]]:
        """Units that are drawn in every network: the profile's, and a seeded sample of each inception block's convs."""
        per_block = self.profile.visualization.per_block
        return self._in_order(self._named_units + [u for units in self._sample.values() for u in units[:per_block]])

    def atlas_units(self) -> dict[str, list[tuple[str, int]]]:
        """Units of the dense network's atlas, by inception block: the `visualized_units` that live in it, then more."""
        n, named = self.profile.visualization.atlas, self.diverse_units()
        return {
            block: self._in_order(([u for u in named if u[0].startswith(f"{block}.")] + units)[:n])
            for block, units in self._sample.items()
        }

    @property
    def _named_units(self) -> list[tuple[str, int]]:
        """The units that the profile names."""
        return [(layer, unit) for layer, units in self.profile.visualization.units.items() for unit in units]

    def _in_order(self, units: list[tuple[str, int]]) -> list[tuple[str, int]]:
        position = {layer: i for i, layer in enumerate(networks.unit_layers(self.dense))}
        return sorted(units, key=lambda unit: (position[unit[0]], unit[1]))

    @cached_property
    def _sample(self) -> dict[str, list[tuple[str, int]]]:
        """All other units of each inception block's convs that are alive in the dense network, in random order."""
        alive, named = self.extremes(self.variants[0]), self._named_units
        blocks: dict[str, list[tuple[str, int]]] = {}
        for layer in networks.prunable_layers(self.dense):
            units = [(layer, int(unit)) for unit in np.flatnonzero(alive[f"alive/{layer}"])]
            blocks.setdefault(layer.split(".")[0], []).extend(unit for unit in units if unit not in named)
        rng = np.random.default_rng([self.profile.seed, *b"units"])
        return {block: [units[i] for i in rng.permutation(len(units))] for block, units in blocks.items()}

    def visualized_variants(self) -> list[Variant]:
        """Dense to most pruned: the dense network, then each method's retrained networks by rate, first seed."""
        wanted, seed = self.profile.visualization, self.profile.pruning.seeds[0]
        return [self.variants[0]] + [
            Variant(method, rate, "one_shot", seed) for method in wanted.methods for rate in wanted.rates
        ]

    def draw(self) -> None:
        """Compute all pictures: of every network, of the atlas and of diversity."""
        pictures = [partial(self.visualize, variant) for variant in self.visualized_variants()]
        pictures += [self.diverse, *(partial(self.atlas, block) for block in self.atlas_units())]
        processes.run(lambda i: pictures[i](), range(len(pictures)), "pictures", self.device)

    def visualize(self, variant: Variant) -> Arrays:
        """The `visualized_units` in one network, as pictures that excite and pictures that inhibit each.

        "exciting/..." and "inhibiting/..." are the fields of ``visualization.Visualization``; "natural/top" and
        "natural/bottom" (units,) are the activations on the stimuli that excite a unit most and least. Units that are
        dead in the network are not drawn: their images are black and excited is False.
        """
        units = self.visualized_units()
        alive = self._alive(variant, units)

        def compute() -> Arrays:
            network, chosen = self.network(variant).to(self.device), [u for u, a in zip(units, alive, strict=True) if a]
            arrays = {
                f"{name}/{field}": _spread(array, alive)
                for name, sign in (("exciting", 1), ("inhibiting", -1))
                for field, array in self._drawn(
                    network, chosen, starts=self.profile.visualization.starts, sign=sign
                ).items()
                if field != "opacity"
            }
            for side in ("top", "bottom"):
                images = self.stimuli.images[[stimuli[0] for stimuli in self.extreme_stimuli(variant, chosen, side)]]
                arrays[f"natural/{side}"] = _spread(visualization.responses(network, chosen, images), alive)
            return arrays

        return self.store.arrays("visualizations", str(variant), self._units_key(variant, units), compute)

    def atlas(self, block: str) -> Arrays:
        """Pictures of the dense network's `atlas_units` of a block, one start each.

        The fields of ``visualization.Visualization`` as "exciting/...", "inhibiting/...", and as "natural/..." of the
        pictures with the natural spectrum of the study's images, whose opacity is worth looking at.
        """
        units = self.atlas_units()[block]

        def compute() -> Arrays:
            network = self.dense.to(self.device)
            n = min(SPECTRUM_IMAGES, len(self.stimuli))
            images = datasets.sample(self.stimuli, n, self.profile.seed).images
            spectrum = visualization.natural_spectrum(images, self.profile.visualization.size)
            ways = {"exciting": {}, "inhibiting": {"sign": -1}, "natural": {"spectrum": spectrum}}
            return {
                f"{name}/{field}": array
                for name, way in ways.items()
                for field, array in self._drawn(network, units, **way).items()
            }

        return self.store.arrays("visualizations", f"atlas-{block}", self._units_key(self.variants[0], units), compute)

    def diverse_units(self) -> list[tuple[str, int]]:
        """The profile's units that are alive in the dense network."""
        alive = self._alive(self.variants[0], self._named_units)
        return [unit for unit, lives in zip(self._named_units, alive, strict=True) if lives]

    def diverse(self) -> Arrays:
        """The profile's units in the dense network, from several starts, as they come and pushed apart.

        The fields of ``visualization.Visualization`` of the `diverse_units` as "alone/..." and "diverse/...".
        """
        wanted, units = self.profile.visualization, self.diverse_units()
        starts, weights = wanted.diverse_starts, {"alone": 0.0, "diverse": wanted.diversity}

        def compute() -> Arrays:
            network = self.dense.to(self.device)
            return {
                f"{name}/{field}": array
                for name, weight in weights.items()
                for field, array in self._drawn(network, units, starts=starts, diversity=weight).items()
            }

        key = self._visual_key(self.variants[0], units=units, weights=weights, starts_each=starts)
        return self.store.arrays("visualizations", "diverse", key, compute)

    def extreme_stimuli(self, variant: Variant, units: Iterable[tuple[str, int]], side: str, n: int = 1) -> np.ndarray:
        """Indices of the n stimuli that excite each unit most ("top") or least ("bottom"), (units, n)."""
        extremes = self.extremes(variant)
        return np.array([extremes[f"{side}/{layer}"][unit, :n] for layer, unit in units]).reshape(-1, n)

    def visual_quality(self) -> pd.DataFrame:
        """What the pictures are worth in numbers: one row per network of `visualized_variants` and unit.

        alive; excited: share of starts from which the unit could be excited. reached: the mean objective where 0 is the
        unit's least and 1 its most activating stimulus. Mean cosines of the exciting pictures' embeddings:
        like_top, like_bottom and like_random with the K most and least activating stimuli and K random ones,
        consistency among the pictures of one unit, like_dense with the dense network's pictures of the unit if it
        lives there, both from different starts.
        picture_mis, picture_two_afc_accuracy, picture_margin: of tasks whose explanations are the pictures.
        """
        variants, units = self.visualized_variants(), self.visualized_units()
        keys = [self._units_key(variant, units) for variant in variants]
        key = self._key("visual_quality", networks=keys, **self._measure_key, temperature=self.temperature)
        return self.store.table("visual_quality", f"{len(variants)}-networks", key, lambda: self._visual_quality(units))

    def _visual_quality(self, units: list[tuple[str, int]]) -> pd.DataFrame:
        drawn = {variant: self.visualize(variant) for variant in self.visualized_variants()}
        stimuli, exciting, inhibiting = self._embed_pictures(drawn)
        measure, dense, tables = self.profile.interpretability, self.variants[0], []
        random = np.random.default_rng(self.profile.seed).choice(len(stimuli), measure.explanations, replace=False)
        for variant, arrays in drawn.items():
            top, bottom = (arrays[f"natural/{side}"] for side in ("top", "bottom"))
            with np.errstate(invalid="ignore", divide="ignore"):
                reached = (arrays["exciting/objective"].mean(1) - bottom) / (top - bottom)
            k = measure.tasks * (measure.explanations + 1)
            sides = {side: self.extreme_stimuli(variant, units, side, k) for side in ("top", "bottom")}
            margins = interpretability.picture_margins(
                *sides.values(), stimuli, exciting[variant], inhibiting[variant], measure.tasks, measure.explanations,
                measure.queries, self.similarity.scale,
            )  # fmt: skip
            scores = interpretability.summarize(margins, self.temperature)
            columns = {
                "reached": reached,
                **{f"like_{side}": measures.alikeness(exciting[variant], stimuli[images[:, : measure.explanations]])
                   for side, images in sides.items()},
                "like_random": measures.alikeness(exciting[variant], np.stack([stimuli[random]] * len(units))),
                "consistency": measures.consistency(exciting[variant]),
                "like_dense": np.where(
                    self._alive(dense, units), measures.consistency(exciting[variant], exciting[dense]), np.nan
                ),
                **{f"picture_{name}": scores[name] for name in ("mis", "two_afc_accuracy", "margin")},
            }  # fmt: skip
            table, alive = pd.DataFrame(columns), self._alive(variant, units)
            table.loc[~alive] = np.nan
            named = pd.DataFrame(units, columns=["layer", "unit"]).assign(
                variant=str(variant),
                **asdict(variant),
                alive=alive,
                excited=np.where(alive, arrays["exciting/excited"].mean(1), np.nan),
            )
            tables.append(named.join(table))
        return pd.concat(tables, ignore_index=True)

    def _embed_pictures(self, drawn: dict[Variant, Arrays]) -> tuple[np.ndarray, dict, dict]:
        """Stimuli (n, D), and each network's exciting and inhibiting pictures (units, starts, D), in one space."""
        embed = partial(self.similarity.embed, batch_size=self.profile.batch_size, device=self.device)
        names = [(variant, name) for variant in drawn for name in ("exciting", "inhibiting")]
        pictures = np.stack([drawn[variant][f"{name}/images"] for variant, name in names])
        stimuli, rows = self.embeddings, embed(pictures.reshape(-1, *pictures.shape[3:]))
        if stimuli.shape[1] != rows.shape[1]:  # compressed coordinates know the stimuli only
            both = similarity.compress(np.concatenate([embed(self.stimuli.images), rows]))
            stimuli, rows = np.split(both, [len(stimuli)])
        found = dict(zip(names, rows.reshape(*pictures.shape[:3], -1), strict=True))
        return stimuli, *({v: found[v, name] for v in drawn} for name in ("exciting", "inhibiting"))

    def _alive(self, variant: Variant, units: list[tuple[str, int]]) -> np.ndarray:
        extremes = self.extremes(variant)
        return np.array([extremes[f"alive/{layer}"][unit] for layer, unit in units], bool)

    def _drawn(self, network: nn.Module, units: list[tuple[str, int]], **way: object) -> Arrays:
        wanted = self.profile.visualization
        settings = {"size": wanted.size, "steps": wanted.steps, "seed": self.profile.seed}
        return visualization.visualize(network, units, **settings, **way)._asdict()

    def _units_key(self, variant: Variant, units: list[tuple[str, int]]) -> dict:
        """Which units live, and which stimuli excite them most, follows from the stimuli."""
        return self._visual_key(variant, units=units, stimuli=self.stimuli_key, extremes=VERSIONS["extremes"])

    def _visual_key(self, variant: Variant, **more: object) -> dict:
        wanted = self.profile.visualization.model_dump(include={"size", "steps", "starts"})
        return self._key("visualizations", network=self.network_key(variant), seed=self.profile.seed, **wanted, **more)

    # ---------------------------------------------------------------------------------------------- reporting

    def figure(
        self, figure: Figure, name: str, table: pd.DataFrame, caption: str, vector: bool = True
    ) -> Figure | DisplayedImage:
        """Save a figure with its table, caption and provenance, and return what a notebook shows of it.

        As PNG and SVG, or (vector=False), if it is made of photographs and pictures, as JPEG.
        """
        settings = {"overrides": self.overrides, "device": str(self.device)}
        origin = {"profile": self.profile.name, **settings, **provenance()}
        figures.save(figure, name, table, caption, self.figures, origin, vector)
        return figure if vector else DisplayedImage(filename=self.figures / f"{name}.jpg", width=800)

    def table(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Save a table that belongs to no figure as CSV, and return it."""
        write_text(self.figures / f"{name}.csv", table.to_csv(index=False))
        return table

    def evidence(self, tables: dict[str, pd.DataFrame]) -> None:
        """Save the tables that claims are judged by (`claims.judge`), as Parquet: those of units are long."""
        for name, table in tables.items():
            with atomic(self.figures / f"08_{name}.parquet") as draft:
                table.to_parquet(draft, index=False)

    def tables_of_profiles(self, name: str) -> dict[str, pd.DataFrame]:
        """The table of that name of this profile, and after it of every other whose figures lie beside."""
        files = {file.parent.name: file for file in sorted(self.figures.parent.glob(f"*/{name}.csv"))}
        ours = self.profile.name
        others = [profile for profile in files if profile not in (ours, "smoke")]
        return {profile: pd.read_csv(files[profile]) for profile in [ours, *others]}

    def _rows(self, part: Callable[[Variant], pd.DataFrame], chosen: Iterable[Variant], label: str) -> pd.DataFrame:
        """What a method that computes or loads has to say of each variant, one below the other."""
        chosen = list(chosen)
        _ = self.train_set, self.validation_set, self.stimuli  # for all processes
        processes.run(part, chosen, label, self.device)
        return pd.concat(
            [part(variant).assign(variant=str(variant), **asdict(variant)) for variant in chosen], ignore_index=True
        )


def _batch_norms_by_conv(network: nn.Module) -> dict[str, nn.Module]:
    """The BatchNorm behind each conv, by the conv's name."""
    return dict(zip(networks.conv_layers(network), activations.batch_norm_layers(network).values(), strict=True))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: found {name!r}, expected auto, cpu or cuda") from error
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


def _spread(array: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rows of an array at the places that are chosen (n,), zeros at the others."""
    whole = np.zeros((len(chosen), *array.shape[1:]), array.dtype)
    whole[chosen] = array
    return whole


def _pack(network: nn.Module, masks: pruning.Masks, epochs: pd.DataFrame | None = None) -> Arrays:
    return {
        **{f"weight/{name}": tensor.cpu().numpy() for name, tensor in network.state_dict().items()},
        **{f"mask/{name}": mask.cpu().numpy() for name, mask in masks.items()},
        **{f"epoch/{name}": column.to_numpy() for name, column in (() if epochs is None else epochs.items())},
    }


def _unpack(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def _row(evaluated: Arrays) -> dict[str, float]:
    """The accuracies among what `Study._evaluate` found."""
    found = _unpack(evaluated, "accuracy")
    return {name: array.item() for name, array in found.items() if not name.endswith("sparsity")}


def _weights(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in _unpack(arrays, "weight").items()}


def _restore(network: nn.Module, arrays: Arrays, origin: str) -> None:
    networks.load_state(network, _weights(arrays), origin)
