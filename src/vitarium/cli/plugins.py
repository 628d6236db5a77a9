"""`vitarium plugins`: what the registry knows."""

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from vitarium.cli.tables import print_rows

if TYPE_CHECKING:
    from vitarium.registry import Plugin


def plugins(
    kind: Annotated[
        str | None, typer.Argument(help="One kind, e.g. architecture: with its settings.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List architectures, data sets, objectives and all else that a blueprint can name.

    Examples:

      vitarium plugins

      vitarium plugins optimizer
    """
    from vitarium import registry

    if kind is None:
        print_rows(
            (
                {"kind": plugin.kind, "name": plugin.name, "what": plugin.summary}
                for each in registry.KINDS
                for plugin in registry.plugins(each).values()
            ),
            as_json=json,
        )
        return
    for plugin in registry.plugins(kind).values():
        paper = plugin.facts.get("paper", "")
        print_rows(
            _settings(plugin),
            title=f"{plugin.name}: {plugin.summary}" + (f" ({paper})" if paper else ""),
            as_json=json,
        )


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
    from vitarium.registry import Section

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is tuple:
        return "(" + ", ".join(map(type_name, arguments)) + ")"
    names = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    if annotation in (None, NoneType):
        return "none"
    return "a name with settings" if annotation is Section else names.get(annotation, "any")
