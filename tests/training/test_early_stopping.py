"""Training that ends when a validation score becomes no better."""

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, plan
from vitarium.blueprint.early_stopping import EarlyStopping
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.training import EpochEnded, stack_key, train
from vitarium.zoo import ModelFolder
from vitarium.zoo.verify import verify

SOON = {"early_stopping": {"patience": 2, "min_delta": 1.0}}
"""No accuracy after the first is better by 1, so that training ends after epoch 3."""
PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}


class Killed(Exception):
    pass


def blueprint(tiny, **changes):
    stage = tiny["stages"]["pretrain"] | {"epochs": 6, "checkpoints": "last"} | changes
    stage.pop("grid")
    return Blueprint.read({"name": "x", "stages": {"pretrain": stage}})


def run(chosen, path, **kwargs):
    folder = ModelFolder(path / chosen.id)
    assert train(chosen, folder, **kwargs) == "finished"
    return folder


@pytest.mark.parametrize(
    ("settings", "scores", "ends"),
    [
        ({"patience": 2}, [0.1, 0.3, 0.2, 0.3, 0.4], 4),
        ({"patience": 3}, [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.4], None),
        ({"patience": 2, "min_delta": 0.15}, [0.1, 0.2, 0.3, 0.4, 0.4], 5),
        ({"patience": 2, "min_delta": 0.15}, [0.1, 0.2, 0.24, 0.4], 3),
        ({"patience": 1, "metric": "val_loss"}, [0.5, 0.4, 0.41], 3),
        ({"patience": 1, "metric": "val_loss"}, [0.5, 0.4, 0.3], None),
        ({"patience": 2}, [float("nan")] * 3, 2),
    ],
)
def test_it_ends_when_no_score_is_better_for_so_many_epochs(settings, scores, ends):
    stopping = EarlyStopping(**settings)
    verdicts = [stopping.verdict(scores[:epoch]) for epoch in range(len(scores) + 1)]
    assert next((epoch for epoch, text in enumerate(verdicts) if text), None) == ends


def test_the_epoch_in_which_it_ends_is_kept_and_scored(tiny, tmp_path):
    chosen = plan(blueprint(tiny, **SOON)).models[0]
    folder = run(chosen, tmp_path)
    epochs = folder.epochs()
    assert [epoch.checkpoint is not None for epoch in epochs] == [False, False, False, True]
    assert ["test_accuracy" in epoch.metrics for epoch in epochs] == [False, False, False, True]
    accuracy = epochs[1].metrics["val_accuracy"]
    message = folder.result()["message"]
    expected = f"stopped after epoch 3: no better val_accuracy than {accuracy:.4g} in epoch 1"
    assert message.startswith(expected)
    longer = plan(blueprint(tiny, checkpoints=[3])).models[0]
    unstopped = run(longer, tmp_path).weights(3)
    assert all(torch.equal(unstopped[name], tensor) for name, tensor in folder.weights().items())


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_a_run_that_is_stopped_ends_in_the_same_epoch(tiny, tmp_path, kill_at):
    chosen = plan(blueprint(tiny, **SOON)).models[0]
    unbroken = run(chosen, tmp_path / "unbroken")

    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == kill_at:
            raise Killed

    folder = ModelFolder(tmp_path / "broken" / chosen.id)
    with pytest.raises(Killed):
        train(chosen, folder, report=kill)
    assert train(chosen, folder) == "finished"
    assert folder.checkpoint() == unbroken.checkpoint()
    assert folder.result() == unbroken.result()
    assert len(folder.epochs()) == 4


def test_it_trains_to_the_end_while_scores_become_better(tiny, tmp_path):
    patient = {"early_stopping": {"metric": "val_loss", "patience": 6}}
    assert len(run(plan(blueprint(tiny, **patient)).models[0], tmp_path).epochs()) == 7


def test_a_score_that_there_is_not_is_named_before_training(tiny, tmp_path, monkeypatch):
    supervised = plan(blueprint(tiny)).models[0].recipe.objective.facts
    monkeypatch.setitem(supervised, "scores", ())  # an objective that does not declare its scores
    chosen = plan(blueprint(tiny, early_stopping={"metric": "val_acc"})).models[0]
    folder = ModelFolder(tmp_path / chosen.id)
    with pytest.raises(InvalidInput, match=r"no 'val_acc', but val_loss, val_accuracy"):
        train(chosen, folder)
    of_training = blueprint(tiny, early_stopping={"metric": "train_loss"})
    with pytest.raises(InvalidConfig, match="metric"):
        plan(of_training)


def test_such_models_are_not_stacked(tiny):
    assert stack_key(plan(blueprint(tiny)).models[0])
    assert stack_key(plan(blueprint(tiny, **SOON)).models[0]) is None


def test_others_start_from_such_a_model_once_it_is_grown(tiny, tmp_path):
    first = blueprint(tiny, **SOON)
    zoo = grow(first, tmp_path / "zoo", **PLAIN).zoo
    (parent,) = zoo.ids()
    assert verify(zoo.path, deep=True) == []
    child = {"data": "digits", "epochs": 1, "batch_size": 64}
    values = {"name": "y", "stages": {"child": child | {"start": {"models": [parent]}}}}
    growth = grow(Blueprint.read(values), tmp_path / "zoo", **PLAIN)
    (grown,) = growth.grown
    spec = Zoo.open(tmp_path / "zoo").spec(grown)
    assert (spec.parent, spec.parent_epoch) == (parent, 3)
    assert verify(growth.zoo.path, deep=True) == []


def test_a_stage_that_starts_from_such_a_stage_is_planned_when_that_is_grown(tiny, tmp_path):
    pretrain = blueprint(tiny, **SOON).stages["pretrain"].settings
    child = {"data": pretrain["data"], "epochs": 1, "batch_size": 64, "checkpoints": "last"}
    second, third = ({**child, "start": name} for name in ("pretrain", "second"))
    values = {"name": "x", "stages": {"pretrain": pretrain, "second": second, "third": third}}
    waiting = {"second": "pretrain", "third": "pretrain"}
    assert plan(Blueprint.read(values)).waiting == waiting
    for part in ({}, {"stages": ["third"]}):
        with pytest.raises(InvalidInput, match=r"'pretrain', which may stop early: .* first grow"):
            grow(values, tmp_path / "zoo", **PLAIN, **part)
    first = grow(values, tmp_path / "zoo", stages="pretrain", **PLAIN)
    growth = grow(values, tmp_path / "zoo", **PLAIN)
    assert len(growth.grown) == 2
    specs = {spec.stage: spec for spec in growth.plan.models}
    assert (specs["second"].parent, specs["second"].parent_epoch) == (first.grown[0], 3)
    assert specs["third"].parent == specs["second"].id
    assert verify(growth.zoo.path, deep=True) == []
    wrong = {"second": {**second, "batch_size": 0}}
    with pytest.raises(InvalidConfig, match=r"second\.batch_size: 0 is not greater than 0"):
        plan({"name": "x", "stages": {"pretrain": pretrain, **wrong}})


def test_children_of_diverged_ones_are_skipped(tiny, tmp_path):
    wild = {"optimizer": {"name": "sgd", "lr": 1e30}}
    pretrain = blueprint(tiny, **SOON, **wild).stages["pretrain"].settings
    child = {"data": pretrain["data"], "epochs": 1, "batch_size": 64, "start": "pretrain"}
    values = {"name": "x", "stages": {"pretrain": pretrain, "second": child}}
    assert grow(values, tmp_path / "zoo", stages="pretrain", **PLAIN).diverged
    assert len(grow(values, tmp_path / "zoo", **PLAIN).skipped) == 1
