"""`--set NAME=VALUE`: settings of a plug-in on the command line."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

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
