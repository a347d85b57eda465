"""Weights: drawn, loaded, and what happens to wrong ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thin import NAMES
from torch import Tensor, nn

from prunelens.networks import architectures, weights


def build(name: str = "googlenet", outputs: int = 10, aux: bool = False) -> nn.Module:
    return architectures.load(name).build(outputs, 1.0 if name.startswith("bvlc") else 0.25, aux)


def store(state: dict[str, Tensor], file: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return file


def test_initialize_follows_the_seed() -> None:
    one, same, other = build(), build(), build()
    for network, seed in ((one, 0), (same, 0), (other, 1)):
        weights.initialize(network, seed)
    assert torch.equal(one.fc.weight, same.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_a_file(name: str, tmp_path: Path) -> None:
    network, copy = build(name), build(name)
    weights.load_weights(copy, store(network.state_dict(), tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, copy.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_may_have_the_prefixes_of_wrappers(prefix: str) -> None:
    network, copy = build(), build()
    weights.load_state(copy, {prefix + name: tensor for name, tensor in network.state_dict().items()}, "here")
    assert torch.equal(network.fc.weight, copy.fc.weight)


def test_auxiliary_heads_stay_as_they_are() -> None:
    plain, with_heads = build(), build(aux=True)
    head = with_heads.aux1.fc2.weight.clone()
    weights.load_state(with_heads, plain.state_dict(), "here")
    assert torch.equal(plain.fc.weight, with_heads.fc.weight) and torch.equal(with_heads.aux1.fc2.weight, head)
    weights.load_state(plain, with_heads.state_dict(), "here")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = store(build("bvlc_googlenet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors holds weights of another architecture than GoogLeNet.*bn"):
        weights.load_weights(build(), file)


def test_weights_for_other_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fc\.bias: found \(8,\), expected \(10,\)"):
        weights.load_state(build(), build(outputs=8).state_dict(), "here")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    state = build().state_dict()
    state["conv2.bn.bias"] = state["conv2.bn.bias"].clone().fill_(value)
    with pytest.raises(ValueError, match=r"here: conv2\.bn\.bias has values that are not finite"):
        weights.load_state(build(), state, "here")


def test_integers_and_zeros_are_refused() -> None:
    state = build().state_dict()
    with pytest.raises(ValueError, match=r"here: found fc\.weight of type torch\.int8, expected floating-point"):
        weights.load_state(build(), {**state, "fc.weight": state["fc.weight"].to(torch.int8)}, "here")
    with pytest.raises(ValueError, match="here: all weights are zero"):
        weights.load_state(build(), {name: torch.zeros_like(tensor) for name, tensor in state.items()}, "here")


def test_half_precision_is_loaded() -> None:
    network, copy = build(), build()
    weights.load_state(copy, network.half().state_dict(), "here")
    assert copy.fc.weight.dtype == torch.float32 and torch.equal(copy.fc.weight, network.fc.weight.float())


def test_missing_truncated_and_pickled_weights(tmp_path: Path) -> None:
    network, file = build(), tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="absent"):
        weights.load_weights(network, tmp_path / "absent.safetensors")
    store(network.state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="is damaged"):
        weights.load_weights(network, file)
    with pytest.raises(ValueError, match=r"w\.pth, expected a safetensors file; to convert a state dict: .*save_file"):
        weights.load_weights(network, file.rename(tmp_path / "w.pth"))
