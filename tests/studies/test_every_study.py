"""What holds for every study that is registered, by `vitarium.testing.check_study`."""

import inspect

import pytest

import vitarium
from vitarium.core import registry
from vitarium.core.config import Config
from vitarium.studies.base import RUNNER_OPTIONS, Population, Section, Table, Tables, study
from vitarium.testing import check_study


class WithCondition(Config):
    where: str = ""
    """A condition of its own."""


@pytest.mark.parametrize("name", registry.plugins("study"))
def test_each_keeps_to_the_contract(grown_zoo, name):
    check_study(name, grown_zoo)


@pytest.fixture
def made_up(monkeypatch):
    """Registers a study for a test."""
    registry.plugins("study")  # all of ours first
    copies = {kind: dict(plugins) for kind, plugins in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", copies)
    return study("made_up", title="Made up")


def test_a_study_without_tables_breaks_the_contract(made_up, written_zoo):
    @made_up
    def nothing(config, population) -> Tables:
        """Nothing about a population."""
        return Tables("Nothing", [])

    with pytest.raises(AssertionError, match=r"study 'made_up': .* a table at least"):
        check_study("made_up", written_zoo)


def test_a_study_that_changes_from_run_to_run_breaks_the_contract(made_up, written_zoo):
    counts = iter(range(100))

    @made_up
    def counting(config, population) -> Tables:
        """How often it was run."""
        return Tables("Counting", [Section("a", "A", [Table.of("T", [{"n": next(counts)}])])])

    with pytest.raises(AssertionError, match="same page"):
        check_study("made_up", written_zoo)


def test_a_setting_that_is_called_like_an_option_of_every_study_is_refused():
    with pytest.raises(TypeError, match=r"study 'x': call the settings \['where'\] otherwise"):

        @study("x", title="X")
        def x(config: WithCondition, population: Population) -> Tables:
            """Never runs."""


def test_the_options_that_no_setting_is_called_like_are_those_of_every_study():
    parameters = inspect.signature(vitarium.study).parameters
    named = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert named <= set(RUNNER_OPTIONS)


def test_a_misspelled_or_missing_fact_is_refused():
    with pytest.raises(TypeError, match="tinny"):
        study("x", title="X", tinny={})
    with pytest.raises(TypeError, match="title"):
        study("x")
    with pytest.raises(TypeError, match="of: 'zo' is not 'zoo', 'weights' or 'records'"):
        study("x", title="X", of="zo")
    with pytest.raises(TypeError, match=r"exports\.json: 3 is not callable"):
        study("x", title="X", exports={"json": 3})
    with pytest.raises(TypeError, match="give it a title"):
        study("x", title="")
