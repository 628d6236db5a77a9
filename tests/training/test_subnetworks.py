"""Training of models of which other parts learn in each step."""

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


@pytest.mark.parametrize("architecture", [MATVIT], ids=lambda a: a["name"])
def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, architecture):
    own = spec(tiny, architecture, accumulation=2, epochs=2)

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    broken, whole = (ModelFolder(tmp_path / name / own.id) for name in ("broken", "whole"))
    train(own, whole)
    with pytest.raises(Killed):
        train(own, broken, report=kill)
    torch.randn(7)
    train(own, broken)
    assert weights(broken) == weights(whole)


@pytest.mark.parametrize("architecture", [MATVIT], ids=lambda a: a["name"])
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
