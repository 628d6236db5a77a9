"""Tables of plug-ins in the documentation are those of the registry."""

import plugin_tables
import pytest

from vitarium.core import registry

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


def test_a_table_that_is_old_is_written_anew():
    start, end = "<!-- plugins: schedule -->\n", "<!-- end of plugins -->"
    page = f"before\n{start}| old |\n{end}\nafter"
    assert plugin_tables.with_tables(page) == (
        f"before\n{start}{plugin_tables.table('schedule')}{end}\nafter"
    )
