import numpy as np
import pytest
import torch
from torch import nn

from prunelens.images.imageset import ImageSet
from prunelens.networks import architectures, weights
from prunelens.networks.architecture import Architecture
from prunelens.units import extremes, mis
from prunelens.units.recording import ArraySource, NetworkSource, Recording, Settings, probabilities


class Net(nn.Module):
    """conv -> BatchNorm -> ReLU in place, conv -> ReLU in place, then logits: what a hook on networks meets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn, self.relu_a = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.b, self.relu_b = nn.Conv2d(4, 5, 1), nn.ReLU(inplace=True)
        self.fc = nn.Linear(5, 6)
        nn.init.normal_(self.bn.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu_a(self.bn(self.a(x)))
        return self.fc(self.relu_b(self.b(x)).mean((2, 3)))


class Nets(Architecture):
    def rectified(self, network: Net, conv: str) -> nn.Module:
        return getattr(network, f"relu_{conv}")

    def convs(self, network: Net) -> dict[str, nn.Module]:
        return {"a": network.a, "b": network.b, **({"unused": network.unused} if hasattr(network, "unused") else {})}


@pytest.fixture
def net() -> Net:
    net = Net().train()
    net.bn.eval()  # frozen on its own
    return net


def image_set(n: int, size: int = 8, seed: int = 0) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(n) % 2, [f"c/{i}" for i in range(n)], ["x", "y"], np.array([4, 1]))


def recording_of(net: nn.Module, n: int = 70, **more: object) -> Recording:
    settings = Settings(tasks=2, explanations=3)
    return Recording(NetworkSource(Nets(), net), image_set(n), np.eye(n, dtype=np.float32), settings, **more)


def hooks_in(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in net.modules())


def test_activations_are_spatial_means_before_batchnorm_and_relu_and_rectified_ones_behind(net):
    recording = recording_of(net)  # more than one batch
    net.eval()
    x = torch.from_numpy(recording.stimuli.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        a = net.a(x)
        after_a = net.bn(a).relu()
        b = net.b(after_a)
        fc = net.fc(b.relu().mean((2, 3)))
    assert recording.layers == list(recording.activations) == list(recording.rectified) == ["a", "b", "fc"]
    for recorded, expected in (
        (recording.activations, {"a": a.mean((2, 3)), "b": b.mean((2, 3)), "fc": fc}),
        (recording.rectified, {"a": after_a.mean((2, 3)), "b": b.relu().mean((2, 3)), "fc": fc.softmax(1)}),
    ):
        for name, values in expected.items():
            assert recorded[name].dtype == np.float32
            np.testing.assert_allclose(recorded[name], values.numpy(), atol=1e-6)
    assert recording.activations["b"].min() < 0  # not the output of the ReLU that follows in place


def test_maps_are_conv_outputs_and_not_those_of_the_relu_behind(net):
    recording = recording_of(net)
    places, b = [], np.empty((70, 5, 6, 6), np.float32)
    for layer, place, maps in recording.maps(["b", "a"], recording.stimuli.images):
        places.append((layer, place.start, place.stop))
        if layer == "b":
            b[place] = maps.numpy()
        assert hooks_in(net) == 0
    assert places == [("b", 0, 64), ("a", 0, 64), ("b", 64, 70), ("a", 64, 70)]
    np.testing.assert_allclose(b.mean((2, 3)), recording.activations["b"], atol=1e-6)


def test_between_batches_and_after_errors_the_network_is_as_it_was_found(net):
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}

    def untouched() -> bool:
        same = all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        return same and hooks_in(net) == 0 and [m.training for m in net.modules()] == modes

    for _ in NetworkSource(Nets(), net).batches(image_set(70).images):
        assert untouched() and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    too_small = image_set(2, size=1).images
    with pytest.raises(RuntimeError):
        next(NetworkSource(Nets(), net).batches(too_small))
    assert untouched()


def test_a_layer_that_is_never_called_is_named(net):
    net.unused, net.relu_unused = nn.Conv2d(3, 2, 1), nn.ReLU()
    with pytest.raises(ValueError, match="never calls unused"):
        _ = recording_of(net).activations
    assert hooks_in(net) == 0


def test_read_only_images_and_what_is_recorded_cannot_be_written(net):
    stimuli = image_set(20)
    stimuli.images.flags.writeable = False
    recording = Recording(NetworkSource(Nets(), net), stimuli, np.eye(20, dtype=np.float32), Settings(1, 2))
    for array in (recording.activations["a"], recording.rectified["fc"], recording.top["b"], recording.margins["b"],
                  recording.embeddings, recording.labels):  # fmt: skip
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_extremes_come_from_the_activations_or_are_given(net):
    recording = recording_of(net)
    keys = extremes.tie_keys(recording.stimuli.names, 0)
    for layer, values in recording.activations.items():
        expected = extremes.extremes(values, 8, keys)
        for side, found in zip(expected, (recording.top, recording.bottom, recording.alive), strict=True):
            np.testing.assert_array_equal(found[layer], side)
    swapped = {**recording.extremes, "top/b": recording.extremes["bottom/b"]}
    given = recording_of(net, found=swapped)
    np.testing.assert_array_equal(given.top["b"], recording.bottom["b"])


def test_margins_are_those_of_the_layers_tasks(net):
    recording = recording_of(net)
    for layer in recording.layers:
        expected = mis.margins(recording.top[layer], recording.bottom[layer], recording.embeddings, 2, 3, 0, layer)
        np.testing.assert_allclose(recording.margins[layer], expected, atol=1e-6)
    again = recording_of(net, compared=mis.gram(2 * np.eye(70, dtype=np.float32)))
    np.testing.assert_allclose(again.margins["a"], 4 * recording.margins["a"], atol=1e-6)


def test_given_activations_are_rectified_by_cutting_them_off():
    values = np.array([[1, -2], [-3, 4]], np.float32)
    recording = Recording(ArraySource({"a": values, "out": values}), image_set(2), np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(recording.rectified["a"], [[1, 0], [0, 4]])
    np.testing.assert_allclose(recording.rectified["out"].sum(axis=1), 1)


def test_embeddings_of_other_images_are_refused(net):
    with pytest.raises(ValueError, match="one for each of 20 stimuli, found 19"):
        Recording(NetworkSource(Nets(), net), image_set(20), np.eye(19, dtype=np.float32))


def test_googlenet_s_blocks_are_recorded_before_batchnorm_and_behind_the_relu():
    architecture = architectures.load("googlenet")
    network = architecture.build(5, width=0.25)
    weights.initialize(network, seed=0)
    for module in network.modules():  # BatchNorm that does something
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    stimuli = image_set(5, size=32)
    recording = Recording(NetworkSource(architecture, network.eval()), stimuli, np.eye(5, dtype=np.float32))
    assert len(recording.layers) == 58 and recording.layers[-1] == "fc"

    def in_front(name: str, x: torch.Tensor) -> torch.Tensor:
        """What a block is given: recorded with a forward pass of its own."""
        inputs = []
        hook = network.get_submodule(name).register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
        network(x)
        hook.remove()
        return inputs[0]

    x = torch.from_numpy(stimuli.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for name in ("conv1", "inception3a.branch3.1", "inception5b.branch4.1"):
            block = network.get_submodule(name)
            conv = block.conv(in_front(name, x))
            after = block.bn(conv).relu()
            for recorded, expected in ((recording.activations, conv), (recording.rectified, after)):
                np.testing.assert_allclose(recorded[f"{name}.conv"], expected.mean((2, 3)).numpy(), atol=1e-5)


def test_a_residual_branch_s_units_are_recorded_behind_their_batchnorm_cut_off_at_0():
    architecture = architectures.load("resnet18")
    network = architecture.build(5, width=0.25)
    weights.initialize(network, seed=0)
    stimuli = image_set(3, size=32)
    recording = Recording(NetworkSource(architecture, network.eval()), stimuli, np.eye(3, dtype=np.float32))
    x = network.normalize(torch.from_numpy(stimuli.images).permute(0, 3, 1, 2) / 255)
    with torch.no_grad():
        x = network.maxpool(network.bn1(network.conv1(x)).relu())
        block = network.layer1[0]
        expected = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu().mean((2, 3))
    np.testing.assert_allclose(recording.rectified["layer1.0.conv2"], expected, atol=1e-5)
    assert min(values.min() for values in recording.rectified.values()) >= 0


def test_probabilities_by_hand():
    logits = np.log(np.array([[1, 2, 5], [1, 1, 2]], np.float32))
    found = probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 1 / 2]], rtol=1e-6)
    assert probabilities(np.array([[1000, 0]], np.float32)).tolist() == [[1, 0]]
