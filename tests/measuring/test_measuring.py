"""Measures: right, cached, and told apart by their settings."""

import pytest

from vitarium import Blueprint, grow, measure, registry
from vitarium.config import InvalidConfig, NoConfig
from vitarium.errors import InvalidInput, UnknownName
from vitarium.registry import section


@pytest.fixture
def zoo(tiny, tmp_path):
    del tiny["stages"]["finetune"]
    return grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo


def test_every_model_is_a_row(zoo):
    table = measure(zoo, "weight_norm")
    assert list(table["model"]) == zoo.ids()
    assert set(table["epoch"]) == {2}
    expected = section("measure", "weight_norm")(zoo.state_dict(zoo.ids()[0]))
    assert table["value"][0] == expected


@pytest.mark.parametrize(("epochs", "numbers"), [("all", [0, 1, 2]), ("last", [2]), (1, [1])])
def test_epochs_are_chosen(zoo, epochs, numbers):
    table = measure(zoo, "weight_norm", models=[zoo.ids()[0][:8]], epochs=epochs)
    assert list(table["epoch"]) == numbers


def test_an_epoch_that_is_not_there_is_refused(zoo):
    with pytest.raises(InvalidInput, match="has no weights of epoch 9"):
        measure(zoo, "weight_norm", epochs=9)


@pytest.fixture
def counted(monkeypatch):
    """A measure that counts how often it is computed."""
    calls = []
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})

    @registry.measure("counted", config=NoConfig, unit="tensors")
    def count(config, weights):
        calls.append(1)
        return len(weights)

    return calls


def test_asking_twice_computes_once(zoo, counted):
    first = measure(zoo, "counted", epochs="all")
    assert len(counted) == 6
    assert measure(zoo, "counted", epochs="all").equals(first)
    assert len(counted) == 6


def test_other_settings_are_another_measure(zoo):
    whole = measure(zoo, "weight_norm")
    parts = measure(zoo, "weight_norm", names="attn")
    assert (parts["value"] < whole["value"]).all()
    assert measure(zoo, "weight_norm").equals(whole)


def test_bad_names_and_settings_are_refused(zoo):
    with pytest.raises(
        UnknownName, match="unknown measure 'weight_nrom'; did you mean 'weight_norm'"
    ):
        measure(zoo, "weight_nrom")
    with pytest.raises(InvalidConfig, match="unknown factor 'ordr'"):
        measure(zoo, "weight_norm", ordr=1)
