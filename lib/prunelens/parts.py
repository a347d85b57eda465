"""The parts that a profile names: found, tried and described once, before anything is computed.

What was found is kept in the store, so that a study whose results are all there imports no part, and no PyTorch.
"""

import difflib
from functools import partial
from typing import Any

from prunelens import registry
from prunelens.profile import Profile
from prunelens.registry import Description
from prunelens.store import Store, origin

Parts = dict[str, dict[str, Description]]  # by kind and name


def named(profile: Profile) -> dict[str, list[str]]:
    """The names of parts in a profile, by kind."""
    return {
        "architecture": [profile.network.architecture],
        "images": [] if profile.data.source == "folder" else [profile.data.source],
        "method": profile.methods,
        "similarity": [profile.interpretability.similarity],
        "measure": profile.interpretability.measures,
        "claim": profile.claims.extra,
    }


def load(profile: Profile, store: Store) -> Parts:
    """Description of every part that the profile names, each tried once.

    Raises:
        ValueError: a part is missing, cannot be imported, or does not do what its kind does; names kind and part.
    """
    names = named(profile)
    sources = {kind: {name: registry.own_source(kind, name) for name in found} for kind, found in names.items()}
    for kind, name in ((kind, name) for kind, found in sources.items() for name, source in found.items() if source):
        registry.check_unchanged(kind, name)
    tried_on = {
        "network": profile.network.model_dump(include={"architecture", "width", "outputs", "normalization"}),
        "images": profile.data.model_dump(include={"source", "size"}),
        "units": profile.visualization.units,
        "aux": [recipe and recipe.aux_weight for recipe in (profile.retraining, profile.network.scratch)],
        "grids": profile.pruning.model_dump(),
        "library": origin()["library_sha256"],
    }
    found = store.get("parts", "parts", {"sources": sources, **tried_on}, "json", partial(_try_all, profile, names))
    described = {
        kind: {name: Description.from_json(fields) for name, fields in parts.items()} for kind, parts in found.items()
    }
    _check_scan(profile, described["method"])
    return described


def _check_scan(profile: Profile, methods: dict[str, Description]) -> None:
    """Refuse methods that need a sensitivity scan which the profile does not make."""
    needing = [name for name, method in methods.items() if "sensitivity" in method.needs]
    if scanned := [name for name in needing if name in profile.sensitivity.methods]:
        raise ValueError(f"sensitivity.methods: found {scanned[0]}, which itself needs the scan")
    if needing and "unstructured_local" not in profile.sensitivity.methods:
        raise ValueError(f"sensitivity.methods: {needing[0]} needs unstructured_local among them")


def _try_all(profile: Profile, names: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, parts in names.items():
        found[kind] = {}
        for name in parts:
            part = registry.find(kind, name)
            try:
                _try(profile, kind, name, part)
            except (Exception, SystemExit) as error:  # a user's part can fail in any way
                reason = " ".join(str(error).split()).removeprefix(f"{kind} {name}: ") or type(error).__name__
                raise (
                    type(error)(f"{kind} {name}: {reason}")
                    if _plain(error)
                    else ValueError(f"{kind} {name}: {type(error).__name__}: {reason}")
                ) from error
            found[kind][name] = registry.description(part, name).to_json()
    _check_network(profile)
    return found


def _plain(error: BaseException) -> bool:
    return type(error) in (ValueError, ImportError, FileNotFoundError)


def _try(profile: Profile, kind: str, name: str, part: Any) -> None:
    """Run a part once on something small; it raises if it does not do what its kind does."""
    from prunelens.analysis import verdicts
    from prunelens.images import sources
    from prunelens.networks import architectures
    from prunelens.pruning import masks
    from prunelens.units import measures, similarities

    network, size, grid = profile.network, profile.data.size, profile.pruning
    built = {"outputs": network.outputs, "width": network.width, "size": size}
    if kind == "architecture":
        architectures.check(architectures.load(name), **built)
    elif kind == "images":
        sources.check(part, size, network.outputs)
    elif kind == "method":
        architecture, highest = architectures.load(network.architecture), profile.highest_rate(name)
        masks.check_method(part, architecture, **built, highest=highest, iterative=name in grid.iterative.methods)
    elif kind == "similarity":
        similarities.check_similarity(name)
    elif kind == "measure":
        measures.check_measure(part)
    elif kind == "claim":
        verdicts.check_claim(name)


def _check_network(profile: Profile) -> None:
    """Refuse what the network cannot do: another normalization, auxiliary losses, recalibration, absent units."""
    from prunelens.networks import architectures
    from prunelens.networks.stages import normalize_by

    architecture, grid = architectures.load(profile.network.architecture), profile.pruning
    network = architecture.build(profile.network.outputs, profile.network.width)
    if profile.network.normalization is not None:
        normalize_by(network, **profile.network.normalization.model_dump())
    for recipe in (profile.retraining, profile.network.scratch):
        if recipe is not None and recipe.aux_weight > 0:
            architecture.build(profile.network.outputs, profile.network.width, aux=True)
    convs = architecture.convs(network)
    if grid.recalibrated.methods and not any(architecture.norm(network, conv) for conv in convs):
        raise ValueError(
            f"pruning.recalibrated: found methods, but {profile.network.architecture} has no BatchNorm; expected none"
        )
    for layer, units in profile.visualization.units.items():
        _check_units(layer, units, {name: conv.out_channels for name, conv in convs.items()})


def _check_units(layer: str, units: list[int], widths: dict[str, int]) -> None:
    if layer not in widths:
        near = difflib.get_close_matches(layer, widths, 1)
        hint = f", did you mean {near[0]}?" if near else f", expected a conv such as {next(iter(widths))}"
        raise ValueError(f"visualization.units: found {layer!r}{hint}")
    if outside := [unit for unit in units if not 0 <= unit < widths[layer]]:
        raise ValueError(f"visualization.units: found {layer} {outside[0]}, it has units 0 to {widths[layer] - 1}")
