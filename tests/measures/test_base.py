"""Registering a measure: a fact that is misspelled, missing or contradictory is refused at once."""

from collections.abc import Sequence

import pytest

from vitarium.core import registry
from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Matrices, Predictions, Weights
from vitarium.measures.base import measure


@pytest.fixture(autouse=True)
def own_plugins(monkeypatch):
    """What a test registers is gone after it."""
    registry.plugins("measure")  # all of ours first
    copies = {kind: dict(plugins) for kind, plugins in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", copies)


def of_weights(config: NoConfig, weights: Weights) -> float: ...


def of_predictions(config: NoConfig, predictions: Predictions) -> float: ...


def of_pairs(config: NoConfig, first: Predictions, second: Predictions) -> float: ...


def of_pairs_of_weights(config: NoConfig, models: Sequence[Weights]) -> Matrices: ...


def of_three(config: NoConfig, one: Weights, two: Weights, three: Weights) -> float: ...


def without_types(config, weights): ...


UNIT = {"unit": "fraction", "title": "made up"}


def test_a_misspelled_fact_is_refused():
    with pytest.raises(TypeError, match="symetric"):
        measure("made_up", **UNIT, symetric=False)


def test_a_missing_unit_is_refused():
    with pytest.raises(TypeError, match="unit"):
        measure("made_up", title="made up")


@pytest.mark.parametrize(
    ("function", "facts", "message"),
    [
        (of_weights, {"unit": ""}, "give it a unit"),
        (of_weights, {"unit": 3}, "unit: 3 is a number, not text"),
        (of_pairs, {"as_distance": "one_minu"}, "as_distance: 'one_minu' is not 'identity'"),
        (of_pairs, {"symmetric": "no"}, "symmetric"),
        (of_predictions, {"splits": ("trian", "test")}, "splits.0: 'trian' is not"),
        (of_weights, {"tiny": 3}, "tiny: 3 is not a valid dictionary"),
        (of_three, {}, "no kind of measure"),
        (without_types, {}, "no kind of measure"),
        (of_weights, {"symmetric": False}, "facts of pairs"),
        (of_weights, {"as_distance": "square"}, "facts of pairs"),
        (of_weights, {"heat_map": True}, "facts of pairs"),
        (of_weights, {"reason": lambda *inputs: None}, "give a reason"),
        (of_pairs_of_weights, {}, "give a reason"),
        (of_weights, {"splits": ("train", "test")}, "splits need predictions"),
        (of_predictions, {"splits": ("train", "test")}, "splits need predictions"),
    ],
)
def test_contradicting_facts_are_refused(function, facts, message):
    with pytest.raises(TypeError, match=f"measure 'made_up': .*{message}"):
        measure("made_up", **UNIT | facts)(function)


def test_facts_that_are_not_given_have_defaults():
    measure("made_up", unit="fraction")(of_pairs)
    facts = registry.get("measure", "made_up").facts
    assert facts["title"] == "made up"
    assert (facts["of"], facts["needs"]) == ("pair", "predictions")
    assert facts["symmetric"]
    assert facts["quick"]
    assert facts["held_out"]  # it needs predictions
    assert facts["as_distance"] is None
    assert not facts["studies"]
