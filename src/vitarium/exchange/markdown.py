"""Texts of anyone in Markdown: what they say, and neither markup nor HTML."""

import re
from collections.abc import Sequence
from typing import Any

from vitarium.printable import printable

_MARKUP = re.compile(r"[\\`*\[\]<>&|#~$!]|(?<![^\W_])_|_(?![^\W_])")
"""What means something; an underscore between letters and digits does not."""
_BACKTICKS = re.compile("`+")


def plain(text: Any) -> str:
    """The text on one line, as part of a sentence, a heading or a cell."""
    return _MARKUP.sub(_escaped, printable(str(text)))


def code(text: str) -> str:
    """The text as code, in a cell of a table."""
    shown = printable(text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(match: re.Match[str]) -> str:
    # as entities, what HTML would take for its own: some readers of Markdown let it through
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], f"\\{match[0]}")
