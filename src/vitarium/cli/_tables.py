"""How tables are printed: for people, as JSON, or as CSV."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vitarium.cli._streams import exactly, is_speakable
from vitarium.core.csv_cells import guarded
from vitarium.core.errors import InvalidInput
from vitarium.core.printable import escaped_json, printable
from vitarium.core.terminal import Terminal

Rows = Iterable[Mapping[str, Any]]
Column = tuple[list[str], bool]
"""Heading and cells, and whether they are numbers."""

_FITTED = 1000  # rows that are fitted to the terminal's width; more of them take seconds
_UNBROKEN = 24  # characters of the longest cell of a column that is not broken over lines
GAP = 2  # between columns


def print_rows(rows: Rows, *, title: str = "", as_json: bool = False, as_csv: bool = False) -> None:
    """Print rows with the same keys as a table, or all of them as a JSON array or CSV.

    On a terminal long texts are broken over lines; ids, numbers and short texts never are.
    """
    listed = [dict(row) for row in rows]
    if as_json and as_csv:
        raise InvalidInput("choose one of --json and --csv")
    if as_json:
        print_json(listed)
    elif as_csv:
        print_csv(listed)
    elif listed:
        console, columns = Terminal(), _columns(listed)
        if console.is_terminal and len(listed) <= _FITTED and _fits(columns, console.width):
            console.print(_table(columns, title))
        else:  # a file or a pipe is as wide as it needs to be
            sys.stdout.write("".join(f"{line}\n" for line in lines(listed, title)))


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


def widths(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of each column of a table, the cells that it takes without a break, with the gap after it."""
    names = dict.fromkeys(key for row in rows for key in row)
    measured = (max(map(cell_len, cells)) + GAP for cells, _ in _columns(rows))
    return dict(zip(names, measured, strict=True))


def lines(rows: list[dict[str, Any]], title: str = "") -> Iterator[str]:
    """A table in columns of fixed width; 10,000 rows take a tenth of a second."""
    if title:
        yield printable(title)
        yield ""
    columns = _columns(rows)
    table = zip(*(_filled(cells, right=right) for cells, right in columns), strict=True)
    for heading in islice(table, 1):
        yield "  ".join(heading).rstrip()
        yield "  ".join("─" * cell_len(cell) for cell in heading)
    for cells in table:
        yield "  ".join(cells).rstrip()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Each column's heading and cells, each on one line, and whether they are numbers."""
    columns = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        cells = [printable(v if isinstance(v, str) else text(v)) for v in (key, *values)]
        columns.append((cells, all(isinstance(value, int | float | None) for value in values)))
    return columns


def _filled(cells: list[str], *, right: bool) -> list[str]:
    """The cells with spaces before or behind, all equally wide."""
    is_ascii = "".join(cells).isascii()
    widths = [*map(len if is_ascii else cell_len, cells)]  # Chinese takes two cells
    max_width = max(widths)
    spaces = [" " * (max_width - width) for width in widths]
    filled = zip(cells, spaces, strict=True)
    return [f"{space}{cell}" if right else f"{cell}{space}" for cell, space in filled]


def _fits(columns: Sequence[Column], width: int) -> bool:
    """Whether a table fits if texts longer than `_UNBROKEN` alone are broken over lines."""
    needed = [min(max(map(cell_len, cells)), _UNBROKEN) + GAP for cells, _ in columns]
    return sum(needed) <= width + GAP


def _table(columns: Sequence[Column], title: str) -> Table:
    grid = Table(
        title=Text(printable(title), "bold") if title else None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
    )
    for (heading, *cells), right in columns:
        is_short = max(map(cell_len, (heading, *cells))) <= _UNBROKEN
        justify: Literal["right", "left"] = "right" if right else "left"
        grid.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=is_short)
    for row in zip(*(cells[1:] for cells, _ in columns), strict=True):
        grid.add_row(*map(Text, row))
    return grid


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
