"""The work of a study as units: which stage is computed for which subject, in order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunelens.networks import stages as networks
from prunelens.pruning import stages as pruning
from prunelens.stages import STAGES, Subject
from prunelens.store import differences
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
    made = networks.dense_stage(pipeline)  # of the stages that make the dense network, at most one is this study's
    others = {"scratch", "inserted"} - {made}
    once = {name: [None] for name, stage in STAGES.items() if stage.subject == "" and name not in others}
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


def notes(study: "Study") -> Iterator[tuple[str, Subject, dict[str, Any]]]:
    """The notes of a study's results, see `Store.note`: stage, subject, note.

    Nothing is computed for it: results whose keys are not known yet, as no sensitivity scan is there, are left out.
    """
    pipeline = study.pipeline
    if not all(pipeline.has(name) for name in ("layers", "stimuli")):
        return
    scanned = all(pipeline.has("sensitivity", block) for block in study.blocks)
    needing = {name for name, part in pipeline.parts["method"].items() if "sensitivity" in part.needs}
    for stage, subjects in work(study).items():
        for subject in subjects:
            keyed = scanned or not isinstance(subject, Variant) or subject.method not in needing
            if keyed and (note := pipeline.note(stage, subject)):
                yield stage, subject, note


def foreign(study: "Study") -> dict[str, str]:
    """What other code or packages computed of a study's results, in words, by stage and subject."""
    said = {f"{stage} {subject or ''}".strip(): differences(note) for stage, subject, note in notes(study)}
    return {result: words for result, words in said.items() if words}


def _of(variants: Sequence[Variant], schedule: str) -> list[Variant]:
    return [variant for variant in variants if variant.schedule == schedule]
