"""`vitarium plugins`: the registry, as it was found when vitarium's files last changed."""

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from vitarium.cli import _completion as completion
from vitarium.cli._architecture_sizes import architecture_sizes, default_sizes
from vitarium.cli._options import Csv, Json, argument, type_name
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.core.cache import remembered
from vitarium.core.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from vitarium.core.registry import Plugin

Entry = dict[str, Any]
"""Of a plug-in: name, what it is, its paper, what it is `of` or needs, and its settings."""


def plugins(
    kind: Annotated[
        str | None,
        argument(
            "A kind, such as `measures` or `measure`: a line for each plug-in.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    name: Annotated[
        str | None,
        argument("One plug-in, with its settings.", autocompletion=completion.of_chosen_kind),
    ] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """List architectures, datasets, objectives, measures and all other plug-ins.

    Examples:

      vitarium plugins

      vitarium plugins measures

      vitarium plugins architectures

      vitarium plugins measure cka
    """
    if kind is None:
        catalog = remembered("plugins", _catalog)
        listed = [kind for kind, entries in catalog.items() if not isinstance(entries, str)]
        rows = [{"kind": kind, **_row(entry, {})} for kind in listed for entry in catalog[kind]]
        print_rows(rows, complete=HAS_ALL, as_json=json, as_csv=csv)
        return
    kind = _singular(kind)
    by_name = {entry["name"]: entry for entry in entries_of(kind)}
    if name is None:
        sizes = default_sizes() if kind == "architecture" else {}
        rows = [
            {**entry, **_size(entry, sizes)} if json else _row(entry, sizes)
            for entry in by_name.values()
        ]
        print_rows(rows, complete=HAS_ALL, as_json=json, as_csv=csv)
        return
    entry = by_name.get(name) or by_name.get(name.replace("-", "_"))
    if entry is None:
        raise UnknownName(kind, name, by_name)
    title = f"{entry['name']}: {entry['what']}"
    title += f" ({entry['paper']})" if entry["paper"] else ""
    title += f" Unit: {entry['unit']}." if "unit" in entry else ""
    settings = entry["settings"] or ([] if json or csv else [{"setting": "none"}])
    print_rows(settings, title=title, complete=HAS_ALL, as_json=json, as_csv=csv)
    if entry.get("presets") and not (json or csv):
        sizes = architecture_sizes(entry["name"])
        print_rows([{"preset": preset, "parameters": sizes[preset]} for preset in entry["presets"]])


def _singular(kind: str) -> str:
    """`measures`, `studies` and `policies` are the kinds measure, study and policy."""
    return f"{kind[:-3]}y" if kind.endswith("ies") else kind.removesuffix("s")


def entries_of(kind: str) -> list[Entry]:
    """The plug-ins of a kind. Raises UnknownName, and InvalidInput where an extra is missing."""
    catalog = remembered("plugins", _catalog)
    if kind not in catalog:
        raise UnknownName("kind of plug-in", kind, catalog)
    if isinstance(catalog[kind], str):
        raise InvalidInput(catalog[kind])
    entries: list[Entry] = catalog[kind]
    return entries


def _row(entry: Entry, sizes: Mapping[str, int]) -> Entry:
    """A line of a list; of an architecture its size and how many presets it has, too."""
    if sizes:
        presets, paper = len(entry["presets"]), entry["paper"]
        size = {"name": entry["name"], **_size(entry, sizes), "presets": presets}
        return {**size, "what": entry["what"], "paper": paper}
    return {key: entry[key] for key in ("name", "what", "of") if key in entry}


def _size(entry: Entry, sizes: Mapping[str, int]) -> Entry:
    """Parameters of an architecture with its defaults; none of one that has no defaults."""
    return {"parameters": sizes.get(entry["name"])} if sizes else {}


def _catalog() -> dict[str, list[Entry] | str]:
    """By kind, its plug-ins; or a text, which extra they need."""
    from vitarium.core import registry
    from vitarium.core.extras import MissingExtra

    catalog: dict[str, list[Entry] | str] = {}
    for kind in registry.KINDS:
        try:
            catalog[kind] = [_entry(plugin) for plugin in registry.plugins(kind).values()]
        except MissingExtra as error:
            catalog[kind] = str(error)
    return catalog


def _entry(plugin: "Plugin") -> Entry:
    facts = plugin.facts
    settings = [
        {
            "setting": setting,
            "type": type_name(field.annotation),
            "default": "required" if field.is_required() else default_text(field),
            "what": " ".join((field.description or "").split()),
        }
        for setting, field in plugin.config.model_fields.items()
    ]
    entry = {"name": plugin.name, "what": plugin.summary, "paper": facts.get("paper", "")}
    if plugin.kind == "architecture":
        entry["presets"] = list(facts["presets"] or ())
    if plugin.kind == "measure":
        from vitarium.measures.base import units_text

        entry |= {"of": facts["of"], "unit": units_text(facts)}
    if plugin.kind == "operator":
        entry |= {"needs": _needs(facts), "compresses": facts["compression"] is not None}
    return {**entry, "settings": settings}


def default_text(field: "FieldInfo") -> str:
    """A setting's default as it is written in a blueprint: `[2, 3]`, `true`, `none`."""
    return _text(field.get_default(call_default_factory=True))


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple | list | frozenset | set):
        items = sorted(value) if isinstance(value, frozenset | set) else value
        return "[" + ", ".join(map(_text, items)) + "]"
    if hasattr(value, "factors"):  # a plug-in, or settings within settings
        factors = value.factors()
        if list(factors) == ["name"]:
            return str(factors["name"])
        return "{" + ", ".join(f"{name}: {_text(each)}" for name, each in factors.items()) + "}"
    return str(value) if value != "" else '""'


def _needs(facts: Any) -> str:
    """What an operator is given, in words."""
    min_models, max_models = facts["models"]
    if facts["epochs"]:
        models = "epochs of a model"
    elif min_models == max_models:
        models = "1 model" if max_models == 1 else f"{max_models} models"
    else:
        models = "models"
    images = f"{facts['split']} images" if facts["split"] else ""
    return ", ".join(filter(None, [models, "a base" if facts["needs_base"] else "", images]))
