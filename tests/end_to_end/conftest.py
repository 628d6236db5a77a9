"""A family of models that were trained on real images which a Python package brings."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from vitarium import Blueprint, Zoo, grow

VIT = {
    "name": "vit",
    "img_size": 28,
    "patch_size": 7,
    "in_chans": 1,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
}
PRETRAINING = {
    "architecture": VIT,
    "data": "mnist5k",
    "optimizer": {"name": "adamw", "lr": 0.002},
    "epochs": 4,
    "batch_size": 64,
    "grid": {"seed": [1, 2]},
}
FAMILY = {
    "name": "family",
    "stages": {
        "pretrain": PRETRAINING,
        "finetune": {
            "start": "pretrain",
            "data": {"name": "mnist5k", "train_limit": 2000, "split_seed": 1},
            "head": {"name": "linear", "seed": 0},
            "optimizer": {"name": "adamw", "lr": 0.001},
            "epochs": 3,
            "batch_size": 64,
            "grid": {"seed": [1, 2, 3]},
        },
        "experts": PRETRAINING
        | {
            "architecture": VIT | {"name": "ewa_vit"},
            "data": {"name": "mnist5k", "train_limit": 2000},
            "epochs": 2,
            "batch_size": 32,
            "grid": {"seed": [1]},
        },
    },
}


@pytest.fixture(scope="module")
def family(build_once: Any, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Two parents, three children of each, and a model with experts; to be changed at will."""

    def build(folder: Path) -> None:
        plain: Any = {"precision": "fp32", "compiled": False, "stacked": 1}
        grow(Blueprint.read(FAMILY), folder / "zoo", workers=0, progress=False, **plain)

    grown = build_once("family", build) / "zoo"
    return Zoo.open(shutil.copytree(grown, tmp_path_factory.mktemp("family") / "zoo"))
