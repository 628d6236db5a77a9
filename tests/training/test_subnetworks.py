"""Training of models of which other parts learn in each step, and of those that add to the loss."""

import pytest
import torch

from vitarium import Blueprint, plan
from vitarium.core.errors import InvalidInput
from vitarium.data.loader import stacked_batches
from vitarium.training import Stepped, TrainOptions, stack_key, train
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
MATVIT = {"name": "matvit", **SIZES}
SUPERNET = {"name": "supernet", **SIZES, "depths": (1, 2), "embed_dims": (8, 16)}
IMAGE_MOE = {"name": "image_moe", **SIZES, "num_experts": 3, "expert_blocks": 1}
TASK_MOE = {"name": "task_moe", **SIZES, "num_experts": 3, "top_k": 2, "router_noise": 1.0}
MCTF = {"name": "mctf", **SIZES, "img_size": 16, "r": 2}
GUIDED = IMAGE_MOE | {"super_classes": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]}


class Killed(Exception):
    pass


def spec(tiny, architecture, **changes):
    stage = tiny["stages"]["pretrain"] | {"architecture": architecture} | changes
    stage.pop("grid")
    return plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models[0]


def weights(folder):
    numbers = [epoch.number for epoch in folder.epochs() if epoch.checkpoint]
    return {number: folder.checkpoints.path(number).read_bytes() for number in numbers}


def units_of(trainer, monkeypatch):
    """Hidden units with which the model computes, of each call."""
    calls, (mlp, *_) = [], [block.mlp for block in trainer.member.model.blocks]
    forward = type(mlp).forward

    def watched(self, x):
        if self is mlp:
            calls.append(self.units if self.training else None)
        return forward(self, x)

    monkeypatch.setattr(type(mlp), "forward", watched)
    return calls


@pytest.mark.parametrize("architecture", [MATVIT, SUPERNET, TASK_MOE], ids=lambda a: a["name"])
def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, architecture):
    own = spec(tiny, architecture, accumulation=2, epochs=2)

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    broken, unbroken = (ModelFolder(tmp_path / name / own.id) for name in ("broken", "unbroken"))
    train(own, unbroken)
    with pytest.raises(Killed):
        train(own, broken, report=kill)
    torch.randn(7)
    train(own, broken)
    assert weights(broken) == weights(unbroken)


@pytest.mark.parametrize("architecture", [MATVIT, SUPERNET], ids=lambda a: a["name"])
def test_models_of_subnetworks_are_trained_singly_and_not_compiled(tiny, tmp_path, architecture):
    own = spec(tiny, architecture)
    assert stack_key(own) is None
    with pytest.raises(InvalidInput, match="each of its sub-networks would be compiled: train w"):
        train(own, ModelFolder(tmp_path / own.id), options=TrainOptions(compiled=True))


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd", "lr": 0.1}, {"name": "sam", "base": {"name": "sgd"}}]
)
def test_each_part_of_a_batch_has_a_subnetwork_that_is_drawn_anew_by_each_step(
    tiny, tmp_path, monkeypatch, optimizer
):
    own = spec(tiny, MATVIT, accumulation=4, optimizer=optimizer)

    def drawn(epoch, number):
        member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
        trainer = Trainer([member], TrainOptions())
        with monkeypatch.context() as patch:
            calls = units_of(trainer, patch)
            trainer.training_mode()
            trainer.step(next(stacked_batches([member.batches], epoch)), epoch, number)
            trainer.scores(0)
        assert calls.pop() is None
        return [units for units in calls if units is not None]

    first = drawn(1, 0)
    assert sorted(first[:4]) == [8, 16, 32, 64]
    assert first[4:] in ([], first[:4])  # the second pass of an optimizer that perturbs weights
    assert (len(first) == 8) == (optimizer["name"] == "sam")
    torch.randn(3)
    assert drawn(1, 0) == first
    assert len({tuple(drawn(epoch, number)) for epoch in (1, 2) for number in range(3)}) > 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_a_model_adds_to_the_loss_is_in_the_gradient_and_in_the_log(
    tiny, tmp_path, accumulation
):
    def trained(guidance):
        own = spec(
            tiny,
            GUIDED | {"guidance": guidance},
            accumulation=accumulation,
            optimizer={"name": "sgd", "lr": 1.0},
        )
        assert stack_key(own) is None
        member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
        trainer = Trainer([member], TrainOptions())
        trainer.training_mode()
        before = member.model.blocks[1].mlp.router.weight.detach().clone()
        batch = next(stacked_batches([member.batches], 1))
        metrics = trainer.step(batch, 1, 0)
        return batch.of_model(0), before, before - member.model.blocks[1].mlp.router.weight, metrics

    batch, router, plain, _ = trained(0.0)
    _, _, guided, metrics = trained(2.0)
    assert {"router_loss", "router_accuracy", "experts_1", "loss"} <= metrics.keys()
    assert 1 <= metrics["experts_1"].item() <= 3
    own = spec(tiny, GUIDED | {"guidance": 2.0}, accumulation=accumulation)
    member = TrainState(own, ModelFolder(tmp_path / "again"), None, TrainOptions())
    model = member.model.train()
    assert torch.equal(model.blocks[1].mlp.router.weight, router)
    model(batch.images)
    logits = model.blocks[1].mlp.decision.logits
    experts = torch.tensor(GUIDED["super_classes"])[batch.targets.argmax(1)]
    loss = torch.nn.functional.cross_entropy(logits, experts)
    (gradient,) = torch.autograd.grad(loss, model.blocks[1].mlp.router.weight)
    torch.testing.assert_close(guided - plain, 2 * gradient, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(metrics["router_loss"][0], loss.detach())


def test_mctf_is_trained_by_a_second_pass_and_can_be_stacked_without_it(tiny, tmp_path):
    assert stack_key(spec(tiny, MCTF)) is not None
    own = spec(tiny, MCTF | {"consistency_weight": 3.0})
    assert stack_key(own) is None
    member = TrainState(own, ModelFolder(tmp_path / own.id), None, TrainOptions())
    trainer = Trainer([member], TrainOptions())
    trainer.training_mode()
    batch = next(stacked_batches([member.batches], 1))
    first, *_, last = (trainer.step(batch, 1, number) for number in range(8))
    assert last["teacher_loss"].item() < first["teacher_loss"].item()
    assert {"loss", "consistency_loss", "confident_share"} <= last.keys()
