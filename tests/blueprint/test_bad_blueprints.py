"""Bad blueprints: the error says where in the file, what value, and the nearest known name."""

import pytest

from vitarium import Blueprint, VitariumError, plan
from vitarium.blueprint.overrides import apply
from vitarium.core.errors import InvalidInput


def complaint(values, write_blueprint) -> str:
    with pytest.raises(VitariumError) as caught:
        plan(Blueprint.load(write_blueprint(values)))
    assert caught.value.exit_status == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stages.pretrain.optimizer.lrr": 1}, "optimizer.lrr: unknown factor 'lrr'; did you mean 'lr'?"),
        ({"stages.pretrain.optimizr": "sgd"}, "pretrain.optimizr: unknown factor 'optimizr'; did you mean 'optimizer'?"),
        ({"stages.pretrain.epochs": "ten"}, "pretrain.epochs: 'ten' is not a valid integer"),
        ({"stages.pretrain.epochs": -3}, "pretrain.epochs: -3 is not greater than 0"),
        ({"stages.pretrain.data": "digit"}, "pretrain.data.name: unknown dataset 'digit'; did you mean 'digits'?"),
        ({"stages.pretrain.data": {"val_fraction": 0.1}}, "pretrain.data.name: missing"),
        ({"stages.pretrain.start": "finetune"}, "stages start in a circle"),
        ({"stages.finetune.start": "pretraining"}, "finetune.start: unknown stage 'pretraining'; did you mean 'pretrain'?"),
        ({"stages.finetune.start": "vit.pth"}, "finetune.start: unknown stage 'vit.pth'; write a file of weights as {checkpoint: vit.pth}"),
        ({"stages.finetune.grid": {}}, "finetune.grid: names no factor"),
        ({"stages.finetune.grid": {"seed": []}}, "finetune.grid.seed: an empty list gives no model"),
        ({"stages.finetune.grid": {"sed": [1]}}, "finetune.grid.sed: unknown factor 'sed'; did you mean 'seed'?"),
        ({"stages.finetune.grid": {"optimizer.lr": [1, "x"]}}, "finetune.grid.optimizer.lr: 'x' is not a valid number"),
        ({"stages.finetune.grid": {"optimizer.mometum": [1]}}, "finetune.grid.optimizer.mometum: unknown factor 'mometum'; did you mean 'momentum'?"),
        ({"stages.finetune.grid": 3}, "finetune.grid: 3 is not a valid dictionary"),
        ({"stages.finetune.variants": [3]}, "finetune.variants.0: 3 is not a mapping"),
        ({"stages.finetune.variants": [{"lr": 3}]}, "finetune.variants.0.lr: unknown factor 'lr'"),
        ({"stages.pretrain": 3}, "stages.pretrain: 3 is not a mapping"),
        ({"stages.pretrain.head": "none"}, "pretrain.head: objective 'supervised' needs a head"),
        ({"stages.pretrain.head": "none", "stages.pretrain.adaptation": "head"}, "pretrain.adaptation: there is no head to train"),
        ({"stages.pretrain.checkpoints": [1, 9]}, "pretrain.checkpoints: epoch 9 is after the last, 2"),
        ({"stages.pretrain.checkpoints": "some"}, "pretrain.checkpoints: 'some' is not 'all' or 'last'"),
        ({"stages": {}}, "stages: "),
        ({"name": "Not a name"}, "name: "),
        ({"staegs": {}}, "staegs: unknown factor 'staegs'; did you mean 'stages'?"),
        ({"vitarium": 2}, "vitarium: 2 is not 1"),
        ({"stages.pretrain.architecture.num_heads": 3}, "pretrain.architecture: "),
        ({"stages.pretrain.epochs": True}, "pretrain.epochs: 'True' is not a valid integer"),
        ({"stages.pretrain.epochs": 10**9}, "pretrain.epochs: 1000000000 is not less than or equal to 1000000"),
        ({"stages.pretrain.early_stopping": {"metric": "train_loss"}}, "early_stopping.metric: 'train_loss' is no score of the validation split"),
        ({"stages.pretrain.early_stopping": {"metric": "val_ema_loss"}}, "no val_ema_loss without a moving average"),
        ({"stages.pretrain.early_stopping": {"metric": "val_trained_loss"}, "stages.pretrain.ema": {}}, "checkpoint_weights is trained, so val_trained_loss is called val_loss"),
        ({"stages.pretrain.early_stopping": {"metric": "val_ema_loss"}, "stages.pretrain.ema": {}, "stages.pretrain.checkpoint_weights": "ema"}, "checkpoint_weights is ema, so val_ema_loss is called val_loss"),
        ({"stages.pretrain.early_stopping": {"metric": "val_acuracy"}}, "objective 'supervised' gives no val_acuracy; did you mean 'val_accuracy'?; it gives val_loss, val_accuracy"),
        ({"stages.pretrain.early_stopping": {"metric": "val_ema_acc"}, "stages.pretrain.ema": {}}, "gives no val_ema_acc"),
        ({"stages.pretrain.optimizer": {"name": "sam", "lr": 0.1}}, "optimizer.lr: a setting of the optimizer that takes the steps"),
        ({"stages.pretrain.optimizer": {"name": "muon", "ns_steps": 10**9}}, "ns_steps: 1000000000 is not less than or equal to 100"),
        ({"stages.pretrain.schedule": {"name": "cosine", "warmup_epochs": 1e308}}, "warmup_epochs: 1e+308 is not less"),
        ({"stages.pretrain.schedule": {"name": "multistep", "milestones": 3}}, "milestones: 3 is not a list"),
        ({"stages.pretrain.optimizer.lr": float("inf")}, "pretrain.optimizer.lr: 'Infinity' is not a finite number"),
    ],
)  # fmt: skip
def test_the_error_names_path_value_and_nearest_name(tiny, overrides, message, write_blueprint):
    assert message in complaint(apply(tiny, overrides), write_blueprint)


def test_all_problems_of_a_stage_are_listed_at_once(tiny, write_blueprint):
    bad = apply(tiny, {"stages.pretrain.epochs": -1, "stages.pretrain.optimizer.lrr": 1})
    message = complaint(bad, write_blueprint)
    assert "pretrain.epochs" in message
    assert "pretrain.optimizer.lrr" in message


def test_a_wrong_value_of_a_list_is_one_mistake(tiny, write_blueprint):
    wrong = {"stages.pretrain.schedule": {"name": "multistep", "milestones": [float("nan")]}}
    (line,) = [
        x for x in complaint(apply(tiny, wrong), write_blueprint).split("\n") if ".mile" in x
    ]
    assert "milestones.0: " in line


def test_the_line_is_named(write_blueprint):
    message = complaint(
        "name: x\nstages:\n  a:\n    epochs: -1\n    batch_size: 3\n", write_blueprint
    )
    assert "stages.a.epochs: -1 is not greater than 0 (line 4)" in message
    assert "stages.a.data: missing (line 3)" in message


def test_broken_yaml_is_located(write_blueprint):
    assert "blueprint.yaml:3: not valid YAML" in complaint("name: x\nstages: [a\n", write_blueprint)


def test_a_key_given_twice_is_an_error(write_blueprint):
    assert "duplicate key" in complaint("name: x\nname: y\nstages: {}\n", write_blueprint)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\nepochs: 2020-99-99\n", "month must be in 1..12"),
        ('epochs: !!int "abc"\n', "abc"),
        ('on: !!bool "abc"\n', "abc"),
        (f"epochs: {'9' * 5000}\n", "4300"),
        ("{a: " * 2000, "nested more than 100 deep"),
        ("[" * 3000, "nested more than 100 deep"),
        ("a0: &a0 [x]\n" + "".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
        ), "more than 100,000 values"),
    ],
    ids=["date", "int", "bool", "long", "mappings", "lists", "laughs"],
)  # fmt: skip
def test_yaml_that_no_parser_is_to_choke_on_is_an_error_in_a_line(tmp_path, text, problem):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=problem) as raised:
        Blueprint.load(file)
    assert str(file) in str(raised.value)


def test_numbers_are_those_of_yaml_1_2(tiny, write_blueprint):
    text = "name: x\nstages: {}\nlr: 3e-3\nflag: no\n"
    from vitarium.blueprint.yaml_file import YamlFile

    assert YamlFile(text, "x").values["lr"] == 0.003
    assert YamlFile(text, "x").values["flag"] == "no"


def test_an_unknown_blueprint_names_the_nearest():
    with pytest.raises(VitariumError, match="did you mean 'demo'"):
        Blueprint.load("dem")


def test_a_missing_file_says_so():
    with pytest.raises(VitariumError, match="no such file"):
        Blueprint.load("nowhere/mine.yaml")


def test_a_blueprint_that_extends_itself_is_refused(write_blueprint):
    path = write_blueprint("extends: blueprint.yaml\nname: x\n")
    with pytest.raises(VitariumError, match="extends itself"):
        Blueprint.load(path)


def test_an_override_of_a_place_that_is_not_there_is_refused(write_blueprint):
    text = "extends: demo\nname: x\noverride:\n  stages.pretrain.variants.9.epochs: 1\n"
    assert "stages.pretrain.variants.9.epochs: 'demo' has no such place" in complaint(
        text, write_blueprint
    )
