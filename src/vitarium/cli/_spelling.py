"""How messages name parameters on the command line: `--base ID`, `--set check=false`."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import PythonSpelling, is_placeholder, spelled_by

_COMMANDS = {"import_zoo": "import"}
"""Commands that are not called as their function is."""
_OF_ONE_MODEL = {"ls": "show"}
"""Commands of a whole zoo, and those that do the same for one model."""


class Command(TyperCommand):
    """A command; while it runs, messages name its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """What is missing, and what is too much, is named with an example from the help."""
        words = [*args]
        usage_error: Any = BadParameter.__base__  # which typer does not name itself
        try:
            return super().parse_args(ctx, args)
        except usage_error as error:
            is_too_much = type(error) is usage_error  # more arguments than the command takes
            if not is_too_much and type(error).__name__ not in ("MissingParameter", "NoSuchOption"):
                raise
            message = error.format_message()
            if is_too_much and self.name in _OF_ONE_MODEL and len(words) == 2:
                raise usage_error(
                    f"'{self.name}' takes a zoo and no model. Of one model: "
                    f"vitarium {_OF_ONE_MODEL[self.name]} {shlex.join(words)}",
                    ctx,
                ) from None
            example = re.search(r"^(?: +|Example: +)(vitarium .*)$", self.help or "", re.MULTILINE)
            if not example or "Did you mean" in message or "Possible options" in message:
                raise
            dot = "" if message.endswith(".") else "."
            raise usage_error(f"{message}{dot} Example: {example[1]}", ctx) from None

    def invoke(self, ctx: Any) -> Any:
        """Raises InvalidInput for both of --json and --csv, before anything is computed."""
        if all(ctx.params.get(name) is True for name in ("json", "csv")):  # no files of a study
            raise InvalidInput("choose one of --json and --csv")
        with spelled_by(OptionSpelling(self.params)):
            return super().invoke(ctx)


class OptionSpelling:
    """By the options of a command; what it has no option for, as in Python."""

    def __init__(self, parameters: Iterable[Any]) -> None:
        self._options = {p.name: p for p in parameters if p.param_type_name == "option"}
        self._has_settings = any("--set" in option.opts for option in self._options.values())

    def parameter(self, name: str, value: Any) -> str:
        if name in self._options:
            return _option(self._options[name], value)
        if self._has_settings:
            return f"--set {shlex.quote(f'{name}={_json(value)}')}"
        return PythonSpelling().parameter(name, value)

    def has_option(self, name: str) -> bool:
        return name in self._options

    def call(self, function: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        words = ["vitarium", _COMMANDS.get(function, function), *map(_shell, arguments)]
        for name, value in named.items():
            words += [f"--{name.replace('_', '-')}", _shell(value)]
        return " ".join(words)


def _option(option: Any, value: Any) -> str:
    flag = max(option.opts, key=len)
    if not option.is_flag:
        return f"{flag} {_shell(value)}"
    return flag if value else max(option.secondary_opts, key=len)


def _shell(value: Any) -> str:
    return str(value) if is_placeholder(value) else shlex.quote(str(value))


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
