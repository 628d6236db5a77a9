"""Zoos of models that are to be quantized."""

import shutil

import pytest

from vitarium import Blueprint, Zoo, grow


@pytest.fixture(scope="module")
def grown(request, tmp_path_factory):
    """Originals of the module's ARCHITECTURE."""
    stage = {
        "architecture": request.module.ARCHITECTURE,
        "data": {"name": "digits", "train_limit": 256},
        "epochs": 3,
        "batch_size": 32,
        "optimizer": {"name": "adamw", "lr": 3e-3},
        "checkpoints": "last",
        "variants": [{}, {"head": {"name": "mlp", "hidden_dim": 8}, "epochs": 1}],
    }
    blueprint = Blueprint.read({"name": "originals", "stages": {"originals": stage}})
    folder = tmp_path_factory.mktemp("originals") / "zoo"
    grow(blueprint, folder, workers=0, progress=False)
    return folder


@pytest.fixture
def zoo(grown, tmp_path):
    return Zoo.open(shutil.copytree(grown, tmp_path / "zoo"))
