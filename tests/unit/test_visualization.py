import numpy as np
import pytest
import torch
from lucent.optvis import param, render, transform
from lucent.optvis.param import spatial
from torch import nn

from prunelens import networks
from prunelens.visualization import scaled_transforms, visualize

SETTINGS = {"size": 32, "steps": 8, "seed": 3}
UNITS = [("first.conv", 0), ("second", 4), ("first.conv", 2), ("fc", 1), ("second", 0)]


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential()
        self.first.conv = nn.Conv2d(3, 4, 5, stride=2)
        self.first.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)
        self.unused = nn.Linear(2, 2)
        self.forwards = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        x = torch.relu(self.second(self.norm(self.first(x - 0.5))))
        return self.fc(self.dropout(x.mean((2, 3))))


@pytest.fixture
def network() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tiny()
    network.norm.running_var.fill_(0.1)
    return network


def to_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)


def assert_same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to the rounding to 256 levels."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def lucent_picture(network: nn.Module, unit: str, size: int, steps: int, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    np.random.seed(seed)
    [image] = render.render_vis(
        network.eval().to(spatial.device),
        unit,
        param_f=lambda: param.image(size),
        transforms=scaled_transforms(size)[:-1],
        fixed_image_size=size,
        thresholds=(steps,),
        preprocess=False,
        progress=False,
        show_image=False,
    )
    return (image * 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("unit", "lucent_unit"),
    [(("first.conv", 2), "first_conv:2"), (("second", 4), "second:4"), (("fc", 1), "fc:1")],
)
def test_one_unit_equals_lucents_render_vis(network, unit, lucent_unit):
    found = visualize(network, [unit], **SETTINGS).images
    network.first.relu.inplace = False  # lucent would see the conv's output after the ReLU
    assert_same_picture(found, lucent_picture(network, lucent_unit, **SETTINGS))


def test_googlenet_equals_lucents_render_vis():
    network = networks.build("googlenet", 10)
    networks.initialise(network, 0)
    settings = {"size": 64, "steps": 2, "seed": 0}
    found = visualize(network, [("inception4a.branch2.1.conv", 7), ("fc", 9)], **settings).images
    expected = lucent_picture(network, "inception4a_branch2_1_conv:7", **settings)
    assert_same_picture(found[:1], expected)


@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_picture_does_not_depend_on_the_other_units(network, chunk):
    together = visualize(network, UNITS, chunk=chunk, **SETTINGS)
    alone = [visualize(network, [unit], **SETTINGS) for unit in UNITS]
    assert_same_picture(together.images, np.concatenate([one.images for one in alone]))
    np.testing.assert_allclose(together.objective, [one.objective[0] for one in alone], atol=1e-2)
    assert len({image.tobytes() for image in together.images}) == len(UNITS)


def test_objective_is_the_mean_activation_on_the_returned_image(network):
    network.eval()
    found = visualize(network, UNITS, **SETTINGS)
    images = to_batch(found.images)
    with torch.no_grad():
        first = network.first.conv(images - 0.5)
        second = network.second(network.norm(first.relu()))
        outputs = {"first.conv": first.mean((2, 3)), "second": second.mean((2, 3)), "fc": network(images)}
    expected = [outputs[layer][i, index].item() for i, (layer, index) in enumerate(UNITS)]
    np.testing.assert_allclose(found.objective, expected, atol=1e-5)
    assert found.objective.dtype == np.float32


def test_sign_raises_and_lowers_every_objective(network):
    start = visualize(network, UNITS, size=32, steps=0, seed=3).objective
    assert (visualize(network, UNITS, **SETTINGS).objective > start).all()
    lowered = visualize(network, UNITS, sign=-1, **SETTINGS).objective
    assert (lowered < start).all()
    assert lowered.min() < 0, "values from before the in-place ReLU"


def test_same_seed_same_picture_whatever_the_global_seeds(network):
    torch.manual_seed(1)
    np.random.seed(1)
    once = visualize(network, UNITS, **SETTINGS)
    again = visualize(network, UNITS, **SETTINGS)
    other = visualize(network, UNITS, **{**SETTINGS, "seed": 4})
    np.testing.assert_array_equal(once.images, again.images)
    np.testing.assert_array_equal(once.objective, again.objective)
    assert np.abs(once.images.astype(int) - other.images).mean() > 5


@pytest.mark.parametrize("units", [UNITS, [("second", 6)]], ids=["success", "error"])
def test_leaves_nothing_behind(network, units):
    network.train()
    network.norm.eval()
    network.fc.bias.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    devices = spatial.device, transform.device

    if units == UNITS:
        visualize(network, units, **SETTINGS)
    else:
        with pytest.raises(ValueError):
            visualize(network, units, **SETTINGS)

    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert (spatial.device, transform.device) == devices


def test_follows_the_networks_device_not_lucents(network, monkeypatch):
    expected = visualize(network, UNITS, **SETTINGS)
    for module in (spatial, transform):  # as if lucent had found a GPU when it was imported
        monkeypatch.setattr(module, "device", torch.device("meta"))
    np.testing.assert_array_equal(visualize(network, UNITS, **SETTINGS).images, expected.images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_and_cpu_networks_beside_a_gpu(network):
    on_cpu = visualize(network, UNITS, **SETTINGS)
    on_gpu = visualize(network.cuda(), UNITS, **SETTINGS)
    assert np.abs(on_cpu.images.astype(int) - on_gpu.images).mean() < 2


def test_forward_ends_at_the_deepest_layer_asked_for(network):
    def fail(*_):
        raise AssertionError("computed fc")

    network.fc.register_forward_pre_hook(fail)
    visualize(network, [("second", 0), ("first.conv", 1)], **SETTINGS)
    with pytest.raises(AssertionError, match="computed fc"):
        visualize(network, [("second", 0), ("fc", 1)], **SETTINGS)


@pytest.mark.parametrize(
    ("unit", "sign", "message"),
    [
        (("first.cnv", 0), 1, r"unknown layer 'first.cnv', did you mean 'first.conv'\?"),
        (("second", 6), 1, "layer 'second' has units 0 to 5, found index 6"),
        (("fc", -1), 1, "layer 'fc' has units 0 to 4, found index -1"),
        (("unused", 0), 1, "layer 'unused' takes no part in the forward pass"),
        (("fc", 0), 2, "sign is 2, expected 1"),
    ],
)
def test_errors_come_before_any_optimisation(network, unit, sign, message):
    with pytest.raises(ValueError, match=message):
        visualize(network, [("second", 0), unit], sign=sign, **SETTINGS)
    assert network.forwards <= 1, "one pass to see the layers' widths at most"


def test_no_units_give_no_images(network):
    found = visualize(network, [], **SETTINGS)
    assert found.images.shape == (0, 32, 32, 3)
    assert found.objective.shape == (0,)


@pytest.mark.parametrize("size", [33, 64, 224])
def test_transforms_keep_the_size(size):
    images = torch.rand(2, 3, size, size)
    state = np.random.get_state()
    for _ in range(5):
        transformed = images
        for step in scaled_transforms(size):
            transformed = step(transformed)
        assert transformed.shape == images.shape
    assert not np.array_equal(np.random.get_state()[2], state[2])


def test_transforms_at_224_pixels_are_lucents_own():
    image = torch.rand(1, 3, 224, 224, device=transform.device)
    transformed = []
    for steps in (scaled_transforms(224)[:-1], transform.standard_transforms):
        np.random.seed(0)
        transformed.append(transform.compose(steps)(image))
    assert torch.equal(*transformed)
