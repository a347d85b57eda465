"""What a method is offered: images, gradients, and only what it declares."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from prunelens.images.imageset import ImageSet
from prunelens.pruning.context import Context


@pytest.fixture
def context(small: Any) -> Context:
    return replace(small.context()(small.fresh().eval()), needs=("images",))


def test_layers_are_the_prunable_convs_in_order(small: Any, context: Context) -> None:
    assert list(context.layers) == [f"{name}.weight" for name in small.architecture.prunable(small.network)]
    assert all(context.network.get_parameter(name) is layer.weight for name, layer in context.layers.items())


def test_images_are_batches_that_the_network_takes(small: Any, context: Context) -> None:
    images, labels = context.images()
    assert images.shape == (24, 3, 32, 32) and images.dtype == torch.float32 and 0 <= images.min() < images.max() <= 1
    assert labels.tolist() == small.images.labels.tolist()


def test_gradients_are_those_of_the_loss_among_the_datas_classes(small: Any) -> None:
    whole = small.images
    images = ImageSet(whole.images, whole.labels % 3, whole.names, list("abc"), torch.tensor([5, 0, 2]).numpy())
    context = Context(small.fresh().eval(), small.architecture, 0, lambda: images, dict, ("images",))
    batch, labels = context.images()
    with torch.no_grad():  # as a method may be called
        found = context.gradients()
    reference = small.fresh().eval()
    functional.cross_entropy(reference(batch)[:, [5, 0, 2]], labels).backward()
    assert found.keys() == dict(reference.named_parameters()).keys()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)
    assert context.gradients() is found, "computed once"
    assert all(parameter.grad is None for parameter in context.network.parameters())


def test_generator_follows_the_seed(small: Any) -> None:
    one, same, other = (small.context(seed)(small.network) for seed in (0, 0, 1))
    drawn = [torch.rand(3, generator=each.generator).tolist() for each in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_kept_is_all_in_a_first_step(context: Context) -> None:
    name = next(iter(context.layers))
    assert context.kept(name).all() and context.kept(name).shape == context.layers[name].weight.shape
    before = {name: torch.zeros_like(context.kept(name))}
    assert replace(context, before=before).kept(name) is before[name]


def test_what_is_not_declared_is_not_given(small: Any) -> None:
    context = small.context()(small.network)
    for ask in (context.images, context.gradients, lambda: context.tolerated):
        with pytest.raises(ValueError, match=r"the method asks for (images|sensitivity), found needs=\(\)"):
            ask()
    assert replace(context, needs=("sensitivity",)).tolerated
