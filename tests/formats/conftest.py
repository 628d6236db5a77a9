"""Zoos that are quickly made: random weights, epochs and scores as if they had been trained."""

import os
from typing import Any

import pytest
import torch

from vitarium import Blueprint, Zoo, plan
from vitarium.zoo import About

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def written(tmp_path) -> Any:
    """Write the models of a blueprint into a zoo, without training them: `written(values)`."""

    def write(values: Any, name: str = "zoo") -> Zoo:
        zoo = Zoo.create(tmp_path / name)
        for spec in plan(Blueprint.read(values)).models:
            folder, model = zoo.folder(spec.id), spec.recipe.build(10)
            folder.begin(spec, About(10, tuple("0123456789"), {"torch": torch.__version__}))
            for epoch in range(spec.recipe.epochs + 1):
                scores = {"val_accuracy": 0.1 + 0.3 * epoch, "test_accuracy": 0.1 + 0.25 * epoch}
                weights = {k: v + 0.01 * epoch for k, v in model.state_dict().items()}
                folder.commit(epoch, {**scores, "seconds": 1.0}, weights, None)
            folder.finish("finished")
        return zoo

    return write


@pytest.fixture
def zoo(tiny, written) -> Zoo:
    """Two pre-trained models and four fine-tuned ones."""
    return written(tiny)


def one_model(tiny: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    """The tiny blueprint's first stage with other settings: one model."""
    values = {**tiny, "stages": {"pretrain": {**tiny["stages"]["pretrain"], **recipe}}}
    del values["stages"]["pretrain"]["grid"]
    return values


@pytest.fixture
def lone(tiny, written) -> Any:
    """A zoo of one model with these settings: `lone(architecture=..., head=...)`."""
    return lambda **recipe: written(one_model(tiny, **recipe))
