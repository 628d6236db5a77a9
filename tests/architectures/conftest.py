"""What the tests of architectures share."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def reference() -> Any:
    """tests/reference/multiplexed_models.py"""
    return _loaded("multiplexed_models")


@pytest.fixture(scope="session")
def windows() -> Any:
    """tests/reference/multiplexed_windows.py"""
    return _loaded("multiplexed_windows")


def _loaded(name: str) -> Any:
    file = Path(__file__).parent.parent / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
