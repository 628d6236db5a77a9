"""Protect text cells of CSV files from being evaluated as formulas by spreadsheets.

`=cmd()` is written as `'=cmd()`. Readers of our own tables undo this, so that text round-trips.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def guarded(text: str) -> str:
    """The text as a CSV cell; it changes only if a spreadsheet might read it as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The text of a CSV cell, whether or not it was written by `guarded`."""
    text = cell.removeprefix("'")
    return text if text != cell and guarded(text) == cell else cell
