"""How tables are printed: for people, or as JSON."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Rows = Iterable[Mapping[str, Any]]


def print_rows(rows: Rows, *, title: str = "", as_json: bool = False) -> None:
    """Print rows with the same keys as a table, or all of them as a JSON array."""
    listed = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
        return
    if not listed:
        return
    console = Console()
    if not console.is_terminal:  # a file or a pipe is as wide as it needs to be
        console.width = max(console.width, 240)
    console.print(table(listed, title))


def table(rows: list[dict[str, Any]], title: str = "") -> Table:
    grid = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        numbers = all(isinstance(row.get(key), int | float | None) for row in rows)
        grid.add_column(key, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(text(row.get(key))) for key in keys))
    return grid


def print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


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
    whole = round(seconds)
    for size, big, small, per in ((86400, "d", "h", 3600), (3600, "h", "m", 60), (60, "m", "s", 1)):
        if whole >= size:
            return f"{whole // size}{big} {whole % size // per}{small}"
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
    return value.item() if hasattr(value, "item") else value
