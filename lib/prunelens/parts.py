"""The parts that a profile names: found, tried and described once, before anything is computed.

What was found is kept in the store, so that a study whose results are all there imports no part, and no PyTorch.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from prunelens import registry
from prunelens.profile import Profile, expand
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
    sources = {kind: {name: registry.source_hash(kind, name) for name in found} for kind, found in names.items()}
    tried_on = {
        "network": profile.network.model_dump(include={"architecture", "width", "outputs"}),
        "images": profile.data.model_dump(include={"source", "size"}),
        "units": profile.visualization.units,
        "library": origin()["library_sha256"],
    }
    found = store.get("parts", "parts", {"sources": sources, **tried_on}, "json", partial(_try_all, profile, names))
    return {
        kind: {name: Description.from_json(fields) for name, fields in parts.items()} for kind, parts in found.items()
    }


def _try_all(profile: Profile, names: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    checks = _checks(profile)
    found: dict[str, dict[str, Any]] = {}
    for kind, parts in names.items():
        found[kind] = {}
        for name in parts:
            part = registry.find(kind, name)
            try:
                checks[kind](part)
            except Exception as error:  # a user's part can fail in any way
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{kind} {name}: {reason}") from error
            found[kind][name] = registry.description(part, name).to_json()
    _check_units(profile)
    return found


def _checks(profile: Profile) -> dict[str, Callable[[Any], None]]:
    """By kind, what runs a part once on something small and raises if it does not do what its kind does."""
    from prunelens.analysis import claims
    from prunelens.images import sources
    from prunelens.networks import architectures
    from prunelens.pruning import masks
    from prunelens.units import measures, similarities

    network, shown = profile.network, profile.interpretability
    built = partial(architectures.load, network.architecture)
    return {
        "architecture": lambda part: architectures.check(built(), network.outputs, network.width, profile.data.size),
        "images": lambda part: sources.check(part, profile.data.size),
        "method": lambda part: masks.check_method(part, built(), network.outputs, network.width, profile.data.size),
        "similarity": lambda part: similarities.check_similarity(shown.similarity, shown.download),
        "measure": measures.check_measure,
        "claim": claims.check_claim,
    }


def _check_units(profile: Profile) -> None:
    """Refuse a unit that is to be drawn and that the network does not have."""
    import difflib

    from prunelens.networks import architectures

    architecture = architectures.load(profile.network.architecture)
    convs = architecture.convs(architecture.build(profile.network.outputs, profile.network.width))
    for layer, units in profile.visualization.units.items():
        if layer not in convs:
            near = difflib.get_close_matches(layer, convs, 1)
            hint = f", did you mean {near[0]}?" if near else f", expected a conv such as {next(iter(convs))}"
            raise ValueError(f"visualization.units: found {layer!r}{hint}")
        width = convs[layer].weight.shape[0]
        if outside := [unit for unit in units if not 0 <= unit < width]:
            raise ValueError(f"visualization.units: found {layer} {outside[0]}, it has units 0 to {width - 1}")


def paths(profile: Profile) -> Iterator[tuple[str, Any]]:
    """The folders and files that the profile names: key and path."""
    data, weights = profile.data, profile.network.weights
    if data.root is not None and data.download is None:
        yield "data.root", expand(data.root, "data.root")
    if data.extra_stimuli is not None:
        yield "data.extra_stimuli", expand(data.extra_stimuli, "data.extra_stimuli")
    if weights not in ("scratch", "torchvision"):
        yield "network.weights", expand(weights, "network.weights")
