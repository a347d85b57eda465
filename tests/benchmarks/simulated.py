"""Tables of accuracies, classes and units, drawn at random with the networks that a profile has and a known truth.

Networks share what they share in a study: images and classes, the dense network's units, and what a seed draws.
"""

import numpy as np
import pandas as pd
from scipy import stats

from prunelens.analysis.selection import pick
from prunelens.networks import architectures
from prunelens.networks.architecture import layer_table
from prunelens.profile import Profile
from prunelens.variants import FIELDS, accuracy_variants, variants

# Standard deviations, near those of a run of `quick`. Whether an image is right is decided by a sum of normal
# variables, of which the last one, of a network and an image, has a standard deviation of 1.
SEED = 0.01  # of a network's Top-1
IMAGE, CLASS = 2.5, 1.2  # of images and of classes, the same for all networks
CHANGED_CLASS, SEED_CLASS = 0.4, 0.4  # of classes in one configuration; in all networks of one seed
# Of the MIS:
UNIT, CHANGED_UNIT, NOISE = 0.07, 0.055, 0.035  # of conv units within a layer, in a configuration, in a network
OUTPUT, CHANGED_OUTPUT = 0.035, 0.032  # of outputs over classes, in a configuration
NETWORK, RANDOM = 0.003, 0.006  # of networks' means over seeds, of random networks
LEVEL, WAY = 0.72, 0.14  # no deviations: the dense network's mean, and how far below it random networks are
SHOWN = 2  # units of a conv layer; their mean has the deviation of that of all units

Tables = dict[str, pd.DataFrame]
Generator = np.random.Generator


class Design:
    """What a profile has: networks (a row each), layers, classes, images of each class, rates and margins."""

    def __init__(self, profile: Profile) -> None:
        self.margins, self.rate = profile.claims.margins, max(profile.pruning.rates)
        with_units = variants(profile, ())
        fields = [variant.fields() for variant in [*with_units, *accuracy_variants(profile)]]
        self.networks = pd.DataFrame(fields).astype({"rate": float})
        self.with_units = self.networks[: len(with_units)]
        architecture = architectures.load(profile.network.architecture)
        layers = layer_table(architecture, architecture.build(profile.network.outputs, profile.network.width))
        self.layers = layers[["layer", "block", "position", "kind", "units"]]
        self.classes = profile.network.outputs
        self.images = profile.data.validation_images // self.classes

    def accuracies(
        self, g: Generator, networks: pd.DataFrame, top1: np.ndarray, easy: np.ndarray | None = None
    ) -> Tables:
        """Tables accuracy and classes of networks on the same images.

        top1: by network, over all seeds, classes and images. easy: by class, standard normal; None: drawn.
        """
        total = np.sqrt(1 + IMAGE**2 + CLASS**2 + CHANGED_CLASS**2 + SEED_CLASS**2)
        limit = stats.norm.ppf(top1)
        shift = SEED / stats.norm.pdf(limit)
        level = limit * np.sqrt(1 + shift**2) + shift * g.standard_normal(len(networks))
        each = CLASS * (g.standard_normal(self.classes) if easy is None else easy) + total * level[:, None]
        each += CHANGED_CLASS * self._drawn(g, networks, "method", "rate", "schedule", "masked")
        each += SEED_CLASS * self._drawn(g, networks, "seed")
        images = IMAGE * g.standard_normal((self.classes, self.images))
        right = each[:, :, None] + images + g.standard_normal((*each.shape, self.images)) > 0
        return self._accuracy(networks, right.mean(axis=2))

    def at_chance(self, networks: pd.DataFrame, lost: pd.Series) -> Tables:
        """Tables accuracy and classes that say which networks are at chance, and no more."""
        top1 = np.where(lost, 1 / self.classes, 0.8)
        return self._accuracy(networks, np.repeat(top1[:, None], self.classes, axis=1))

    def units(
        self, g: Generator, networks: pd.DataFrame, level: np.ndarray, outputs: np.ndarray | None = None
    ) -> Tables:
        """Table units: `SHOWN` conv units of every layer, and the outputs where their MIS is given, all alive.

        The network has these units and no others: their mean in a layer is `level`, a value per network, but for noise.
        outputs: by network and class, see `outputs`.
        """
        convs = pick(self.layers, kind="conv")
        places = convs.loc[convs.index.repeat(SHOWN)].assign(unit=np.tile(np.arange(SHOWN), len(convs)))
        shrunk = np.sqrt(SHOWN / places.units.to_numpy())
        deviations = UNIT * shrunk * g.standard_normal((1, len(places)))
        codes = _codes(networks, "method", "rate", "schedule", "masked", "weights")
        changes = CHANGED_UNIT * shrunk * g.standard_normal((codes.max() + 1, len(places)))
        mis = level[:, None] + _centered(deviations) + _centered(changes)[codes]
        mis += NOISE * shrunk * g.standard_normal(mis.shape)
        if outputs is not None:
            places, mis = pd.concat([places, self.output_places()]), np.hstack([mis, outputs])
        table = crossed(networks, places.drop(columns="units"))
        return {"units": table.assign(mis=mis.ravel(), alive=True, own_class=True)}

    def output_places(self) -> pd.DataFrame:
        """A row per output: the layer's fields and unit."""
        last = pick(self.layers, kind="output")
        return last.loc[last.index.repeat(self.classes)].assign(unit=np.arange(self.classes))

    def outputs(self, g: Generator, networks: pd.DataFrame, gap: float, clear: np.ndarray) -> np.ndarray:
        """MIS of outputs, by network and class, on average `gap` below the convs; clear: by class, standard normal."""
        mis = LEVEL - gap + OUTPUT * clear + NETWORK * g.standard_normal((len(networks), 1))
        mis = mis + CHANGED_OUTPUT * self._drawn(g, networks, "method", "rate", "schedule", "masked")
        return mis + NOISE * g.standard_normal(mis.shape)

    def _drawn(self, g: Generator, networks: pd.DataFrame, *fields: str) -> np.ndarray:
        """Standard normal values by network and class, the same for networks that agree in the fields."""
        codes = _codes(networks, *fields)
        return g.standard_normal((codes.max() + 1, self.classes))[codes]

    def _accuracy(self, networks: pd.DataFrame, by_class: np.ndarray) -> Tables:
        n, top1, z = by_class.shape[1] * self.images, by_class.mean(axis=1), stats.norm.isf(0.025)
        low = (top1 + z**2 / 2 / n - z * np.sqrt(top1 * (1 - top1) / n + z**2 / 4 / n**2)) / (1 + z**2 / n)  # Wilson's
        outputs = pd.DataFrame({"output": range(self.classes), "class_name": map(str, range(self.classes))})
        classes = crossed(networks, outputs).assign(top1=by_class.ravel(), n=self.images)
        return {
            "accuracy": networks.assign(top1=top1, top1_low=low, n=n, conv_sparsity=networks.rate),
            "classes": classes,
        }


def _codes(networks: pd.DataFrame, *fields: str) -> np.ndarray:
    return networks.groupby(list(fields)).ngroup().to_numpy()


def _centered(values: np.ndarray) -> np.ndarray:
    """Rows of values of units, of mean 0 in each layer."""
    by_layer = values.reshape(len(values), -1, SHOWN)
    return (by_layer - by_layer.mean(axis=2, keepdims=True)).reshape(values.shape)


def crossed(networks: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """A row per network and place, networks outermost."""
    rows = networks[FIELDS].take(np.repeat(np.arange(len(networks)), len(places))).reset_index(drop=True)
    again = places.take(np.tile(np.arange(len(places)), len(networks))).reset_index(drop=True)
    return pd.concat([rows, again], axis=1)
