"""Command lines that a reader of the page copies into a shell, which the page quotes."""

from collections.abc import Iterable


def command(name: str, /, *arguments: str, **options: str | Iterable[str]) -> list[str]:
    """The arguments of `vitarium NAME ...`; an option with several values comes with each of them.

    The first argument may be any path, such as a zoo's.
    """
    first, *others = arguments
    return ["vitarium", name, argument(first), *others, *_flags(options.items())]


def argument(path: str) -> str:
    """A path as an argument of a command, where a dash would begin an option."""
    return f"./{path}" if path.startswith("-") else path


def _flags(options: Iterable[tuple[str, str | Iterable[str]]]) -> list[str]:
    return [
        part
        for name, values in options
        for value in ([values] if isinstance(values, str) else values)
        for part in (f"--{name}", value)
    ]
