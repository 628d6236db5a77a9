"""A training with any adaptation that is stopped goes on to the same bits."""

import pytest
import torch

from vitarium import Blueprint, plan
from vitarium.core.registry import plugins
from vitarium.training import Stepped, train
from vitarium.zoo import ModelFolder

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
DROPS = {"drop_rate": 0.1, "proj_drop_rate": 0.1, "drop_path_rate": 0.1}


class Killed(Exception):
    pass


def specs(name, **settings):
    """Of a parent and a child."""
    tiny = plugins("adaptation")[name].facts["tiny"] or {}
    shared = {"data": {"name": "digits", "train_limit": 64}, "batch_size": 16, "epochs": 3}
    shared["augmentation"] = {"name": "standard", "mixup": 0.8}
    child = {**shared, "start": "pretrain", "architecture": DROPS}
    child["adaptation"] = {"name": name, **tiny, **settings}
    stages = {"pretrain": {**shared, "architecture": ARCHITECTURE}, "finetune": child}
    return plan(Blueprint.read({"name": "stopped", "stages": stages})).models


def trained(spec, path, **options):
    folder = ModelFolder(path / spec.id)
    train(spec, folder, **options)
    return folder


def bits(folder):
    return [folder.checkpoints.path(e.number).read_bytes() for e in folder.epochs() if e.checkpoint]


def kill(event):
    if isinstance(event, Stepped) and (event.epoch, event.step) == (3, 2):
        raise Killed


EVERY = [(name, {}) for name in plugins("adaptation")]
SELECTS_AT_RANDOM = ("tcpa", {"random_epochs": 3, "dropout": 0.0})


@pytest.mark.parametrize(("name", "settings"), [*EVERY, SELECTS_AT_RANDOM])
def test_it_goes_on_to_the_same_bits(tmp_path, name, settings):
    parent, child = specs(name, **settings)
    weights = parent.recipe.build(10).state_dict()
    unbroken = trained(child, tmp_path / "unbroken", parent=weights)
    with pytest.raises(Killed):
        trained(child, tmp_path / "stopped", parent=weights, report=kill)
    torch.randn(7)
    stopped = trained(child, tmp_path / "stopped", parent=weights)
    assert bits(stopped) == bits(unbroken)
    assert len(bits(unbroken)) == 4
    losses = [[e.metrics["train_loss"] for e in f.epochs()[1:]] for f in (stopped, unbroken)]
    assert losses[0] == losses[1]


def test_the_number_of_random_epochs_counts(tmp_path):
    losses = []
    for epochs in (1, 2):
        parent, child = specs("tcpa", random_epochs=epochs, dropout=0.0)
        weights = parent.recipe.build(10).state_dict()
        finished = trained(child, tmp_path / str(epochs), parent=weights).epochs()[1:]
        losses.append([epoch.metrics["train_loss"] for epoch in finished])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]
