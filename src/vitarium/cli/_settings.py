"""Settings of a plug-in on the command line: `--set NAME=VALUE`, and an option for each."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

import typer

from vitarium.core.errors import InvalidInput

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the plug-in, see `vitarium plugins`; a list as [1,2]. May be repeated.",
    ),
]


def parsed(
    pairs: Iterable[str] | None, option: str = "--set", example: str = "check=false"
) -> dict[str, Any]:
    """["check=false", "mean=[0.5]"] -> {"check": False, "mean": [0.5]}; what is no JSON is text.

    Raises InvalidInput for what is no pair.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidInput(f"{option} {pair}: write NAME=VALUE, e.g. {option} {example}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def setting_help(field: Any) -> str:
    """What a field of a plug-in's settings is, and its default."""
    default = field.get_default()
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    is_plain = default not in (None, "", {}) and not hasattr(default, "model_fields")
    suffix = f" Default: {default}." if is_plain else ""
    return " ".join((field.description or "").split()) + suffix


def setting_value(text: str, annotation: Any) -> Any:
    """JSON, or else text; of a setting that is or can be a list also `a,b` and `2,all,[4,2]`.

    `none` is an empty list, where nothing else is possible.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    is_list = get_origin(annotation) is tuple
    can_be_list = is_list or any(get_origin(each) is tuple for each in get_args(annotation))
    if isinstance(value, list) or not can_be_list:
        return value
    if is_list and text in ("", "none"):
        return []
    if not is_list and "," not in text and not text.startswith("["):
        return value
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text if text.startswith("[") else f"[{text}]")
    except YAMLError:
        return value
