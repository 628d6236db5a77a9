"""`vitarium plugins`: the registry."""

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from vitarium.cli._tables import print_rows

if TYPE_CHECKING:
    from vitarium.core.registry import Plugin


def plugins(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="A kind: `measures` gives a line each, `measure` also their settings.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One plug-in, with its settings.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List architectures, datasets, objectives, measures and all other plug-ins.

    Examples:

      vitarium plugins

      vitarium plugins measures

      vitarium plugins optimizer

      vitarium plugins measure cka
    """
    from vitarium.core import registry
    from vitarium.core.extras import MissingExtra

    kinds = {f"{plugin_kind}s": plugin_kind for plugin_kind in registry.KINDS} | {
        "studies": "study"
    }
    if kind is None or (kind in kinds and name is None):
        listed: dict[str, dict[str, Plugin]] = {}
        for each in [kinds[kind]] if kind else registry.KINDS:
            try:
                listed[each] = registry.plugins(each)
            except MissingExtra:
                if kind:  # of all kinds, those that are installed are listed
                    raise
        print_rows(
            (
                _line(plugin)
                if kind
                else {"kind": plugin_kind, "name": plugin.name, "what": plugin.summary}
                for plugin_kind, of_kind in listed.items()
                for plugin in of_kind.values()
            ),
            as_json=json,
        )
        return
    kind = kinds.get(kind, kind)
    chosen = [registry.get(kind, name)] if name else registry.plugins(kind).values()
    for plugin in chosen:
        paper = plugin.facts.get("paper", "")
        print_rows(
            _settings(plugin),
            title=f"{plugin.name}: {plugin.summary}" + (f" ({paper})" if paper else ""),
            as_json=json,
        )


def _line(plugin: "Plugin") -> dict[str, str]:
    return {**_named(plugin), **({"of": plugin.facts["of"]} if plugin.kind == "measure" else {})}


def _named(plugin: "Plugin") -> dict[str, str]:
    return {"name": plugin.name, "what": plugin.summary}


def _settings(plugin: "Plugin") -> list[dict[str, Any]]:
    return [
        {
            "setting": name,
            "type": type_name(field.annotation),
            "default": "required" if field.is_required() else str(field.get_default()),
            "what": field.description or "",
        }
        for name, field in plugin.config.model_fields.items()
    ]


def type_name(annotation: Any) -> str:
    """A field's type as people write it: `int or none`, `linear, mlp`, `(number, number)`."""
    from vitarium.core.registry import Section

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return "(" + ", ".join(map(type_name, arguments)) + ")"
    names = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    if annotation in (None, NoneType):
        return "none"
    return "a name with settings" if annotation is Section else names.get(annotation, "any")
