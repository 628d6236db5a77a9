"""How messages name parameters: as Python calls them, or as the options of a command.

Whoever raises an error writes `parameter("base", "ID")`. That reads `base=ID` in Python, and on the
command line, inside `spelled_by`, `--base ID`. No message names an option in any other way.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Spelling(Protocol):
    """How a parameter with its value, and a call of one of vitarium's functions, are written."""

    def parameter(self, name: str, value: Any) -> str: ...

    def call(self, function: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> str: ...

    def has_option(self, name: str) -> bool: ...


class PythonSpelling:
    """`base=ID`, and `vitarium.grow(BLUEPRINT, zoo=DIR)`."""

    def parameter(self, name: str, value: Any) -> str:
        name, _, inner = name.partition(".")
        return f"{name}={{{inner!r}: {_python(value)}}}" if inner else f"{name}={_python(value)}"

    def call(self, function: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        values = [*map(_python, arguments), *(self.parameter(*item) for item in named.items())]
        return f"vitarium.{function}({', '.join(values)})"

    def has_option(self, name: str) -> bool:
        return True  # not known: the message is for functions that have it


def is_placeholder(value: Any) -> bool:
    """Whether a value stands for what the reader is to fill in, such as `ID` or `FILE.csv`."""
    return isinstance(value, str) and value.partition(".")[0].isupper()


def _python(value: Any) -> str:
    return str(value) if is_placeholder(value) else repr(value)


_spelling: Spelling = PythonSpelling()


def parameter(name: str, value: Any) -> str:
    """A parameter, or a setting of a plug-in, with a value for it, in a message.

    Args:
        name: in Python, e.g. "skip_diverged"; "architecture.img_size" is inside a setting.
        value: what to give it; a name in capitals is a placeholder: "ID".
    """
    return _spelling.parameter(name, value)


def has_option(name: str) -> bool:
    """Whether what runs takes this parameter; only a command knows that it does not."""
    return _spelling.has_option(name)


def call(function: str, *arguments: Any, **named: Any) -> str:
    """A call of one of vitarium's public functions, or the command that does the same."""
    return _spelling.call(function, arguments, named)


@contextmanager
def spelled_by(spelling: Spelling) -> Iterator[None]:
    """Inside, messages name parameters so, in all threads of the process."""
    global _spelling
    before, _spelling = _spelling, spelling
    try:
        yield
    finally:
        _spelling = before
