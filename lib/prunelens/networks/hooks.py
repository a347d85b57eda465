"""Forward hooks: the one place that attaches them, and takes them away again."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode without gradients; afterwards each module has its mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def recording(
    network: nn.Module, modules: Mapping[Hashable, nn.Module], reduce: Callable[[Tensor], Any]
) -> Iterator[dict[Hashable, Any]]:
    """Collect what ``reduce`` makes of the modules' outputs in forward passes, by the modules' keys.

    Outputs are reduced as the modules return them, so that an in-place operation behind changes nothing.
    """
    outputs: dict[Hashable, Any] = {}

    def hook(key: Hashable, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        outputs[key] = reduce(output)

    with ExitStack() as stack:
        for key, module in modules.items():
            stack.callback(module.register_forward_hook(partial(hook, key)).remove)
        yield outputs


@contextmanager
def before(modules: Mapping[nn.Module, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call a function of each module's input before the module is run; it may change the module's weights."""

    def hook(see: Callable[[Tensor], None], module: nn.Module, inputs: tuple[Tensor]) -> None:
        see(inputs[0])

    with ExitStack() as stack:
        for module, see in modules.items():
            stack.callback(module.register_forward_pre_hook(partial(hook, see)).remove)
        yield
