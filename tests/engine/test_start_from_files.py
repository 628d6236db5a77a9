"""Stages that start from files of weights, which other libraries wrote."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from transformers import ViTConfig, ViTForImageClassification
from typer.testing import CliRunner

from vitarium import Blueprint, Zoo, grow
from vitarium.cli import app
from vitarium.core.config import InvalidConfig
from vitarium.engine.check import ModelCheck
from vitarium.engine.parents import parents_in

ARGUMENTS = {"img_size": 16, "patch_size": 8, "in_chans": 3, "embed_dim": 32}
ARGUMENTS |= {"depth": 1, "num_heads": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **ARGUMENTS)


@pytest.fixture
def weights(model, tmp_path):
    file = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(model.state_dict(), file)
    return file


@pytest.fixture
def hub_folder(model, tmp_path):
    save_for_hf(model, tmp_path / "hub", model_args=ARGUMENTS, safe_serialization=True)
    return tmp_path / "hub"


def blueprint(checkpoint, **start):
    stage = {"data": {"name": "digits", "train_limit": 64}, "epochs": 1, "batch_size": 32}
    stage |= {"start": {"checkpoint": str(checkpoint), **start}, "optimizer": {"lr": 0.01}}
    return {"name": "files", "stages": {"finetune": stage}}


HEADS = {"importer_settings": {"architecture": {"num_heads": 2}}}


def grown(values, folder):
    growth = grow(values, folder, workers=0, precision="fp32", stacked=1, progress=False)
    assert growth.complete
    zoo = Zoo.open(folder)
    (child,) = (model for model in zoo if model.parent)
    return zoo, child


def test_a_file_of_timm_starts_a_stage(weights, model, tmp_path):
    zoo, child = grown(blueprint(weights, **HEADS), tmp_path / "zoo")
    start, expected = child.state_dict(0), model.state_dict()
    assert all(torch.equal(start[n], expected[n]) for n in expected if not n.startswith("head"))
    assert start["head.weight"].shape == (10, 32)
    imported = zoo[child.parent].spec.imported
    assert imported.name == "theirs"
    assert len(imported.weights) == 64
    assert len(zoo) == 2
    grown(blueprint(weights, **HEADS), tmp_path / "zoo")
    assert len(zoo) == 2


def test_folders_of_timms_hub_and_of_hugging_face_start_stages(hub_folder, model, tmp_path):
    _, child = grown(blueprint(hub_folder), tmp_path / "zoo")
    assert torch.equal(child.state_dict(0)["norm.weight"], model.state_dict()["norm.weight"])
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
    )
    reference = ViTForImageClassification(config)
    reference.save_pretrained(tmp_path / "transformers")
    _, child = grown(blueprint(tmp_path / "transformers"), tmp_path / "other")
    positions = reference.vit.embeddings.position_embeddings
    assert torch.equal(child.state_dict(0)["pos_embed"], positions)


def test_a_repository_in_the_hubs_cache_needs_no_network(hub_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    snapshot = cache / "models--someone--tiny" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    hub_folder.rename(snapshot)
    refs = cache / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    zoo, child = grown(blueprint("hf-hub:someone/tiny"), tmp_path / "zoo")
    assert zoo[child.parent].spec.imported.name == "someone/tiny"
    with pytest.raises(InvalidConfig, match="hf-hub:someone/else is not in the hub's cache"):
        grow(blueprint("hf-hub:someone/else"), tmp_path / "zoo", progress=False)


def test_a_kept_head_and_an_adaptation_go_with_it(weights, model, tmp_path):
    values = blueprint(weights, **HEADS, keep_head=True)
    values["stages"]["finetune"] |= {"adaptation": {"name": "lora", "rank": 2}}
    values["stages"]["finetune"]["data"] = {"name": "digits", "train_limit": 64}
    with pytest.raises(InvalidConfig, match=r"start\.keep_head: its head does not fit"):
        grow(values, tmp_path / "zoo", progress=False)
    assert not (tmp_path / "zoo").exists()  # refused before anything is imported
    del values["stages"]["finetune"]["start"]["keep_head"]
    _, child = grown(values, tmp_path / "zoo")
    frozen = child.state_dict(plain=False)["blocks.0.attn.qkv.weight"]
    assert torch.equal(frozen, model.state_dict()["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
        ({"checkpoint": "FOLDER", **HEADS}, "has 2 models"),
        ({"checkpoint": "FILE"}, "start: {importer_settings: {architecture: {num_heads: N}}}"),
        ({"checkpoint": "TEXT"}, "importer: NAME"),
        ({"checkpoint": "FILE", "stage": "pretrain"}, "one of these"),
        ({"where": "true", "importer": "timm"}, "an importer reads a `checkpoint`"),
        ("FILE", "write a file of weights as {checkpoint: "),
    ],
)
def test_what_cannot_start_a_stage_is_said(start, message, weights, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes(weights.read_bytes())
    (tmp_path / "notes.txt").write_text("no weights")
    text = json.dumps(start).replace("TEXT", str(tmp_path / "notes.txt"))
    text = text.replace("FOLDER", str(folder)).replace("FILE", str(weights))
    values = blueprint("")
    values["stages"]["finetune"]["start"] = json.loads(text)
    with pytest.raises(InvalidConfig) as error:
        grow(values, tmp_path / "zoo", progress=False)
    assert message in str(error.value)


def test_a_check_and_a_dry_run_need_no_zoo_and_write_none(hub_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("files.yaml").write_text(json.dumps(blueprint(hub_folder)))
    for command in (["blueprint", "check"], ["grow", "--dry-run"]):
        result = CliRunner().invoke(app, [*command, "files.yaml"])
        assert result.exit_code == 0, result.output
    assert not list(tmp_path.glob("*zoo*"))
    loaded = Blueprint.load("files.yaml", parents_in(None), ModelCheck())
    assert loaded.name == "files"
