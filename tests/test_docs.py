"""Tables of plug-ins in the documentation are those of the registry."""

import api_reference
import plugin_tables
import pytest

from vitarium.core import registry
from vitarium.core.config import Config, NoConfig
from vitarium.core.registry import Plugin
from vitarium.testing._rules import Contract

PAGE = (plugin_tables.DOCS / "plugins.md").read_text(encoding="utf-8")


def test_every_table_is_what_the_registry_says():
    pages = [page.name for page in plugin_tables.stale()]
    assert pages == [], f"the tables of {', '.join(pages)} are not up to date: run `make docs`"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_has_a_table_with_all_its_plugins(kind):
    table = plugin_tables.table(kind)
    assert f"<!-- plugins: {kind} -->" in PAGE
    own = [
        p for p in registry.plugins(kind).values() if p.function.__module__.startswith("vitarium")
    ]
    assert own
    assert all(f"| `{plugin.name}` |" in table for plugin in own)


class Inner(Config):
    rate: float = 0.1


class Outer(Config):
    inner: Inner | None = None
    """Settings within settings."""


@pytest.mark.parametrize(("config", "setting"), [(Inner, "rate"), (Outer, "inner.rate")])
def test_the_contract_asks_for_a_description_of_every_setting(config, setting, monkeypatch):
    def undescribed(config, step: int, steps: int, steps_per_epoch: int) -> float:
        """Whatever it is, in a sentence."""

    loaded = registry.plugins("schedule")  # before the registry is another one for this test
    monkeypatch.setitem(registry._plugins, "schedule", loaded)
    registry.register("schedule", "undescribed", config)(undescribed)
    with pytest.raises(AssertionError, match=f"'undescribed': .*setting '{setting}'"):
        Contract("schedule", "undescribed")


def test_defaults_are_listed_as_a_blueprint_writes_them():
    page = plugin_tables.table("architecture") + plugin_tables.table("lineage")
    assert "`relative_positions={method: product, mode: contextual, on: [k], ratio: 1.9" in page
    assert "`times={}`" in page


@pytest.mark.parametrize("module", ["my_schedules", "my_package.vitarium.schedules"])
def test_plugins_of_others_are_in_no_table(module, monkeypatch):
    def of_others(config: NoConfig, step: int, steps: int, steps_per_epoch: int) -> float:
        """Whatever they are."""

    of_others.__module__ = module
    own = plugin_tables.table("schedule")
    listed = registry.plugins("schedule") | {
        "of_others": Plugin("schedule", "of_others", of_others, NoConfig)
    }
    monkeypatch.setattr(registry, "plugins", lambda kind: listed)
    assert plugin_tables.table("schedule") == own


def test_a_table_that_is_old_is_written_anew():
    start, end = "<!-- plugins: schedule -->\n", "<!-- end of plugins -->"
    page = f"before\n{start}| old |\n{end}\nafter"
    assert plugin_tables.with_tables(page) == (
        f"before\n{start}{plugin_tables.table('schedule')}{end}\nafter"
    )


def test_the_api_reference_is_what_the_docstrings_say():
    page = api_reference.PAGE.read_text(encoding="utf-8")
    assert page == api_reference.reference(), "docs/api.md is not up to date: run `make docs`"


@pytest.mark.parametrize("name", ["measure", "Zoo.query", "Zoo.classes", "vitarium.testing"])
def test_the_api_reference_has_every_kind_of_name(name):
    documented = {line.split()[-1] for line in api_reference.reference().splitlines() if line}
    assert (name in documented) is (name != "Zoo.classes")


def test_a_public_name_without_a_docstring_is_an_error():
    def unexplained():
        pass

    with pytest.raises(ValueError, match=r"unexplained.* has no docstring"):
        list(api_reference._entry("unexplained", unexplained))
