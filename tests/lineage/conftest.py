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


class Steps(list):
    """Progress that is recorded: (task, done, total) of every step."""

    def step(self, task: str, done: int, total: int) -> None:
        self.append((task, done, total))


@pytest.fixture
def steps():
    """The steps of progress that were reported to it."""
    return Steps()


def _reference(name: str) -> Any:
    return importlib.import_module(f"reference.{name}")
