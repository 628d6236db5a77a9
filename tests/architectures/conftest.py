"""What the tests of architectures share."""

import importlib
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
    return importlib.import_module(f"reference.{name}")
