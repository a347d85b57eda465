"""Retraining: masks hold, seeds decide, an interruption costs little, and a network can learn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunelens.images.augmentation import augmented_batches
from prunelens.images.embedded import compose
from prunelens.images.imageset import ImageSet
from prunelens.networks import architectures
from prunelens.profile import Training
from prunelens.pruning import accuracy, masks, retraining
from prunelens.store import Arrays

TRAIN, VALIDATION = compose(32, 32, "train", 0), compose(16, 32, "validation", 0)
ADAM = {"optimizer": "adam", "schedule": "one_cycle", "learning_rate": 0.001}
RECIPE = Training(epochs=2, batch_size=16, learning_rate=0.02, smallest_crop=0.5)


def validate(network: nn.Module) -> dict[str, Any]:
    logits = accuracy.logits(network, VALIDATION, 16, "cpu")
    right, n = accuracy.class_counts(logits, VALIDATION)
    return {**accuracy.accuracy(logits, VALIDATION), "right": right, "of": n.tolist()}


class Case:
    """One retraining: of which network, how pruned, in which steps."""

    def __init__(self, small: Any, method: str = "connection_l1", rate: float = 0.8, n: int = 1, **recipe: Any) -> None:
        self.small, self.method = small, method
        self.recipe = RECIPE.model_copy(update=recipe)
        self.steps = retraining.steps(rate, self.recipe.epochs, n)
        self.seen: list[float] = []  # rates that were pruned

    def prune(self, network: nn.Module, rate: float, within: masks.Masks | None) -> masks.Masks:
        self.seen.append(rate)
        return self.small.prune(network, self.method, rate, within=within)

    def run(
        self,
        network: nn.Module | None = None,
        validate: Callable[[nn.Module], dict[str, Any]] = validate,
        images: ImageSet = TRAIN,
        **more: Any,
    ) -> Arrays:
        network = self.small.fresh() if network is None else network
        more = {"seed": 0, "device": "cpu", **more}
        return retraining.retrain(network, images, self.steps, self.prune, validate, self.recipe, **more)


def part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def assert_same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"epoch/seconds"}:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# Steps


def test_steps_prune_the_same_share_of_what_is_left_and_share_the_epochs() -> None:
    assert retraining.steps(0.8, 5, 1) == [(0.8, 5)]
    found = retraining.steps(0.936, 8, 3)
    assert [step.rate for step in found] == pytest.approx([0.6, 0.84, 0.936])
    assert found[-1].rate == 0.936 and [step.epochs for step in found] == [3, 2, 3]


@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.parametrize("epochs", range(8, 20))
def test_a_third_of_the_epochs_follows_the_last_mask(n: int, epochs: int) -> None:
    found = [step.epochs for step in retraining.steps(0.8, epochs, n)]
    assert sum(found) == epochs and len(found) == n and min(found) >= 1
    assert found[-1] >= max(epochs / 3, epochs / n) and max(found[:-1], default=0) <= found[-1]


def test_steps_follow_each_other(small: Any) -> None:
    case = Case(small, "structured_l1", epochs=3, n=2)
    network, validated = small.fresh(), []

    def watched(network: nn.Module) -> dict[str, Any]:
        validated.append(masks.sparsity(small.architecture, network)["conv_sparsity"])
        return validate(network)

    found = case.run(network, watched)
    assert case.seen == [step.rate for step in case.steps] and case.seen == pytest.approx([0.5528, 0.8], abs=1e-4)
    epochs = part(found, "epoch")
    assert epochs["epoch"].tolist() == [1, 2, 3] and epochs["step"].tolist() == [0, 1, 1]
    assert epochs["step_rate"].tolist() == [case.seen[0], 0.8, 0.8]
    assert epochs["learning_rate"].tolist() == pytest.approx([0.02, 0.02, 0.018]), "every step begins anew"
    assert validated[0] == pytest.approx(0.54, abs=0.03)
    assert validated[1] == validated[2] == pytest.approx(0.8, abs=0.03)
    for name, mask in part(found, "mask").items():
        assert not found[f"weight/{name}"][~mask].any()


def test_a_step_is_trained_as_if_alone_with_a_seed_of_its_own(googlenet: Any) -> None:
    whole = Case(googlenet, "structured_l1", n=2).run()
    network = googlenet.fresh()
    first = Case(googlenet, "structured_l1", epochs=1, rate=retraining.steps(0.8, 2, 2)[0].rate).run(network)
    within = {name: torch.from_numpy(mask) for name, mask in part(first, "mask").items()}
    case = Case(googlenet, "structured_l1", epochs=1)
    case.prune = lambda network, rate, _: googlenet.prune(network, "structured_l1", rate, within=within)
    second = case.run(network, seed=1000)
    for name in ("weight", "mask"):
        assert_same(part(whole, name), part(second, name))
    assert whole["epoch/loss"].tolist() == [*first["epoch/loss"], *second["epoch/loss"]]


def test_a_method_that_unprunes_stops_the_second_step(googlenet: Any, own: None) -> None:
    with pytest.raises(ValueError, match="weights that an earlier step pruned"):
        Case(googlenet, "own_methods.largest", n=2).run()


# Masks and weights


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", ["structured_l1", "connection_l1"])
def test_masked_weights_are_exactly_zero_after_training(small: Any, method: str, optimizer: str) -> None:
    found = Case(small, method, epochs=1, optimizer=optimizer, learning_rate=0.001).run()
    assert part(found, "mask").keys() == small.convs
    for name, mask in part(found, "mask").items():
        weight = found[f"weight/{name}"]
        assert not weight[~mask].any(), name
        assert (weight != small.network.get_parameter(name).detach().numpy())[mask].any(), name


def test_without_masks_connections_grow_back(googlenet: Any) -> None:
    case, network = Case(googlenet, epochs=1), googlenet.fresh()
    # At 64 pixels: the last maps of 32 are one pixel wide, and the rims of their 3x3 kernels never see anything.
    found = case.run(network, images=compose(48, 64, "train", 0), masked=False)
    assert masks.sparsity(googlenet.architecture, network)["conv_sparsity"] < 0.05
    assert sum((~mask).sum() for mask in part(found, "mask").values()) > 0, "its masks are kept all the same"


def test_prepare_comes_once_after_the_first_pruning_and_masks_hold(googlenet: Any) -> None:
    case, network, seen = Case(googlenet, "structured_l1", n=2), googlenet.fresh(), []

    def prepare(network: nn.Module) -> None:
        seen.append(list(case.seen))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data.fill_(0.01)

    case.run(network, prepare=prepare)
    assert seen == [[case.steps[0].rate]]
    assert masks.sparsity(googlenet.architecture, network)["conv_sparsity"] == pytest.approx(0.8, abs=0.03)


# Random numbers


def test_the_seed_decides_everything(small: Any) -> None:
    case = Case(small)
    torch.manual_seed(1)
    first = case.run()
    state = torch.manual_seed(2).get_state()
    second, third = case.run(), case.run(seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    assert_same(first, second)
    assert first["epoch/loss"].tolist() != third["epoch/loss"].tolist()
    assert not np.array_equal(first["weight/fc.weight"], third["weight/fc.weight"])


# Interruptions


class Killed(BaseException):
    pass


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps every epoch."""
    monkeypatch.setattr(retraining, "CHECKPOINT_SECONDS", 0)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("update", "killed_in"),
    [*(({}, epoch) for epoch in range(1, 6)), *((ADAM, epoch) for epoch in (3, 4))],
    ids=lambda value: value if isinstance(value, int) else value.get("optimizer", "sgd"),
)
def test_an_interrupted_retraining_goes_on_in_any_step(
    googlenet: Any, tmp_path: Path, update: dict[str, Any], killed_in: int
) -> None:
    checkpoint = tmp_path / "new" / "network.checkpoint"
    case = partial(Case, googlenet, "connection_random", epochs=5, n=2, **update)
    expected = straight(googlenet, **update)
    epochs = iter(range(1, 6))

    def dies(network: nn.Module) -> dict[str, Any]:
        if next(epochs) == killed_in:
            raise Killed
        return validate(network)

    with pytest.raises(Killed):
        case().run(validate=dies, checkpoint=checkpoint)
    kept = torch.load(checkpoint, weights_only=True)["rows"] if killed_in > 1 else []
    assert [row["epoch"] for row in kept] == [*range(1, killed_in)]
    again = case()
    found = again.run(checkpoint=checkpoint)
    assert_same(found, expected)
    assert found["epoch/seconds"][: len(kept)].tolist() == [row["seconds"] for row in kept], "trained again"
    # Killed in the first epoch of the second step, it prunes that step anew from the end of the first.
    assert len(again.seen) == {1: 2, 2: 1, 3: 1, 4: 0, 5: 0}[killed_in]
    assert [file.name for file in checkpoint.parent.iterdir()] == [checkpoint.name], "the caller removes it"


STRAIGHT: dict[str, Arrays] = {}


def straight(small: Any, **update: Any) -> Arrays:
    """The result without an interruption, computed once."""
    if str(update) not in STRAIGHT:
        STRAIGHT[str(update)] = Case(small, "connection_random", epochs=5, n=2, **update).run()
    return STRAIGHT[str(update)]


def test_the_end_of_a_step_is_kept_however_quick_it_was(googlenet: Any, tmp_path: Path) -> None:
    expected, checkpoint, calls = straight(googlenet), tmp_path / "network.checkpoint", iter(range(9))

    def dies(network: nn.Module) -> dict[str, Any]:
        if next(calls) == 3:  # the first epoch of the second step
            raise Killed
        return validate(network)

    case = partial(Case, googlenet, "connection_random", epochs=5, n=2)
    with pytest.raises(Killed):
        case().run(validate=dies, checkpoint=checkpoint)
    again = case()
    assert_same(again.run(checkpoint=checkpoint), expected)
    assert again.seen == [0.8]


@pytest.mark.usefixtures("always")
def test_a_finished_training_is_not_repeated_before_its_result_is_stored(
    googlenet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Case(googlenet).run(checkpoint=tmp_path / "checkpoint")
    monkeypatch.setattr(retraining, "augmented_batches", lambda *_: pytest.fail("trained again"))
    network = googlenet.fresh()
    assert_same(Case(googlenet).run(network, checkpoint=tmp_path / "checkpoint"), expected)
    assert torch.equal(network.fc.weight, torch.from_numpy(expected["weight/fc.weight"])) and not network.training


def test_quick_trainings_write_no_checkpoint(googlenet: Any, tmp_path: Path) -> None:
    Case(googlenet, epochs=1).run(checkpoint=tmp_path / "checkpoint")
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


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_ignored(
    googlenet: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    case, checkpoint = Case(googlenet, epochs=1), tmp_path / "network.checkpoint"
    expected = case.run(checkpoint=checkpoint)
    DAMAGES[damage](checkpoint)
    found = case.run(checkpoint=checkpoint)
    assert f"{checkpoint} is no checkpoint to go on from" in caplog.text
    assert_same(found, expected)
    assert found["epoch/seconds"][0] != expected["epoch/seconds"][0], "trained anew"


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("other", [{"learning_rate": 0.001}, {"n": 2, "epochs": 2}, {"rate": 0.5}])
def test_a_checkpoint_of_another_training_is_said_and_ignored(
    googlenet: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "network.checkpoint"
    Case(googlenet, **{"epochs": 1, **other}).run(checkpoint=checkpoint)
    found = Case(googlenet, epochs=1).run(checkpoint=checkpoint)
    assert "it is of another training" in caplog.text
    assert_same(found, Case(googlenet, epochs=1).run())


# Learning


def test_the_table_has_a_row_for_every_epoch_and_what_validation_says(small: Any) -> None:
    network = small.fresh()
    epochs = part(Case(small).run(network), "epoch")
    assert epochs["epoch"].tolist() == [1, 2]
    assert epochs["learning_rate"].tolist() == pytest.approx([0.02, 0.018])
    assert ((epochs["train_top1"] >= 0) & (epochs["train_top1"] <= 1)).all() and (epochs["seconds"] > 0).all()
    assert not epochs["bfloat16"].any()
    for name, value in validate(network).items():
        np.testing.assert_array_equal(epochs[name][-1], value)
    assert epochs["right"].shape == epochs["of"].shape == (2, 100) and epochs["right"].dtype == np.int64


def test_loss_falls_when_a_few_images_are_learned_by_heart(googlenet: Any) -> None:
    case = Case(googlenet, rate=0.1, epochs=30, batch_size=8, learning_rate=0.05, smallest_crop=1.0)
    loss = case.run(validate=lambda network: {}, images=compose(8, 32, "train", 0))["epoch/loss"]
    assert loss[-1] < 0.4 * loss[0]


def test_auxiliary_heads_add_their_loss() -> None:
    torch.manual_seed(0)
    network = architectures.load("googlenet").build(8, aux=True)
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    outputs = network.train()(images)
    known = torch.arange(8)
    alone, _ = retraining._loss(outputs, labels, known, 0.0)
    both, _ = retraining._loss(outputs, labels, known, 0.3)
    heads = [nn.functional.cross_entropy(head, labels) for head in outputs]
    assert torch.isclose(alone, heads[0]) and torch.isclose(both, heads[0] + 0.3 * (heads[1] + heads[2]))


def test_the_loss_is_among_the_datas_own_classes() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0]])  # output 0 is none of theirs
    loss, known = retraining._loss(logits, torch.tensor([1]), torch.tensor([1, 2]), 0.0)
    assert known.tolist() == [[1.0, 2.0]] and loss.item() == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-6)


def test_divergence_is_said(bvlc: Any) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is .*; lower the learning rate"):
        Case(bvlc, learning_rate=1e6).run()


# Recalibration


def test_recalibration_moves_batchnorm_statistics_alone_and_repairs_them(googlenet: Any) -> None:
    network = googlenet.fresh()
    reference = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    retraining.recalibrate(network, TRAIN, RECIPE, 0, "cpu")
    after = network.state_dict()
    moved = {name.rsplit(".", 1)[1] for name in after if not torch.equal(after[name], reference[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    # The first BatchNorm sees conv1's outputs: its statistics are theirs, averaged over the batches.
    batches = augmented_batches(TRAIN, 16, 0.5, torch.Generator().manual_seed(0), "cpu")
    with torch.no_grad():
        means = [network.conv1.conv(network._transform_input(images)).mean((0, 2, 3)) for images, _ in batches]
    assert len(means) == 2
    assert torch.allclose(network.conv1.bn.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert network.conv1.bn.momentum == 0.1 and not network.conv1.bn.training


def test_recalibration_needs_batchnorm(bvlc: Any) -> None:
    with pytest.raises(ValueError, match="BVLCGoogLeNet has no BatchNorm"):
        retraining.recalibrate(bvlc.fresh(), TRAIN, RECIPE, 0, "cpu")


@pytest.mark.parametrize("able", [True, False])
def test_the_epochs_say_which_precision_ran(googlenet: Any, monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    found = Case(googlenet, epochs=1, precision="bfloat16").run(validate=lambda network: {})
    assert found["epoch/bfloat16"].tolist() == [able]
