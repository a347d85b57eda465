import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunelens import evaluation
from prunelens.datasets import ImageSet, imagenet_class_indices, read_folder
from prunelens.networks import BVLCGoogLeNet, load_weights

ASSETS = os.environ.get("PRUNELENS_ASSETS")


def image_set(labels, outputs=(0, 1, 2), size=8) -> ImageSet:
    labels = np.array(labels, dtype=np.int64)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    names = [f"{label}/{i}.png" for i, label in enumerate(labels)]
    class_names = [f"class of {output}" for output in outputs]
    return ImageSet(pixels, labels, names, class_names, np.array(outputs, dtype=np.int64))


def one_hot(predicted, outputs: int) -> np.ndarray:
    return np.eye(outputs, dtype=np.float32)[predicted]


class Means(nn.Module):
    """Logits known by hand, the mean of each color channel, behind a layer that has two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.scale * images).mean(dim=(2, 3))


# logits


def test_logits_are_one_row_per_image_in_order_whatever_the_batch():
    images = image_set([0, 1, 2, 0, 1])
    expected = images.images.mean(axis=(1, 2)) / 255
    for batch_size in (1, 2, 5, 100):
        found = evaluation.logits(Means(), images, batch_size, "cpu")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_module_gets_its_mode_back():
    network = nn.Sequential(Means(), nn.Dropout(0.5))
    network.train()
    network[1].eval()
    evaluation.logits(network, image_set([0, 1]), 2, "cpu")
    assert network.training and network[0].dropout.training and not network[1].training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_modes_come_back_after_an_error():
    network = nn.Linear(3, 3)  # does not take images
    with pytest.raises(RuntimeError):
        evaluation.logits(network, image_set([0], size=8), 1, "cpu")
    assert network.training


def test_an_empty_set_is_an_error():
    with pytest.raises(ValueError, match="image set is empty"):
        evaluation.logits(Means(), image_set([]), 1, "cpu")
    with pytest.raises(ValueError, match="image set is empty"):
        evaluation.accuracy(np.zeros((0, 3), np.float32), image_set([]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu_to_bfloat16():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    images = image_set([0, 1, 2] * 5)
    on_cpu, on_gpu = (evaluation.logits(network, images, 4, device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.02)
    assert (evaluation.latency({"network": network}, 8, 4, 3, "cuda").images_per_second > 0).all()


# accuracy


def test_accuracy_known_answers():
    # Two classes that are outputs 7 and 2 of 10.
    images = image_set([0, 0, 1, 1], outputs=(7, 2))
    logits = np.zeros((4, 10), np.float32)
    logits[0, 7] = 9  # right
    logits[1, [0, 7, 2]] = 9, 8, 7  # wrong among all, right among the known
    logits[2, [7, 2]] = 9, 8  # wrong both times, second
    logits[3, [0, 1, 3, 4, 5, 6]] = 5  # the known outputs tie at 0 behind six others: class 0 wins
    found = evaluation.accuracy(logits, images)
    assert found["n"] == 4
    assert found["top1"] == 1 / 4 and found["top5"] == 3 / 4
    assert found["top1_known"] == 2 / 4 and found["top5_known"] == 1


def test_wilson_interval():
    # Newcombe (1998), table I: 81 of 263 gives .2553 to .3662.
    labels = [0] * 81 + [1] * 182
    found = evaluation.accuracy(one_hot([0] * 263, 2), image_set(labels, outputs=(0, 1)))
    assert found["top1"] == pytest.approx(81 / 263)
    assert (found["top1_low"], found["top1_high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (found["top1_known_low"], found["top1_known_high"]) == (found["top1_low"], found["top1_high"])


@pytest.mark.parametrize("value", [0.0, 1.0, -np.inf, np.inf, np.nan])
def test_a_network_that_answers_the_same_for_all_is_at_chance(value, caplog):
    images = image_set(list(range(10)) * 3, outputs=range(10))
    found = evaluation.accuracy(np.full((30, 10), value, np.float32), images)
    assert (found["top1"], found["top5"]) == (0.1, 0.5)
    assert ("logits of 30 of 30 images are not numbers" in caplog.text) == np.isnan(value)


def test_top5_agrees_with_sorting():
    rng = np.random.default_rng(0)
    images = image_set(rng.integers(0, 4, 200), outputs=(11, 3, 8, 5))
    logits = rng.normal(size=(200, 12)).astype(np.float32)
    targets = images.logits[images.labels]
    best = np.argsort(-logits, axis=1)
    found = evaluation.accuracy(logits, images)
    assert found["top1"] == np.mean(best[:, 0] == targets)
    assert found["top5"] == np.mean((best[:, :5] == targets[:, None]).any(axis=1))
    assert found["top1_known"] == np.mean(logits[:, images.logits].argmax(axis=1) == images.labels)
    assert found["top5_known"] == 1  # four classes


@pytest.mark.parametrize("shape", [(3, 10), (4, 7), (4,)])
def test_logits_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"expected \(4, 8 or more\), found"):
        evaluation.accuracy(np.zeros(shape, np.float32), image_set([0, 0, 1, 1], outputs=(7, 2)))


# confusion


def test_confusion_counts_true_by_predicted():
    images = image_set([0, 0, 1, 1, 1], outputs=(7, 2, 4))
    logits = one_hot([7, 2, 2, 2, 0], 10)
    logits[4, 4] = 0.5  # output 0 is no class of the set: the best known one is 4
    np.testing.assert_array_equal(evaluation.confusion(logits, images), [[1, 1, 0], [0, 2, 1], [0, 0, 0]])


def test_confusion_agrees_with_accuracy():
    rng = np.random.default_rng(1)
    images = image_set(rng.integers(0, 3, 100), outputs=(5, 1, 3))
    logits = rng.integers(0, 3, (100, 6)).astype(np.float32)  # many ties
    logits[::7] = np.nan
    counts = evaluation.confusion(logits, images)
    assert np.trace(counts) / 100 == evaluation.accuracy(logits, images)["top1_known"]
    assert counts.sum(axis=1).tolist() == np.bincount(images.labels).tolist()


# latency


def test_latency_times_each_pass_and_leaves_the_network_alone():
    class Counting(Means):
        passes = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Counting.passes += 1
            assert not self.training and images.shape == (2, 3, 16, 16)
            assert images.is_contiguous(memory_format=torch.channels_last)
            return super().forward(images)

    network = Counting()
    found = evaluation.latency({"first": network, "second": network}, size=16, batch_size=2, repeats=5, device="cpu")
    assert Counting.passes == 2 * (5 + 3) and network.training
    assert found.network.tolist() == ["first", "second"]
    assert (found.seconds_low <= found.seconds).all() and (found.seconds <= found.seconds_high).all()
    assert (found.images_per_second == 2 / found.seconds).all()
    assert found.loc[0, ["speedup_low", "speedup", "speedup_high"]].eq(1).all()


def test_latency_sees_a_slower_network():
    class Slow(Means):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            return super().forward(images)

    found = evaluation.latency({"fast": Means(), "slow": Slow()}, size=16, batch_size=2, repeats=5, device="cpu")
    assert found.seconds[1] >= 0.01 and found.speedup[1] < 1


# the real images


@pytest.mark.skipif(not ASSETS, reason="no assets")
def test_real_network_on_real_images(tmp_path):
    """A few Imagenette images, original GoogLeNet; on all 3,925 it reaches 63.2 %, 96.8 % among ten."""
    network = BVLCGoogLeNet(1000)
    load_weights(network, Path(ASSETS) / "weights/bvlc_googlenet.safetensors")
    val = Path(ASSETS) / "images/imagenette-160/val"
    images = read_folder(val, 160, tmp_path / "val", imagenet_class_indices(), limit_per_class=6)
    found = evaluation.accuracy(evaluation.logits(network, images, 30, "cpu"), images)
    assert found["top1_known"] > 0.85 and 0.4 < found["top1"] < found["top1_known"]
