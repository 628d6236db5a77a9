"""Make untrusted text safe to display.

Names in a zoo, a table or a folder may contain anything: terminal escape sequences, bidirectional
overrides, lone surrogates. Text that is shown to people is passed through `printable`.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

JOINERS = "\u200c\u200d"
"""Zero-width characters that Persian, Indic scripts and emoji are written with."""
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: control and format characters, surrogates, line and paragraph separators."""
_NONCHARACTERS = "\ufffe\uffff"  # not allowed in XML, and in none of the categories above
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\n -~]")


def printable(text: str, *, newline: str = " ") -> str:
    r"""Escape every character that is invisible or affects how its neighbors are displayed.

    Whitespace becomes a space. Other hidden characters are written as Python escapes, e.g. `\x1b`
    or `\u202e`; a byte of a file name that is not UTF-8 is written as `\xff`. Text without hidden
    characters is returned unchanged, and so is text that was escaped already. `newline` replaces
    a line feed; "\n" keeps it.
    """
    if text.isprintable():
        return text

    def escaped(char: str) -> str:
        if char.isprintable() or char == "\n":
            return newline if char == "\n" else char
        if char.isspace():
            return " "
        if unicodedata.category(char) == "Cs":
            return _surrogate_escape(char)
        return char.encode("unicode_escape").decode() if is_hidden(char) else char

    return "".join(map(escaped, text))


def shortened(text: str, max_length: int) -> str:
    """Cut characters out of the middle of a text that is longer than `max_length`."""
    if len(text) <= max_length:
        return text
    return f"{text[: max_length // 2]}…{text[-(max_length - max_length // 2 - 1) :]}"


def brief(value: Any, max_length: int = 80) -> str:
    """A value as Python writes it, printable and cut in its middle: for messages."""
    return shortened(printable(repr(value)), max_length)


def is_hidden(char: str) -> bool:
    """Whether a character is invisible or changes how its neighbors are displayed."""
    if char in JOINERS:
        return False
    return unicodedata.category(char) in _HIDDEN or char in _NONCHARACTERS


def distinct(
    names: Iterable[str],
    *,
    empty: str = "unnamed",
    newline: str = " ",
    max_length: int | None = None,
) -> dict[str, str]:
    """Map each name to a printable label, such that different names have different labels.

    `empty` is the label of the empty name, `max_length` that of a label, without the number that
    tells equal labels apart.
    """
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names), key=lambda name: (printable(name) != name, name)):
        label = printable(name, newline=newline) or empty
        label = label if max_length is None else shortened(label, max_length)
        number = 1
        while (candidate := label if number == 1 else f"{label} ({number})") in taken:
            number += 1
        taken.add(candidate)
        labels[name] = candidate
    return labels


def escaped_json(text: str) -> str:
    r"""Replace hidden characters in JSON text, but for line feeds, by `\uXXXX`: the same value."""
    if text.isascii() and "\x7f" not in text:  # JSON escapes the other control characters itself
        return text

    def escape(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass").hex()
        pairs = (f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
        return "".join(pairs) if is_hidden(match[0]) else match[0]

    return _NOT_ASCII.sub(escape, text)


def encodable(value: Any) -> Any:
    r"""Replace lone surrogates, which UTF-8 cannot encode, in a text or in a JSON value.

    A surrogate becomes the text `\ud83d`; one by which Python represents a byte of a file name
    that is not UTF-8 becomes `\xff`.
    """
    if isinstance(value, str):
        return _SURROGATES.sub(lambda match: _surrogate_escape(match[0]), value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(encodable, value))
    return value


def _surrogate_escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
