"""The command line, as a user types it."""

import json
from dataclasses import replace
from typing import Annotated, Literal

import pytest

from vitarium import Blueprint, Zoo, create_model, plan
from vitarium.cli._options import parsed, type_name
from vitarium.core import registry
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.training.base import schedule
from vitarium.zoo import About


@pytest.fixture
def zoo(tiny, tmp_path, write_blueprint, vitarium):
    status, out, err = vitarium(
        "grow", write_blueprint(tiny), "--zoo", tmp_path / "zoo", "--workers", 0
    )
    assert status == 0, err
    assert "6 models grown, 0 already there" in err
    assert out.count("finetune") == 4
    return tmp_path / "zoo"


def test_the_papers_zoo_has_250_models(vitarium):
    status, out, _ = vitarium("grow", "vit-s-imagenet-cifar100", "--dry-run", "--no-calibrate")
    assert status == 0
    assert "250 models (10 + 240)" in out
    assert "22,050,664" in out
    for factor, values in {
        "head": "linear, mlp",
        "optimizer": "adamw, sgd",
        "optimizer.lr": "0.003, 0.001, 0.0001",
        "objective": "supervised, simclr",
        "seed": "42, 43",
    }.items():
        assert any(factor in line and values in line for line in out.splitlines()), factor


def test_a_dry_run_measures_nothing_unless_it_is_asked_to(
    vitarium, tiny, tmp_path, write_blueprint, monkeypatch
):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    command = ("grow", write_blueprint(tiny), "--zoo", tmp_path / "zoo", "--dry-run", "--json")
    before = set(tmp_path.iterdir())
    status, out, err = vitarium(*command)
    estimate = json.loads(out)
    assert status == 0
    assert (estimate["models"], estimate["unmeasured_kinds"]) == (6, 2)
    assert [stage["seconds"] for stage in estimate["stages"]] == [None, None]
    assert "measuring" not in err
    assert set(tmp_path.iterdir()) == before

    status, out, err = vitarium(*command, "--calibrate")
    calibrated = json.loads(out)
    assert calibrated["unmeasured_kinds"] == 0
    assert all(stage["seconds"] > 0 for stage in calibrated["stages"])
    assert "(supervised, linear head, adamw), kind 1 of 2; once" in err
    assert "(supervised, linear head, sgd), kind 2 of 2; once" in err
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "cache"}

    status, out, err = vitarium(*command)
    assert json.loads(out) == calibrated
    assert "measuring" not in err


def test_a_dry_run_lists_lists_apart(vitarium, tiny, tmp_path, write_blueprint):
    del tiny["stages"]["finetune"]
    betas = [[0.9, 0.95], [0.9, 0.999]]
    tiny["stages"]["pretrain"]["grid"] = {"optimizer.betas": betas, "clip_grad_norm": [None, 1.0]}
    out = vitarium("grow", write_blueprint(tiny), "--zoo", tmp_path / "zoo", "--dry-run")[1]
    values = dict(line.split(maxsplit=1) for line in out.splitlines() if " " in line.strip())
    assert values["optimizer.betas"] == "[0.9, 0.95], [0.9, 0.999]"
    assert values["clip_grad_norm"] == "none, 1"


def test_a_dry_run_says_how_to_get_the_time(vitarium, tiny, tmp_path, write_blueprint, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    path = write_blueprint(tiny)
    status, out, _ = vitarium("grow", path, "--dry-run")
    assert status == 0
    last = out.splitlines()[-1]
    assert "2 kinds of models were not measured on this machine yet; " in last
    assert "--dry-run --calibrate measures them" in last
    assert "?" not in out  # of which nothing is known is no column
    status, _, err = vitarium("grow", path, "--calibrate")
    assert status == 2
    assert "--calibrate is for --dry-run" in err


def test_a_model_is_shown_with_what_became_of_it(vitarium, written_zoo, tiny):
    tiny["stages"]["pretrain"]["grid"] = {"seed": [9]}
    spec = plan(Blueprint.read(tiny)).models[0]
    folder = written_zoo.folder(spec.id)
    folder.begin(spec, About(10, (), {}))
    folder.commit(0, {}, None, None)
    folder.finish("diverged", "the loss is not finite")
    _, out, _ = vitarium("show", written_zoo.path, spec.id)
    assert "diverged: the loss is not finite" in out


def test_models_are_listed_with_the_factors_in_which_they_differ(vitarium, zoo):
    status, out, _ = vitarium("ls", zoo)
    assert status == 0
    header = next(line for line in out.splitlines() if "model" in line and "stage" in line)
    assert "lr" in header
    assert "seed" in header
    assert "embed_dim" not in header
    rows = json.loads(vitarium("ls", zoo, "--json")[1])
    assert {row["architecture.embed_dim"] for row in rows} == {16}
    assert len(rows) == 6


def test_a_model_is_shown_by_the_beginning_of_its_id(vitarium, zoo):
    rows = json.loads(vitarium("ls", zoo, "--json")[1])
    child = next(row for row in rows if row["stage"] == "finetune")
    status, out, _ = vitarium("show", zoo, child["id"][:8])
    assert status == 0
    assert f"{child['parent']} after epoch 2" in out
    assert "optimizer.momentum" in out
    found = json.loads(vitarium("show", zoo, child["parent"], "--json")[1])
    assert child["id"] in found["children"]
    assert [epoch["epoch"] for epoch in found["epochs"]] == [0, 1, 2]


def test_an_epoch_of_a_model_is_shown(vitarium, zoo):
    id = Zoo.open(zoo).ids()[0]
    out = json.loads(vitarium("show", zoo, f"{id[:6]}@1", "--json")[1])
    assert (out["id"], [row["epoch"] for row in out["epochs"]]) == (id, [1])
    assert f"load({id!r}, epoch=1)" in vitarium("show", zoo, f"{id}@1")[1]
    for epoch in ("77", "x", "-1"):
        status, _, error = vitarium("show", zoo, f"{id}@{epoch}")
        assert (status, f"model {id} has no epoch {epoch}; it has 0-" in error) == (2, True)


def test_blueprints_are_listed_shown_and_checked(vitarium, write_blueprint, tiny):
    assert {
        row["name"]: row["models"] for row in json.loads(vitarium("blueprint", "list", "--json")[1])
    }["vit-s-imagenet-cifar100"] == 250
    shown = vitarium("blueprint", "show", "demo")[1]
    copied = write_blueprint(shown, "copy.yaml")
    assert vitarium("blueprint", "check", copied)[0] == 0
    assert (
        "valid: 6 models (2 pretrain, 4 finetune)"
        in vitarium("blueprint", "check", write_blueprint(tiny))[1]
    )
    assert len(json.loads(vitarium("blueprint", "show", "demo", "--json")[1])) > 10


def test_plugins_are_listed_with_their_settings(vitarium):
    rows = json.loads(vitarium("plugins", "--json")[1])
    assert {"kind": "optimizer", "name": "sgd"}.items() <= next(
        r for r in rows if r["name"] == "sgd"
    ).items()
    out = vitarium("plugins", "optimizer", "sgd")[1]
    assert "momentum" in out
    assert "weight_decay" in out


@pytest.mark.parametrize("kind", ["policies", "policy"])
def test_a_kind_is_listed_in_a_line_for_each_plugin(vitarium, kind):
    lines = vitarium("plugins", kind)[1].splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(registry.plugins("policy"))
    settings = json.loads(vitarium("plugins", kind, "--json")[1])[0]["settings"]
    assert {"setting", "type", "default", "what"} <= settings[0].keys()


def test_architectures_are_listed_with_their_sizes(vitarium):
    rows = {
        row["name"]: row for row in json.loads(vitarium("plugins", "architectures", "--json")[1])
    }
    assert rows["vit"]["parameters"] == 5_717_416
    assert rows["timm"]["parameters"] is None  # it needs a model's name
    assert "arXiv 2010.11929" in vitarium("plugins", "architecture")[1]


def test_an_architectures_presets_are_shown_with_their_sizes(vitarium, monkeypatch):
    plugins = dict(registry.plugins("architecture"))
    facts = {**plugins["vit"].facts, "presets": {"vit_narrow": {"embed_dim": 96}}}
    plugins["vit"] = replace(plugins["vit"], facts=facts)
    monkeypatch.setitem(registry._plugins, "architecture", plugins)
    out = vitarium("plugins", "architecture", "vit")[1]
    with meta_device():
        narrow = create_model("vit", embed_dim=96, num_heads=3)
    assert f"vit_narrow {sum(p.numel() for p in narrow.parameters())}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.pretrain.optimizer.lrr": 1}, "unknown factor 'lrr'"),
        ({"stages.pretrain.epochs": "many"}, "'many' is not a valid integer"),
        ({"stages.pretrain.epochs": -1}, "-1 is not greater than 0"),
        ({"stages.pretrain.data": "digitz"}, "unknown dataset 'digitz'"),
        ({"stages.pretrain.start": "finetune"}, "start in a circle"),
        ({"stages.pretrain.grid": {"seed": []}}, "an empty list gives no model"),
    ],
)
@pytest.mark.parametrize("command", [["grow"], ["grow", "--dry-run"], ["blueprint", "check"]])
def test_a_bad_blueprint_is_one_clear_error_and_status_2(
    vitarium, tiny, tmp_path, write_blueprint, change, message, command
):
    from vitarium.blueprint.overrides import apply

    path = write_blueprint(apply(tiny, change))
    before = set(tmp_path.iterdir())
    place = ["--zoo", tmp_path / "zoo"] if command == ["grow"] else []
    status, out, err = vitarium(*command, path, *place)
    assert status == 2
    assert message in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert out == ""
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "nowhere"], "nowhere is not a zoo"),
        (["show", "nowhere", "x"], "nowhere is not a zoo"),
        (["grow", "dem"], "did you mean 'demo'"),
        (["blueprint", "show", "fasion"], "did you mean 'fashion'"),
        (["plugins", "optimizr"], "did you mean 'optimizer'"),
        (["grow", "demo", "--device", "tpu", "--dry-run"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(vitarium, arguments, message):
    status, _, err = vitarium(*arguments)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_an_unknown_model_is_status_2(vitarium, zoo):
    status, _, err = vitarium("show", zoo, "zzz")
    assert status == 2
    assert "unknown model 'zzz'" in err


def test_a_failed_model_is_status_1(vitarium, tiny, tmp_path, write_blueprint):
    grow = ["grow", write_blueprint(tiny), "--zoo", tmp_path / "zoo", "--workers", 0]
    vitarium(*grow, "--stages", "pretrain")
    parent = Zoo.open(tmp_path / "zoo").ids()[0]
    file = Zoo.open(tmp_path / "zoo").folder(parent).checkpoints.path(2)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    status, _, err = vitarium(*grow)
    assert status == 1
    assert f"corrupt file {file}" in err.replace("\n", " ")
    assert "2 failed" in err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["grow"],
        ["demo"],
        ["ls"],
        ["show"],
        ["query"],
        ["plugins"],
        ["blueprint", "list"],
        ["blueprint", "show"],
        ["blueprint", "check"],
    ],
)
def test_every_command_has_help_with_an_example(vitarium, command):
    status, out, _ = vitarium(*command, "--help")
    assert status == 0
    assert "vitarium" in out
    if command:
        assert "Example" in out or "start from" in out


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (int | None, "whole number or none"),
        (tuple[float, str], "(number, text)"),
        (Literal["a", "b"], "a, b"),
        (Annotated[bool, "x"], "true or false"),
    ],
)
def test_types_are_said_in_words(annotation, message):
    assert type_name(annotation) == message


def test_the_version_is_told(vitarium):
    import vitarium as package

    assert vitarium("--version")[1].strip() == package.__version__


def test_a_plugin_is_shown_by_its_name_as_it_is_or_with_hyphens(vitarium, monkeypatch):
    monkeypatch.setitem(registry._plugins, "schedule", dict(registry.plugins("schedule")))
    schedule("my-own")(lambda config, step, steps, steps_per_epoch: 1.0)
    assert vitarium("plugins", "schedule", "my-own")[1].startswith("my-own")
    assert vitarium("plugins", "operator", "greedy-soup")[1].startswith("greedy_soup")


def test_settings_may_be_written_with_hyphens():
    assert parsed(["weight-decay=0.1", "name=a-b"]) == {"weight_decay": 0.1, "name": "a-b"}
    with pytest.raises(InvalidInput, match="see --skip-diverged"):
        parsed(["skip-diverged=true"], of=lambda skip_diverged: None)


def test_what_will_be_adapted_stands_in_the_check_and_in_the_plan(vitarium, tiny, write_blueprint):
    tiny["stages"]["finetune"]["architecture"] = {"img_size": 16}
    path = write_blueprint(tiny)
    adapted = "positions resampled 2×2 → 4×4"
    status, out, _ = vitarium("blueprint", "check", path, "--json")
    assert status == 0
    assert json.loads(out)["adapted"] == {"finetune": [adapted]}
    part = ["--stages", "finetune", "--only", "lr < 0.005"]
    status, out, _ = vitarium("grow", path, "--dry-run", "--no-calibrate", "--json", *part)
    assert status == 0
    planned = json.loads(out)
    assert planned["models"] == 4
    assert [stage["adapted"] for stage in planned["stages"]] == [[], [adapted]]


def test_a_normalization_of_its_own_stands_in_the_check_and_in_the_plan(
    vitarium, tiny, write_blueprint
):
    tiny["stages"]["pretrain"]["normalization"] = {"mean": [0.5], "std": [0.25]}
    path = write_blueprint(tiny)
    status, out, _ = vitarium("blueprint", "check", path, "--json")
    assert status == 0
    by_stage = json.loads(out)["normalization"]
    assert by_stage == {"pretrain": ["0.5/0.25"], "finetune": ["0.5/0.25"]}
    dry = ("grow", path, "--dry-run", "--no-calibrate")
    status, out, _ = vitarium(*dry, "--json")
    assert [stage["normalization"] for stage in json.loads(out)["stages"]] == [["0.5/0.25"]] * 2
    for command in (dry, ("blueprint", "check", path)):
        status, out, _ = vitarium(*command)
        assert "finetune: images are normalized by mean/std 0.5/0.25" in " ".join(out.split())


def test_training_is_logged_as_the_options_say(vitarium, tiny, tmp_path, write_blueprint):
    del tiny["stages"]["finetune"]
    path, zoo = write_blueprint(tiny), tmp_path / "zoo"
    command = (
        "grow",
        path,
        "--zoo",
        zoo,
        "--workers",
        "0",
        "--precision",
        "fp32",
        "--stacked",
        "1",
    )
    status, _, error = vitarium(*command, "--log", "tensorbord")
    assert (status, "did you mean 'tensorboard'?" in error) == (2, True)
    status, _, error = vitarium(*command, "--log", "csv", "--log-set", "wandb.project=x")
    assert (status, "--log-set wandb.project: write LOGGER.NAME=VALUE" in error) == (2, True)
    assert not zoo.exists()
    folder = tmp_path / "mine"
    assert vitarium(*command, "--log", "csv", "--log-set", f"csv.folder={folder}")[0] == 0
    assert len([*folder.glob("pretrain/*/metrics.csv")]) == 2


def test_a_sample_stands_in_the_check_and_in_the_plan(vitarium, tiny, write_blueprint):
    factors = {"optimizer.weight_decay": {"uniform": [0, 0.1]}}
    tiny["stages"]["pretrain"]["sample"] = {"count": 9, "factors": factors}
    path = write_blueprint(tiny)
    line = "9 samples (sobol, seed 0) of optimizer.weight_decay"
    _, out, _ = vitarium("blueprint", "check", path, "--json")
    assert json.loads(out)["samples"] == {"pretrain": line}
    assert f"pretrain: {line}" in vitarium("blueprint", "check", path)[1]
    _, out, _ = vitarium("grow", path, "--dry-run")
    (shown,) = (row for row in out.splitlines() if "weight_decay" in row)
    assert "9 from 0.0" in shown


def test_names_of_options_are_not_cut_at_80_columns(vitarium, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    _, out, _ = vitarium("grow", "--help")
    assert "--no-deterministic" in out
    assert "…" not in out
