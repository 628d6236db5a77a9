"""What is known to be right of lineages: modules of tests/reference."""

import importlib
from typing import Any

import pytest


@pytest.fixture(scope="session")
def arborescences():
    """All arborescences of a small graph: tests/reference/arborescences.py."""
    return _reference("arborescences")


@pytest.fixture(scope="session")
def lineage_trees():
    """Trees of models that are known: tests/reference/lineage_trees.py."""
    return _reference("lineage_trees")


@pytest.fixture(scope="session")
def weight_walks():
    """Walks in weight space, soups, copies, and their lineage: tests/reference/weight_walks.py."""
    return _reference("weight_walks")


def _reference(name: str) -> Any:
    return importlib.import_module(f"reference.{name}")
