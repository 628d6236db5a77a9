"""How a table fits a width: what is broken over lines, and which columns are left out.

In this order, until it fits: headings are broken at `_`, `.`, `/` and spaces; columns in which all
rows are alike go; then those that can be spared; long texts are broken between words; columns go
from the right. Ids and numbers are never broken.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich.cells import cell_len, chop_cells

GAP = 2  # between columns
_UNBROKEN = 24  # cells of a text that is not broken
_LONG_WORD = 40  # cells of a word that is: a path, a text without spaces
_WORDS = re.compile(r"\s*(?:[^\s/]+/*|/+)")
_HEADING_PARTS = re.compile(r"[^_./ ]*[_./ ]?")


@dataclass(frozen=True)
class Column:
    """A heading and its cells, each one line; numbers stand at the right."""

    name: str
    heading: tuple[str, ...]
    cells: Sequence[str]
    is_number: bool
    cells_width: int
    """Of the longest cell, unless it is broken."""

    @classmethod
    def of(cls, name: str, cells: Sequence[str], is_number: bool) -> "Column":
        return cls(name, (name,), cells, is_number, max(widths(cells), default=0))

    @property
    def width(self) -> int:
        return max(self.cells_width, *map(cell_len, self.heading))

    def with_broken_heading(self) -> "Column":
        parts = [part for part in _HEADING_PARTS.findall(self.name) if part] or [""]
        width = max(self.cells_width, *(cell_len(part.rstrip()) for part in parts))
        return replace(self, heading=tuple(_filled(parts, width)))

    @cached_property
    def least_width(self) -> int:
        """With its texts broken."""
        if self.is_number or self.cells_width <= _UNBROKEN:
            return self.width
        words = {word.strip() for cell in self.cells for word in _WORDS.findall(cell)}
        longest = max(map(cell_len, words), default=0)
        broken = min(self.cells_width, max(_UNBROKEN, min(longest, _LONG_WORD)))
        return max(broken, *map(cell_len, self.heading))


@dataclass(frozen=True)
class Layout:
    """The columns of a table that fits."""

    columns: list[Column]
    constant: dict[str, str]
    """Columns that were left out since all rows are alike, and their value."""
    left_out: list[str]
    """Other columns for which there is no room."""


def fit(columns: Sequence[Column], width: int | None, spare: Sequence[str] = ()) -> Layout:
    """Args:
    width: of a line in cells; None: as many as it needs.
    spare: names of columns that go before texts are broken, the first first.
    """
    fitting, constant = list(columns), dict[str, str]()
    if width is None or _total(fitting) <= width:
        return Layout(fitting, {}, [])
    fitting = [column.with_broken_heading() for column in columns]
    for column in fitting[1:]:
        if _total(fitting) > width and len(column.cells) > 1 and len(set(column.cells)) == 1:
            constant[column.name] = column.cells[0]
            fitting.remove(column)
    for name in spare:
        if _total(fitting) > width:
            fitting = [column for column in fitting if column.name != name]
    while len(fitting) > 1 and _total(fitting, broken=True) > width:
        fitting.pop()
    fitting = _with_broken_texts(fitting, width)
    shown = {*constant, *(column.name for column in fitting)}
    return Layout(fitting, constant, [c.name for c in columns if c.name not in shown])


def _with_broken_texts(columns: Sequence[Column], width: int) -> list[Column]:
    """The longest texts are broken, into as few lines as fit."""
    room = width - GAP * (len(columns) - 1)
    needed = [(column.width, column.least_width) for column in columns]
    caps = range(max(column.width for column in columns), 0, -1)
    for cap in caps:
        capped = [max(least, min(full, cap)) for full, least in needed]
        if sum(capped) <= room:
            break
    return [
        replace(column, cells_width=cells) if cells < column.width else column
        for column, cells in zip(columns, capped, strict=True)
    ]


def heading_lines(columns: Sequence[Column]) -> Iterator[str]:
    height = max(len(column.heading) for column in columns)
    padded = [("",) * (height - len(column.heading)) + column.heading for column in columns]
    for parts in zip(*padded, strict=True):
        yield _line(columns, parts)
    yield (" " * GAP).join("─" * column.width for column in columns)


def body_lines(columns: Sequence[Column]) -> Iterator[str]:
    """10,000 rows take a tenth of a second."""
    cells = zip(*(_padded(column) for column in columns), strict=True)
    for row in cells:
        if all(isinstance(cell, str) for cell in row):
            yield (" " * GAP).join(row).rstrip()
            continue
        parts = [[cell] if isinstance(cell, str) else cell for cell in row]
        for number in range(max(map(len, parts))):
            yield _line(columns, [part[number] if number < len(part) else "" for part in parts])


def wrapped(text: str, width: int | None) -> list[str]:
    """A text in lines of at most so many cells, broken between words and after slashes."""
    if width is None or cell_len(text) <= width:
        return [text]
    pieces = [
        piece
        for word in _WORDS.findall(text)
        for piece in ([word] if cell_len(word.strip()) <= width else chop_cells(word, width))
    ]
    return _filled(pieces, width)


def cut(text: str, width: int | None) -> str:
    """A line without the words at its end that do not fit, for which `…` stands."""
    if width is None or cell_len(text) <= width:
        return text
    words = re.split(r"(?<=\S)(?=\s)", text)
    while len(words) > 1 and cell_len("".join(words)) > width - 2:
        words.pop()
    return f"{''.join(words)} …"


def widths(cells: Sequence[str]) -> list[int]:
    """Of each text, the cells that it takes; Chinese takes two for a letter."""
    return [*map(len if "".join(cells).isascii() else cell_len, cells)]


def _total(columns: Sequence[Column], *, broken: bool = False) -> int:
    each = (column.least_width if broken else column.width for column in columns)
    return sum(each) + GAP * (len(columns) - 1)


def _filled(parts: Sequence[str], width: int) -> list[str]:
    """Parts put into as few lines as there must be."""
    lines = [""]
    for part in parts:
        if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part if lines[-1] else part.lstrip()
    return [line.rstrip() for line in lines]


def _line(columns: Sequence[Column], parts: Sequence[str]) -> str:
    filled = []
    for column, part in zip(columns, parts, strict=True):
        space = " " * (column.width - cell_len(part))
        filled.append(f"{space}{part}" if column.is_number else f"{part}{space}")
    return (" " * GAP).join(filled).rstrip()


def _padded(column: Column) -> Iterator[str | list[str]]:
    """The cells, all equally wide; one that is too long as its lines."""
    width = column.width
    for cell, length in zip(column.cells, widths(column.cells), strict=True):
        space = " " * (width - length)
        if length > width:
            yield wrapped(cell, width)
        else:
            yield f"{space}{cell}" if column.is_number else f"{cell}{space}"
