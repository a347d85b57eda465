"""Retraining: masks hold, seeds decide, an interruption costs little, and a network can learn."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from prunelens import evaluation, networks, pruning, textures, training
from prunelens.profiles import Training

CPU = torch.device("cpu")
TRAIN, VALIDATION = textures.compose(48, 32, "train", 0), textures.compose(16, 32, "validation", 0)
RECIPE = Training(epochs=2, batch_size=16, learning_rate=0.02, smallest_crop=0.5)
ONE_EPOCH = RECIPE.model_copy(update={"epochs": 1})


def validate(network: nn.Module) -> dict[str, float]:
    return evaluation.accuracy(evaluation.logits(network, VALIDATION, 16, CPU), VALIDATION)


def dense(architecture: str = "googlenet") -> nn.Module:
    network = networks.build(architecture, 8)
    networks.initialise(network, 0)
    return network


def train(
    network: nn.Module, recipe: Training = RECIPE, masks: pruning.Masks | None = None, seed: int = 0
) -> pd.DataFrame:
    return training.train(network, TRAIN, validate, recipe, seed=seed, device=CPU, masks=masks)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", ["structured_l1", "connection_l1"])
def test_masked_weights_are_exactly_zero_after_training(method: str, optimizer: str) -> None:
    network = dense()
    masks = pruning.prune(network, pruning.METHODS[method], 0.8, 0)
    before = {name: layer.weight.detach().clone() for name, layer in networks.prunable_layers(network).items()}
    train(network, RECIPE.model_copy(update={"optimizer": optimizer, "learning_rate": 0.001}), masks)
    for name, layer in networks.prunable_layers(network).items():
        mask = masks[f"{name}.weight"]
        assert not layer.weight[~mask].any(), name
        assert (layer.weight != before[name])[mask].any(), name


def test_without_masks_connections_grow_back() -> None:
    network = dense()
    pruning.prune(network, pruning.connection_l1, 0.8, 0)
    assert pruning.sparsity(network)["conv_sparsity"] > 0.79
    # At 64 pixels: the last maps of 32 are one pixel wide, and the rims of their 3x3 kernels never see anything.
    images = textures.compose(48, 64, "train", 0)
    once = RECIPE.model_copy(update={"epochs": 1})
    training.train(network, images, validate, once, seed=0, device=CPU)
    assert pruning.sparsity(network)["conv_sparsity"] < 0.05


def test_the_seed_decides_everything() -> None:
    torch.manual_seed(1)
    one = dense()
    first = train(one)
    torch.manual_seed(2)
    same, other = dense(), dense()
    second, third = train(same), train(other, seed=1)
    timeless = [column for column in first if column != "seconds"]
    pd.testing.assert_frame_equal(first[timeless], second[timeless])
    assert torch.equal(one.fc.weight, same.fc.weight) and not torch.equal(one.fc.weight, other.fc.weight)
    assert not first.train_loss.equals(third.train_loss)


class Killed(BaseException):
    pass


def resumed(
    network: nn.Module, recipe: Training, masks: pruning.Masks, checkpoint: Path | None, validate: Callable = validate
) -> pd.DataFrame:
    options = {"seed": 0, "device": CPU, "masks": masks, "checkpoint": checkpoint}
    return training.train(network, TRAIN, validate, recipe, **options)


def pruned() -> tuple[nn.Module, pruning.Masks]:
    network = dense()
    return network, pruning.prune(network, pruning.connection_l1, 0.8, 0)


def assert_same_training(one: tuple[nn.Module, pd.DataFrame], other: tuple[nn.Module, pd.DataFrame]) -> None:
    pd.testing.assert_frame_equal(one[1].drop(columns="seconds"), other[1].drop(columns="seconds"), check_exact=True)
    states = one[0].state_dict(), other[0].state_dict()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    "update",
    [{}, {"optimizer": "adam", "schedule": "one_cycle", "learning_rate": 0.001}],
    ids=["sgd, exponential", "adam, one cycle"],
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch, update: dict) -> None:
    recipe, checkpoint = RECIPE.model_copy(update={"epochs": 3, **update}), tmp_path / "new" / "network.checkpoint"
    straight, masks = pruned()
    expected = resumed(straight, recipe, masks, None)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    epochs = iter([1, 2, 3])

    def killed_in_epoch_3(network: nn.Module) -> dict[str, float]:
        if next(epochs) == 3:
            raise Killed
        return validate(network)

    with pytest.raises(Killed):
        resumed(pruned()[0], recipe, masks, checkpoint, killed_in_epoch_3)
    kept = torch.load(checkpoint, weights_only=True)["rows"]
    assert [row["epoch"] for row in kept] == [1, 2]
    network = dense()
    found = resumed(network, recipe, masks, checkpoint)
    assert_same_training((network, found), (straight, expected))
    assert found.seconds[:2].tolist() == [row["seconds"] for row in kept], "no epoch was trained again"
    assert [file.name for file in checkpoint.parent.iterdir()] == [checkpoint.name], "the caller removes it"


def test_a_finished_training_is_not_repeated_before_its_result_is_stored(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    (network, masks), (again, _) = pruned(), pruned()
    expected = resumed(network, ONE_EPOCH, masks, tmp_path / "checkpoint")
    monkeypatch.setattr(training, "_batches", lambda *_: pytest.fail("trained again"))
    found = resumed(again, ONE_EPOCH, masks, tmp_path / "checkpoint")
    assert_same_training((again, found), (network, expected))


def test_quick_trainings_write_no_checkpoint(tmp_path: Path) -> None:
    network, masks = pruned()
    resumed(network, ONE_EPOCH, masks, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # in a weight, where torch.load would not notice
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "empty": lambda file: file.write_bytes(b""),
    "no checkpoint": lambda file: torch.save({"weights": torch.zeros(2)}, file),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_ignored(tmp_path: Path, monkeypatch, caplog, damage: str) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    (network, masks), (again, _), checkpoint = pruned(), pruned(), tmp_path / "network.checkpoint"
    expected = resumed(network, ONE_EPOCH, masks, checkpoint)
    DAMAGES[damage](checkpoint)
    found = resumed(again, ONE_EPOCH, masks, checkpoint)
    assert f"{checkpoint} is no checkpoint to go on from" in caplog.text
    assert_same_training((again, found), (network, expected))
    assert found.seconds[0] != expected.seconds[0], "trained anew"


def test_a_checkpoint_of_another_training_is_said_and_ignored(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    (network, masks), (again, _), checkpoint = pruned(), pruned(), tmp_path / "network.checkpoint"
    resumed(dense("bvlc_googlenet"), ONE_EPOCH.model_copy(update={"learning_rate": 0.001}), {}, checkpoint)
    found = resumed(again, ONE_EPOCH, masks, checkpoint)
    assert "it is of another training" in caplog.text
    assert_same_training((again, found), (network, resumed(network, ONE_EPOCH, masks, None)))


def test_recalibration_moves_batchnorm_statistics_alone_and_repairs_them() -> None:
    network = dense()
    reference = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training.recalibrate(network, TRAIN, RECIPE, 0, CPU)
    after = network.state_dict()
    moved = {name.rsplit(".", 1)[1] for name in after if not torch.equal(after[name], reference[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    # The first BatchNorm sees conv1's outputs: its statistics are theirs, averaged over the three batches.
    batches = list(training._batches(TRAIN, RECIPE, torch.Generator().manual_seed(0), CPU))
    with torch.no_grad():
        means = [network.conv1.conv(network._transform_input(images)).mean((0, 2, 3)) for images, _ in batches]
    assert torch.allclose(network.conv1.bn.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert network.conv1.bn.momentum == 0.1 and not network.conv1.bn.training


def test_recalibration_needs_batchnorm() -> None:
    with pytest.raises(ValueError, match="BVLCGoogLeNet has no BatchNorm"):
        training.recalibrate(dense("bvlc_googlenet"), TRAIN, RECIPE, 0, CPU)


def test_a_learning_rate_that_goes_on_falling() -> None:
    network = dense()
    table = training.train(network, TRAIN, validate, RECIPE, seed=0, device=CPU, first_epoch=3)
    assert table.learning_rate.tolist() == pytest.approx([0.02 * 0.9**3, 0.02 * 0.9**4])


def test_the_table_has_a_row_for_every_epoch_and_what_validation_says() -> None:
    network = dense()
    table = train(network)
    assert table.epoch.tolist() == [1, 2]
    assert table.learning_rate.tolist() == pytest.approx([0.02, 0.018])
    last = validate(network)
    assert table[[*last]].iloc[-1].to_dict() == last


def test_loss_falls_when_a_few_images_are_learnt_by_heart() -> None:
    few = textures.compose(8, 32, "train", 0)
    recipe = Training(epochs=25, batch_size=8, learning_rate=0.05, smallest_crop=1.0)
    table = training.train(dense(), few, validate, recipe, seed=0, device=CPU)
    assert table.train_loss.iloc[-1] < 0.3 * table.train_loss.iloc[0]


def test_auxiliary_heads_add_their_loss() -> None:
    network = networks.GoogLeNet(8, aux_logits=True)
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    outputs = network.train()(images)
    known = torch.arange(8)
    alone, _ = training._loss(outputs, labels, known, 0.0)
    both, _ = training._loss(outputs, labels, known, 0.3)
    heads = [nn.functional.cross_entropy(head, labels) for head in outputs]
    assert torch.isclose(alone, heads[0]) and torch.isclose(both, heads[0] + 0.3 * (heads[1] + heads[2]))


def test_divergence_is_said() -> None:
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(dense("bvlc_googlenet"), RECIPE.model_copy(update={"learning_rate": 1e6}))


def test_augmentation_of_whole_images_only_flips() -> None:
    images = torch.rand(16, 3, 8, 8)
    seen = training.augment(images, 1.0, torch.Generator().manual_seed(0))

    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    constant = torch.full((4, 3, 8, 8), 0.25)
    assert torch.allclose(training.augment(constant, 0.1, torch.Generator()), constant)
