"""Texts of anyone, as people may be shown them: no terminal obeys them, no page is turned by them.

A name in a zoo, a table or a folder may hold anything: commands to a terminal, letters that turn
the line around, halves of characters. All that is shown to people goes through here.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

JOINERS = "\u200c\u200d"
"""Zero-width letters that Persian, Indic scripts and emoji are written with."""
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, formats, halves of surrogate pairs, line ends."""
_NO_CHARACTERS = "\ufffe\uffff"
"""What XML refuses beside these."""
_HALVES = re.compile("[\ud800-\udfff]")
_NOT_PLAIN = re.compile(r"[^\n -~]")


def printable(text: str, *, newline: str = " ") -> str:
    r"""The text without anything that a terminal or a reader of XML would stumble over.

    Space is a space; what else is not seen is written as Python writes it: `\x1b`, `\u202e`; and so
    is a byte of a file's name that is no UTF-8: `\xff`. Without anything of it, a text stays as it
    is; so does what was made of one.

    Args:
        newline: what stands for a line end; "\n" keeps it.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _shown(letter, newline) for letter in text)


def shortened(text: str, most: int) -> str:
    """Both ends of a text that has more letters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def is_hidden(letter: str) -> bool:
    """Whether a character is not seen, or changes how those around it are."""
    if letter in JOINERS:
        return False
    return unicodedata.category(letter) in _HIDDEN or letter in _NO_CHARACTERS


def distinct(
    names: Iterable[str], *, empty: str = "unnamed", newline: str = " ", most: int | None = None
) -> dict[str, str]:
    """Each name -> how it is shown, so that no two of them look the same.

    Args:
        empty: what is shown for a name without a letter.
        newline: as of `printable`.
        most: letters, about; None: all.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names), key=lambda name: (printable(name) != name, name)):
        shown, number = printable(name, newline=newline) or empty, 1
        shown = shown if most is None else shortened(shown, most)
        while (free := shown if number == 1 else f"{shown} ({number})") in taken:
            number += 1
        taken.add(free)
        found[name] = free
    return found


def escaped_json(text: str) -> str:
    r"""JSON text with `\u001b` for every character that is not seen: the same value, safe to print.

    Line ends between values stay.
    """
    if text.isascii() and "\x7f" not in text:  # JSON escapes the other control characters itself
        return text
    return _NOT_PLAIN.sub(
        lambda match: _json_escape(match[0]) if is_hidden(match[0]) else match[0], text
    )


def whole(value: Any) -> Any:
    r"""A value of JSON, or of a file's name, whose texts UTF-8 can say.

    Half a surrogate pair, which JSON can say and UTF-8 cannot, becomes the text `\ud83d`; a byte
    of a file's name that is no UTF-8, which Python reads as such a half, becomes `\xff`.
    """
    if isinstance(value, str):
        return _HALVES.sub(lambda match: _half(match[0]), value)
    if isinstance(value, dict):
        return {whole(key): whole(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(whole, value))
    return value


def _half(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _shown(letter: str, newline: str) -> str:
    if letter == "\n":
        return newline
    if letter.isspace():
        return " "
    if unicodedata.category(letter) == "Cs":
        return _half(letter)
    return letter.encode("unicode_escape").decode() if is_hidden(letter) else letter


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
