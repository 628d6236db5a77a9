"""`vitarium plugins`: what the registry knows."""

from typing import Annotated, Any

import typer

from vitarium import registry
from vitarium.cli.tables import print_rows


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


def _settings(plugin: registry.Plugin) -> list[dict[str, Any]]:
    return [
        {
            "setting": name,
            "type": str(field.annotation)
            .removeprefix("<class '")
            .removesuffix("'>")
            .replace("typing.", ""),
            "default": "required"
            if field.is_required()
            else repr(field.get_default(call_default_factory=True)),
            "what": field.description or "",
        }
        for name, field in plugin.config.model_fields.items()
    ]
