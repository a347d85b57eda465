"""Logits in order, accuracies with known answers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from prunelens.images.imageset import ImageSet
from prunelens.pruning import accuracy


def image_set(labels: Sequence[int], outputs: Sequence[int] = (0, 1, 2)) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    names = [f"{label}/{i}.png" for i, label in enumerate(labels)]
    class_names = [f"class of {output}" for output in outputs]
    return ImageSet(pixels, np.array(labels, dtype=np.int64), names, class_names, np.array(outputs, dtype=np.int64))


def one_hot(predicted: Sequence[int], outputs: int) -> np.ndarray:
    return np.eye(outputs, dtype=np.float32)[predicted]


class Means(nn.Module):
    """Logits known by hand, the mean of each color channel, behind a layer that has two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.scale * images).mean(dim=(2, 3))


def test_logits_are_one_row_per_image_in_order_whatever_the_batch() -> None:
    images = image_set([0, 1, 2, 0, 1])
    expected = images.images.mean(axis=(1, 2)) / 255
    for batch_size in (1, 2, 5, 100):
        found = accuracy.logits(Means(), images, batch_size, "cpu")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_module_gets_its_mode_back() -> None:
    network = nn.Sequential(Means(), nn.Dropout(0.5))
    network.train()
    network[1].eval()
    accuracy.logits(network, image_set([0, 1]), 2, "cpu")
    assert network.training and network[0].dropout.training and not network[1].training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="image set is empty"):
        accuracy.logits(Means(), image_set([]), 1, "cpu")
    with pytest.raises(ValueError, match="image set is empty"):
        accuracy.accuracy(np.zeros((0, 3), np.float32), image_set([]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    on_cpu, on_gpu = (accuracy.logits(network, image_set([0, 1, 2] * 5), 4, device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.02)


def test_accuracy_known_answers() -> None:
    # Two classes that are outputs 7 and 2 of 10.
    images = image_set([0, 0, 1, 1], outputs=(7, 2))
    logits = np.zeros((4, 10), np.float32)
    logits[0, 7] = 9  # right
    logits[1, [0, 7, 2]] = 9, 8, 7  # wrong among all, right among the data's own
    logits[2, [7, 2]] = 9, 8  # wrong both times, second
    logits[3, [0, 1, 3, 4, 5, 6]] = 5  # the data's outputs tie at 0 behind six others: class 0 wins
    found = accuracy.accuracy(logits, images)
    assert found["n"] == 4
    assert found["top1_all_outputs"] == 1 / 4 and found["top5_all_outputs"] == 3 / 4
    assert found["top1"] == 2 / 4 and found["top5"] == 1
    right, n = accuracy.class_counts(logits, images)
    assert right.tolist() == [2, 0] and n.tolist() == [2, 2]


def test_wilson_interval() -> None:
    # Newcombe (1998), table I: 81 of 263 gives .2553 to .3662.
    labels = [0] * 81 + [1] * 182
    found = accuracy.accuracy(one_hot([0] * 263, 2), image_set(labels, outputs=(0, 1)))
    assert found["top1"] == pytest.approx(81 / 263)
    assert (found["top1_low"], found["top1_high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert found["top1_all_outputs_low"] == found["top1_low"] and found["top1_all_outputs_high"] == found["top1_high"]


@pytest.mark.parametrize("value", [0.0, 1.0, -np.inf, np.inf, np.nan])
def test_a_network_that_answers_the_same_for_all_is_at_chance(value: float, caplog: pytest.LogCaptureFixture) -> None:
    images = image_set(list(range(10)) * 3, outputs=range(10))
    found = accuracy.accuracy(np.full((30, 10), value, np.float32), images)
    assert (found["top1"], found["top5"]) == (0.1, 0.5)
    assert ("logits of 30 of 30 images are not numbers" in caplog.text) == np.isnan(value)


def test_accuracies_agree_with_sorting() -> None:
    rng = np.random.default_rng(0)
    images = image_set(rng.integers(0, 4, 200).tolist(), outputs=(11, 3, 8, 5))
    logits = rng.normal(size=(200, 12)).astype(np.float32)
    targets = images.outputs[images.labels]
    best = np.argsort(-logits, axis=1)
    found = accuracy.accuracy(logits, images)
    assert found["top1_all_outputs"] == np.mean(best[:, 0] == targets)
    assert found["top5_all_outputs"] == np.mean((best[:, :5] == targets[:, None]).any(axis=1))
    assert found["top1"] == np.mean(logits[:, images.outputs].argmax(axis=1) == images.labels)
    assert found["top5"] == 1  # four classes


def test_class_counts_agree_with_accuracy() -> None:
    rng = np.random.default_rng(1)
    images = image_set(rng.integers(0, 3, 100).tolist(), outputs=(5, 1, 3))
    logits = rng.integers(0, 3, (100, 6)).astype(np.float32)  # many ties
    logits[::7] = np.nan
    right, n = accuracy.class_counts(logits, images)
    assert right.sum() / 100 == accuracy.accuracy(logits, images)["top1"]
    assert n.tolist() == np.bincount(images.labels).tolist() and (right <= n).all()


@pytest.mark.parametrize("shape", [(3, 10), (4, 7), (4,)])
def test_logits_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(4, 8 or more\), found"):
        accuracy.accuracy(np.zeros(shape, np.float32), image_set([0, 0, 1, 1], outputs=(7, 2)))
