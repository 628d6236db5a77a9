"""The study of soups of a zoo that was trained on Fashion-MNIST: what others found shows here, too."""

import shutil

import pytest

import needs
import vitarium
from vitarium import Blueprint, grow
from vitarium.studies.soups.sentences import HOLDS

BLUEPRINT = {
    "name": "fashion-soups",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "vit",
                "img_size": 28,
                "patch_size": 7,
                "in_chans": 1,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
            },
            "data": {"name": "fashion_mnist", "train_limit": 4000},
            "optimizer": {"name": "adamw", "lr": 0.002},
            "epochs": 3,
            "batch_size": 64,
            "grid": {"seed": [1, 2]},
        },
        "finetune": {
            "start": "pretrain",
            "data": {"name": "fashion_mnist", "train_limit": 2000, "split_seed": 1},
            "head": {"name": "linear", "seed": 0},
            "optimizer": {"name": "adamw"},
            "epochs": 2,
            "batch_size": 64,
            "grid": {"optimizer.lr": [0.0002, 0.001, 0.005], "seed": [1, 2]},
        },
    },
}

pytestmark = pytest.mark.evidence


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    needs.fashion_mnist()
    folder = tmp_path_factory.mktemp("fashion")
    zoo = grow(
        Blueprint.read(BLUEPRINT), folder / "zoo", precision="fp32", compiled=False, progress=False
    ).zoo
    yield vitarium.study(
        zoo, "soups", out=folder / "page.html", methods=["uniform_soup"], num_images=2000, points=5
    )
    shutil.rmtree(folder / "zoo")


def directions(studied):
    (table,) = [
        block
        for section in studied.tables.sections
        for block in section.blocks
        if getattr(block, "title", "").startswith("Published directions")
    ]
    return {row[0]: row[1].strip("*") for row in table.rows}


def test_siblings_of_a_small_learning_rate_may_be_averaged(studied):
    found = directions(studied)
    assert found["Soups of one parent's children work at small learning rates."] == HOLDS
    assert any("may average" in line and "lr = 0.0002" in line for line in studied.sentences)


def test_models_of_different_parents_must_not(studied):
    assert directions(studied)["Soups across parents fail."] == HOLDS
    (line,) = [line for line in studied.sentences if "Averaging costs accuracy" in line]
    assert "models of different parents" in line


def test_every_kind_of_figure_is_there(studied):
    names = {figure.name for figure in studied.tables.figures}
    assert {f"finetune-{kind}" for kind in ("methods", "ingredients", "barrier-curves")} <= names
    assert "finetune-siblings-by-lr" in names
