"""What holds for every measure that is registered, by `vitarium.testing.check_measure`."""

import pytest

from vitarium.core import registry
from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Predictions, Weights
from vitarium.measures.base import measure
from vitarium.testing import check_measure


@pytest.mark.parametrize("name", registry.plugins("measure"))
def test_each_keeps_to_the_contract(grown_zoo, name):
    check_measure(name, grown_zoo)


def test_a_tiny_zoo_is_grown_where_none_is_given():
    check_measure("weight_norm")
    check_measure("agreement")


@pytest.fixture
def made_up(monkeypatch):
    """Registers a measure for a test."""
    registry.plugins("measure")  # all of ours first
    copies = {kind: dict(plugins) for kind, plugins in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", copies)
    return measure("made_up", unit="1", title="made up")


def test_a_measure_that_gives_other_bits_each_time_breaks_the_contract(made_up, grown_zoo):
    values = iter(range(100))

    @made_up
    def counter(config: NoConfig, weights: Weights):
        """How often it was called before."""
        return float(next(values))

    with pytest.raises(AssertionError, match=r"measure 'made_up': .*same bits"):
        check_measure("made_up", grown_zoo)


def test_a_measure_without_a_value_or_a_sentence_breaks_the_contract(made_up, grown_zoo):
    @made_up
    def undefined(config: NoConfig, weights: Weights):
        """The quotient of nothing and nothing."""
        return float("nan")

    with pytest.raises(AssertionError, match=r"'made_up': .*made_up is nan"):
        check_measure("made_up", grown_zoo)
    undefined.__doc__ = "No sentence at all"
    with pytest.raises(AssertionError, match=r"'made_up': .*with a sentence"):
        check_measure("made_up", grown_zoo)


def test_a_measure_that_is_not_symmetric_and_does_not_say_so_breaks_the_contract(
    made_up, grown_zoo
):
    @made_up
    def first_logit(config: NoConfig, first: Predictions, second: Predictions):
        """How much larger the first model's first logit is."""
        return float(first.logits[0, 0] - second.logits[0, 0])

    with pytest.raises(AssertionError, match=r"'made_up': .*both orders"):
        check_measure("made_up", grown_zoo)
    assert not len(grown_zoo.records())  # a copy was measured


def test_parts_that_change_places_are_not_symmetric_unless_they_lie_along_a_path(
    grown_zoo, made_up
):
    def ends(config: NoConfig, first: Predictions, second: Predictions):
        """The mean logit of each."""
        return {"first": float(first.logits.mean()), "second": float(second.logits.mean())}

    made_up(ends)
    with pytest.raises(AssertionError, match=r"'made_up': .*both orders"):
        check_measure("made_up", grown_zoo)
    measure("made_up", unit="1", symmetric="mirrored")(ends)
    check_measure("made_up", grown_zoo.path)
