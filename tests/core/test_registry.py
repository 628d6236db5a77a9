"""Plug-ins are found wherever they lie in the package of their kind."""

from typing import Literal

import pytest
from pydantic import PositiveInt

from vitarium.core import registry
from vitarium.core.config import Config, InvalidConfig, NoConfig
from vitarium.core.errors import UnknownName, VitariumError


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


class Settings(Config):
    """Of the plug-in below."""


def test_settings_are_as_the_function_is_annotated_unless_a_class_is_named(monkeypatch):
    monkeypatch.setitem(registry._plugins, "objective", {})

    def annotated(config: Settings) -> None: ...

    for named, expected in ((None, Settings), (NoConfig, NoConfig)):
        registry.register("objective", "made_up", named)(annotated)
        assert registry._plugins["objective"]["made_up"].config is expected


def test_without_an_annotation_there_are_no_settings(monkeypatch):
    monkeypatch.setitem(registry._plugins, "objective", {})

    def plain(config, model: Settings): ...

    registry.register("objective", "made_up")(plain)
    assert registry._plugins["objective"]["made_up"].config is NoConfig


def test_settings_of_another_type_are_refused(monkeypatch):
    monkeypatch.setitem(registry._plugins, "objective", {})

    def number(config: int) -> None: ...

    with pytest.raises(TypeError, match="'made_up': its first parameter"):
        registry.register("objective", "made_up")(number)
    assert registry._plugins["objective"] == {}


@pytest.mark.parametrize(
    "name", [3, "", "two words", "a/b", test_without_an_annotation_there_are_no_settings]
)
def test_what_is_no_name_is_refused_with_the_way_to_write_it(name):
    with pytest.raises(TypeError, match=r'is no name of a plug-in; write @schedule\("name"\)'):
        registry.register("schedule", name)


def test_two_functions_do_not_share_a_name_and_one_may_be_reloaded(monkeypatch):
    monkeypatch.setitem(registry._plugins, "objective", {})

    def first(config) -> None: ...

    def second(config) -> None: ...

    registry.register("objective", "made_up")(first)
    registry.register("objective", "made_up")(first)
    with pytest.raises(ValueError, match=r"'made_up' of .*second is already registered by"):
        registry.register("objective", "made_up")(second)


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setenv("VITARIUM_PLUGINS", "no_such_plugin")
    registry._load_outside.cache_clear()
    with pytest.raises(
        VitariumError,
        match=r"VITARIUM_PLUGINS: cannot import no_such_plugin: ModuleNotFoundError\(.*PYTHONPATH",
    ):
        registry.plugins("objective")
    monkeypatch.undo()
    registry._load_outside.cache_clear()
    assert registry.plugins("objective")


class Width(Config):
    width: int = 1
    """Of something."""


@pytest.mark.parametrize("fact", ["tiny", "identity_on_copies"])
def test_settings_for_the_contract_tests_are_settings(fact, monkeypatch):
    monkeypatch.setitem(registry._plugins, "objective", {})

    def wide(config: Width) -> None: ...

    registry.register("objective", "made_up", **{fact: {"width": 2}})(wide)
    with pytest.raises(TypeError, match=f"'made_up': {fact} has {{'widht'}}, which is no setting"):
        registry.register("objective", "made_up", **{fact: {"widht": 2}})(wide)


def test_a_choice_of_types_is_no_part_of_a_settings_name():
    class Settings(Config):
        trees: PositiveInt | Literal["auto"] = "auto"
        size: int | tuple[int, int] = 1

    with pytest.raises(InvalidConfig) as caught:
        Settings.read({"trees": "many", "size": "large"})
    assert {problem.path for problem in caught.value.problems} == {("trees",), ("size",)}


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("adaptation", "linear_probe", "; did you mean 'head' (linear probe)?"),
        ("augmentation", "trivialaugment", "there is a policy of that name"),
        ("dataset", "zzz", "; VITARIUM_PLUGINS names modules with plug-ins of your own"),
    ],
)
def test_a_title_or_another_kind_is_hinted_at(kind, name, hint):
    with pytest.raises(UnknownName) as raised:
        registry.get(kind, name)
    assert hint in str(raised.value)
