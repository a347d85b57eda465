"""The built-in architectures by name, and how one is loaded."""

from prunelens import registry
from prunelens.networks.architecture import Architecture
from prunelens.networks.googlenet import BVLCGoogLeNetArchitecture as bvlc_googlenet
from prunelens.networks.googlenet import GoogLeNetArchitecture as googlenet
from prunelens.networks.resnet import ResNet18Architecture as resnet18

__all__ = ["bvlc_googlenet", "googlenet", "load", "resnet18"]


def load(name: str) -> Architecture:
    """The architecture of a built-in's name or an import path, which is that of a subclass of `Architecture`.

    Raises:
        ValueError: there is no such architecture, or it is something else.
    """
    found = registry.find("architecture", name)
    if not (isinstance(found, type) and issubclass(found, Architecture)):
        raise ValueError(f"architecture {name}: found {found!r}, expected a subclass of {Architecture.__name__}")
    return found()
