"""Untrusted text in Markdown: escaped, so that it contains neither markup nor HTML."""

import re
from collections.abc import Sequence
from typing import Any

from vitarium.core.printable import printable

_MARKUP = re.compile(r"[\\`*\[\]<>&|#~$!]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning; an underscore between letters and digits has none."""
_BACKTICKS = re.compile("`+")


def plain(text: Any) -> str:
    """The text on one line, for a sentence, a heading or a cell of a table."""
    # some renderers pass HTML through even after a backslash
    html = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return _MARKUP.sub(lambda m: html.get(m[0], f"\\{m[0]}"), printable(str(text)))


def code(text: str) -> str:
    """The text as inline code, for a cell of a table."""
    content = printable(text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(content)), default=0))
    space = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{space}{content}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
