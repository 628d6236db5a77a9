"""Measures that count how often they are computed, and models how often they run."""

import pytest

from vitarium.core import registry
from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Weights
from vitarium.measures.base import measure as measure_plugin


@pytest.fixture
def zoo(grown_zoo):
    """Two pre-trained models on digits, with two fine-tuned ones each."""
    return grown_zoo


@pytest.fixture
def own_plugins(monkeypatch):
    """What a test registers is gone after it."""
    registry.plugins("measure")  # all of ours first
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})


@pytest.fixture
def counted(own_plugins):
    """A measure of weights that counts how often it is computed."""
    calls = []

    @measure_plugin("counted", unit="tensors", title="counted")
    def count(config: NoConfig, weights: Weights):
        calls.append(weights.name)
        return float(len(weights))

    return calls


@pytest.fixture
def passes(monkeypatch):
    """Numbers of images that models saw, a list per model that was loaded."""
    from vitarium import Zoo

    found = []
    load = Zoo.load

    def counting(zoo, *args, **kwargs):
        model = load(zoo, *args, **kwargs)
        seen = []
        found.append(seen)
        model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        return model

    monkeypatch.setattr(Zoo, "load", counting)
    return found
