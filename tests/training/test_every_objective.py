"""What holds for every objective where it trains a model: alone, stacked, and after a kill."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from vitarium import Blueprint, plan
from vitarium.core import registry
from vitarium.data.loader import stacked_batches
from vitarium.training import Stepped, TrainOptions, stack_key, train
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

OBJECTIVES = [
    name
    for name, plugin in registry.plugins("objective").items()
    if not plugin.facts["teacher_outputs"] and not plugin.facts["stored_outputs"]
]
"""Those with a teacher are in test_teacher.py, that with stored outputs in test_stored_lessons.py."""


def models(tiny, name, **changes):
    facts = registry.get("objective", name).facts
    tiny_settings = facts["tiny"] or {}
    stage = tiny["stages"]["pretrain"] | {"objective": {"name": name, **tiny_settings}} | changes
    architecture = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 16,
                    "depth": 2, "num_heads": 2}  # fmt: skip
    if facts["tiny_architecture"]:
        architecture = {**facts["tiny_architecture"], "img_size": 8, "in_chans": 1}
    stage |= {"architecture": architecture, "epochs": 2, "grid": {"seed": [1, 2]}}
    stage.pop("head", None)
    return plan(Blueprint.read(tiny | {"stages": {"pretrain": stage}})).models


def batch_normalized(companions):
    """After batch normalization some units of a ReLU are so near to 0 that rounding decides whether
    they are active, so that losses drift apart by a thousandth in a few steps."""
    brought = companions or torch.nn.Module()
    return any(isinstance(module, _BatchNorm) for module in brought.modules())


def weights(spec, folder):
    return ModelFolder(folder / spec.id).weights()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_that_is_killed_goes_on_with_the_same_bits(tiny, tmp_path, name):
    (spec, _) = models(tiny, name)

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and event.epoch == 2:
            raise Killed

    assert train(spec, ModelFolder(tmp_path / "whole" / spec.id)) == "finished"
    with pytest.raises(Killed):
        train(spec, ModelFolder(tmp_path / "killed" / spec.id), report=kill)
    train(spec, ModelFolder(tmp_path / "killed" / spec.id))
    unbroken = weights(spec, tmp_path / "whole")
    for tensor, value in weights(spec, tmp_path / "killed").items():
        assert torch.equal(value, unbroken[tensor]), tensor
    scores = ModelFolder(tmp_path / "whole" / spec.id).epochs()[-1].metrics
    declared = registry.get("objective", name).facts["scores"]
    assert all(f"test_{score}" in scores for score in declared)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_stack_trains_each_model_as_by_itself(tiny, tmp_path, name):
    # Adam would make steps of the rounding of keys' biases, whose gradient is zero
    specs = models(tiny, name, optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.9})
    if stack_key(specs[0]) is None:
        pytest.skip("its models are trained singly")

    def losses(trainer, members):
        steps = [
            (batch, epoch, number)
            for epoch in (1, 2)
            for number, batch in enumerate(
                stacked_batches([each.batches for each in members], epoch)
            )
        ]
        count = 1 if batch_normalized(members[0].companions) else len(steps)
        return torch.stack([trainer.step(*step)["loss"] for step in steps[:count]])

    def state(spec, folder):
        return TrainState(spec, ModelFolder(tmp_path / folder / spec.id), None, TrainOptions())

    stacked = [state(spec, "stacked") for spec in specs]
    together = StackedTrainer(stacked, TrainOptions(stacked=True))
    together.training_mode()
    of_stack = losses(together, stacked)
    for k, spec in enumerate(specs):
        single = state(spec, "single")
        alone = Trainer([single], TrainOptions())
        alone.training_mode()
        torch.testing.assert_close(
            of_stack[:, k], losses(alone, [single])[:, 0], rtol=2e-5, atol=1e-6
        )
        progress, own = together.progress()[k], alone.progress()[0]
        assert progress.keys() == own.keys()
        atol = 5e-4 if batch_normalized(single.companions) else 1e-4
        for tensor in own:
            torch.testing.assert_close(progress[tensor], own[tensor], rtol=1e-3, atol=atol)
