"""Rows of a table of checkpoints: CSV in UTF-8, as people and spreadsheets write it."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vitarium.core.csv_cells import unguarded
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.file_faults import resolved
from vitarium.core.filenames import user_path
from vitarium.core.numerals import is_number
from vitarium.core.printable import printable, shortened
from vitarium.core.weight_suffixes import INDEX, SUFFIXES, weight_suffix
from vitarium.formats.weights import check_place

_MAX_LENGTH = 200  # characters of a path in messages


class Row(NamedTuple):
    """A row of the table, without its empty cells."""

    table: Path
    number: int  # as a spreadsheet counts: the header is row 1
    cells: Mapping[str, str]
    folder: Path  # of the files that the cells name

    @property
    def where(self) -> str:
        return f"{self.table.name}, row {self.number}"

    def wrong(self, column: str, why: str) -> InvalidInput:
        return InvalidInput(f"{self.table}, row {self.number}, column '{column}': {why}")

    def number_of(self, column: str) -> int | None:
        cell = self.cells.get(column)
        if cell is not None and not is_number(cell):
            raise self.wrong(column, f"'{cell}' is not a whole number")
        return None if cell is None else int(cell)

    def file(self, column: str) -> Path:
        folder, path = self.folder, self.folder / self.cells[column]
        label = shortened(printable(self.cells[column], newline="\\n"), _MAX_LENGTH)
        try:
            if not resolved(path).is_relative_to(resolved(folder)):
                raise self.wrong(column, f"'{label}' leads out of {folder}")
            if not weight_suffix(path.name) and not path.name.endswith(INDEX):
                raise self.wrong(column, f"'{label}' is none of {', '.join(SUFFIXES)}")
            if path.is_file():
                return path
        except (OSError, ValueError):  # a name that is too long, or has a NUL
            pass
        raise self.wrong(column, f"there is no file {folder / label}")

    def has_file(self, column: str, file: Path) -> bool:
        """Whether the cell names this file."""
        try:
            return resolved(self.folder / self.cells[column]) == resolved(file)
        except (OSError, ValueError):  # a name that is too long, or has a NUL
            return False


def tables_of(source: Path) -> list[Path]:
    """The CSV files of a folder, or the file itself if it is one."""
    return sorted(source.glob("*.csv")) if source.is_dir() else [source][: source.suffix == ".csv"]


def header(table: Path) -> list[str]:
    """Names of the columns. Raises OSError, UnicodeDecodeError and csv.Error."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        return next(csv.reader(file), [])


def table_of(source: Path, name: str | None) -> Path:
    """The table of `source`: without a name the only one that is there; else the one in the folder
    that is called so, or the file at this path. Raises InvalidInput."""
    if name:
        inside = [file for file in source.iterdir() if file.name == name] if source.is_dir() else []
        if not inside:
            return _table_at(name, source)
        tables = inside
    else:
        tables = tables_of(source)
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "none"
        raise InvalidInput(f"{source} has to have one CSV file, or table=NAME; found: {names}")
    (table,) = tables
    if source.is_dir():
        check_place(table, source)
    return table


def _table_at(path: str, source: Path) -> Path:
    """A table that the user names by its path, wherever it is."""
    try:
        table = user_path(path)
        if table.is_file() and (source.suffix != ".csv" or resolved(table) == resolved(source)):
            check_place(resolved(table), resolved(table).parent)
            return table
        exists = table.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        exists = False
    label = shortened(printable(path, newline="\\n"), _MAX_LENGTH)
    if exists:
        hint = "name the folder of the files, with one of them"
        raise InvalidInput(f"{source} and {label} are two tables: {hint}")
    raise InvalidInput(f"{source} has no table '{label}', and there is no such file")


def read_rows(
    table: Path,
    *needed: str,
    folder: Path | None = None,
    delimiter: str = ",",
    hint: str = "",
    unique: bool = False,
) -> Iterator[Row]:
    """The rows that have any cell; all fill the first of the needed columns. Cells name files of
    the folder; None: the table's. Where names of columns are to be unique, those that are not
    needed are, too. Raises InvalidInput that names the place."""
    folder = table.parent if folder is None else folder
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = [unguarded(name.strip()) for name in next(reader, [])]
            for column in needed:
                if column not in columns:
                    rest = f"only {', '.join(columns) or 'none'}{did_you_mean(column, columns)}"
                    raise InvalidInput(f"{table} has no column '{column}', {rest}{hint}")
            for column in columns if unique else needed:
                if columns.count(column) > 1:
                    raise InvalidInput(f"{table} has several columns '{column}'")
            for number, cells in enumerate(reader, 2):
                if not any(map(str.strip, cells)):
                    continue
                if len(cells) != len(columns):
                    counts = f"{len(cells)} cells, the header {len(columns)}"
                    raise InvalidInput(f"{table}, row {number} has {counts}")
                pairs = zip(columns, (unguarded(cell.strip()) for cell in cells), strict=True)
                row = Row(table, number, {name: cell for name, cell in pairs if cell}, folder)
                if needed[0] not in row.cells:
                    raise row.wrong(needed[0], "empty; every row has to fill it")
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{table} is no CSV table in UTF-8: {error}") from None
