"""Compaction: from a network whose pruned weights are zero to a smaller one that computes the same.

Masks alone give no speed; smaller tensors do. What may go is read from the zeros in the weights, method and masks do
not matter. Three steps, exact in evaluation mode:

1. Forwards, fold constants. A filter of zeros writes a constant c >= 0, what ReLU leaves of its bias or of BatchNorm's.
   A max pool of a constant is that constant, so an unpadded reader takes it up into its own bias (or the running mean
   of the BatchNorm behind it, or fc's bias) and reads the channel no more. A padded reader cannot: at the borders it
   sees fewer of them. It reads all constants from the largest one, with weights to match.
2. Backwards, silence what nobody reads. A filter whose channel no reader reads is set to zero; it reads nothing itself.
   Step 1 follows the forward pass and step 2 the backward one, so that one round reaches the fixpoint.
3. Cut. Only channels that some reader reads stay, at least one per conv. The readers of one tensor may differ: a conv
   that ignores many of the channels present selects those that it reads, any other keeps zeros for them.

The stem keeps its inputs and its first two convs. conv3 loses the filters that block 3a ignores; in the BVLC network
local response normalisation mixes neighbouring channels behind conv3, so there the pool behind it selects instead.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunelens import networks
from prunelens.artefacts import atomic
from prunelens.evaluation import evaluating

# A layer that reads at most this share of the channels present selects them. Selecting a channel costs about as much as
# 30 outputs of a 1x1 conv that read it, or as pooling it; the convs that read what is concatenated have 16 to 384.
SELECTED = 0.5

_POOLED = "branch4.1"  # reads behind the block's pool, branch4.0
_FILTERWISE = ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
_KIND = "compact network"
_ARCHITECTURES = {networks.GoogLeNet: "googlenet", networks.BVLCGoogLeNet: "bvlc_googlenet"}


class SelectingConv2d(nn.Conv2d):
    """A conv of the input's ``channels`` only: int64, ascending, as many as ``in_channels``."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("channels", torch.arange(self.in_channels))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_select(x, self.channels))


class SelectingMaxPool2d(nn.MaxPool2d):
    """A max pool of the input's ``channels`` only: int64, ascending."""

    def __init__(self, selected: int, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("channels", torch.arange(selected))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_select(x, self.channels))


def _select(x: Tensor, channels: Tensor) -> Tensor:
    """x[:, channels], as a matrix of pixels by channels.

    In channels-last memory that is 3 to 10 times faster than index_select along dim 1, 1.3 to 4 than indexing.
    """
    pixels = x.permute(0, 2, 3, 1)
    selected = pixels.reshape(-1, x.shape[1]).index_select(1, channels)
    return selected.view(*pixels.shape[:3], len(channels)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Tensor:
    """What ``writers`` concatenate and ``readers`` read: conv blocks (conv, BatchNorm, ReLU) by name, or fc."""

    writers: list[str]
    readers: list[str]
    pool: str = ""  # the pool that selects channels where the writers must keep them all


def _tensors(network: nn.Module) -> Iterator[_Tensor]:
    """Every tensor inside and between the inception blocks, in order of the forward pass."""
    writers, pool = ["conv3"], "maxpool2.1" if isinstance(network, networks.BVLCGoogLeNet) else ""
    for block in (name for name, _ in network.named_children() if name.startswith("inception")):
        yield _Tensor(writers, [f"{block}.{branch}" for branch in ("branch1", "branch2.0", "branch3.0", _POOLED)], pool)
        for branch in ("branch2", "branch3"):
            yield _Tensor([f"{block}.{branch}.0"], [f"{block}.{branch}.1"])
        writers, pool = [f"{block}.{branch}" for branch in ("branch1", "branch2.1", "branch3.1", _POOLED)], ""
    yield _Tensor(writers, ["fc"])


def compact(network: nn.Module) -> nn.Module:
    """A smaller network with the outputs that ``network`` has in evaluation mode; without zeros to use, an equal one.

    It is a network of the same class whose layers have the same names and fewer channels, on the same device, of the
    same floating-point type, channels last, without auxiliary heads. ``network`` stays as it is.

    Raises:
        ValueError: ``network`` is of no architecture of ``networks``, or selects channels: it came from here.
    """
    _architecture(network)
    for name, module in network.named_modules():
        if isinstance(module, SelectingConv2d | SelectingMaxPool2d):
            raise ValueError(f"compact: {name} selects channels already; expected the network that this one came from")
    work = copy.deepcopy(network).cpu().double().eval()  # not every accelerator has float64
    tensors = list(_tensors(work))
    with torch.no_grad():
        for tensor in tensors:
            _fold_constants(work, tensor)
        for tensor in reversed(tensors):
            _silence(work, tensor)
        state = _state(work)
        for tensor in tensors:
            _cut(work, tensor, state)
    weight = network.fc.weight
    return _assemble(work, state).to(weight.device, weight.dtype).train(network.training)


def fold_batchnorm(network: nn.Module) -> nn.Module:
    """A copy whose convs have their BatchNorm folded into weights and biases: the same outputs in evaluation mode.

    Faster, dense or compact, but neither to be retrained nor compared layer by layer with a network that has BatchNorm.
    """
    folded = copy.deepcopy(network)
    for block in [module for module in folded.modules() if isinstance(getattr(module, "bn", None), nn.BatchNorm2d)]:
        training = block.training
        block.eval()  # as fusing demands
        block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        block.train(training)
    return folded


def _architecture(network: nn.Module) -> str:
    if type(network) not in _ARCHITECTURES:
        expected = " or ".join(kind.__name__ for kind in _ARCHITECTURES)
        raise ValueError(f"found a {type(network).__module__}.{type(network).__name__}, expected prunelens' {expected}")
    return _ARCHITECTURES[type(network)]


def _state(network: nn.Module) -> dict[str, Tensor]:
    """What inference needs of the network's state."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("aux")}


def _fold_constants(network: nn.Module, tensor: _Tensor) -> None:
    if tensor.pool:
        return
    constants = torch.cat([_constants(network.get_submodule(writer)) for writer in tensor.writers])
    constant = ~constants.isnan()
    if not constant.any():
        return
    for reader in tensor.readers:
        layer = _layer(network, reader)
        weight = layer.weight[:, constant]
        layer.weight[:, constant] = 0
        if layer.weight.ndim == 4 and layer.padding != (0, 0):
            largest = constants.nan_to_num(-1).argmax()
            shares = constants[constant] / (constants[largest] or 1)
            layer.weight[:, largest] = torch.einsum("oc...,c->o...", weight, shares)
        elif layer.bias is not None:
            layer.bias += weight.flatten(1) @ constants[constant]
        else:
            network.get_submodule(reader).bn.running_mean -= weight.flatten(1) @ constants[constant]


def _constants(block: nn.Module) -> Tensor:
    """What each filter of zeros writes, whatever the image; NaN for every other filter."""
    weight = block.conv.weight
    written = block(weight.new_zeros(1, weight.shape[1], 1, 1)).flatten()
    return written.masked_fill(weight.flatten(1).any(1), torch.nan)


def _silence(network: nn.Module, tensor: _Tensor) -> None:
    if tensor.pool:
        return
    for writer, read in _per_writer(network, tensor, _read_by_any(network, tensor)):
        network.get_submodule(writer).conv.weight[~read] = 0


def _cut(network: nn.Module, tensor: _Tensor, state: dict[str, Tensor]) -> None:
    """Cut the tensors in ``state`` to the channels that are read, and add the ``channels`` of what selects."""
    present = _read_by_any(network, tensor)
    if tensor.pool and present.sum() > SELECTED * len(present):
        present[:] = True
    for writer, kept in _per_writer(network, tensor, present):
        kept[0] |= ~kept.any()  # in ``present``, of which it is a view
        for name in () if tensor.pool else _FILTERWISE:
            if f"{writer}.{name}" in state:
                state[f"{writer}.{name}"] = state[f"{writer}.{name}"][kept]
    if tensor.pool and not present.all():
        state[f"{tensor.pool}.channels"] = present.nonzero().flatten()
    for reader in tensor.readers:
        name = reader if reader == "fc" else f"{reader}.conv"
        weight = state[f"{name}.weight"][:, present]
        read = _read(_layer(network, reader))[present]
        read[0] |= ~read.any()
        if reader != "fc" and read.sum() <= SELECTED * len(read):
            selector = reader.removesuffix(_POOLED) + "branch4.0" if reader.endswith(_POOLED) else name
            state[f"{selector}.channels"] = read.nonzero().flatten()
            weight = weight[:, read]
        state[f"{name}.weight"] = weight


def _layer(network: nn.Module, reader: str) -> nn.Conv2d | nn.Linear:
    return network.fc if reader == "fc" else network.get_submodule(reader).conv


def _read(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Bool per input channel."""
    return layer.weight.transpose(0, 1).flatten(1).any(1)


def _read_by_any(network: nn.Module, tensor: _Tensor) -> Tensor:
    return torch.stack([_read(_layer(network, reader)) for reader in tensor.readers]).any(0)


def _per_writer(network: nn.Module, tensor: _Tensor, channels: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each writer with its part of ``channels``, a view."""
    widths = [_layer(network, writer).out_channels for writer in tensor.writers]
    return zip(tensor.writers, channels.split(widths), strict=True)


def _assemble(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """``network`` with these tensors, its layers as wide as they are, and without auxiliary heads."""
    network.aux_logits, network.aux1, network.aux2 = False, None, None
    with torch.device("meta"):  # the layers get their tensors from ``state``
        for name, module in list(network.named_modules(remove_duplicate=False)):  # BVLC uses one pool in three places
            fitting = _fitting(name, module, state)
            if fitting is not None:
                network.set_submodule(name, fitting)
    network.load_state_dict(state, assign=True)
    return network.to(memory_format=torch.channels_last)


def _fitting(name: str, module: nn.Module, state: dict[str, Tensor]) -> nn.Module | None:
    """The module as wide as its tensors in ``state``; None where no tensor of its own says so."""
    channels = state.get(f"{name}.channels")
    if isinstance(module, nn.Conv2d):
        outputs, inputs = state[f"{name}.weight"].shape[:2]
        kind = nn.Conv2d if channels is None else SelectingConv2d
        bias = module.bias is not None or f"{name}.bias" in state  # that of a BatchNorm folded
        return kind(inputs, outputs, module.kernel_size, module.stride, module.padding, bias=bias)
    if isinstance(module, nn.BatchNorm2d):
        if f"{name}.weight" not in state:  # folded
            return nn.Identity()
        return nn.BatchNorm2d(len(state[f"{name}.weight"]), eps=module.eps)
    if isinstance(module, nn.Linear):
        return nn.Linear(*state[f"{name}.weight"].shape[::-1])
    if isinstance(module, nn.MaxPool2d) and channels is not None:
        return SelectingMaxPool2d(
            len(channels), module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode
        )
    return None


def save(network: nn.Module, file: Path) -> None:
    """Write the network as safetensors, with architecture and outputs in the metadata.

    Raises:
        ValueError: ``network`` is of no architecture of ``networks``.
    """
    metadata = {"kind": _KIND, "architecture": _architecture(network), "outputs": str(network.fc.out_features)}
    with atomic(file) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in _state(network).items()}, temporary, metadata)


def load(file: Path) -> nn.Module:
    """Read what ``save`` wrote; the network is in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds something else.
    """
    try:
        with safe_open(file, "pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file ({error})") from error
    if metadata.get("kind") != _KIND:
        raise ValueError(f"{file} holds no {_KIND}: found the metadata {metadata}")
    try:
        network = networks.build(metadata["architecture"], int(metadata["outputs"]))
        network = _assemble(network, state).eval()
        with torch.inference_mode():
            network(torch.zeros(1, 3, 64, 64, dtype=network.fc.weight.dtype))
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds tensors that make no network ({error})") from error
    return network


def export_onnx(network: nn.Module, size: int, file: Path) -> None:
    """Write the network as ONNX: ``images`` (n, 3, size, size) in [0, 1] to ``logits`` (n, outputs), for any n."""
    images = torch.zeros(2, 3, size, size, device=network.fc.weight.device, dtype=network.fc.weight.dtype)
    with atomic(file) as temporary, evaluating(network), warnings.catch_warnings():
        # PyTorch's newer exporter needs one more package (onnxscript); the tracer warns of constants that are constant.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images,),
            str(temporary),
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )


def cost(network: nn.Module, size: int) -> pd.DataFrame:
    """What each layer costs: a row per conv, with its BatchNorm, per selecting pool, and for fc; sums are meaningful.

    Columns: layer; kind (conv, pool, fc); parameters; weights (of the conv or fc); nonzero (of these weights); macs:
    multiply-accumulates for one image of ``size`` pixels, zeros included (convs and fc only, not BatchNorm, pools and
    biases); sparse_macs: macs times the share of nonzero weights; bytes: on disk, in float32.
    """
    places = _output_places(network, size)
    kinds = {nn.Conv2d: "conv", SelectingConv2d: "conv", SelectingMaxPool2d: "pool", nn.Linear: "fc"}
    rows = []
    for name, module in network.named_modules(remove_duplicate=False):
        if type(module) not in kinds or name.startswith("aux"):
            continue
        owner = network.get_submodule(name.removesuffix(".conv"))
        weight = getattr(module, "weight", torch.empty(0))
        nonzero = int(weight.count_nonzero())
        rows.append(
            {
                "layer": name,
                "kind": kinds[type(module)],
                "parameters": sum(parameter.numel() for parameter in owner.parameters()),
                "weights": weight.numel(),
                "nonzero": nonzero,
                "macs": places[name] * weight.numel(),
                "sparse_macs": places[name] * nonzero,
                "bytes": sum(_bytes(tensor) for tensor in owner.state_dict().values()),
            }
        )
    return pd.DataFrame(rows)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())


def _output_places(network: nn.Module, size: int) -> dict[str, int]:
    """By module name: how many places its output has, which is how often a layer applies its weights to an image."""
    places: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: places.update({name: output[0, 0].numel()})

    modules = network.named_modules(remove_duplicate=False)
    hooks = [module.register_forward_hook(count(name)) for name, module in modules]
    try:
        with evaluating(network):
            network(network.fc.weight.new_zeros(1, 3, size, size))
    finally:
        for hook in hooks:
            hook.remove()
    return places
