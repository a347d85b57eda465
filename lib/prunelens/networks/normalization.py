"""BatchNorm inserted into a trained network, without a change of its function.

A network without normalization hardly recovers from pruning. With BatchNorm behind every conv, and weights and
activations of the usual size, it is trained as the study's other networks are.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from prunelens.images.imageset import ImageSet
from prunelens.networks.architecture import Architecture
from prunelens.networks.hooks import before, evaluating, recording
from prunelens.networks.weights import load_state

BATCH_SIZE = 32  # of images that are measured; changes no result
TOLERANCE = 1e-4  # by which outputs may differ, of their range


def insert_batchnorm(architecture: Architecture, network: nn.Module, normalized: nn.Module, images: ImageSet) -> None:
    """Give ``normalized``, which has BatchNorm behind every conv, the function of ``network``, which has none.

    Their layers have the same names; the convs of ``network`` have biases, those of ``normalized`` have none. BatchNorm
    has as statistics the mean m and variance v of a conv's outputs without its bias b, on the images. A conv with
    weights w that reads a tensor of scale s and writes one of scale t gets

        weights w c,   running mean m c / s,   running variance v (c / s)^2,
        BatchNorm's weight sqrt(running variance + eps) s / (c t),   its bias (m + b) / t,

    where c is the `he_factor`: one for all convs, so that pruning by magnitude finds the same order of weights. Scales
    are those of `_scales`: tensors between layers then have a root mean square of 1. The output layer's weights make up
    for the last one. All is computed on the CPU, so that a study has one dense network on every machine.

    Raises:
        ValueError: a conv of ``normalized`` has no BatchNorm behind it, layers differ, or the outputs would: where an
            activation does not scale with its input, for example.
    """
    convs, expected = architecture.convs(network), architecture.convs(normalized)
    if list(convs) != list(expected):
        raise ValueError(f"insert_batchnorm: found the convs {', '.join(convs)}, expected {', '.join(expected)}")
    factor = he_factor(convs.values())
    moments, squares = _measure(architecture, network, images)
    read, written = _scales(architecture, network, squares)
    biases = {f"{name}.bias" for name in convs}
    copied = {name: tensor for name, tensor in network.state_dict().items() if name not in biases}
    load_state(normalized, {**normalized.state_dict(), **copied}, "the network without BatchNorm")
    with torch.no_grad():
        normalized.get_submodule(architecture.output).weight *= read.get(architecture.output, 1.0)
        for name, conv in convs.items():
            norm = architecture.norm(normalized, name)
            if norm is None:
                raise ValueError(f"insert_batchnorm: {name} has no BatchNorm behind it, expected one behind every conv")
            mean, variance = moments[name]
            scale, target = factor / read.get(name, 1.0), written.get(name, 1.0)
            normalized.get_submodule(name).weight *= factor
            norm.running_mean.copy_((mean if conv.bias is None else mean - conv.bias) * scale)
            norm.running_var.copy_(variance * scale**2)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt() / (scale * target))
            norm.bias.copy_(mean / target)
    _check_outputs(network, normalized, images)


def he_factor(convs: Iterable[nn.Conv2d]) -> float:
    """The factor that gives the median conv weights of He's size, a root mean square of sqrt(2 / fan in)."""
    sizes = [conv.weight.detach().square().mean().sqrt() / (2 / conv.weight[0].numel()) ** 0.5 for conv in convs]
    return 1 / float(torch.stack(sizes).quantile(0.5))


def _scales(
    architecture: Architecture, network: nn.Module, squares: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """The scales by which tensors are divided, by reader and by writer: root mean squares of what is read.

    They are 1 where channels are mixed behind the writers (fixed streams): local response normalization does not scale
    with its input. Layers outside of the streams, such as the stem, are in neither dict.
    """
    read, written = {}, {}
    for stream in architecture.streams(network):
        scale = 1.0 if stream.fixed else squares[stream.readers[0]] ** 0.5 or 1.0
        read |= dict.fromkeys(stream.readers, scale)
        written |= dict.fromkeys(stream.writers, scale)
    return read, written


def _measure(
    architecture: Architecture, network: nn.Module, images: ImageSet
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Mean and variance (2, channels) of every conv's outputs, and the mean square of what streams' first readers read.

    Images weigh the same, whatever their batch.
    """
    convs = architecture.convs(network)
    moments = {name: torch.zeros(2, conv.out_channels, dtype=torch.float64) for name, conv in convs.items()}
    squares = dict.fromkeys((stream.readers[0] for stream in architecture.streams(network)), 0.0)

    def see(reader: str, x: Tensor) -> None:
        squares[reader] += float(x.square().mean()) * len(x) / len(images)

    seen = {network.get_submodule(reader): partial(see, reader) for reader in squares}
    with evaluating(network), recording(network, convs, _raw_moments) as outputs, before(seen):
        for batch, _ in images.batches(BATCH_SIZE, "cpu"):
            network(batch)
            for name, found in outputs.items():
                moments[name] += found * (len(batch) / len(images))
    for name, (mean, square) in moments.items():
        moments[name] = torch.stack([mean, (square - mean**2).clamp(min=0)]).float()
    return moments, squares


def _raw_moments(output: Tensor) -> Tensor:
    """Mean and mean square of every channel: (2, channels), float64."""
    variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
    mean = mean.double()
    return torch.stack([mean, variance.double() + mean**2])


def _check_outputs(network: nn.Module, normalized: nn.Module, images: ImageSet) -> None:
    batch, _ = next(images.batches(BATCH_SIZE, "cpu"))
    with evaluating(network), evaluating(normalized):
        expected, found = network(batch), normalized(batch)
    error = float((found - expected).abs().max() / (expected.max() - expected.min()))
    if not error <= TOLERANCE:
        raise ValueError(f"insert_batchnorm: outputs would differ by {error:.1e} of their range, expected at most "
                         f"{TOLERANCE}; does every activation scale with its input?")  # fmt: skip
