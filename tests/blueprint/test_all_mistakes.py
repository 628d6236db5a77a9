"""Every mistake of a blueprint is listed at once: none hides another, on whatever level it is."""

import pytest

from vitarium import Blueprint, grow, plan
from vitarium.core.config import InvalidConfig

BAD = """\
name: Bad name
precision: bf16
stages:
  pretrain:
    architecture: {name: vit, img_size: 8, patch_size: 4, embed_dim: 15, num_heads: 2}
    data: digit
    lr: 0.1
    epochs: ten
    batch_size: 3
    augmentation: {mixup: 0.5}
    optimizer: {lr: [0.1, 0.01], epochs: 3, mometum: 3}
    grid: {seed: 3, lr: [1], epochs: []}
  finetune:
    start: pretraining
    pretrained: true
    weight_decay: 3
    data: digits
    batch_size: 8
    epochs: 3
  more:
    start: pretrain
    architecture: {depth: three}
    data: digits
    batch_size: 8
    epochs: 1
    seed: [1, 2]
    checkpoints: [4]
    variants: [{label_smoothing: 0.1}, 3]
  last: {start: {models: [2110, 12e4]}, data: digits, batch_size: 8, epochs: 0}
  all: 3
  after: {start: all, data: digits, batch_size: 8, epochs: 1, head: {name: mlp}}
"""
MISTAKES = {
    "name": 1,
    "precision": 2,
    "stages.pretrain.architecture": 5,
    "stages.pretrain.data.name": 6,
    "stages.pretrain.lr": 7,
    "stages.pretrain.epochs": 8,
    "stages.pretrain.batch_size": 9,
    "stages.pretrain.optimizer.lr": 11,
    "stages.pretrain.optimizer.epochs": 11,
    "stages.pretrain.optimizer.mometum": 11,
    "stages.pretrain.grid.seed": 12,
    "stages.pretrain.grid.lr": 12,
    "stages.pretrain.grid.epochs": 12,
    "stages.finetune.start": 14,
    "stages.finetune.pretrained": 15,
    "stages.finetune.weight_decay": 16,
    "stages.more.architecture.depth": 22,
    "stages.more.seed": 26,
    "stages.more.checkpoints": 27,
    "stages.more.variants.0.label_smoothing": 28,
    "stages.more.variants.1": 28,
    "stages.last.start.models.0": 29,
    "stages.last.start.models.1": 29,
    "stages.last.epochs": 29,
    "stages.all": 30,
    "stages.after.head.hidden_dim": 31,
}


def problems(values):
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read(values))
    return {".".join(map(str, p.path)): p.message for p in refused.value.problems}


def of_stage(tiny, **changes):
    """The problems of the tiny blueprint's first stage with these settings."""
    tiny["stages"]["pretrain"] |= changes
    return problems(tiny)


def test_all_mistakes_of_a_file_are_listed_in_its_order(write_blueprint):
    with pytest.raises(InvalidConfig) as refused:
        Blueprint.load(write_blueprint(BAD))
    listed = [(".".join(map(str, p.path)), p.message) for p in refused.value.problems]
    assert {path: int(text.rpartition("(line ")[2][:-1]) for path, text in listed} == MISTAKES
    lines = [MISTAKES[path] for path, _ in listed]
    assert lines == sorted(lines)


def test_with_one_mistake_left_out_all_the_rest_stays(write_blueprint):
    """Whichever of the lines is mended first, nothing new comes to light."""
    repaired = BAD.replace("epochs: ten", "epochs: 2").replace("digit\n", "digits\n")
    repaired = repaired.replace("embed_dim: 15", "embed_dim: 16").replace("  all: 3\n", "")
    with pytest.raises(InvalidConfig) as refused:
        Blueprint.load(write_blueprint(repaired.replace("start: all, ", "start: pretrain, ")))
    left = {".".join(map(str, p.path)) for p in refused.value.problems}
    mended = ("epochs", "data.name", "architecture")
    assert left == MISTAKES.keys() - {*(f"stages.pretrain.{n}" for n in mended), "stages.all"}


@pytest.mark.parametrize(
    ("setting", "value", "meant"),
    [
        ("lr", 0.1, "optimizer.lr"),
        ("learning_rate", 0.1, "optimizer.lr"),
        ("learningrate", 0.1, "optimizer.lr"),
        ("weight_decay", 0.1, "optimizer.weight_decay"),
        ("nesterov", True, "optimizer.nesterov (of muon, sgd)"),
        ("label_smoothing", 0.1, "objective.label_smoothing"),
        ("mixup", 0.1, "augmentation.mixup"),
        ("warmup_epochs", 1, "schedule.warmup_epochs"),
        ("img_size", 32, "architecture.img_size"),
        ("train_limit", 32, "data.train_limit"),
        ("dataset", "digits", "data"),
        ("precision", "fp32", "numerics.precision (beside `stages`)"),
        ("stacked", 4, "numerics.stacked (beside `stages`)"),
        ("bach_size", 4, "batch_size"),
    ],
)
def test_a_name_of_another_level_is_said_with_its_path(tiny, setting, value, meant):
    message = of_stage(tiny, **{setting: value})[f"stages.pretrain.{setting}"]
    assert message == f"unknown factor '{setting}'; did you mean '{meant}'?"


def test_a_name_of_several_sections_is_said_with_all_of_its_paths(tiny):
    message = of_stage(tiny, momentum=0.9)["stages.pretrain.momentum"]
    assert "'objective.momentum (of " in message
    assert " or 'optimizer.momentum (of muon, sgd)'?" in message


@pytest.mark.parametrize(
    ("section", "setting", "meant"),
    [
        ("optimizer", "epochs", "'epochs' beside 'optimizer'"),
        ("objective", "lr", "'optimizer.lr'"),
        ("architecture", "label_smoothing", "'objective.label_smoothing'"),
        ("schedule", "weight_decay", "'optimizer.weight_decay'"),
    ],
)
def test_a_setting_in_the_wrong_section_is_said_with_its_path(tiny, section, setting, meant):
    stage = tiny["stages"]["pretrain"]
    values = stage.get(section, {})
    message = of_stage(tiny, **{section: {**values, setting: 3}})
    assert f"did you mean {meant}?" in message[f"stages.pretrain.{section}.{setting}"]


@pytest.mark.parametrize("where", [{}, {"grid": {"pretrained": [True]}}])
def test_weights_of_others_are_said_to_be_imported(tiny, where):
    changes = where or {"pretrained": True}
    (message,) = of_stage(tiny, **changes).values()
    assert "`vitarium import`" in message
    assert "start: {checkpoint: FILE}" in message


def test_pretrained_inside_an_architecture_says_so_too(tiny):
    vit = {**tiny["stages"]["pretrain"]["architecture"], "pretrained": True}
    timm = {"name": "timm", "model": "vit_tiny_patch16_224", "pretrained": True}
    for architecture in (vit, timm):
        assert any(
            "vitarium import" in m for m in of_stage(tiny, architecture=architecture).values()
        )


@pytest.mark.parametrize(
    ("factor", "values"), [("epochs", [1, 2]), ("optimizer", ["adamw", "sgd"]), ("adaptation", ["full", "head"])]
)  # fmt: skip
def test_a_list_where_one_value_belongs_is_sent_to_the_grid(tiny, factor, values):
    (message,) = of_stage(tiny, **{factor: values}).values()
    assert f"several values go under `grid`, as {factor}: [...]" in message


def test_a_list_in_a_grid_and_one_of_epochs_are_not_sent_there(tiny):
    tiny["stages"]["pretrain"]["checkpoints"] = [1, 9]
    tiny["stages"]["pretrain"]["grid"] = {"optimizer.lr": [[0.1, 0.2]]}
    messages = problems(tiny)
    assert len(messages) == 2
    assert not any("under `grid`" in message for message in messages.values())


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"seed": 3}, "3 is not a list of values; write [3]"),
        ({"optimizer": {"lr": [1, 2]}}, "write each factor by its path, as optimizer.lr: [...]"),
    ],
)
def test_what_stands_in_a_grid_without_a_list_is_explained(tiny, grid, message):
    (text,) = of_stage(tiny, grid=grid).values()
    assert message in text


def test_stages_in_a_list_are_those_of_a_mapping(tiny, write_blueprint):
    in_list = [{"name": name, **stage} for name, stage in tiny["stages"].items()]
    listed = Blueprint.load(write_blueprint({"name": "tiny", "stages": in_list}))
    assert plan(listed) == plan(Blueprint.read(tiny))


def test_mistakes_of_stages_in_a_list_have_their_lines(write_blueprint):
    text = "name: x\nstages:\n  - name: a\n    data: digits\n  - name: b\n    start: a\n    lr: 1\n"
    with pytest.raises(InvalidConfig) as refused:
        Blueprint.load(write_blueprint(text))
    assert "stages.b.lr: unknown factor 'lr'; did you mean 'optimizer.lr'? (line 7)" in str(
        refused.value
    )
    assert "stages.a.epochs: missing (line 3)" in str(refused.value)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"data": "digits"}], "a list whose items have no names"),
        (["pretrain"], "a list whose items have no names"),
        ([], "a list whose items have no names"),
        ([{"name": "a"}, {"name": "a"}], "two stages are called 'a'"),
        ("pretrain " * 500, "is not a valid dictionary"),
    ],
)
def test_stages_of_another_form_are_explained_in_a_line(tiny, stages, message):
    texts = problems({**tiny, "stages": stages})
    assert message in texts["stages"]
    assert len(texts["stages"]) < 200


def test_a_start_of_another_form_is_explained(tiny):
    tiny["stages"]["finetune"]["start"] = ["pretrain"]
    assert "['pretrain'] is not 'scratch'" in problems(tiny)["stages.finetune.start"]


def test_a_circle_hides_no_other_mistake(tiny):
    tiny["stages"]["pretrain"] |= {"start": "finetune", "epochs": 0}
    tiny["stages"]["finetune"]["optimizer"] = "sgdd"
    assert {"stages.pretrain.epochs", "stages.finetune.optimizer.name"} < problems(tiny).keys()


def test_a_setting_below_what_has_none_is_a_mistake_and_no_crash(tiny):
    assert "stages.pretrain.epochs.more" in of_stage(tiny, grid={"epochs.more": [1]})


def test_hyphens_and_underscores_are_alike(tiny):
    with_hyphens = {
        "batch-size": 32,
        "optimizer": {"name": "adamw", "weight-decay": 0.1},
        "objective": {"name": "supervised", "label-smoothing": 0.1},
        "initialization": "kaiming-normal",
        "grid": {"clip-grad-norm": [1.0]},
    }
    plain = {
        "batch_size": 32,
        "optimizer": {"name": "adamw", "weight_decay": 0.1},
        "objective": {"name": "supervised", "label_smoothing": 0.1},
        "initialization": "kaiming_normal",
        "grid": {"clip_grad_norm": [1.0]},
    }
    stage = {k: v for k, v in tiny["stages"]["pretrain"].items() if k != "batch_size"}
    plans = [
        plan(Blueprint.read({"name": "x", "stages": {"a-b": {**stage, **settings}}}))
        for settings in (with_hyphens, plain)
    ]
    assert [model.id for model in plans[0].models] == [model.id for model in plans[1].models]
    assert plans[0].stages == {"a-b": 1}


def test_a_mapping_is_grown_as_a_file_is(tiny, tmp_path):
    with pytest.raises(InvalidConfig, match=r"did you mean 'optimizer.lr'"):
        grow({**tiny, "stages": {"a": {"lr": 1}}}, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
