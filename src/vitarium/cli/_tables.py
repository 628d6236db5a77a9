"""How tables are printed: for people, or as JSON."""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vitarium.cli._streams import is_speakable
from vitarium.core.printable import escaped_json, printable
from vitarium.core.terminal import Terminal

Rows = Iterable[Mapping[str, Any]]

_FITTED = 1000
"""Rows that are fitted to the terminal's width; more of them take seconds."""


def print_rows(rows: Rows, *, title: str = "", as_json: bool = False) -> None:
    """Print rows with the same keys as a table, or all of them as a JSON array."""
    listed = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
        return
    if not listed:
        return
    console = Terminal()
    if console.is_terminal and len(listed) <= _FITTED:
        console.print(table(listed, title))
        return
    # a file or a pipe is as wide as it needs to be
    sys.stdout.write("".join(f"{line}\n" for line in lines(listed, title)))


def lines(rows: list[dict[str, Any]], title: str = "") -> Iterator[str]:
    """A table in columns of fixed width; 10,000 rows take a tenth of a second."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = [[_cell(key), *(_cell(row.get(key)) for row in rows)] for key in keys]
    if title:
        yield printable(title)
        yield ""
    filled = [
        _filled(cells, right=_numbers(rows, key)) for key, cells in zip(keys, columns, strict=True)
    ]
    table = zip(*filled, strict=True)
    for heading in islice(table, 1):
        yield "  ".join(heading).rstrip()
        yield "  ".join("─" * cell_len(cell) for cell in heading)
    for cells in table:
        yield "  ".join(cells).rstrip()


def _filled(cells: list[str], *, right: bool) -> list[str]:
    """The cells with spaces before or behind, all equally wide."""
    if "".join(cells).isascii():
        max_width = max(map(len, cells))
        return [cell.rjust(max_width) if right else cell.ljust(max_width) for cell in cells]
    widths = [cell_len(cell) for cell in cells]  # a Chinese letter is two cells wide
    max_width = max(widths)
    filled = zip(cells, (" " * (max_width - width) for width in widths), strict=True)
    return [f"{space}{cell}" if right else f"{cell}{space}" for cell, space in filled]


def _cell(value: Any) -> str:
    """A value on one line, as it may be shown on a terminal."""
    return printable(value if isinstance(value, str) else text(value))


def _numbers(rows: list[dict[str, Any]], key: str) -> bool:
    return all(isinstance(row.get(key), int | float | None) for row in rows)


def table(rows: list[dict[str, Any]], title: str = "") -> Table:
    grid = Table(
        title=Text(printable(title), "bold") if title else None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        justify: Literal["right", "left"] = "right" if _numbers(rows, key) else "left"
        grid.add_column(Text(_cell(key)), justify=justify, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(row.get(key))) for key in keys))
    return grid


def print_json(value: Any) -> None:
    text = to_json(value)
    print(encodable_json(text))


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


def duration(seconds: float) -> str:
    """90 -> "1m 30s", 5400 -> "1h 30m", 2e5 -> "2d 7h"."""
    rounded = round(seconds)
    for size, big, small, per in ((86400, "d", "h", 3600), (3600, "h", "m", 60), (60, "m", "s", 1)):
        if rounded >= size:
            return f"{rounded // size}{big} {rounded % size // per}{small}"
    return f"{seconds:.0f}s" if seconds >= 1 else "under 1s"


def size(count: int) -> str:
    """1_100_000_000 bytes -> "1.1 GB"."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


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
