import numpy as np
import pytest
import torch
from lucent.optvis import param, render, transform
from lucent.optvis.param import spatial
from torch import nn

from prunelens.images.imageset import to_batch
from prunelens.networks import architectures
from prunelens.units import pictures
from prunelens.units.pictures import draw, responses, scaled_transforms

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


def assert_same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to the rounding to 256 levels."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def lucent_picture(network: nn.Module, unit: str, size: int, steps: int, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    np.random.seed(seed)
    [image] = render.render_vis(
        network.eval(),
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
    network.to(spatial.device)  # lucent's own: it draws on a GPU where there is one
    found = draw(network, [unit], **SETTINGS).images[:, 0]
    network.first.relu.inplace = False  # lucent would see the conv's output after the ReLU
    assert_same_picture(found, lucent_picture(network, lucent_unit, **SETTINGS))


def test_googlenet_equals_lucents_render_vis():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = architectures.load("googlenet").build(10, width=0.25).to(spatial.device)
    settings = {"size": 64, "steps": 2, "seed": 0}
    found = draw(network, [("inception4a.branch2.1.conv", 7), ("fc", 9)], **settings).images[:, 0]
    expected = lucent_picture(network, "inception4a_branch2_1_conv:7", **settings)
    assert_same_picture(found[:1], expected)


@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_picture_does_not_depend_on_the_other_units(network, chunk, monkeypatch):
    monkeypatch.setattr(pictures, "CHUNK", chunk)
    together = draw(network, UNITS, **SETTINGS)
    alone = [draw(network, [unit], **SETTINGS) for unit in UNITS]
    assert_same_picture(together.images, np.concatenate([one.images for one in alone]))
    np.testing.assert_allclose(together.objective, [one.objective[0] for one in alone], atol=1e-2)
    assert len({image.tobytes() for image in together.images}) == len(UNITS)


@pytest.mark.parametrize(
    ("chunk", "starts", "most"),
    [(32, 1, 32), (4, 1, 4), (5, 2, 4), (1, 2, 2)],
    ids=["default", "chunk", "starts", "at least one unit"],
)
def test_no_forward_pass_has_more_images_than_the_chunk(network, chunk, starts, most, monkeypatch):
    """However many units there are, other starts and the check of their objectives included."""
    monkeypatch.setattr(pictures, "CHUNK", chunk)
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    draw(network, UNITS * 14, size=32, steps=1, seed=3, starts=starts)
    handle.remove()
    assert max(seen) == most


def test_objective_is_the_mean_activation_on_the_returned_image(network):
    network.eval()
    found = draw(network, UNITS, **SETTINGS)
    images = to_batch(found.images[:, 0], "cpu")
    with torch.no_grad():
        first = network.first.conv(images - 0.5)
        second = network.second(network.norm(first.relu()))
        outputs = {"first.conv": first.mean((2, 3)), "second": second.mean((2, 3)), "fc": network(images)}
    expected = [outputs[layer][i, index].item() for i, (layer, index) in enumerate(UNITS)]
    np.testing.assert_allclose(found.objective[:, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(responses(network, UNITS, found.images[:, 0]), found.objective[:, 0])
    assert found.objective.dtype == np.float32


def test_every_objective_rises_also_below_the_in_place_relu(network):
    network.first.conv.bias.data[0] -= 10
    start = draw(network, UNITS, size=32, steps=0, seed=3).objective
    found = draw(network, UNITS, **SETTINGS).objective
    assert (found > start).all() and found.min() < 0, "values from before the ReLU"


def test_same_seed_same_picture_whatever_the_global_seeds(network):
    torch.manual_seed(1)
    np.random.seed(1)
    once = draw(network, UNITS, **SETTINGS)
    again = draw(network, UNITS, **SETTINGS)
    other = draw(network, UNITS, **{**SETTINGS, "seed": 4})
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
        draw(network, units, **SETTINGS)
    else:
        with pytest.raises(ValueError):
            draw(network, units, **SETTINGS)

    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert (spatial.device, transform.device) == devices


def test_follows_the_networks_device_not_lucents(network, monkeypatch):
    expected = draw(network, UNITS, **SETTINGS)
    for module in (spatial, transform):  # as if lucent had found a GPU when it was imported
        monkeypatch.setattr(module, "device", torch.device("meta"))
    np.testing.assert_array_equal(draw(network, UNITS, **SETTINGS).images, expected.images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_and_cpu_networks_beside_a_gpu(network):
    on_cpu = draw(network, UNITS, **SETTINGS)
    on_gpu = draw(network.cuda(), UNITS, **SETTINGS)
    assert np.abs(on_cpu.images.astype(int) - on_gpu.images).mean() < 2


def test_forward_ends_at_the_deepest_layer_asked_for(network):
    def fail(*_):
        raise AssertionError("computed fc")

    network.fc.register_forward_pre_hook(fail)
    draw(network, [("second", 0), ("first.conv", 1)], **SETTINGS)
    with pytest.raises(AssertionError, match="computed fc"):
        draw(network, [("second", 0), ("fc", 1)], **SETTINGS)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (("first.cnv", 0), r"unknown layer 'first.cnv', did you mean 'first.conv'\?"),
        (("second", 6), "layer 'second' has units 0 to 5, found index 6"),
        (("fc", -1), "layer 'fc' has units 0 to 4, found index -1"),
        (("unused", 0), "layer 'unused' takes no part in the forward pass"),
    ],
)
def test_errors_come_before_any_optimization(network, unit, message):
    with pytest.raises(ValueError, match=message):
        draw(network, [("second", 0), unit], **SETTINGS)
    assert network.forwards <= 1, "one pass to see the layers' widths at most"


def test_no_units_give_no_images(network):
    found = draw(network, [], **SETTINGS)
    assert found.images.shape == (0, 1, 32, 32, 3)
    assert found.objective.shape == (0, 1)
    assert responses(network, [], found.images[:, 0]).shape == (0,)


@pytest.mark.parametrize("size", [33, 64, 224])
def test_transforms_keep_the_size(size):
    images = torch.rand(2, 3, size, size, device=transform.device)
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


# ----------------------------------------------------------------------------------------- starts


def test_a_start_does_not_depend_on_the_other_starts(network):
    both = draw(network, UNITS, starts=2, **SETTINGS)
    for j in (0, 1):
        alone = draw(network, UNITS, **{**SETTINGS, "seed": SETTINGS["seed"] + j})
        assert_same_picture(both.images[:, [j]], alone.images)
        np.testing.assert_allclose(both.objective[:, [j]], alone.objective, atol=1e-2)
    assert (np.abs(both.images[:, 0].astype(int) - both.images[:, 1]).mean((1, 2, 3)) > 5).all()


# ---------------------------------------------------------------------------- units that a start does not excite


class Blocked(nn.Module):
    """A unit behind a ReLU that is off for every image near a start, unless its input is raised by `gap`."""

    def __init__(self, gap: float, relu: nn.Module) -> None:
        super().__init__()
        self.pre, self.relu, self.unit = nn.Conv2d(3, 1, 1), relu, nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.pre.weight.fill_(1 / 3)
            self.pre.bias.fill_(-gap)
            self.unit.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unit(self.relu(self.pre(x)))


class Relu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


@pytest.mark.parametrize(("name", "relus"), [("googlenet", 57), ("bvlc_googlenet", 57), ("resnet18", 17)])
def test_every_relu_of_the_networks_is_redirected(name, relus):
    width = 1 if name == "bvlc_googlenet" else 0.25
    network = architectures.load(name).build(8, width=width).eval().requires_grad_(False)
    with pictures._redirected_relu():
        logits = network(torch.rand(1, 3, 64, 64, requires_grad=True))
    seen, stack = set(), [logits.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
    names = [node.name() for node in seen]
    assert sum("RedirectedReLU" in name for name in names) == relus
    assert not any(name.startswith("ReluBackward") for name in names)


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), Relu()], ids=["module", "torch.relu"])
def test_redirected_gradients_excite_what_no_gradient_reaches(relu, monkeypatch):
    network = Blocked(0.6, relu)
    assert draw(network, [("unit", 0)], size=32, steps=32, seed=0).excited.all()
    monkeypatch.setattr(pictures, "REDIRECTED", 0)
    assert not draw(network, [("unit", 0)], size=32, steps=32, seed=0).excited.any()


def test_redirected_gradients_change_nothing_that_gradients_reach(network, monkeypatch):
    found = draw(network, UNITS, **SETTINGS).images
    monkeypatch.setattr(pictures, "REDIRECTED", 0)
    np.testing.assert_array_equal(draw(network, UNITS, **SETTINGS).images, found)


def test_units_that_a_start_does_not_excite_get_others(network, monkeypatch):
    """Refuse the first two seeds' pictures of one unit: its third ones are kept, the other unit's first ones."""
    units, seeds = UNITS[:2], []
    optimize = pictures._optimize

    def refuse(network, part, settings, seed):
        found = optimize(network, part, settings, seed)
        seeds.append((seed, list(part)))
        found.excited[[unit == units[1] and seed < 2000 for unit in part]] = False
        return found

    monkeypatch.setattr(pictures, "_optimize", refuse)
    found = draw(network, units, **SETTINGS)
    assert seeds == [(3, units), (1003, units[1:]), (2003, units[1:])]
    monkeypatch.undo()
    assert_same_picture(found.images[:1], draw(network, units[:1], **SETTINGS).images)
    assert_same_picture(found.images[1:], draw(network, units[1:], **{**SETTINGS, "seed": 2003}).images)
    assert found.excited.all()


def test_a_dead_unit_is_never_excited():
    found = draw(Blocked(0.0, nn.ReLU()), [("unit", 0), ("unit", 1)], size=32, steps=4, seed=0)
    np.testing.assert_array_equal(found.excited, [[True], [False]])


def test_an_interrupted_run_leaves_nothing_behind(network):
    def interrupt(*_):
        if network.forwards > 4:
            raise KeyboardInterrupt

    network.train()
    handle = network.register_forward_pre_hook(interrupt)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with pytest.raises(KeyboardInterrupt):
        draw(network, UNITS, **SETTINGS)
    handle.remove()
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.nn.functional.relu is RELU, "no patched function stays"


RELU = torch.nn.functional.relu
