"""The networks of the study. All take RGB images in [0, 1] and normalise them themselves."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.googlenet import Inception, InceptionAux

ARCHITECTURES = ("googlenet", "bvlc_googlenet")


class GoogLeNet(torchvision.models.GoogLeNet):
    """torchvision's GoogLeNet (57 convs with BatchNorm) for RGB images in [0, 1].

    torchvision's weights expect images normalised to ImageNet's statistics and rescale them at once to [-1, 1];
    from [0, 1] both steps together are 2 x - 1.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = False) -> None:
        super().__init__(num_classes=num_classes, aux_logits=aux_logits, init_weights=False)

    def _transform_input(self, x: Tensor) -> Tensor:
        return 2 * x - 1


class BVLCGoogLeNet(torchvision.models.GoogLeNet):
    """The original GoogLeNet (Szegedy et al. 2015) of the Caffe model zoo, for RGB images in [0, 1].

    57 convs with biases and no BatchNorm, local response normalisation around the stem, true 5x5 convs.
    """

    MEAN = (123.0, 117.0, 104.0)  # of each channel, subtracted from 0..255

    def __init__(self, num_classes: int = 1000) -> None:
        blocks = [_BiasedConv, _BVLCInception, InceptionAux]
        super().__init__(num_classes=num_classes, aux_logits=False, init_weights=False, blocks=blocks, dropout=0.4)
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool1 = nn.Sequential(pool, _LocalResponseNorm())
        self.maxpool2 = nn.Sequential(_LocalResponseNorm(), pool)
        self.maxpool4 = pool

    def _transform_input(self, x: Tensor) -> Tensor:
        return 255 * x - torch.tensor(self.MEAN, device=x.device, dtype=x.dtype).view(3, 1, 1)


class _LocalResponseNorm(nn.Module):
    """x / (1 + 1e-4 / 5 sum of x^2 over 5 neighbouring channels)^.75, as torch.nn.LocalResponseNorm(5, k=1).

    PyTorch's pools in three dimensions, which on a CPU takes a quarter of this network's time; a banded 1x1 conv and
    two square roots take a quarter of that.
    """

    def forward(self, x: Tensor) -> Tensor:
        channel = torch.arange(x.shape[1], device=x.device)
        band = (channel[:, None] - channel).abs() <= 2
        total = nn.functional.conv2d(x * x, band[:, :, None, None].to(x.dtype) * (1e-4 / 5))
        root = (1 + total).rsqrt()
        return x * root * root.sqrt()


class _BiasedConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, **arguments: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=True, **arguments)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class _BVLCInception(Inception):
    def __init__(self, in_channels: int, *widths: int, conv_block: type[nn.Module] = _BiasedConv) -> None:
        super().__init__(in_channels, *widths, conv_block=conv_block)
        _, _, _, reduced, out_channels, _ = widths
        self.branch3[1] = conv_block(reduced, out_channels, kernel_size=5, padding=2)


def build(architecture: str, num_classes: int, aux_logits: bool = False) -> nn.Module:
    """A network of the given architecture with PyTorch's default initialisation, channels last.

    Raises:
        ValueError: the architecture is none of ARCHITECTURES, or has no auxiliary heads and they are asked for.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"network.architecture: found {architecture!r}, expected one of {ARCHITECTURES}")
    if architecture == "googlenet":
        network = GoogLeNet(num_classes, aux_logits)
    elif aux_logits:
        raise ValueError(f"aux_weight: found more than 0, but {architecture} has no auxiliary heads; expected 0")
    else:
        network = BVLCGoogLeNet(num_classes)
    return network.to(memory_format=torch.channels_last)


def initialise(network: nn.Module, seed: int) -> None:
    """Draw every conv and fc weight anew (He et al. 2015, normal, fan in), biases zero, BatchNorm to identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            module.weight.data.copy_(noise)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def shuffle_weights(network: nn.Module, seed: int) -> None:
    """Deal the weights of every conv and fc layer to other places of that layer; biases and BatchNorm stay."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            places = torch.randperm(module.weight.numel(), generator=generator)
            module.weight.data.copy_(module.weight.data.flatten()[places].view_as(module.weight))


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a safetensors file (any float precision) into a network of the same architecture.

    Auxiliary heads are ignored: torchvision's were never trained.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds another architecture's tensors; names the first that differ.
    """
    if not file.is_file():
        raise FileNotFoundError(f"network.weights: no file {file}")
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"network.weights: {file} is damaged or no safetensors file ({error})") from error
    load_state(network, found, str(file))


def load_state(network: nn.Module, found: dict[str, Tensor], origin: str) -> None:
    """Load tensors into a network after comparing names and shapes; ``origin`` names them in the error.

    Auxiliary heads are left as they are, whether ``found`` has them or not.
    """
    expected = network.state_dict()
    found = {name: tensor for name, tensor in found.items() if not name.startswith("aux")}
    optional = {name for name in expected if name.startswith("aux") or name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - optional)
    unknown = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name}: found {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"{origin} holds weights of another architecture than {type(network).__name__}: "
            f"missing {_first(missing)}; unknown {_first(unknown)}; other shapes {_first(shapes)}"
        )
    network.load_state_dict({**expected, **found})


def _first(names: list[str]) -> str:
    return "none" if not names else f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def torchvision_weights(network: nn.Module) -> None:
    """Load torchvision's ImageNet weights (IMAGENET1K_V1, Top-1 69.778 %); downloads them on first use."""
    weights = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1
    load_state(network, weights.get_state_dict(progress=True, check_hash=True), f"torchvision's {weights}")


def conv_layers(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The 57 convs by dotted name, in order of the forward pass; auxiliary heads are left out."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not name.startswith("aux")
    }


def prunable_layers(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The 54 convs of the inception blocks: all that the paper prunes (stem, BatchNorm, biases and fc stay)."""
    return {name: module for name, module in conv_layers(network).items() if name.startswith("inception")}


def unit_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers whose channels are the study's units: 57 convs (7,280 channels) and fc."""
    return {**conv_layers(network), "fc": network.fc}


def stages(network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """The forward pass in evaluation mode as steps in a row, by name; inception blocks are one step each."""
    children = dict(network.named_children())
    names = [name for name in children if name.startswith(("conv", "maxpool", "inception"))]
    steps = {name: children[name] for name in names}
    head = {"avgpool": network.avgpool, "flatten": nn.Flatten(), "fc": network.fc}
    return {"input": network._transform_input, **steps, **head}


def layer_table(network: nn.Module) -> pd.DataFrame:
    """One row per unit layer: layer, kind (conv, fc), prunable, units, weights."""
    prunable = prunable_layers(network)
    return pd.DataFrame(
        {
            "layer": name,
            "kind": "conv" if isinstance(module, nn.Conv2d) else "fc",
            "prunable": name in prunable,
            "units": module.weight.shape[0],
            "weights": module.weight.numel(),
        }
        for name, module in unit_layers(network).items()
    )


def parameters(network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that inference needs: all but those of auxiliary heads."""
    return ((name, parameter) for name, parameter in network.named_parameters() if not name.startswith("aux"))
