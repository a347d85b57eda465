"""Costs: known answers, and how time is taken."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thin import NAMES, thin
from torch import nn

from prunelens.networks import architectures, compaction
from prunelens.networks.costs import costs, latency


def test_costs_by_hand() -> None:
    architecture = architectures.load("own_architecture.Tiny")
    network = architecture.build(10)  # 16 channels; images of 32 pixels make maps of 16, 16, 8 and 6
    with torch.no_grad():
        network.mixed.wide.weight[:, :4] = 0
    found = costs(architecture, network, 32)
    stem, wide, narrow, joined, head = 16 * 3 * 9, 16 * 16 * 9, 16 * 16, 16 * 32 * 9, 64 * 10
    assert found["parameters"] == stem + 16 + wide + 32 + narrow + 2 * (joined + 16) + head + 10
    assert found["macs"] == 16**2 * (stem + wide + narrow) + 6**2 * 2 * joined + head
    assert found["sparse_macs"] == found["macs"] - 16**2 * wide // 4
    assert found["bytes"] == 4 * (found["parameters"] + 32) + 8  # running statistics, and how often they were updated


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("googlenet", 6_624_904, 1.498e9),
        ("resnet18", 11_689_512, 1.814e9),
        ("bvlc_googlenet", 6_998_552, 1.583e9 + (64**2 + 192**2) * 56**2),
        ("bvlc_googlenet_bn", 6_998_552 + 7280, 1.583e9 + (64**2 + 192**2) * 56**2),
    ],
)
def test_costs_at_224_pixels_are_those_that_are_known(name: str, parameters: int, macs: float) -> None:
    """Those of torchvision's documentation; the original's are 1.583 billion and its local response normalization."""
    architecture = architectures.load(name)
    found = costs(architecture, architecture.build(1000), 224)
    assert found["parameters"] == parameters and found["macs"] == pytest.approx(macs, rel=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_costs_agree_with_the_file_and_the_masked_network(name: str, tmp_path: Path) -> None:
    architecture, network = thin(name)
    for layer in architecture.prunable(network):
        network.get_submodule(layer).weight.data[1:] = 0
    small = compaction.compact(architecture, network)
    masked, found = costs(architecture, network, 65), costs(architecture, small, 65)
    save_file(
        {name: tensor.contiguous() for name, tensor in small.state_dict().items()}, tmp_path / "small.safetensors"
    )
    header = int.from_bytes((tmp_path / "small.safetensors").read_bytes()[:8], "little")
    assert found["bytes"] == (tmp_path / "small.safetensors").stat().st_size - 8 - header
    assert found["parameters"] == sum(parameter.numel() for parameter in small.parameters())
    assert found["macs"] < masked["macs"]
    # What local response normalization takes counts in full, and is the same in both.
    assert found["sparse_macs"] <= masked["sparse_macs"] + 0.1 * masked["macs"]


def test_auxiliary_heads_do_not_count() -> None:
    architecture = architectures.load("googlenet")
    assert costs(architecture, architecture.build(10, 0.25, aux=True), 64)["parameters"] == 358154


class Means(nn.Module):
    """Outputs known by hand, the mean of each color channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.scale * images).mean(dim=(2, 3))


def test_latency_times_each_pass_and_leaves_the_network_alone() -> None:
    class Counting(Means):
        passes = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Counting.passes += 1
            assert not self.training and images.shape == (2, 3, 16, 16)
            assert images.is_contiguous(memory_format=torch.channels_last)
            return super().forward(images)

    network = Counting()
    found = latency({"first": network, "second": network}, size=16, batch_size=2, repeats=5, device="cpu")
    assert Counting.passes == 2 * (5 + 3) and network.training
    assert found.network.tolist() == ["first", "second"]
    assert (found.seconds_low <= found.seconds).all() and (found.seconds <= found.seconds_high).all()
    assert (found.images_per_second == 2 / found.seconds).all()
    assert found.loc[0, ["speedup_low", "speedup", "speedup_high"]].eq(1).all()


def test_latency_is_the_median_of_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0] * 12 + [0, 1, 10, 14, 20, 23, 30, 36, 40, 42, 50, 54])  # 3 rounds of 2 that warm up, then 3
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    found = latency({"one": Means(), "other": Means()}, size=8, batch_size=6, repeats=3, device="cpu")
    assert found[["seconds_low", "seconds", "seconds_high"]].to_numpy().tolist() == [[1, 2, 3], [4, 4, 6]]
    assert found.loc[1, ["speedup_low", "speedup", "speedup_high"]].tolist() == [0.25, 0.5, 0.5]
    assert found.images_per_second.tolist() == [3, 1.5]
