"""What the tests of architectures share."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def reference() -> Any:
    """tests/reference/multiplexed_models.py"""
    file = Path(__file__).parent.parent / "reference" / "multiplexed_models.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
