"""How tables are printed: for people, as JSON, or as CSV."""

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from vitarium.cli._layout import Column, body_lines, fit, heading_lines, wrapped
from vitarium.cli._streams import exactly, is_speakable
from vitarium.core.csv_cells import guarded
from vitarium.core.printable import escaped_json, printable, shortened
from vitarium.core.terminal import Terminal, print_line

Rows = Iterable[Mapping[str, Any]]
HAS_ALL = "--json and --csv have all"
"""Of commands with these options, for `complete`."""
_LONG = 40  # characters of a value that all rows have
_NAMED = 8  # columns that are named where there is no room for them


def print_rows(
    rows: Rows,
    *,
    title: str = "",
    spare: Sequence[str] = (),
    constant: Mapping[str, Any] | None = None,
    complete: str = "",
    every_column: bool = False,
    as_json: bool = False,
    as_csv: bool = False,
) -> None:
    """Print rows with the same keys as a table, or all of them as a JSON array or CSV.

    A table fits `terminal_width`, see `_layout`; below it, what was left out is named.

    Args:
        spare: columns that go first where there is no room for all.
        constant: columns that the rows do not have, and the value of each, which is alike in all.
        complete: how to see all columns, for that line.
        every_column: none is left out, however wide the table becomes.
    """
    listed = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
    elif as_csv:
        print_csv(listed)
    elif listed:
        width = terminal_width()
        layout = fit(_columns(listed), None if every_column else width, spare)
        _print_heading([*wrapped(printable(title), width), ""] if title else [])
        _print_heading(heading_lines(layout.columns))
        sys.stdout.write("".join(f"{line}\n" for line in body_lines(layout.columns)))
        _print_rest({**(constant or {}), **layout.constant}, layout.left_out, complete)


def _print_rest(constant: Mapping[str, Any], left_out: Sequence[str], complete: str) -> None:
    """Say which columns a table does not have: those that are alike in all rows, and others."""
    values = [f"{k} {shortened(cell, _LONG)}" for k, v in constant.items() if (cell := text(v))]
    if values:
        print_text(f"the same in all: {_first(values)}")
    if left_out or len(values) > _NAMED:
        rest = f"not shown: {_first(left_out)}" if left_out else ""
        print_text("; ".join(filter(None, (rest, complete))))


def _first(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def print_text(text: str) -> None:
    """Print a paragraph, broken between words where the terminal's width is known."""
    for line in wrapped(printable(text), terminal_width()):
        print_line(line)


def terminal_width() -> int | None:
    """Cells in a line of the terminal; None where the output goes elsewhere, however wide."""
    console = Terminal()
    return console.width if console.is_terminal or os.environ.get("COLUMNS", "") else None


def _print_heading(texts: Iterable[str]) -> None:
    console = Terminal(soft_wrap=True)
    for line in texts:
        if console.is_terminal:
            console.print(line, style="bold")
        else:
            print_line(line)


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV, with a heading; nothing for no rows."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if keys:
        text = csv_text([keys, *([row.get(key) for key in keys] for row in rows)])
        cells = text.split("\t")  # no terminal is harmed by a tab
        sys.stdout.write(exactly("\t".join(printable(cell, newline="\n") for cell in cells)))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Lines of CSV; lists and mappings as JSON, nothing for what has no value."""

    def cell(value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list | tuple | dict):
            value = json.dumps(_plain(value), ensure_ascii=False, default=str)
        return guarded(value) if isinstance(value, str) else value

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(cell, row) for row in rows)
    return text.getvalue()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    columns = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        name, *cells = [printable(v if isinstance(v, str) else text(v)) for v in (key, *values)]
        is_number = all(isinstance(value, int | float | None) for value in values)
        columns.append(Column.of(name, cells, is_number))
    return columns


def print_json(value: Any) -> None:
    print(encodable_json(to_json(value)))


def encodable_json(text: str) -> str:
    """JSON text that standard output can encode: other characters are written as `\\uXXXX`."""
    if is_speakable(text):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)


def to_json(value: Any) -> str:
    """As text; what JSON has no words for (a date, say) as Python writes it."""
    return escaped_json(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str))


def text(value: Any) -> str:
    """A value in a cell: floats with the digits that count, nothing for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Decimal):
        return float(value)
    return value.item() if hasattr(value, "item") else value
