"""What the command line writes to: any encoding, a closed stream, a pipe, a full disk."""

import codecs
import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from vitarium.core.errors import DamagedCache
from vitarium.core.printable import printable

_HANDLER = "vitarium-look-alikes"
_LOOK_ALIKES = {
    **dict.fromkeys("\u2212\u2013\u2014", "-"),  # a minus and two dashes
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("\u2018\u2019", "'"),
    **dict.fromkeys("·•", "*"),
    **dict.fromkeys("\u00a0\u202f", " "),
    **dict(zip("≥≤≈≠±²→←", (">=", "<=", "~", "!=", "+-", "^2", "->", "<-"), strict=True)),
    **dict(zip("…\u00d7✓", ("...", "x", "+"), strict=True)),
}
"""ASCII for our own typography, and for that of rich."""


def prepare_streams() -> None:
    """Let standard output and errors take every character, and be there.

    What an encoding has no place for is written as its look-alike in ASCII, or else escaped. What
    was closed is opened on nothing: its number could become that of a file that is written.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def exactly(text: str) -> str:
    """A text for standard output in which no character is replaced by a look-alike."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_speakable(text: str) -> bool:
    """Whether standard output has all of the text's characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def silence(stream: TextIO) -> None:
    """Write nothing more: what is left in a broken stream would raise again when Python ends."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Inside, warnings are shown once, without the place in the code that they come from."""
    texts: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *location: Any, **more: Any) -> None:
        label = "note" if issubclass(category, DamagedCache) else "warning"
        text = printable(f"{label}: {' '.join(str(message).split())}")
        if text not in texts:
            texts.add(text)
            with suppress(OSError):
                print(text, file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _look_alikes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_look_alike, error.object[error.start : error.end])), error.end


def _look_alike(letter: str) -> str:
    """ASCII that looks like a character, or its number: `\\xff` for a byte that is no UTF-8."""
    if letter in _LOOK_ALIKES:
        return _LOOK_ALIKES[letter]
    name = unicodedata.name(letter, "")
    if name.startswith("BOX DRAWINGS"):
        across, upright = "HORIZONTAL" in name, "VERTICAL" in name
        across |= "LEFT" in name or "RIGHT" in name
        upright |= "UP" in name or "DOWN" in name
        return "+" if across and upright else "-" if across else "|"
    if "\udc80" <= letter <= "\udcff":  # how Python keeps such a byte
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode()


codecs.register_error(_HANDLER, _look_alikes)
