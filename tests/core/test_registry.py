"""Plug-ins are found wherever they lie in the package of their kind."""

import pytest

from vitarium.core import registry


@pytest.mark.parametrize("kind", registry.KINDS)
def test_plugins_lie_in_public_modules_of_their_kinds_package(kind):
    home = registry.KINDS[kind]
    modules = {
        plugin.function.__module__
        for plugin in registry.plugins(kind).values()
        if plugin.function.__module__.startswith("vitarium.")
    }
    assert modules
    for module in modules:
        assert module == home or module.startswith(f"{home}.")
        names = module.removeprefix(home).split(".")
        assert "base" not in names
        assert not any(name.startswith("_") for name in names)
