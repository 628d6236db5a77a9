"""A run whose features collapse says so once, while it runs and in its record, and goes on."""

import pytest

from vitarium import Blueprint, grow, plan
from vitarium.training import EpochEnded, Remarked, train
from vitarium.training._collapse import collapse
from vitarium.zoo import ModelFolder

FINE = {"val_feature_spread": 0.4, "val_feature_rank": 5.0, "train_teacher_entropy": 0.6}
COLLAPSING = {
    "name": "dino",
    "prototypes": 12,
    "hidden_dim": 8,
    "bottleneck_dim": 6,
    "center_momentum": 1.0,
    "teacher_temperature": 0.002,
    "frozen_last_layer_epochs": 0,
}
"""Without centering, the sharpest prototype soon wins."""


def blueprint(tiny):
    stage = tiny["stages"]["pretrain"] | {
        "objective": COLLAPSING,
        "optimizer": {"name": "adamw", "lr": 0.1},
        "epochs": 5,
    }
    stage.pop("grid")
    return Blueprint.read(tiny | {"stages": {"pretrain": stage}})


@pytest.mark.parametrize(
    ("metrics", "sign"),
    [
        (
            {"val_feature_spread": 0.001, "val_feature_rank": 1.1},
            "val_feature_spread 0.001 is below 0.01",
        ),
        ({"val_feature_rank": 1.0}, "val_feature_rank 1 is below 1.05"),
        ({"train_teacher_entropy": 0.0}, "train_teacher_entropy 0 is below 0.001"),
        ({"train_teacher_entropy": 1.0}, "train_teacher_entropy 1 is above 0.999"),
    ],
)
def test_signs_of_a_collapse(metrics, sign):
    collapsed = FINE | metrics
    text = f"features collapsed in epoch 2: {sign}"
    assert collapse([FINE, FINE, collapsed]) == text
    assert collapse([FINE, FINE, collapsed, FINE]) == f"{text}; not in epoch 3"
    assert collapse([FINE, FINE, collapsed, collapsed | {"val_feature_rank": 1.0}]) == text


def test_features_that_lie_close_together_in_many_directions_have_not_collapsed():
    assert collapse([FINE, FINE | {"val_feature_spread": 0.009, "val_feature_rank": 1.5}]) == ""


def test_models_before_training_and_with_other_scores_have_not_collapsed():
    assert collapse([{"val_feature_spread": 0.0}, FINE]) == ""
    assert collapse([{}, {"val_accuracy": 0.1}]) == ""
    assert collapse([]) == ""


class Killed(Exception):
    pass


def test_a_run_that_is_forced_to_collapse_says_so_once_also_when_it_is_resumed(tiny, tmp_path):
    (spec,) = plan(blueprint(tiny)).models
    events = []
    unbroken = ModelFolder(tmp_path / "unbroken" / spec.id)
    assert train(spec, unbroken, report=events.append) == "finished"
    (remark,) = [event for event in events if isinstance(event, Remarked)]
    assert remark.model == spec.id
    assert remark.text.startswith("features collapsed in epoch")
    assert unbroken.result()["message"] == remark.text
    epoch = int(remark.text.split("epoch ")[1].split(":")[0])
    assert epoch < 5
    assert len(unbroken.epochs()) == 6

    resumed, remarks = ModelFolder(tmp_path / "resumed" / spec.id), []

    def kill(event):
        remarks.append(event)
        if isinstance(event, EpochEnded) and event.epoch == epoch:
            raise Killed

    with pytest.raises(Killed):
        train(spec, resumed, report=kill)
    train(spec, resumed, report=remarks.append)
    assert [event for event in remarks if isinstance(event, Remarked)] == [remark]
    assert resumed.result() == unbroken.result()


def test_growing_prints_the_notice(tiny, tmp_path, capfd):
    options = {"workers": 0, "threads": 1, "precision": "fp32", "compiled": False, "stacked": 1}
    growth = grow(blueprint(tiny), tmp_path / "zoo", progress=True, **options)
    (model,) = growth.grown
    lines = [line for line in capfd.readouterr().err.splitlines() if model[:8] in line]
    assert sum("features collapsed" in line and "finished" not in line for line in lines) == 1
    assert sum("features collapsed" in line and "finished" in line for line in lines) == 1
