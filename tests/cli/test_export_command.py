"""`vitarium export` and `vitarium push`, as a user types them."""

import json
import shutil

import pytest
import timm
import torch

from vitarium import Zoo


@pytest.fixture
def zoo(tiny, tmp_path, write_blueprint, vitarium, build_once):
    """A copy of a zoo in which half of the children have a head of two layers."""
    tiny["stages"]["finetune"]["grid"] = {"head": ["linear", {"name": "mlp", "hidden_dim": 4}]}

    def build(folder):
        path = write_blueprint(tiny)
        status, _, err = vitarium("grow", path, "--zoo", folder / "zoo", "--workers", 0)
        assert status == 0, err
        path.unlink()
        Zoo.open(folder / "zoo").models()  # with an index

    return Zoo.open(shutil.copytree(build_once("two-heads", build) / "zoo", tmp_path / "zoo"))


def test_chosen_models_are_exported(vitarium, zoo, tmp_path):
    id = zoo.models().query("stage == 'pretrain'")["id"].iloc[0]
    out = tmp_path / "out"
    status, _, err = vitarium("export", zoo.path, "--exporter", "timm", "--out", out, f"{id[:8]}@1")
    opened_by = f'timm.create_model("local-dir:{out / f"{id}-epoch-0001"}", pretrained=True)'
    assert status == 0
    assert err == f"1 file or folder written to {out}\nopen with: {opened_by}\n"
    model = eval(opened_by, {"timm": timm}).eval()
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(images), zoo.load(id, epoch=1)(images))


def test_what_has_no_place_is_listed_or_left_out(vitarium, zoo, tmp_path):
    command = ["export", zoo.path, "--exporter", "timm", "--out", tmp_path / "out"]
    status, _, err = vitarium(*command)
    assert status == 2
    assert "2 of 6 models cannot be exported to timm; leave them out, --skip" in err
    assert not (tmp_path / "out").exists()
    status, _, err = vitarium(*command, "--skip")
    assert status == 0
    assert err.count("its head is 'mlp'") == 1  # of both
    assert "4 files and folders written" in err
    assert "2 models left out" in err


def test_models_are_chosen_by_a_condition(vitarium, zoo, tmp_path):
    condition = "stage = 'finetune' and head = 'linear'"
    out = tmp_path / "out"
    status, _, _ = vitarium(
        "export", zoo.path, "--exporter", "timm", "--out", out, "--where", condition
    )
    wanted = zoo.query(f"SELECT id FROM models WHERE {condition}")["id"]
    assert status == 0
    assert {path.name[:12] for path in out.iterdir()} == set(wanted)


def test_settings_are_read_as_json_or_text(vitarium, zoo, tmp_path):
    status, _, _ = vitarium(
        *("export", zoo.path, "--exporter", "timm", "--out", tmp_path / "out", "--skip"),
        *("--set", "check=false", "--set", "mean=[0.25]", "--set", "std=[0.5]"),
    )
    config = json.loads(next((tmp_path / "out").glob("*/config.json")).read_text())
    assert status == 0
    assert config["pretrained_cfg"]["mean"] == [0.25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exporter", "tim"], "did you mean 'timm'"),
        (["--exporter", "timm", "--set", "chekc=1"], "did you mean 'check'"),
        (["--exporter", "timm", "--set", "check"], "write NAME=VALUE"),
        (["--exporter", "timm", "zzz"], "unknown model 'zzz'"),
        (["--exporter", "timm", "--where", "heat = 'mlp'"], "did you mean 'head'"),
    ],
)
def test_bad_input_is_one_clear_error(vitarium, zoo, tmp_path, arguments, message):
    before = set(tmp_path.iterdir())
    status, out, err = vitarium("export", zoo.path, "--out", tmp_path / "out", *arguments)
    assert status == 2
    assert message in err
    assert err.count("error:") == 1
    assert out == ""
    assert set(tmp_path.iterdir()) == before


def test_formats_are_listed_with_their_settings(vitarium):
    out = vitarium("plugins", "exporter")[1]
    for name in ("timm", "safetensors", "hugging_face", "onnx", "hub"):
        assert name in out
    assert "opset" in vitarium("plugins", "exporter", "onnx")[1]
    assert "license" in vitarium("plugins", "exporter", "hub")[1]


def test_help_teaches_by_examples(vitarium):
    assert "vitarium export demo-zoo --exporter timm --out" in vitarium("export", "--help")[1]
    assert "--dry-run" in vitarium("push", "--help")[1]


def test_a_dry_push_lists_files_and_sizes(vitarium, zoo, tmp_path):
    status, out, err = vitarium("push", zoo.path, "me/x", "--dry-run", "--json")
    files = {row["file"]: row["bytes"] for row in json.loads(out)}
    assert status == 0
    assert files["README.md"] > 1000
    assert f"{len(files)} files" in err
    assert "would be uploaded to https://huggingface.co/datasets/me/x" in err
