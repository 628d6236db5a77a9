"""How tables are printed: for people, or as JSON."""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vitarium.cli._streams import is_speakable
from vitarium.core.printable import escaped_json, printable
from vitarium.core.terminal import Terminal

Rows = Iterable[Mapping[str, Any]]

_FITTED = 1000  # rows that are fitted to the terminal's width; more of them take seconds


def print_rows(rows: Rows, *, title: str = "", as_json: bool = False) -> None:
    """Print rows with the same keys as a table, or all of them as a JSON array."""
    listed = [dict(row) for row in rows]
    console = Terminal()
    if as_json:
        print_json(listed)
    elif listed and console.is_terminal and len(listed) <= _FITTED:
        console.print(_table(listed, title))
    elif listed:  # a file or a pipe is as wide as it needs to be
        sys.stdout.write("".join(f"{line}\n" for line in lines(listed, title)))


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


def _columns(rows: list[dict[str, Any]]) -> list[tuple[list[str], bool]]:
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


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    grid = Table(
        title=Text(printable(title), "bold") if title else None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns = _columns(rows)
    for (heading, *_), right in columns:
        grid.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for cells in zip(*(cells[1:] for cells, _ in columns), strict=True):
        grid.add_row(*map(Text, cells))
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
