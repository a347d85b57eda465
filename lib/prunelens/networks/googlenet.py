"""GoogLeNet: torchvision's with BatchNorm, at any width, and the original one of the Caffe model zoo."""

from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux

from prunelens.networks.architecture import Architecture, Step, Stream
from prunelens.registry import describe

BRANCHES = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")  # conv blocks, forward order
READING = ("branch1", "branch2.0", "branch3.0", "branch4.1")  # of the block's input; the last behind a pool
WRITING = ("branch1", "branch2.1", "branch3.1", "branch4.1")  # the block's output, concatenated


class GoogLeNet(torchvision.models.GoogLeNet):
    """torchvision's GoogLeNet (57 convs with BatchNorm) for RGB images in [0, 1].

    torchvision's weights expect images normalized to ImageNet's statistics and rescale them at once to [-1, 1]; from
    [0, 1] both steps together are 2 x - 1.
    """

    def __init__(self, outputs: int, width: float = 1.0, aux: bool = False) -> None:
        super().__init__(num_classes=outputs, aux_logits=aux, init_weights=False)
        if width != 1:
            _scale(self, outputs, width)

    def normalize(self, x: Tensor) -> Tensor:
        """From [0, 1] to [-1, 1]."""
        return 2 * x - 1

    def _transform_input(self, x: Tensor) -> Tensor:
        return self.normalize(x)


def _scale(network: GoogLeNet, outputs: int, width: float) -> None:
    """Replace every layer by one with its channel counts times ``width``."""

    def scaled(channels: int) -> int:
        return max(4, 4 * round(channels * width / 4))

    for name in ("conv1", "conv2", "conv3"):
        conv = getattr(network, name).conv
        inputs = 3 if name == "conv1" else scaled(conv.in_channels)
        settings = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
        setattr(network, name, BasicConv2d(inputs, scaled(conv.out_channels), **settings))
    channels, heads = scaled(192), {"inception4a": "aux1", "inception4d": "aux2"}
    for name, block in list(network.named_children()):
        if isinstance(block, Inception):
            widths = [scaled(block.get_submodule(branch).conv.out_channels) for branch in BRANCHES]
            setattr(network, name, Inception(channels, *widths))
            channels = sum(widths[BRANCHES.index(branch)] for branch in WRITING)
            if network.aux_logits and name in heads:
                setattr(network, heads[name], InceptionAux(channels, outputs))
    network.fc = nn.Linear(channels, outputs)


class BVLCGoogLeNet(torchvision.models.GoogLeNet):
    """The original GoogLeNet (Szegedy et al. 2015) of the Caffe model zoo, for RGB images in [0, 1].

    57 convs with biases and no BatchNorm, local response normalization around the stem, true 5x5 convs.

    conv: the class of a conv with what follows it.
    """

    MEAN = (123.0, 117.0, 104.0)  # of each channel, subtracted from 0..255

    def __init__(self, outputs: int, conv: type[nn.Module]) -> None:
        blocks = [conv, partial(_BVLCInception, conv_block=conv), InceptionAux]
        super().__init__(num_classes=outputs, aux_logits=False, init_weights=False, blocks=blocks, dropout=0.4)
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool1 = nn.Sequential(pool, _LocalResponseNorm())
        self.maxpool2 = nn.Sequential(_LocalResponseNorm(), pool)
        self.maxpool4 = pool

    def _transform_input(self, x: Tensor) -> Tensor:
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """From [0, 1] to 0..255, less the mean of each channel."""
        return 255 * x - torch.tensor(self.MEAN, device=x.device, dtype=x.dtype).view(3, 1, 1)


class _LocalResponseNorm(nn.Module):
    """x / (1 + 1e-4 / 5 sum of x^2 over 5 neighboring channels)^.75, as torch.nn.LocalResponseNorm(5, k=1).

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
    def __init__(self, in_channels: int, *widths: int, conv_block: type[nn.Module]) -> None:
        super().__init__(in_channels, *widths, conv_block=conv_block)
        _, _, _, reduced, out_channels, _ = widths
        self.branch3[1] = conv_block(reduced, out_channels, kernel_size=5, padding=2)


@describe("GoogLeNet")
class GoogLeNetArchitecture(Architecture):
    """torchvision's GoogLeNet: pruned are the 54 convs of the inception blocks, not stem, BatchNorm, biases and fc."""

    stem_pool = ""  # the pool behind conv3, where its channels cannot be cut

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        return GoogLeNet(outputs, width, aux).to(memory_format=torch.channels_last)

    def prunable(self, network: nn.Module) -> list[str]:
        return [name for name in self.convs(network) if name.startswith("inception")]

    def block(self, layer: str) -> str:
        return "stem" if layer.startswith("conv") else layer.split(".")[0]

    def rectified(self, network: nn.Module, conv: str) -> nn.Module:
        return network.get_submodule(conv.removesuffix(".conv"))

    def streams(self, network: nn.Module) -> list[Stream]:
        found, writers, pool = [], ("conv3.conv",), self.stem_pool
        for block in (name for name, _ in network.named_children() if name.startswith("inception")):
            readers = tuple(f"{block}.{branch}.conv" for branch in READING)
            pools = ((readers[-1], f"{block}.branch4.0"),)
            found.append(Stream(writers, readers, fixed=bool(pool), pool=pool, pools=pools))
            for branch in ("branch2", "branch3"):
                found.append(Stream((f"{block}.{branch}.0.conv",), (f"{block}.{branch}.1.conv",)))
            writers, pool = tuple(f"{block}.{branch}.conv" for branch in WRITING), ""
        return [*found, Stream(writers, (self.output,))]

    def steps(self, network: nn.Module) -> dict[str, Step]:
        children = dict(network.named_children())
        names = [name for name in children if name.startswith(("conv", "maxpool", "inception"))]
        head = {"avgpool": network.avgpool, "flatten": nn.Flatten(), "fc": network.fc}
        return {"input": network._transform_input, **{name: children[name] for name in names}, **head}

    def pretrained(self) -> dict[str, Tensor]:
        weights = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1  # Top-1 69.778 %
        return weights.get_state_dict(progress=True, check_hash=True)


@describe("GoogLeNet (BVLC)")
class BVLCGoogLeNetArchitecture(GoogLeNetArchitecture):
    """The original GoogLeNet, whose local response normalization behind conv3 mixes neighboring channels."""

    stem_pool = "maxpool2.1"
    conv: type[nn.Module] = _BiasedConv

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        if width != 1:
            raise ValueError(f"network.width: found {width}, expected 1: the original GoogLeNet has one width")
        if aux:
            raise ValueError("aux_weight: found more than 0, but the original GoogLeNet has no such heads; expected 0")
        return BVLCGoogLeNet(outputs, self.conv).to(memory_format=torch.channels_last)

    def pretrained(self) -> dict[str, Tensor]:
        return Architecture.pretrained(self)


@describe("GoogLeNet (BVLC, BatchNorm inserted)", needs=("images",))
class BVLCGoogLeNetBNArchitecture(BVLCGoogLeNetArchitecture):
    """The original GoogLeNet with BatchNorm behind every conv; it takes the original's weights."""

    conv = BasicConv2d
    plain = BVLCGoogLeNetArchitecture
