"""Texts in CSV tables that no spreadsheet takes for a formula: `=cmd()` stands there as `'=cmd()`.

What reads our tables takes the sign away again (`unguarded`), so that texts come back as they were.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def guarded(text: str) -> str:
    """The text as it stands in a table; only one that could be a formula is changed."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` made, or anyone wrote."""
    inner = cell.removeprefix("'")
    return inner if inner != cell and guarded(inner) == cell else cell
