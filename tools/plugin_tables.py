"""Writes the tables of plug-ins in docs/*.md from the registry: python tools/plugin_tables.py

A table stands between `<!-- plugins: KIND -->` and `<!-- end of plugins -->`; one of a family, a
folder of its kind, between `<!-- plugins: KIND FAMILY -->` and the same, without settings. With
--check nothing is written, and the exit status is 1 where a table is not what the registry says.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from vitarium.cli.plugins import default_text
from vitarium.core import registry
from vitarium.core.registry import Plugin
from vitarium.measures.base import units_text

DOCS = Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"(<!-- plugins: (\w+) ?(\w*) -->\n).*?(<!-- end of plugins -->)", re.DOTALL)
SETTINGS = "settings and their defaults"
FACTS = ("title", "of", "unit")
"""Columns, too, where all plug-ins of the kind have them."""


def with_tables(text: str) -> str:
    """A page with the tables that the registry has now."""
    return TABLE.sub(lambda match: match[1] + table(match[2], match[3]) + match[4], text)


def table(kind: str, family: str = "") -> str:
    """vitarium's own plug-ins of a kind or a family: name, summary, settings with defaults, paper.

    Raises ValueError for a family that has no plug-in.
    """
    listed = [p for p in registry.plugins(kind).values() if _is_own(p, family)]
    if not listed:
        raise ValueError(f"vitarium has no {kind} in a folder '{family}'")
    facts = [fact for fact in FACTS if all(fact in p.facts for p in listed)]
    rows = [[f"`{p.name}`", *_described(p, facts)] for p in listed]
    header = ["name", "what", *facts, SETTINGS, "paper"]
    hidden = {"title", SETTINGS} if family else set()
    used = [k for k, name in enumerate(header) if name not in hidden and any(r[k] for r in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line[k] for k in used) + " |\n" for line in lines)


def _is_own(plugin: Plugin, family: str) -> bool:
    package, *folders = plugin.function.__module__.split(".")
    return package == "vitarium" and (not family or family in folders[1:])


def _described(plugin: Plugin, facts: list[str]) -> Iterator[str]:
    yield _cell(plugin.summary)
    for fact in facts:
        text = units_text(plugin.facts) if fact == "unit" else str(plugin.facts[fact])
        yield _cell(text)
    settings = plugin.config.model_fields.items()
    yield ", ".join(f"`{_cell(_default(name, field))}`" for name, field in settings)
    yield _cell(plugin.facts.get("paper", ""))


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return name
    return f"{name}={default_text(field)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def stale() -> dict[Path, str]:
    """Pages whose tables are not what the registry says -> what they should hold."""
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    return {page: new for page, text in pages.items() if (new := with_tables(text)) != text}


def main() -> int:
    changed = stale()
    for page, text in changed.items():
        print(page.name)
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
    return int(bool(changed) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
