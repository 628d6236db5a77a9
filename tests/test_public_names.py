"""What `import vitarium` offers."""

import vitarium


def test_every_public_name_is_there_and_listed():
    assert sorted(vitarium.__all__) == vitarium.__all__
    assert set(vitarium.__all__) == set(vitarium._HOMES)
    assert all(getattr(vitarium, name) for name in vitarium.__all__)
    assert set(vitarium.__all__) <= set(dir(vitarium))


def test_what_public_functions_take_and_give_is_public():
    assert {"CheckpointRef", "Model", "Zoo", "Blueprint", "Plan"} <= set(vitarium.__all__)
