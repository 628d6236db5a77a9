"""Steps of a single model: second passes, and parts of a model that act after steps."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from vitarium import Blueprint, plan
from vitarium.blueprint.moving_average import Ema
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.data.loader import stacked_batches
from vitarium.training import Stepped, TrainOptions, stack_key, train
from vitarium.training._moving_average import MovingAverage
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

EXPERTS = {
    "name": "ewa_vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_experts": 3,
}


class Killed(Exception):
    pass


def spec(tiny, architecture=None, **changes):
    stage = tiny["stages"]["pretrain"] | {"architecture": EXPERTS | (architecture or {})} | changes
    stage.pop("grid")
    return plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models[0]


def test_experts_are_averaged_after_every_step_of_the_optimiser(tiny, tmp_path):
    def stepped(rate):
        own = spec(tiny, {"share_rate": rate}, optimizer={"name": "sgd", "lr": 0.1})
        member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
        alone = Trainer([member], TrainOptions())
        alone.training_mode()
        batch = next(stacked_batches([member.batches], 1))
        alone.step(batch, 1, 0)
        return [e.fc1.weight.detach().double() for e in member.model.blocks[1].mlp.experts]

    apart, drawn = torch.stack(stepped(0.0)), torch.stack(stepped(0.5))
    assert (apart - apart.mean(0)).abs().max() > 1e-5
    assert torch.allclose(drawn, (apart + apart.mean(0)) / 2, atol=1e-7)


def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path):
    own = spec(tiny)

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    broken, whole = (ModelFolder(tmp_path / name / own.id) for name in ("broken", "whole"))
    with pytest.raises(Killed):
        train(own, broken, report=kill)
    train(own, broken)
    train(own, whole)
    assert broken.checkpoint() == whole.checkpoint()
    experts = [whole.weights()[f"blocks.1.mlp.experts.{k}.fc1.weight"] for k in range(3)]
    assert not torch.equal(experts[0], experts[1])


def test_a_probe_on_frozen_experts_leaves_them_as_they_were(tiny, tmp_path):
    own = spec(tiny, trainable="head", initialization="xavier_normal")
    folder = ModelFolder(tmp_path / own.id)
    train(own, folder)
    first, last = folder.weights(0), folder.weights()
    names = [name for name in first if "experts" in name]
    assert names
    assert all(torch.equal(first[name], last[name]) for name in names)


def test_models_that_act_after_steps_are_not_stacked(tiny, tmp_path):
    own = spec(tiny)
    assert stack_key(own) is None
    member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
    stack = StackedTrainer([member], TrainOptions())
    stack.training_mode()
    with pytest.raises(RuntimeError, match="random"):
        stack.step(next(stacked_batches([member.batches], 1)), 1, 0)


def test_no_shortcut_keeps_tokens_from_experts(tiny, tmp_path):
    own = spec(tiny)
    member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
    seen = []
    experts = member.model.blocks[-1].mlp
    experts.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    member.model(torch.zeros(2, 1, 8, 8))
    assert seen == [(2, 5, 16)]


def trainer_of(tiny, path, **changes):
    """A trainer of a plain model in training mode, with the first batch of epoch 1."""
    stage = tiny["stages"]["pretrain"] | changes
    stage.pop("grid", None)
    chosen = plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models[0]
    member = TrainState(chosen, ModelFolder(path / chosen.id), None, TrainOptions())
    trainer = Trainer([member], TrainOptions())
    trainer.training_mode()
    return trainer, next(stacked_batches([member.batches], 1))


def gradients_at(model, weights, batch, recipe):
    """The objective's gradients at these weights, a tensor [*shape] by name."""
    model.load_state_dict(weights)
    model.zero_grad()
    single = Batch(batch.images[0], batch.labels[0], batch.targets[0])
    recipe.objective(model, single).value.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def test_sam_takes_the_gradient_uphill_and_steps_from_where_the_weights_were(tiny, tmp_path):
    optimizer = {"name": "sam", "rho": 0.5, "base": {"name": "sgd", "lr": 0.1}}
    trainer, batch = trainer_of(tiny, tmp_path, optimizer=optimizer)
    model, recipe = deepcopy(trainer.member.model), trainer.member.recipe
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = gradients_at(model, start, batch, recipe)
    norm = torch.stack([gradient.norm() for gradient in first.values()]).norm()
    uphill = {name: start[name] + 0.5 * first[name] / norm for name in first}
    second = gradients_at(model, start | uphill, batch, recipe)
    trainer.step(batch, 1, 0)
    for name, weight in trainer.member.model.named_parameters():
        assert torch.allclose(weight, start[name] - 0.1 * second[name], atol=1e-6), name


def stepped_weights(tiny, path, **changes):
    """Weights [*shape] by name after three steps, and the numbers logged in the last."""
    trainer, batch = trainer_of(tiny, path, **changes)
    for number in range(3):
        logged = trainer.step(batch, 1, number)
    return dict(trainer.member.model.named_parameters()), logged


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"name": "sam", "base": {"name": "sgd", "lr": 0.1}}},
        {"clip_grad_norm": 0.1},
        {"clip_grad_value": 1e-3},
        {"adaptive_clip": 1e-3},
        {"augmentation": {"mixup": 0.8}},
    ],
    ids=["plain", "sam", "norm", "value", "adaptive", "mixup"],
)
def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(tiny, tmp_path, changes):
    changes = {"optimizer": {"name": "sgd", "lr": 0.1}} | changes
    expected, logged = stepped_weights(tiny, tmp_path / "one", **changes)
    weights, logged_of_parts = stepped_weights(tiny, tmp_path / "four", accumulation=4, **changes)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name
    assert logged_of_parts.keys() == logged.keys()
    for name, value in logged.items():
        assert torch.allclose(logged_of_parts[name], value, atol=1e-5), name


def test_a_penalty_counts_once_for_a_batch_in_parts(tiny, tmp_path):
    for parts in (1, 4):
        changes = {"accumulation": parts, "optimizer": {"name": "sgd", "lr": 0.1}}
        trainer, batch = trainer_of(tiny, tmp_path, **changes)
        weight = trainer.member.model.head.weight
        trainer.member.penalty = lambda weight=weight: weight.square().sum()
        start = weight.detach().clone()
        recipe, model = trainer.member.recipe, deepcopy(trainer.member.model)
        gradient = gradients_at(model, model.state_dict(), batch, recipe)["head.weight"]
        logged = trainer.step(batch, 1, 0)
        assert torch.allclose(weight, start - 0.1 * (gradient + 2 * start), atol=1e-6)
        assert torch.allclose(logged["penalty"], start.square().sum())


def test_two_views_of_an_image_are_in_the_same_part():
    images, labels = torch.arange(8).view(8, 1, 1, 1), torch.arange(4)
    parts = Batch(images, labels, torch.eye(4)).parts(2)
    assert [part.images.flatten().tolist() for part in parts] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2, 3]]
    assert torch.equal(torch.cat([part.targets for part in parts]), torch.eye(4))


def clipped_unit(gradient, weight, share):
    """The gradient of a unit as Brock et al. 2021, equation 3, have it."""
    largest = share * max(weight.norm().item(), 1e-3)
    return gradient * min(1, largest / gradient.norm().item())


@pytest.mark.parametrize("clip", ["clip_grad_value", "adaptive_clip"])
def test_gradients_are_clipped_by_their_formula(tiny, tmp_path, clip):
    optimizer = {"name": "sgd", "lr": 1.0}
    trainer, batch = trainer_of(tiny, tmp_path, optimizer=optimizer, **{clip: 0.01})
    model, recipe = deepcopy(trainer.member.model), trainer.member.recipe
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = gradients_at(model, start, batch, recipe)
    trainer.step(batch, 1, 0)
    for name, weight in trainer.member.model.named_parameters():
        gradient = gradients[name]
        if clip == "clip_grad_value":
            gradient = gradient.clamp(-0.01, 0.01)
        elif not name.startswith("head."):
            pair = (gradient, start[name])
            units = zip(*pair, strict=True) if gradient.ndim > 1 else [pair]
            clipped = [clipped_unit(*unit, 0.01) for unit in units]
            gradient = torch.stack(clipped).view_as(gradient)
        assert torch.allclose(weight, start[name] - gradient, atol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulation": 5}, "accumulation: a batch of 64 cannot be computed in 5 equal parts"),
        (
            {"accumulation": 2, "objective": "simclr", "augmentation": "simclr"},
            "accumulation: objective 'simclr' compares the images of a batch",
        ),
        (
            {"clip_grad_norm": 1.0, "adaptive_clip": 0.01},
            "adaptive_clip: gradients are clipped by clip_grad_norm already",
        ),
        (
            {"drop_path_schedule": "linear_decrease"},
            "drop_path_schedule: there is no stochastic depth to schedule",
        ),
        ({"checkpoint_weights": "ema"}, "checkpoint_weights: there is no moving average to keep"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny, tmp_path, changes, message):
    with pytest.raises(InvalidConfig, match=message):
        trainer_of(tiny, tmp_path, **{"batch_size": 64} | changes)


def test_what_is_trained_singly_is_not_taken_into_a_stack(tiny, tmp_path):
    chosen = trainer_of(tiny, tmp_path, accumulation=2)[0].member.spec
    assert stack_key(chosen) is None
    with pytest.raises(InvalidInput, match="cannot be trained in a stack"):
        train(chosen, ModelFolder(tmp_path / "x"), options=TrainOptions(stacked=True))


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_formula(tiny, tmp_path, warmup):
    optimizer = {"name": "sgd", "lr": 0.5}
    ema = {"decay": 0.6, "warmup": warmup}
    trainer, batch = trainer_of(tiny, tmp_path, optimizer=optimizer, ema=ema)
    model = trainer.member.model
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}
    for number in range(3):
        trainer.step(batch, 1, number)
        decay = min(0.6, (1 + number) / (10 + number)) if warmup else 0.6
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, average in trainer.average.weights.items():
        assert torch.allclose(average.double(), expected[name], atol=1e-6), name


def test_the_average_is_that_of_timm(tiny, tmp_path):
    trainer, batch = trainer_of(tiny, tmp_path, ema={"decay": 0.9})
    reference = ModelEmaV3(deepcopy(trainer.member.model), decay=0.9)
    for number in range(3):
        trainer.step(batch, 1, number)
        reference.update(trainer.member.model)
    for name, average in reference.module.state_dict().items():
        assert torch.allclose(trainer.average.weights[name], average, atol=1e-7), name


def test_buffers_are_copied_and_weights_are_back_after_scoring():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    average = MovingAverage(model, Ema(decay=0.5))
    start = deepcopy(model.state_dict())
    model(torch.randn(4, 2))
    with torch.no_grad():
        model[0].weight += 1
    average.update(0)
    trained = deepcopy(model.state_dict())
    with average.in_place():
        seen = deepcopy(model.state_dict())
    assert torch.allclose(seen["0.weight"], start["0.weight"] + 0.5)
    for name in ("0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(seen[name], trained[name])
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("schedule", ["constant", "linear_increase", "linear_decrease"])
def test_rates_of_stochastic_depth_change_linearly_with_the_step(tiny, tmp_path, schedule):
    architecture = tiny["stages"]["pretrain"]["architecture"] | {"depth": 3, "drop_path_rate": 0.4}
    changes = {"architecture": architecture, "drop_path_schedule": schedule, "epochs": 2}
    trainer, batch = trainer_of(tiny, tmp_path, **changes)
    per_epoch = trainer.member.batches.steps
    rates = []
    for epoch in (1, 2):
        for number in range(per_epoch):
            trainer.step(batch, epoch, number)
            blocks = trainer.member.model.blocks[1:]
            rates.append([block.drop_path1.drop_prob for block in blocks])
    scales = {
        "constant": np.ones(2 * per_epoch),
        "linear_increase": np.linspace(0, 1, 2 * per_epoch),
        "linear_decrease": np.linspace(1, 0, 2 * per_epoch),
    }
    assert np.allclose(rates, scales[schedule][:, None] * [0.2, 0.4])


def test_a_schedule_of_stochastic_depth_is_not_compiled(tiny, tmp_path):
    architecture = tiny["stages"]["pretrain"]["architecture"] | {"depth": 2, "drop_path_rate": 0.4}
    changes = {"architecture": architecture, "drop_path_schedule": "linear_decrease"}
    chosen = trainer_of(tiny, tmp_path, **changes)[0].member.spec
    with pytest.raises(InvalidInput, match="train without compilation"):
        train(chosen, ModelFolder(tmp_path / "x"), options=TrainOptions(compiled=True))
    changes["architecture"] = architecture | {"depth": 1}
    with pytest.raises(InvalidInput, match="no block of this vit has stochastic depth"):
        trainer_of(tiny, tmp_path, **changes)
