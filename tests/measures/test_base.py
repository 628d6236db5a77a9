"""Registering a measure: a fact that is misspelled, missing or contradictory is refused at once."""

import pytest

from vitarium.core import registry
from vitarium.measures.base import measure


@pytest.fixture(autouse=True)
def own_plugins(monkeypatch):
    """What a test registers is gone after it."""
    registry.plugins("measure")  # all of ours first
    copies = {kind: dict(plugins) for kind, plugins in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", copies)


OF_MODEL = {"of": "model", "needs": "weights", "unit": "norm", "title": "made up"}
OF_PAIR = {"of": "pair", "needs": "predictions", "unit": "fraction", "title": "made up"}


def register(**facts):
    return measure("made_up", **facts)(lambda config, *inputs: 0.0)


def test_a_misspelled_fact_is_refused():
    with pytest.raises(TypeError, match="symetric"):
        register(**OF_PAIR, symetric=False)


@pytest.mark.parametrize("fact", OF_MODEL)
def test_a_missing_fact_is_refused(fact):
    with pytest.raises(TypeError, match=fact):
        register(**{name: value for name, value in OF_MODEL.items() if name != fact})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({**OF_MODEL, "unit": ""}, "give it a unit and a title"),
        ({**OF_MODEL, "title": ""}, "give it a unit and a title"),
        ({**OF_MODEL, "needs": "features"}, "no kind of measure"),
        ({**OF_MODEL, "symmetric": False}, "facts of pairs"),
        ({**OF_MODEL, "as_distance": "square"}, "facts of pairs"),
        ({**OF_MODEL, "heat_map": True}, "facts of pairs"),
        ({**OF_MODEL, "reason": lambda *inputs: None}, "give a reason"),
        ({**OF_PAIR, "needs": "weights"}, "give a reason"),
        ({**OF_MODEL, "splits": ("train", "test")}, "splits need predictions"),
    ],
)
def test_contradicting_facts_are_refused(facts, message):
    with pytest.raises(TypeError, match=f"measure 'made_up': .*{message}"):
        register(**facts)


def test_facts_that_are_not_given_have_defaults():
    register(**OF_PAIR)
    facts = registry.get("measure", "made_up").facts
    assert facts["symmetric"]
    assert facts["quick"]
    assert facts["held_out"]  # it needs predictions
    assert facts["as_distance"] is None
    assert not facts["studies"]
