"""A two-stage zoo on Fashion-MNIST, grown and read through the command line, on real images."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import needs
from cli.command_runner import run
from vitarium import Zoo

BLUEPRINT = """
name: tiny-fashion
stages:
  pretrain:
    architecture: {{name: vit, img_size: 28, patch_size: 7, in_chans: 1, embed_dim: 48, depth: 3, num_heads: 3, class_token: false, global_pool: avg}}
    data: {{name: fashion_mnist, train_limit: {pretrain_images}}}
    augmentation: {{horizontal_flip: 0.5}}
    optimizer: {{name: adamw, lr: 2e-3, weight_decay: 1e-2}}
    schedule: {{name: cosine, warmup_epochs: 0.5}}
    checkpoints: last
    epochs: 3
    batch_size: 64
  finetune:
    start: pretrain
    data: {{name: mnist5k, train_limit: {finetune_images}}}
    schedule: cosine
    epochs: {finetune_epochs}
    batch_size: {finetune_batch}
    grid:
      head: [linear, {{name: mlp, hidden_dim: 32}}]
      optimizer: [{{name: adamw, lr: 1e-3}}, {{name: sgd, lr: 3e-2, momentum: 0.9}}]
"""
SHORT = {
    "pretrain_images": 2000,
    "finetune_images": 1000,
    "finetune_epochs": 4,
    "finetune_batch": 16,
}
LONG = {
    "pretrain_images": 8000,
    "finetune_images": 4000,
    "finetune_epochs": 6,
    "finetune_batch": 64,
}


def vitarium(*arguments) -> str:
    """What the command prints; real processes are `test_kill_and_resume`'s matter."""
    outcome = run([*map(str, arguments)])
    assert outcome.status == 0, outcome.err
    return outcome.out


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("fashion"), SHORT)


def grown(folder, sizes):
    needs.fashion_mnist()
    (folder / "fashion.yaml").write_text(BLUEPRINT.format(**sizes))
    plain = ("--workers", 0, "--precision", "fp32", "--no-compiled", "--stacked", "1")
    where = ("--zoo", folder / "zoo", "--data-dir", folder / "data")
    vitarium("grow", folder / "fashion.yaml", *where, *plain)
    return folder / "zoo"


pytestmark = pytest.mark.slow


def accuracies(zoo):
    """Of the pretrained model, and of its four children, on the test images."""
    rows = json.loads(vitarium("ls", zoo, "--json"))
    assert len(rows) == 1 + 4
    (pretrained,) = [row["test_accuracy"] for row in rows if row["stage"] == "pretrain"]
    return pretrained, [row["test_accuracy"] for row in rows if row["stage"] == "finetune"]


def test_real_images_are_learned(zoo):
    pretrained, finetuned = accuracies(zoo)
    assert pretrained > 0.6
    assert max(finetuned) > 0.6


@pytest.mark.evidence
def test_more_real_images_are_learned_better(tmp_path):
    pretrained, finetuned = accuracies(grown(tmp_path, LONG))
    assert pretrained > 0.7
    assert max(finetuned) > 0.8


def test_every_measure_measures_it(zoo):
    """All of them on two siblings, on a few images: each gives finite values."""
    rows = json.loads(vitarium("ls", zoo, "--json"))
    parent = next(row["id"] for row in rows if row["stage"] == "pretrain")
    siblings = f"parent = '{parent}' and head = 'linear'"
    names = [row["name"] for row in json.loads(vitarium("plugins", "measures", "--json"))]
    small = ("--num-images", 32, "--set", "steps=3", "--set", "points=3", "--set", "probes=2")
    measured = vitarium("measure", zoo, *names, "--where", siblings, *small, "--json")
    values = json.loads(measured)
    assert {row["measure"] for row in values} == set(names)
    assert [row["refused"] for row in values if row["refused"]] == []
    assert {row["data"] for row in values} == {"", "mnist5k"}
    known = json.loads(vitarium("query", zoo, "SELECT DISTINCT measure FROM records", "--json"))
    assert {row["measure"] for row in known} == set(names)


def test_the_model_is_shown_with_its_family(zoo):
    row = next(r for r in json.loads(vitarium("ls", zoo, "--json")) if r["stage"] == "finetune")
    assert row["parent"] in vitarium("show", zoo, row["id"])


def test_exported_weights_are_timms_and_give_its_outputs(zoo, tmp_path):
    opened = Zoo.open(zoo)
    table = opened.models()
    id = table[(table["stage"] == "finetune") & (table["head"] == "linear")]["id"].iloc[0]
    save_file(opened.state_dict(id), tmp_path / "model.safetensors")
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=10,
        img_size=28,
        patch_size=7,
        in_chans=1,
        embed_dim=48,
        depth=3,
        num_heads=3,
        class_token=False,
        global_pool="avg",
    ).eval()
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(theirs(images), opened.load(id)(images))
