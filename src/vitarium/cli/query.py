"""`vitarium query`: SQL over a zoo."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vitarium.cli._options import Csv, Json, ZooFolder, argument, option, path_option
from vitarium.cli._streams import exactly
from vitarium.cli._tables import (
    HAS_ALL,
    csv_text,
    encodable_json,
    print_csv,
    print_json,
    print_rows,
    to_json,
)
from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.core.printable import printable
from vitarium.core.terminal import print_line
from vitarium.zoo import Zoo
from vitarium.zoo._query_limits import TIMEOUT

if TYPE_CHECKING:
    from vitarium.zoo.query import Database


Format = Literal["table", "csv", "json", "parquet"]


def query(
    directory: ZooFolder,
    sql: Annotated[
        str, argument("A SELECT; without it, the tables and their columns are listed.")
    ] = "",
    format: Annotated[
        Format | None, option("Default: by the suffix of --output, else a table.")
    ] = None,
    output: Annotated[Path | None, path_option("Write to a file, all or nothing.")] = None,
    json: Json = False,
    csv: Csv = False,
    timeout: Annotated[
        float, option("Stop a query that takes longer; 0: never.", metavar="SECONDS")
    ] = TIMEOUT,
) -> None:
    """Query a zoo in SQL (DuckDB): tables models, epochs and records.

    A name with dots needs no quotes: optimizer.lr. Queries are read-only and cannot open files.
    They may take half of the machine's memory. A printed table is held in memory as a whole;
    results of any length are streamed with --format csv or json, or with --output.

    Examples:

      vitarium query demo-zoo

      vitarium query demo-zoo "SELECT stage, max(test_accuracy) FROM models GROUP BY stage"

      vitarium query demo-zoo "SELECT * FROM epochs" --output epochs.parquet
    """
    from vitarium.zoo.query import EXAMPLE, Database

    if output and not sql.strip():
        raise InvalidInput(f"nothing is written to {output} without a SELECT, e.g. {EXAMPLE}")
    database = Database(Zoo.open(directory).path, timeout=timeout)
    output_format = _format("json" if json else "csv" if csv else format, output)
    if not sql.strip():
        describe(database, directory, output_format)
    elif output:
        files.write(output, _PIECES[output_format](database, sql))
    elif output_format == "csv":
        for piece in _csv(database, sql):
            cells = piece.decode().split("\t")  # no terminal is harmed by a tab
            sys.stdout.write(exactly("\t".join(printable(cell, newline="\n") for cell in cells)))
    elif output_format == "json":
        for piece in _json(database, sql):
            sys.stdout.write(encodable_json(piece.decode()))
    else:
        names, rows = database.rows(sql)
        table = (dict(zip(_distinct(names), row, strict=True)) for row in rows)
        print_rows(table, complete=HAS_ALL)
        if not rows:
            print("no rows")


def describe(database: "Database", directory: Path, output_format: Format) -> None:
    """Print what can be asked: tables, number of rows, columns with types and an example."""
    from vitarium.zoo._sql_names import quote
    from vitarium.zoo.query import EXAMPLE

    tables = {}
    for name, columns in database.columns.items():
        selection = ", ".join(f"any_value({quote(column)})" for column in columns)
        values = database.rows(f"SELECT count(*), {selection} FROM {name}")[1][0]
        tables[name] = {
            "rows": values[0],
            "columns": [
                {"column": column, "type": kind, "example": example}
                for (column, kind), example in zip(columns.items(), values[1:], strict=True)
            ],
        }
    if output_format == "json":
        print_json(tables)
        return
    if output_format == "csv":
        print_csv([{"table": n, **c} for n, table in tables.items() for c in table["columns"]])
        return
    for name, description in tables.items():
        print_rows(description["columns"], title=f"{name}: {description['rows']:,} rows")
        print()
    print_line(f"For example:  vitarium query {directory} {EXAMPLE}")


def _format(requested: Format | None, output: Path | None) -> Format:
    """Raises InvalidInput for a format that cannot go where it should."""
    if output is None:
        if requested == "parquet":
            raise InvalidInput("parquet is no text; name a file for it with --output FILE")
        return requested or "table"
    chosen = requested or output.suffix.removeprefix(".").lower()
    for name in _PIECES:
        if name == chosen:
            return name
    raise InvalidInput(
        f"{output} can be {', '.join(_PIECES)}; say which by its ending, or with --format"
    )


def _distinct(names: list[str]) -> list[str]:
    """Names of columns with a number after one that was there before."""
    return [
        f"{name}_{names[:index].count(name)}" if name in names[:index] else name
        for index, name in enumerate(names)
    ]


def _csv(database: "Database", sql: str) -> Iterator[bytes]:
    names, batches = database.batches(sql)
    yield csv_text([_distinct(names)]).encode()
    for rows in batches:
        yield csv_text(rows).encode()


def _json(database: "Database", sql: str) -> Iterator[bytes]:
    """An array with an object on some lines for each row, as `to_json` writes it."""
    names, batches = database.batches(sql)
    keys, before = _distinct(names), "["
    for rows in batches:
        # without the brackets around them
        objects = to_json([dict(zip(keys, row, strict=True)) for row in rows])[1:-2]
        yield f"{before}{objects}".encode()
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def _parquet(database: "Database", sql: str) -> Iterator[bytes]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowNotImplementedError

    schema, batches = database.arrow(sql)
    content = _Pieces()
    try:
        writer = pq.ParquetWriter(content, schema, compression="zstd")
    except ArrowNotImplementedError as error:
        raise InvalidInput(
            f"parquet has no place for a column of this answer ({error}); cast it in the SQL, "
            "e.g. CAST(x AS VARCHAR)"
        ) from None
    with writer:
        for batch in batches:
            writer.write_batch(batch)
            yield content.take()
    yield content.take()


class _Pieces(io.BytesIO):
    """A file that is given away while it is written."""

    _taken = 0

    def tell(self) -> int:
        return self._taken + super().tell()

    def take(self) -> bytes:
        """What was written since it was last taken."""
        piece = self.getvalue()
        self._taken += len(piece)
        self.seek(0)
        self.truncate()
        return piece


_PIECES: dict[Format, Callable[["Database", str], Iterator[bytes]]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
