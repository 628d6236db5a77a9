"""Fills a DuckDB database in memory with the tables of a zoo's index."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.core import files
from vitarium.core.errors import QueryTooLarge
from vitarium.zoo import _index_files as index_files
from vitarium.zoo._query_limits import MEMORY

if TYPE_CHECKING:
    import duckdb

Loaded = tuple["duckdb.DuckDBPyConnection", dict[str, str]]
"""A database with the tables, and the factors that tell models apart: dotted name -> short name."""


def load(zoo: Path, stamps: dict[str, str]) -> Loaded:
    """Tables that are as new as the `stamps` of the models' files.

    Raises CorruptFile where a model's own files are damaged.
    """
    for home in filter(index_files.exists, index_files.homes(zoo)):
        if loaded := _of_files(home, stamps):
            return loaded
    return _of_tables(zoo)


def columns(database: "duckdb.DuckDBPyConnection") -> dict[str, dict[str, str]]:
    """Names and types of every table's columns."""
    return {
        name: {column: kind for column, kind, *_ in database.execute(f"DESCRIBE {name}").fetchall()}
        for name in index_files.NAMES
    }


def _of_files(home: Path, stamps: dict[str, str]) -> Loaded | None:
    """From the index in one of its homes, if that is whole and up to date, else None.

    By DuckDB alone, without pyarrow, which would take longer to import than all this takes.
    """
    database = _in_memory()
    try:
        with files.plain_path(home) as folder:
            headings = _filled(database, folder, stamps)
    except Exception:  # whatever DuckDB says of it: `index.tables` finds out, and mends it
        headings = None
    if headings is None:
        database.close()  # a file that it cannot read may leave it unusable
        return None
    return database, headings


def _filled(
    database: "duckdb.DuckDBPyConnection", zoo: Path, stamps: dict[str, str]
) -> dict[str, str] | None:
    """The headings; None where the index is damaged, out of date, or just being replaced."""
    paths = {name: str(index_files.path_of(zoo, name)) for name in index_files.NAMES}
    end = time.monotonic() + index_files.PATIENCE
    # before anything is parsed: who parses damaged bytes may end with all of the process
    while time.monotonic() < end and not index_files.damaged(zoo):
        before = _words(database, paths)
        if len(set(before)) == 1:
            for name, path in paths.items():
                _fill(database, name, f"read_parquet({_text(path)}, hive_partitioning = false)")
            # nobody has damaged a file, nor replaced one meanwhile
            if not index_files.damaged(zoo) and _words(database, paths) == before:
                headings = _checked(database, before[0])
                return headings if _take_stamps(database) == stamps else None
        time.sleep(0.05)
    return None


def _of_tables(zoo: Path) -> Loaded:
    """From what `index.tables` reads or makes."""
    import duckdb

    from vitarium.zoo import _index as index  # and with it pyarrow

    database, tables = _in_memory(), index.tables(zoo)
    try:
        for name in index_files.NAMES:
            database.register("arrow_table", getattr(tables, name))
            _fill(database, name, "arrow_table")
            database.unregister("arrow_table")
        _take_stamps(database)
    except duckdb.OutOfMemoryException:
        raise QueryTooLarge(
            f"the tables of {zoo} need more than {MEMORY} of the memory here; use a larger machine"
        ) from None
    return database, dict(tables.headings)


def _in_memory() -> "duckdb.DuckDBPyConnection":
    """An empty database that writes nothing to disk, and takes no more memory than it may."""
    import duckdb

    return duckdb.connect(":memory:", config={"memory_limit": MEMORY, "temp_directory": ""})


def _fill(database: "duckdb.DuckDBPyConnection", name: str, source: str) -> None:
    hidden = "EXCLUDE (_entry)" if name == "models" else ""
    database.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * {hidden} FROM {source}")


def _words(database: "duckdb.DuckDBPyConnection", paths: dict[str, str]) -> list[str]:
    """Our words in each file's metadata: alike in files of one generation."""
    return [
        database.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?",
            [path, index_files.METADATA],
        ).fetchall()[0][0]
        for path in paths.values()
    ]


def _checked(database: "duckdb.DuckDBPyConnection", words: str) -> dict[str, str]:
    """The headings of an index whose version and columns are right; else raises ValueError."""
    parsed = json.loads(words)
    if parsed["version"] != index_files.VERSION:
        raise ValueError("another version's")
    by_table = columns(database)
    arrow_types = {duckdb_type: arrow_type for arrow_type, duckdb_type in index_files.TYPES.items()}
    for name, types in by_table.items():
        kinds = {column: arrow_types.get(kind, kind) for column, kind in types.items()}
        if name == "models":
            kinds["_entry"] = "string"  # had it not been there, it could not have been left out
        index_files.check_columns(name, kinds, len(kinds))
    index_files.check_headings(parsed["headings"])
    if not set(parsed["headings"]) <= set(by_table["models"]):
        raise ValueError("headings of no columns")
    return dict(parsed["headings"])


def _take_stamps(database: "duckdb.DuckDBPyConnection") -> dict[str, str]:
    """Take the models' stamps out of their table."""
    pairs = database.execute("SELECT id, _stamp FROM models").fetchall()
    stamps: dict[str, str] = dict(pairs)
    if len(stamps) != len(pairs):
        raise ValueError("a model twice")
    database.execute("ALTER TABLE models DROP COLUMN _stamp")
    return stamps


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
