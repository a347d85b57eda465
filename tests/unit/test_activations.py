import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunelens import activations, networks


class Net(nn.Module):
    """conv -> BatchNorm -> ReLU in place, twice, then logits: what a hook on GoogLeNet meets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn_a = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.b, self.bn_b = nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 6)
        self.unused = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.bn_a(self.a(x)))
        x = torch.relu_(self.bn_b(self.b(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def net() -> Net:
    net = Net().train()
    net.bn_b.eval()  # frozen on its own
    return net


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def layers_of(net: Net) -> dict[str, nn.Module]:
    return {"b": net.b, "a": net.a, "fc": net.fc}


def hooks_in(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in net.modules())


def test_record_is_the_spatial_mean_before_batchnorm_and_relu(net, images):
    values = activations.record(net, layers_of(net), images, batch_size=4, device="cpu")
    net.eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        a = net.a(x)
        b = net.b(torch.relu(net.bn_a(a)))
        fc = net(x)
    assert list(values) == ["b", "a", "fc"]
    for name, expected in {"a": a.mean((2, 3)), "b": b.mean((2, 3)), "fc": fc}.items():
        assert values[name].dtype == np.float32
        np.testing.assert_allclose(values[name], expected.numpy(), atol=1e-6)
    assert values["a"].min() < 0  # not the output of the ReLU that follows in place


def test_batches_are_the_record_in_pieces_and_leave_the_network_as_found_between_them(net, images):
    modes = [m.training for m in net.modules()]
    whole = activations.record(net, layers_of(net), images, 4, "cpu")
    places = []
    for place, means in activations.batches(net, layers_of(net), images, 4, "cpu"):
        places.append((place.start, place.stop))
        assert hooks_in(net) == 0 and [m.training for m in net.modules()] == modes
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        for name, mean in means.items():
            np.testing.assert_array_equal(mean, whole[name][place])
    assert places == [(0, 4), (4, 8), (8, 11)] and list(means) == list(whole) == ["b", "a", "fc"]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batch_size_changes_nothing(net, images, batch_size):
    one = activations.record(net, layers_of(net), images, 4, "cpu")
    other = activations.record(net, layers_of(net), images, batch_size, "cpu")
    for name in one:
        np.testing.assert_allclose(other[name], one[name], atol=1e-6)


def test_record_leaves_the_network_as_found(net, images):
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    activations.record(net, layers_of(net), images, 4, "cpu")
    assert hooks_in(net) == 0
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_record_cleans_up_after_an_error(net):
    modes = [m.training for m in net.modules()]
    too_small = np.zeros((2, 1, 1, 3), dtype=np.uint8)
    with pytest.raises(RuntimeError):
        activations.record(net, layers_of(net), too_small, 4, "cpu")
    assert hooks_in(net) == 0
    assert [m.training for m in net.modules()] == modes


def test_record_names_a_layer_that_is_never_called(net, images):
    with pytest.raises(ValueError, match="never calls skipped"):
        activations.record(net, {"a": net.a, "skipped": net.unused}, images, 4, "cpu")
    assert hooks_in(net) == 0


def test_record_refuses_other_images(net, images):
    with pytest.raises(ValueError, match=r"uint8.*float32"):
        activations.record(net, layers_of(net), images.astype(np.float32), 4, "cpu")
    with pytest.raises(ValueError, match="uint8"):
        activations.record(net, layers_of(net), images[:0], 4, "cpu")


def test_record_reads_a_read_only_array(net, images):
    images.flags.writeable = False
    assert activations.record(net, {"a": net.a}, images, 4, "cpu")["a"].shape == (11, 4)


# ------------------------------------------------------------- after BatchNorm, after the ReLU, probabilities


@pytest.fixture(scope="module")
def googlenet() -> nn.Module:
    network = networks.build("googlenet", num_classes=5, aux_logits=True)
    networks.initialise(network, seed=0)
    for module in network.modules():  # BatchNorm that does something
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    return network.eval()


def test_one_pass_records_convs_batchnorms_and_rectified_units(googlenet):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    units = networks.unit_layers(googlenet)
    norms, rectified = activations.batch_norm_layers(googlenet), activations.rectified_layers(googlenet)
    values = activations.record(googlenet, {**units, **norms, **rectified}, images, 4, "cpu")
    assert (len(units), len(norms), len(rectified), len(values)) == (58, 57, 57, 172)

    def in_front(name: str, x: torch.Tensor) -> torch.Tensor:
        """What a block is given: recorded with a forward pass of its own."""
        inputs = []
        hook = googlenet.get_submodule(name).register_forward_pre_hook(
            lambda module, args: inputs.append(args[0].clone())
        )
        googlenet(x)
        hook.remove()
        return inputs[0]

    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for name in ("conv1", "inception3a.branch3.1", "inception5b.branch4.1"):
            block = googlenet.get_submodule(name)
            conv = block.conv(in_front(name, x))
            norm = block.bn(conv)
            for recorded, expected in ((f"{name}.conv", conv), (f"{name}.bn", norm), (name, norm.relu())):
                np.testing.assert_allclose(values[recorded], expected.mean((2, 3)).numpy(), atol=1e-5)
            assert values[f"{name}.bn"].min() < 0 <= values[name].min()


def test_layers_of_the_network_without_batchnorm():
    network = networks.build("bvlc_googlenet", num_classes=5)
    assert activations.batch_norm_layers(network) == {}
    rectified = activations.rectified_layers(network)
    assert len(rectified) == 57 and isinstance(rectified["conv1"].conv, nn.Conv2d)


def test_probabilities_by_hand():
    logits = np.log(np.array([[1, 2, 5], [1, 1, 2]], np.float32))
    found = activations.probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 1 / 2]], rtol=1e-6)
    assert activations.probabilities(np.array([[1000, 0]], np.float32)).tolist() == [[1, 0]]


def test_tied_counts_the_extremes_that_share_a_value():
    # Ranked 9 7 7 5: two of four; 3 3 3 3: all; 4 3 2 1: none; a tie with an image outside does not count.
    values = np.array([[9, 7, 7, 5, 5, 0], [3, 3, 3, 3, 0, 0], [4, 3, 2, 1, 0, 0]], np.float32).T
    top, _ = activations.extremes(values, 4, activations.tie_keys(list("abcdef"), 0))
    assert activations.tied(values, top).tolist() == [0.5, 1, 0]


# ----------------------------------------------------------------------------------------------- extremes


def test_tie_keys_depend_on_name_and_seed_only():
    names = [f"n{i}/file.JPEG" for i in range(500)]
    keys = activations.tie_keys(names, seed=3)
    assert keys.dtype == np.uint64 and len(set(keys.tolist())) == 500
    np.testing.assert_array_equal(activations.tie_keys(names[::-1], seed=3), keys[::-1])
    assert not np.array_equal(activations.tie_keys(names, seed=4), keys)
    assert abs(np.corrcoef(np.arange(500), keys.argsort().argsort())[0, 1]) < 0.2  # not the file order


# Few distinct values, so that nearly everything is a tie; both zeros, both signs.
tied = st.lists(st.sampled_from([-2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0]), min_size=4, max_size=30)


@given(tied, st.integers(0, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_extremes_order_by_value_then_key_whatever_the_file_order(column, seed, data):
    n, k = len(column), data.draw(st.integers(1, len(column)))
    keys = activations.tie_keys([str(i) for i in range(n)], seed)
    values = np.array(column, dtype=np.float32)[:, None]
    top, bottom = activations.extremes(values, k, keys)
    ranked = sorted(range(n), key=lambda i: (values[i, 0], keys[i]))  # Python: -0.0 == 0.0
    assert bottom[0].tolist() == ranked[:k]
    assert top[0].tolist() == ranked[::-1][:k]

    order = np.random.default_rng(seed).permutation(n)
    top_moved, bottom_moved = activations.extremes(values[order], k, keys[order])
    np.testing.assert_array_equal(order[top_moved], top)
    np.testing.assert_array_equal(order[bottom_moved], bottom)


def test_extremes_of_many_units_agree_with_argsort():
    values = np.random.default_rng(0).standard_normal((300, 600)).astype(np.float32)  # more than one chunk
    top, bottom = activations.extremes(values, 20, activations.tie_keys([str(i) for i in range(300)], 0))
    ranked = values.argsort(axis=0).T
    np.testing.assert_array_equal(bottom, ranked[:, :20])
    np.testing.assert_array_equal(top, ranked[:, ::-1][:, :20])
    assert top.dtype == bottom.dtype == np.int64


def test_a_constant_unit_gets_random_disjoint_images():
    n, k = 400, 100
    keys = activations.tie_keys([str(i) for i in range(n)], 0)
    top, bottom = activations.extremes(np.zeros((n, 1), np.float32), k, keys)
    assert not set(top[0]) & set(bottom[0])
    # File order (the paper's trap) would give 0..99 and 300..399: means 49.5 and 349.5.
    assert abs(top[0].mean() - 199.5) < 60 and abs(bottom[0].mean() - 199.5) < 60


def test_extremes_refuse_what_they_cannot_rank():
    keys = activations.tie_keys(["a", "b", "c"], 0)
    values = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="k = 4 extremes of 3 images"):
        activations.extremes(values, 4, keys)
    with pytest.raises(ValueError, match="3 distinct keys, found 1"):
        activations.extremes(values, 1, np.zeros(3, np.uint64))
    values[2, 1] = np.nan
    with pytest.raises(ValueError, match="unit 1 on image 2 is nan"):
        activations.extremes(values, 1, keys)


def test_alive_means_more_than_one_value():
    values = np.array([[0, 1, 5, 0], [0, 1, 5, 0], [0, 1, 5 + 1e-6, 2e-8]])
    np.testing.assert_array_equal(activations.alive(values), [False, False, True, True])


# ------------------------------------------------------------------------------------- extremes of a stream


def stream(values: dict[str, np.ndarray], k: int, keys: np.ndarray, batches: list[np.ndarray]) -> activations.Extremes:
    found = activations.Extremes(k, keys)
    for images in batches:
        found.update(images, {layer: value[images] for layer, value in values.items()})
    return found


@given(
    st.lists(
        st.lists(st.sampled_from([-2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0]), min_size=3, max_size=3),
        min_size=4,
        max_size=40,
    ),
    st.integers(0, 10**6),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_a_stream_of_batches_gives_the_same_extremes(rows, seed, data):
    n, k = len(rows), data.draw(st.integers(1, len(rows)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))  # empty batches too
    keys = activations.tie_keys([str(i) for i in range(n)], seed)
    values = np.array(rows, np.float32)
    order = np.random.default_rng(seed).permutation(n)
    found = stream({"a": values, "b": values[:, :1]}, k, keys, np.split(order, cuts))
    for layer, value in (("a", values), ("b", values[:, :1])):
        top, bottom, alive = found.result(layer)
        expected_top, expected_bottom = activations.extremes(value, k, keys)
        np.testing.assert_array_equal(top, expected_top)
        np.testing.assert_array_equal(bottom, expected_bottom)
        np.testing.assert_array_equal(alive, activations.alive(value))
        assert top.dtype == bottom.dtype == np.int64


def test_a_long_stream_with_ties_over_many_units():
    rng = np.random.default_rng(0)
    values = rng.integers(-20, 20, (3000, 300)).astype(np.float32)  # some 75 images of every value
    values[:, 7] = 0  # dead
    values[:, 8] = 1e-9 * (np.arange(3000) == 5)  # as good as dead
    keys = activations.tie_keys([str(i) for i in range(3000)], 0)
    found = stream({"a": values}, 200, keys, np.array_split(np.arange(3000), 23))
    top, bottom, alive = found.result("a")
    expected = activations.extremes(values, 200, keys)
    np.testing.assert_array_equal(top, expected[0])
    np.testing.assert_array_equal(bottom, expected[1])
    assert np.flatnonzero(~alive).tolist() == [7, 8]


def test_the_state_of_imagenet_s_stream_is_less_than_50_mb():
    n = 1_281_167
    found = activations.Extremes(200, np.random.default_rng(0).permutation(n).astype(np.uint64))
    found.update(np.arange(3), {str(i): np.zeros((3, units), np.float32) for i, units in enumerate([7280, 1000])})
    arrays = [a for value in vars(found).values() for a in (value.values() if isinstance(value, dict) else [value])]
    assert sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) < 50e6


def test_a_stream_refuses_what_would_spoil_it():
    keys = activations.tie_keys(list("abcde"), 0)
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    with pytest.raises(ValueError, match="k = 6 extremes of 5 images"):
        activations.Extremes(6, keys)
    with pytest.raises(ValueError, match="5 distinct keys, found 1"):
        activations.Extremes(1, np.zeros(5, np.uint64))
    found = stream({"a": values}, 3, keys, [np.array([0, 1])])
    with pytest.raises(ValueError, match="k = 3 extremes of 2 images"):
        found.result("a")
    with pytest.raises(ValueError, match="came before"):
        found.update(np.array([1, 2]), {"a": values[1:3]})
    with pytest.raises(ValueError, match="came before"):
        found.update(np.array([2, 2]), {"a": values[[2, 2]]})
    broken = values.copy()
    broken[3, 1] = np.inf
    with pytest.raises(ValueError, match="activation of a unit 1 on image 3 is inf"):
        found.update(np.array([2, 3, 4]), {"a": broken[2:]})
    found.update(np.array([2, 3, 4]), {"a": values[2:]})  # a refused batch left nothing behind
    np.testing.assert_array_equal(found.result("a")[0], activations.extremes(values, 3, keys)[0])
