"""What `import vitarium` offers."""

import pytest

import vitarium


def test_every_public_name_is_there_and_listed():
    assert sorted(vitarium.__all__) == vitarium.__all__
    assert all(getattr(vitarium, name) for name in vitarium.__all__)
    assert set(vitarium.__all__) <= set(dir(vitarium))


def test_what_public_functions_take_and_give_is_public():
    inputs = {"Blueprint", "CheckpointRef", "Plan", "Progress", "Zoo"}
    results = {"Compression", "Growth", "Model", "Recovered", "StudyResult"}
    assert inputs | results <= set(vitarium.__all__)


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(AttributeError, match="grwo"):
        _ = vitarium.grwo
