"""Siblings of a trained tiny zoo, and operators of a test's own."""

import pytest

from vitarium.core import registry


@pytest.fixture
def siblings(grown_zoo):
    """Two children of one parent."""
    children = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    parent = grown_zoo.spec(children[0]).parent
    return [id for id in children if grown_zoo.spec(id).parent == parent]


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    for kind in registry.KINDS:
        registry.plugins(kind)
    known = {kind: dict(found) for kind, found in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", known)
