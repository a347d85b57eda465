"""ResNet-18: torchvision's, at any width."""

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from prunelens.networks.architecture import Architecture, Step, Stream, normalized
from prunelens.registry import describe


class ResNet18(torchvision.models.ResNet):
    """torchvision's ResNet-18 for RGB images in [0, 1], with its channel counts times ``width``."""

    MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of each channel of ImageNet

    def __init__(self, outputs: int, width: float = 1.0) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=outputs)
        if width != 1:
            self._scale(outputs, max(4, 4 * round(16 * width)))

    def _scale(self, outputs: int, channels: int) -> None:
        self.inplanes = channels
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for i in range(4):
            setattr(self, f"layer{i + 1}", self._make_layer(BasicBlock, channels * 2**i, 2, stride=1 if i == 0 else 2))
        self.fc = nn.Linear(channels * 8, outputs)

    def normalize(self, x: Tensor) -> Tensor:
        """Subtract ImageNet's mean and divide by its standard deviation."""
        return normalized(x, self.MEAN, self.DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.normalize(x))


@describe("ResNet-18")
class ResNet18Architecture(Architecture):
    """torchvision's ResNet-18: pruned are all convs but the first (BatchNorm and fc stay)."""

    def build(self, outputs: int, width: float = 1.0, aux: bool = False) -> nn.Module:
        if aux:
            raise ValueError("aux_weight: found more than 0, but resnet18 has no auxiliary heads; expected 0")
        return ResNet18(outputs, width).to(memory_format=torch.channels_last)

    def prunable(self, network: nn.Module) -> list[str]:
        return [name for name in self.convs(network) if name != "conv1"]

    def block(self, layer: str) -> str:
        """The residual block, such as layer2.0."""
        return "stem" if layer == "conv1" else ".".join(layer.split(".")[:2])

    def streams(self, network: nn.Module) -> list[Stream]:
        """One residual stream per resolution, to which the blocks add, and within each block what conv1 writes."""
        found, writers, readers = [], ["conv1"], []
        for name, block in self._blocks(network).items():
            readers.append(f"{name}.conv1")
            if block.downsample is not None:
                found.append(Stream(tuple(writers), (*readers, f"{name}.downsample.0"), "add"))
                writers, readers = [f"{name}.downsample.0"], []
            found.append(Stream((f"{name}.conv1",), (f"{name}.conv2",)))
            writers.append(f"{name}.conv2")
        return [*found, Stream(tuple(writers), (*readers, "fc"), "add")]

    def steps(self, network: nn.Module) -> dict[str, Step]:
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        head = {"avgpool": network.avgpool, "flatten": nn.Flatten(), "fc": network.fc}
        return {"input": network.normalize, "stem": stem, **self._blocks(network), **head}

    def _blocks(self, network: nn.Module) -> dict[str, BasicBlock]:
        return {name: module for name, module in network.named_modules() if isinstance(module, BasicBlock)}

    def pretrained(self) -> dict[str, Tensor]:
        return torchvision.models.ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
