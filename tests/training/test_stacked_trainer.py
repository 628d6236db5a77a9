"""Models that are trained as one computation become what each would become by itself."""

from pathlib import Path

import pytest
import torch

from reference.timm_families import FAMILIES
from vitarium import Blueprint, plan
from vitarium.data.loader import stacked_batches
from vitarium.training import Stepped, Task, TrainOptions, stack_key, train, train_together
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

STEPS = 9
"""Three epochs."""


class Killed(Exception):
    pass


def specs(tiny, grid, epochs=2, **changes):
    """The models of a grid over the tiny blueprint's first stage."""
    stage = tiny["stages"]["pretrain"]
    tiny["stages"] = {"pretrain": {**stage, "epochs": epochs, **changes, "grid": grid}}
    return plan(Blueprint.read(tiny)).models


EVERYTHING_OWN = {
    "seed": [1, 2],
    "head": ["linear", {"name": "mlp", "hidden_dim": 12}],
    "optimizer": [
        {"name": "adamw", "lr": 3e-3, "weight_decay": 0.1},
        {"name": "adamw", "lr": 1e-3, "betas": [0.8, 0.99]},
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
        {"name": "sgd", "lr": 0.1},
    ],
}


def members(models, path: Path):
    return [TrainState(m, ModelFolder(path / m.id), None, TrainOptions()) for m in models]


def losses(trainer, over, steps):
    """Losses [steps, k] on as many epochs as that takes."""
    found, epoch = [], 0
    while len(found) < steps:
        epoch += 1
        trainer.training_mode()
        for number, batch in enumerate(stacked_batches([m.batches for m in over], epoch)):
            found.append(trainer.step(batch, epoch, number)["loss"])
    return torch.stack(found[:steps])


@pytest.mark.parametrize("steps", [STEPS, pytest.param(40, marks=pytest.mark.evidence)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_grad_norm": 0.5, "schedule": {"name": "cosine", "warmup_epochs": 1}},
        {"clip_grad_value": 1e-3},
        {"trainable": "head"},
        {"objective": {"name": "simclr", "out_dim": 8}, "augmentation": "simclr"},
        {"architecture": {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1,
                          "embed_dim": 16, "depth": 2, "num_heads": 2, "reg_tokens": 1}},
        {"augmentation": {"name": "standard", "mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}},
    ],
    ids=["plain", "clipped", "clipped-values", "head-only", "simclr", "deeper", "mixed"],
)  # fmt: skip
def test_loss_curves_are_those_of_models_trained_by_themselves(tiny, tmp_path, changes, steps):
    models = specs(tiny, EVERYTHING_OWN, epochs=14, **changes)
    assert len(models) == 16
    assert len({stack_key(model) for model in models}) == 1
    stacked = members(models, tmp_path / "stacked")
    together_ = losses(StackedTrainer(stacked, TrainOptions()), stacked, steps)
    for k in range(0, len(models), 3):  # every head and every optimizer
        (member,) = members(models[k : k + 1], tmp_path / "alone")
        alone = losses(Trainer([member], TrainOptions()), [member], steps)
        assert torch.allclose(together_[:, k], alone[:, 0], rtol=1e-4)
        assert alone[0] != alone[-1]


def test_statistics_of_batch_norms_are_those_of_models_trained_by_themselves(tiny, tmp_path):
    overrides, _ = FAMILIES["levit_256d"]
    levit = {"name": "timm", "model": "levit_256d", **overrides, "img_size": 32, "in_chans": 1}
    models = specs(tiny, {"seed": [1, 2]}, epochs=1, architecture=levit, batch_size=64)
    assert len({stack_key(model) for model in models}) == 1
    stacked = members(models, tmp_path / "stacked")
    losses(StackedTrainer(stacked, TrainOptions()), stacked, 1)
    (alone,) = members(models[1:], tmp_path / "alone")
    losses(Trainer([alone], TrainOptions()), [alone], 1)
    ours, expected = (dict(member.model.named_buffers()) for member in (stacked[1], alone))
    start = dict(members(models[1:], tmp_path / "start")[0].model.named_buffers())
    assert not torch.equal(
        expected["stem.conv1.bn.running_var"], start["stem.conv1.bn.running_var"]
    )
    for name, statistic in expected.items():
        torch.testing.assert_close(ours[name], statistic, rtol=1e-4, atol=1e-4)


def test_models_of_a_stack_differ_from_each_other(tiny, tmp_path):
    stacked = members(specs(tiny, EVERYTHING_OWN), tmp_path)
    found = losses(StackedTrainer(stacked, TrainOptions()), stacked, 6)
    assert len(set(found[-1].tolist())) == 16


def grown(models, path: Path, report=lambda event: None):
    tasks = [Task(model, ModelFolder(path / model.id)) for model in models]
    outcomes = train_together(tasks, report=report)
    return {task.spec.id: task.folder for task in tasks}, outcomes


def without_key_bias(name, tensor):
    """The softmax does not see it: its gradients are rounding alone, which Adam makes steps of."""
    if not name.endswith("attn.qkv.bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat((query, value))


def assert_close(one: ModelFolder, other: ModelFolder):
    assert [e.number for e in one.epochs()] == [e.number for e in other.epochs()]
    for epoch in (epoch for epoch in one.epochs() if epoch.checkpoint):
        ours, theirs = one.weights(epoch.number), other.weights(epoch.number)
        assert ours.keys() == theirs.keys()
        for name in ours:
            both = (without_key_bias(name, weights[name]) for weights in (ours, theirs))
            assert torch.allclose(*both, atol=2e-5), (epoch.number, name)
    for ours, theirs in zip(one.epochs(), other.epochs(), strict=True):
        assert ours.metrics.keys() == theirs.metrics.keys()
        loss = ours.metrics["val_loss"]
        assert loss == pytest.approx(theirs.metrics["val_loss"], rel=1e-3)


@pytest.fixture
def whole(tiny, build_once):
    """Models and their folders, trained as one stack without a break; to be read."""
    models = specs(tiny, EVERYTHING_OWN)

    def build(folder):
        _, outcomes = grown(models, folder)
        assert set(outcomes.values()) == {"finished"}

    path = build_once("stack", build)
    return {model: ModelFolder(path / model.id) for model in models}


def test_folders_hold_what_training_alone_writes(whole, tmp_path):
    for model, folder in list(whole.items())[::3]:
        own = ModelFolder(tmp_path / model.id)
        train(model, own)
        assert_close(folder, own)
        assert folder.result() == own.result()


def test_a_stack_that_is_stopped_goes_on_with_the_same_bits(whole, tmp_path):
    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    with pytest.raises(Killed):
        grown(whole, tmp_path, kill)
    again, _ = grown(whole, tmp_path)
    for model, folder in whole.items():
        assert again[model.id].checkpoint() == folder.checkpoint()


def test_state_that_an_optimizer_adds_to_its_groups_survives_a_break(tiny, tmp_path):
    optimizers = [{"name": "adan", "lr": rate} for rate in (1e-3, 1e-4)]
    models = specs(tiny, {"optimizer": [*optimizers, {"name": "lion", "betas": [0.8, 0.9]}]})
    assert len({stack_key(model) for model in models}) == 1

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    with pytest.raises(Killed):
        grown(models, tmp_path / "broken", kill)
    broken, _ = grown(models, tmp_path / "broken")
    unbroken, _ = grown(models, tmp_path / "unbroken")
    for model in models:
        assert broken[model.id].checkpoint() == unbroken[model.id].checkpoint()
        if model.recipe.optimizer.name == "adan":
            train(model, ModelFolder(tmp_path / "singly" / model.id))
            assert_close(broken[model.id], ModelFolder(tmp_path / "singly" / model.id))


@pytest.mark.parametrize("company", [[0], [0, 1], [3, 7, 9, 12, 15]])
def test_on_cpus_the_bits_do_not_depend_on_who_else_is_in_the_stack(tiny, tmp_path, company):
    models = specs(tiny, EVERYTHING_OWN, epochs=8)
    all_of_them, some = (
        members(chosen, tmp_path / name)
        for name, chosen in (("all", models), ("some", [models[k] for k in company]))
    )
    expected = losses(StackedTrainer(all_of_them, TrainOptions()), all_of_them, STEPS)[:, company]
    assert torch.equal(losses(StackedTrainer(some, TrainOptions()), some, STEPS), expected)


def test_a_model_begun_in_a_stack_goes_on_alone_to_the_bits_of_the_stack(whole, tmp_path):
    def kill(event):
        if isinstance(event, Stepped) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        grown(whole, tmp_path, kill)
    for model in list(whole)[::3]:
        folder = ModelFolder(tmp_path / model.id)
        assert folder.epochs()[-1].number == 1
        train(model, folder)
        assert folder.checkpoint() == whole[model].checkpoint()


def test_models_that_have_finished_different_epochs_go_on_from_their_own(tiny, tmp_path):
    first, second, third = specs(tiny, {"seed": [1, 2, 3]}, epochs=3)

    def kill(event):
        if isinstance(event, Stepped) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(first, ModelFolder(tmp_path / first.id), report=kill)
    train(second, ModelFolder(tmp_path / second.id))
    folders, outcomes = grown([first, second, third], tmp_path)
    assert outcomes == dict.fromkeys((first.id, second.id, third.id), "finished")
    for model in (first, third):
        own = ModelFolder(tmp_path / "alone" / model.id)
        train(model, own)
        assert_close(folders[model.id], own)


def test_a_model_that_diverges_leaves_and_the_others_go_on(tiny, tmp_path):
    rates = [{"name": "sgd", "lr": lr} for lr in (0.01, 1e30, 0.1)]
    models = specs(tiny, {"optimizer": rates}, epochs=3, checkpoints="last")
    folders, outcomes = grown(models, tmp_path / "stacked")
    assert [outcomes[m.id] for m in models] == ["finished", "diverged", "finished"]
    diverged = folders[models[1].id]
    assert "in epoch 1" in diverged.result()["message"]
    kept = diverged.weights()
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    for model in (models[0], models[2]):
        own = ModelFolder(tmp_path / "alone" / model.id)
        train(model, own)
        assert_close(folders[model.id], own)


def test_when_all_diverge_the_stack_ends(tiny, tmp_path):
    models = specs(tiny, {"seed": [1, 2]}, optimizer={"name": "sgd", "lr": 1e30})
    _, outcomes = grown(models, tmp_path)
    assert set(outcomes.values()) == {"diverged"}


@pytest.mark.parametrize(
    ("factor", "values"),
    [
        ("batch_size", [16, 32]),
        ("data.train_limit", [64, 96]),
        ("architecture.depth", [1, 2]),
        ("augmentation.padding", [0, 1]),
        ("epochs", [1, 2]),
        ("trainable", ["all", "head"]),
    ],
)
def test_models_that_cannot_share_a_computation_have_other_keys(tiny, factor, values):
    one, other = specs(tiny, {factor: values})
    assert stack_key(one) != stack_key(other)


@pytest.mark.parametrize("rate", ["drop_rate", "drop_path_rate", "attn_drop_rate"])
def test_models_that_draw_at_random_in_training_are_not_stacked(tiny, rate):
    (model,) = specs(tiny, {"architecture.depth": [2], f"architecture.{rate}": [0.1]})
    assert stack_key(model) is None
