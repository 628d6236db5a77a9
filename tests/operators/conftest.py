"""Small trained models that can be aligned: reference/small_vits.py."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vits() -> Any:
    file = Path(__file__).parents[1] / "reference" / "small_vits.py"
    spec = importlib.util.spec_from_file_location("small_vits", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits(vits: Any) -> Any:
    """Training images, as operators are given them."""
    return vits.digits()


@pytest.fixture(scope="session")
def vit(vits: Any, digits: Any) -> Any:
    return vits.trained(digits, 1)


@pytest.fixture(scope="session")
def other_vit(vits: Any, digits: Any) -> Any:
    """A model of another seed."""
    return vits.trained(digits, 2)


@pytest.fixture(scope="session")
def outputs(vit: Any, digits: Any) -> Any:
    """What a model says with given weights, float64 [64, 10]."""
    from copy import deepcopy

    images = next(digits.first(64).batches()).images.double()

    def run(weights: Any) -> Any:
        model = deepcopy(vit).double()
        model.load_state_dict(dict(weights))
        return model(images)

    return run
