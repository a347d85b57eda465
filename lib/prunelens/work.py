"""The work of a study as units: which stage is computed for which subject, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelens.pruning import stages as pruning
from prunelens.stages import STAGES, Subject
from prunelens.units import stages as units
from prunelens.variants import Variant

if TYPE_CHECKING:
    from prunelens.study import Study

Work = Mapping[str, Sequence[Subject]]  # subjects by stage; None stands for the whole study


def work(study: "Study") -> Work:
    """All that `Study.compute` computes."""
    pipeline = study.pipeline
    starts = (pruning.before(pipeline, variant) for variant in study.retrained)
    judged = list(dict.fromkeys([*study.everything, *starts]))
    once = {name: [None] for name, stage in STAGES.items() if stage.subject == ""}
    if study.profile.network.weights != "scratch":
        del once["scratch"]
    measures = (units.measure_stage(pipeline, name) for name in study.measures)
    return once | {
        "sensitivity": study.blocks,
        "pruned": list(dict.fromkeys([*study.pruned, *_of(judged, "none")])),
        "retrained": study.retrained,
        "recalibrated": _of(judged, "recalibrated"),
        "accuracy": judged,
        "costs": [replace(variant, schedule="none", epochs=0) for variant in study.most_pruned[1:]],
        **dict.fromkeys(["extremes", "alive", *measures], study.variants),
        **dict.fromkeys(["pictures", "picture_quality"], study.drawn),
    }


def _of(variants: Sequence[Variant], schedule: str) -> list[Variant]:
    return [variant for variant in variants if variant.schedule == schedule]
