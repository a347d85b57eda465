"""Compaction: from a network whose pruned weights are zero to a smaller one that computes the same.

Masks alone give no speed; smaller tensors do. What may go is read from the zeros in the weights, method and masks do
not matter. Three steps over the architecture's streams (see `Stream`), exact in evaluation mode:

1. Fold constants, in forward passes. A filter of zeros writes a constant, what activation leaves of its bias or of
   BatchNorm's; where all writers of an added channel are such filters, their sum is one. An unpadded reader takes a
   constant up into its bias (or the running mean of the BatchNorm behind it) and reads the channel no more. A padded
   reader cannot: at the borders it sees fewer of them. It reads all constants from the largest, with weights to match.
2. Silence what no layer reads. A filter whose channel has no reader is set to zero; it reads nothing itself.
3. Cut. Only channels that some reader reads stay, at least one per conv. The readers of one tensor may differ: a conv
   that ignores many of the channels present selects those that it reads, any other keeps zeros for them.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from prunelens.networks.architecture import Architecture, Stream
from prunelens.networks.hooks import before

# A layer that reads at most this share of the channels present selects them. Selecting a channel costs about as much as
# 30 outputs of a 1x1 conv that read it, or as pooling it; GoogLeNet's convs that read concatenations have 16 to 384.
SELECTED = 0.5


class SelectingConv2d(nn.Conv2d):
    """A conv of the input's ``channels`` only: int64, ascending, as many as ``in_channels``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_select(x, self.channels))


class SelectingMaxPool2d(nn.MaxPool2d):
    """A max pool of the input's ``channels`` only: int64, ascending."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_select(x, self.channels))


SELECTING = {nn.Conv2d: SelectingConv2d, nn.MaxPool2d: SelectingMaxPool2d}


def _select(x: Tensor, channels: Tensor) -> Tensor:
    """x[:, channels], as a matrix of pixels by channels.

    In channels-last memory that is 3 to 10 times faster than index_select along dim 1, 1.3 to 4 than indexing.
    """
    pixels = x.permute(0, 2, 3, 1)
    selected = pixels.reshape(-1, x.shape[1]).index_select(1, channels)
    return selected.view(*pixels.shape[:3], len(channels)).permute(0, 3, 1, 2)


def compact(architecture: Architecture, network: nn.Module, size: int = 64) -> nn.Module:
    """A smaller network with the outputs that ``network`` has in evaluation mode; without zeros to use, an equal one.

    It is one of the same class whose layers have the same names and fewer channels, on the same device, of the same
    floating-point type, channels last, without auxiliary heads. ``network`` stays as it is.

    size: of random images, in pixels, on which constants are read and the outputs compared.

    Raises:
        ValueError: ``network`` selects channels already, or the architecture's streams do not describe it, so that the
            outputs would differ.
    """
    for name, module in network.named_modules():
        if isinstance(module, tuple(SELECTING.values())):
            raise ValueError(f"compact: {name} selects channels already; expected the network that this one came from")
    work = copy.deepcopy(network).cpu().double().eval()  # not every accelerator has float64
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = work(images)
        try:
            weight = network.get_submodule(architecture.output).weight
            selected = _shrink(architecture, work, images)
            small = _assemble(architecture, _state(architecture, work) | selected, len(weight)).eval()
            error = (small(images) - expected).abs().max()
        except (AttributeError, KeyError, RuntimeError) as error:  # no such layers, shapes that do not fit
            raise ValueError(f"compact: the architecture's streams do not describe the network ({error})") from error
    if not error <= 1e-9 * expected.abs().max():
        raise ValueError("compact: outputs would differ, the architecture's streams do not describe the network")
    return small.to(weight.device, weight.dtype).train(network.training)


# ---------------------------------------------------------------------------------------------------------- the steps


def _shrink(architecture: Architecture, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Take all three steps; returns the ``channels`` of what is to select them, as entries of a state dict."""
    streams = architecture.streams(network)
    while _fold_constants(architecture, network, streams, images):
        pass
    _silence(network, streams)
    return {name: channels for stream in streams for name, channels in _cut(architecture, network, stream)}


def _fold_constants(architecture: Architecture, network: nn.Module, streams: list[Stream], images: Tensor) -> bool:
    """Fold what is constant now, readers in order of the forward pass; True if there was anything."""
    folded: list[bool] = []

    def see(stream: Stream, reader: str, x: Tensor) -> None:
        folded.append(_fold_into(architecture, network, stream, reader, x))

    named = [(stream, reader) for stream in streams if not stream.fixed for reader in stream.readers]
    with before({network.get_submodule(reader): partial(see, stream, reader) for stream, reader in named}):
        network(images)
    return any(folded)


def _fold_into(architecture: Architecture, network: nn.Module, stream: Stream, reader: str, x: Tensor) -> bool:
    zero = [~network.get_submodule(writer).weight.flatten(1).any(1) for writer in stream.writers]
    constant = torch.cat(zero) if stream.join == "concat" else torch.stack(zero).all(0)
    values = x.unflatten(1, (len(constant), -1)).transpose(0, 1).flatten(1)
    constant &= values.amax(1) == values.amin(1)  # not so behind a padded average pool
    layer, norm, values = network.get_submodule(reader), architecture.norm(network, reader), values[:, 0] * constant
    weight, largest = _inputs(layer, len(constant)), values.abs().argmax()
    if getattr(layer, "padding", (0, 0)) != (0, 0) or (layer.bias is None and norm is None):
        constant[largest] &= values[largest] == 0
        shares = values[constant] / (values[largest] or 1)
        weight[:, largest] += torch.einsum("oc...,c->o...", weight[:, constant], shares)
    elif layer.bias is not None:
        layer.bias += weight[:, constant].flatten(2).sum(2) @ values[constant]
    else:
        norm.running_mean -= weight[:, constant].flatten(2).sum(2) @ values[constant]
    changed = bool(weight[:, constant].any())
    weight[:, constant] = 0
    return changed


def _silence(network: nn.Module, streams: list[Stream]) -> None:
    """Set filters to zero on which no output depends, found from the outputs backwards: streams may be circular."""
    streams = [stream for stream in reversed(streams) if not stream.fixed]
    layers = {writer: network.get_submodule(writer) for stream in streams for writer in stream.writers}
    used = {writer: torch.zeros(len(layer.weight), dtype=torch.bool) for writer, layer in layers.items()}
    changed = True
    while changed:
        changed = False
        for stream in streams:
            for writer, read in _per_writer(network, stream, _read_by_any(network, stream, used)):
                changed |= not torch.equal(read, used[writer])
                used[writer] = read
    for writer, layer in layers.items():
        layer.weight[~used[writer]] = 0


def _cut(architecture: Architecture, network: nn.Module, stream: Stream) -> Iterator[tuple[str, Tensor]]:
    """Cut the layers to the channels that are read; yield the name and ``channels`` of what is to select."""
    present = _read_by_any(network, stream)
    if stream.fixed:
        present[0] |= ~present.any()
        if stream.pool and present.sum() <= SELECTED * len(present):
            yield f"{stream.pool}.channels", present.nonzero().flatten()
        else:
            present[:] = True
    else:
        parts = _per_writer(network, stream, present)
        for _, kept in parts:
            kept[0] |= ~kept.any()  # in ``present``, of which it is a view
        for writer, kept in parts:
            _keep(network.get_submodule(writer), kept)
            _keep(architecture.norm(network, writer), kept)
    for reader in stream.readers:
        layer = network.get_submodule(reader)
        weight = _inputs(layer, len(present))[:, present]
        read = weight.transpose(0, 1).flatten(1).any(1)
        read[0] |= ~read.any()
        if type(layer) is nn.Conv2d and read.sum() <= SELECTED * len(read):
            yield f"{dict(stream.pools).get(reader, reader)}.channels", read.nonzero().flatten()
            weight = weight[:, read]
        layer.weight = nn.Parameter(weight.flatten(1, 2))


def _keep(module: nn.Module | None, kept: Tensor) -> None:
    """Cut all tensors of a conv, or of the BatchNorm behind it, along their first dimension."""
    named = [] if module is None else [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, tensor in named:
        if tensor.ndim:
            setattr(module, name, nn.Parameter(tensor[kept]) if isinstance(tensor, nn.Parameter) else tensor[kept])


def _inputs(layer: nn.Module, channels: int) -> Tensor:
    """A view of the layer's weights as (outputs, channels, weights per channel, ...)."""
    return layer.weight.unflatten(1, (channels, 1 if isinstance(layer, nn.Conv2d) else -1))


def _read_by_any(network: nn.Module, stream: Stream, used: dict[str, Tensor] | None = None) -> Tensor:
    """Bool per channel of the stream; used: the filters that count, by layer."""
    widths = [len(network.get_submodule(writer).weight) for writer in stream.writers]
    channels = sum(widths) if stream.join == "concat" else widths[0]
    layers = {reader: network.get_submodule(reader) for reader in stream.readers}
    weights = [_inputs(layer, channels)[(used or {}).get(name, slice(None))] for name, layer in layers.items()]
    return torch.stack([weight.transpose(0, 1).flatten(1).any(1) for weight in weights]).any(0)


def _per_writer(network: nn.Module, stream: Stream, channels: Tensor) -> list[tuple[str, Tensor]]:
    """Each writer with its part of ``channels``, a view."""
    widths = [len(network.get_submodule(writer).weight) for writer in stream.writers]
    parts = channels.split(widths) if stream.join == "concat" else [channels] * len(widths)
    return list(zip(stream.writers, parts, strict=True))


# ----------------------------------------------------------------------------------------- networks of other widths


def _state(architecture: Architecture, network: nn.Module) -> dict[str, Tensor]:
    """What inference needs of the network's state."""
    return {name: tensor for name, tensor in network.state_dict().items() if not architecture.is_aux(name)}


def _assemble(architecture: Architecture, state: dict[str, Tensor], outputs: int) -> nn.Module:
    """A network of these tensors, whose layers are as wide as they are."""
    with torch.random.fork_rng(devices=[]):  # building draws weights
        network = architecture.build(outputs)
    network.to(state[f"{architecture.output}.weight"].dtype)
    for name, module in list(network.named_modules(remove_duplicate=False)):  # one pool may be used in several places
        own = {key.rpartition(".")[2]: tensor for key, tensor in state.items() if key.rpartition(".")[0] == name}
        if own:
            network.set_submodule(name, _fitted(module, own))
    if differing := network.state_dict().keys() ^ state.keys():
        raise ValueError(f"missing or unknown tensors {', '.join(sorted(differing)[:3])}")
    return network.to(memory_format=torch.channels_last)


def _fitted(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A module like this one with these tensors; it selects ``channels``, if they are among them."""
    fitted = copy.deepcopy(module)
    if "channels" in tensors:
        fitted.__class__ = SELECTING[type(module)]
        fitted.register_buffer("channels", tensors["channels"])
    for name, tensor in tensors.items():
        setattr(fitted, name, tensor if name in fitted._buffers else nn.Parameter(tensor))
    if isinstance(fitted, nn.Conv2d):
        fitted.out_channels, fitted.in_channels = fitted.weight.shape[0], fitted.weight.shape[1] * fitted.groups
    elif isinstance(fitted, nn.Linear):
        fitted.out_features, fitted.in_features = fitted.weight.shape
    elif isinstance(fitted, nn.BatchNorm2d):
        fitted.num_features = len(fitted.running_mean)
    return fitted
