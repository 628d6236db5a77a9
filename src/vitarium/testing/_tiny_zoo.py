"""Zoos of tiny trained models, for contract tests."""

import atexit
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from vitarium.blueprint import Blueprint
from vitarium.core.registry import get
from vitarium.zoo import Zoo

_VIT = {"name": "vit", "embed_dim": 16, "depth": 1, "num_heads": 2}
ARCHITECTURE: Mapping[str, Any] = {**_VIT, "img_size": 8, "patch_size": 4, "in_chans": 1}
CLASSES = 10


@contextmanager
def tiny_zoo(
    architecture: Mapping[str, Any] | None = None, *, instead: Zoo | str | Path | None = None
) -> Iterator[Zoo]:
    """A copy of a zoo of trained models, or of one instead, which may be changed; it is removed at
    the end.

    It has two parents of 2 epochs, and two children of each, with equal heads at their start, which
    were trained for 1 epoch on scikit-learn's digits. The zoo is grown once in a process, with the
    settings of `architecture` in place of those of `ARCHITECTURE`.
    """
    settings = json.dumps(_settings(architecture or {}))
    grown = _grown(settings) if instead is None else Zoo.open(instead).path
    with TemporaryDirectory() as folder:
        yield Zoo.open(shutil.copytree(grown, Path(folder) / "zoo"))


def _settings(architecture: Mapping[str, Any]) -> dict[str, Any]:
    name = architecture.get("name", ARCHITECTURE["name"])
    fields = get("architecture", name).config.model_fields
    shared = {key: value for key, value in ARCHITECTURE.items() if key in fields}
    return {"name": name, **shared, **architecture}


@cache
def _grown(architecture: str) -> Path:
    from vitarium.engine.grow import grow

    folder = Path(mkdtemp(prefix="vitarium-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    pretrain = {
        "architecture": json.loads(architecture),
        "data": {"name": "digits", "train_limit": 96},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "epochs": 2,
        "batch_size": 32,
        "grid": {"seed": [1, 2]},
    }
    finetune = {
        "start": "pretrain",
        "data": {"name": "digits", "split_seed": 1, "train_limit": 64},
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "epochs": 1,
        "batch_size": 32,
        "grid": {"optimizer.lr": [0.01, 0.001]},
    }
    stages = {"pretrain": pretrain, "finetune": finetune}
    blueprint = Blueprint.read({"name": "tiny", "stages": stages})
    return grow(blueprint, folder / "zoo", workers=0, progress=False).zoo.path
