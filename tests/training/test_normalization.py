"""Training with a normalization of the recipe's own: what models see, in every way to train them."""

import pytest
import torch
from torch.nn import functional as F

from vitarium import Blueprint, plan
from vitarium.data.load import load
from vitarium.training import EpochEnded, Task, TrainOptions, train, train_together
from vitarium.training.train_state import TrainState
from vitarium.zoo import ModelFolder

OWN = {"mean": [0.9], "std": [0.2]}


class Killed(Exception):
    pass


def specs(tiny, **changes):
    stage = tiny["stages"]["pretrain"] | {"normalization": OWN, **changes}
    return plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models


def by_hand(model, part):
    """Loss and accuracy of a model on images that are normalized here."""
    pixels = (part.images.float() / 255 - 0.9) / 0.2
    with torch.no_grad():
        outputs = model.eval()(pixels)
    loss = F.cross_entropy(outputs, part.labels).item()
    return loss, (outputs.argmax(1) == part.labels).double().mean().item()


def test_a_model_is_scored_after_every_epoch_on_what_it_is_trained_on(tiny, tmp_path):
    own = specs(tiny)[0]
    folder = ModelFolder(tmp_path / own.id)
    train(own, folder)
    data, model = load(own.recipe.data), own.recipe.build(10)
    for epoch in folder.epochs():
        model.load_state_dict(folder.weights(epoch.number))
        for split in ("val", "test"):
            loss, accuracy = by_hand(model, getattr(data, split))
            assert epoch.metrics[f"{split}_loss"] == pytest.approx(loss, rel=1e-5)
            assert epoch.metrics[f"{split}_accuracy"] == pytest.approx(accuracy)


def test_training_sees_the_same_images_in_another_scale(tiny, tmp_path):
    options, seen = TrainOptions(), []
    for own in (specs(tiny)[0], specs(tiny, normalization="data")[0]):
        member = TrainState(own, ModelFolder(tmp_path / own.id), None, options)
        seen.append(torch.cat([batch.images for batch in member.batches.train(1)]))
        data = member.batches.dataset
    pixels = seen[1] * data.std[0] + data.mean[0]
    torch.testing.assert_close(seen[0], (pixels - 0.9) / 0.2, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], seen[1], atol=0.1)


def test_stopped_and_stacked_models_learn_the_same(tiny, tmp_path):
    """To the bit where training goes on, and to the usual last digits in a stack."""
    some = specs(tiny, optimizer={"name": "sgd", "lr": 0.01})  # Adam divides by what is near zero

    def tasks(name):
        return [Task(own, ModelFolder(tmp_path / name / own.id)) for own in some]

    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Killed

    for own in some:
        train(own, ModelFolder(tmp_path / "singly" / own.id))
    with pytest.raises(Killed):
        train_together(tasks("broken"), report=kill)
    train_together(tasks("broken"))
    train_together(tasks("stack"))
    folders = (tasks(name) for name in ("singly", "stack", "broken"))
    for singly, stack, broken in zip(*folders, strict=True):
        assert broken.folder.checkpoint() == stack.folder.checkpoint()
        weights = stack.folder.weights()
        for name, tensor in singly.folder.weights().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)
