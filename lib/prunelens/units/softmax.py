"""The output layer ranked by logits and by softmax probabilities."""

import numpy as np
import pandas as pd

from prunelens.units import extremes, mis
from prunelens.units.recording import Recording


def rank_outputs(recording: Recording, chosen: np.ndarray, outputs: np.ndarray) -> pd.DataFrame:
    """Score output units whose extremes are found by logit and by softmax probability.

    chosen: (m,) indices of the stimuli that may be extremes; outputs: the units that get a row.
    Columns: output ("logit" or "probability"), unit, images (m), alive; mis, two_afc_accuracy, margin (NaN where dead);
    own_class: share of the top images that are of the unit's class, own_class_most: its largest possible value;
    tied_top, tied_bottom: share of extremes that have another's value; saturated_top: share of top images whose
    probability is above 1 - 1e-6; saturated_bottom: of bottom images whose probability is exactly 0 as a float32.
    """
    layer = recording.layers[-1]
    values = {"logit": recording.activations[layer], "probability": recording.rectified[layer]}
    tables = [_rank(recording, ranked, chosen).iloc[outputs].assign(output=name) for name, ranked in values.items()]
    return pd.concat(tables, ignore_index=True)


def _rank(recording: Recording, values: np.ndarray, chosen: np.ndarray) -> pd.DataFrame:
    layer, k = recording.layers[-1], recording.settings.extremes
    values, probabilities = values[chosen], recording.rectified[layer][chosen]
    keys = extremes.tie_keys(recording.stimuli.names, recording.seed)[chosen]
    top, bottom, alive = extremes.extremes(values, k, keys)
    margins = recording.ask(layer, chosen[top], chosen[bottom])
    of_class = recording.outputs[recording.labels][chosen] == np.arange(len(top))[:, None]
    at_top, at_bottom = (np.take_along_axis(probabilities.T, ranked, axis=1) for ranked in (top, bottom))
    scores = {
        "mis": mis.mis(margins, recording.temperature),
        "two_afc_accuracy": mis.two_afc_accuracy(margins),
        "margin": margins.mean(axis=1),
    }
    return pd.DataFrame(
        {
            "unit": np.arange(len(top)),
            "images": len(chosen),
            "alive": alive,
            **{name: np.where(alive, values, np.nan) for name, values in scores.items()},
            "own_class": np.take_along_axis(of_class, top, axis=1).mean(axis=1),
            "own_class_most": (of_class.sum(axis=1) / k).clip(max=1),
            "tied_top": extremes.tied(values, top),
            "tied_bottom": extremes.tied(values, bottom),
            "saturated_top": (at_top > 1 - 1e-6).mean(axis=1),
            "saturated_bottom": (at_bottom == 0).mean(axis=1),
        }
    )
