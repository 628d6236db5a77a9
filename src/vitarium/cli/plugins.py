"""`vitarium plugins`: the registry."""

from typing import Annotated

from vitarium.cli._options import Json, argument, type_name
from vitarium.cli._tables import print_rows


def plugins(
    kind: Annotated[
        str | None, argument("A kind: `measures` gives a line each, `measure` also their settings.")
    ] = None,
    name: Annotated[str | None, argument("One plug-in, with its settings.")] = None,
    json: Json = False,
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

    kinds = {f"{kind}s": kind for kind in registry.KINDS} | {"studies": "study"}
    if kind is None or (kind in kinds and name is None):
        rows = []
        for listed_kind in [kinds[kind]] if kind else registry.KINDS:
            try:
                plugins = registry.plugins(listed_kind).values()
            except MissingExtra:
                if kind:  # of all kinds, those that are installed are listed
                    raise
                continue
            for plugin in plugins:
                row = {} if kind else {"kind": plugin.kind}
                row |= {"name": plugin.name, "what": plugin.summary}
                if kind and plugin.kind == "measure":
                    row["of"] = plugin.facts["of"]
                rows.append(row)
        print_rows(rows, as_json=json)
        return
    kind = kinds.get(kind, kind)
    for plugin in [registry.get(kind, name)] if name else registry.plugins(kind).values():
        paper = plugin.facts.get("paper", "")
        settings = [
            {
                "setting": setting,
                "type": type_name(field.annotation),
                "default": "required" if field.is_required() else str(field.get_default()),
                "what": field.description or "",
            }
            for setting, field in plugin.config.model_fields.items()
        ]
        title = f"{plugin.name}: {plugin.summary}" + (f" ({paper})" if paper else "")
        print_rows(settings or ([] if json else [{"setting": "none"}]), title=title, as_json=json)
