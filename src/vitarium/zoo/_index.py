"""A cache of all models' facts, so that asking about a zoo needs not read every folder.

`index/tables.parquet` has the tables `models`, `epochs` and `records` one below the other, each in
columns of its own (`models:stage`, `epochs:epoch`, ...), and hidden, of every model, its files'
stamp and its entry as JSON. It is replaced at one blow and has its own checksum. An entry is used
while the model's files are as they were when it was written; the folder can be deleted at any time.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core import files
from vitarium.core.cache import zoo_cache
from vitarium.core.errors import DamagedCache, QueryTooLarge, UnusablePath
from vitarium.zoo import _query_limits as limits
from vitarium.zoo._index_version import index_version
from vitarium.zoo._model_files import model_stamps

if TYPE_CHECKING:
    import duckdb

Entry = dict[str, Any]
"""Of a model: facts (id, stage, ...), factors by dotted name, with what it was trained
(`trained.torch`, ...), metrics of the last epoch; and its rows in the tables epochs and records."""

VERSION = index_version()
METADATA = "vitarium"
"""Key of the index's version, headings and checksum in the file's metadata."""
_COLUMNS = {
    "models": "id VARCHAR, stage VARCHAR, parent VARCHAR, parent_epoch BIGINT, operator VARCHAR, "
    "ingredients VARCHAR, status VARCHAR, initial_epoch BIGINT, last_epoch BIGINT, tags VARCHAR, "
    "note VARCHAR, seconds DOUBLE",
    "epochs": "model VARCHAR, epoch BIGINT, kept BOOLEAN",
    "records": "model VARCHAR, epoch BIGINT, measure VARCHAR, settings VARCHAR, value DOUBLE, "
    "unit VARCHAR",
}
TABLES: Mapping[str, Mapping[str, str]] = {
    name: dict(column.split() for column in columns.split(", "))
    for name, columns in _COLUMNS.items()
}
"""Columns that each table has in any case, with their types; the first is the model's id."""

PARTS = ("facts", "factors", "trained", "metrics")
"""Of an entry, that make a model's row; where names meet, the first counts."""
_KINDS = {"VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"}
_MARK, _ZEROS = b'"checksum": "', b"0" * 16


@dataclass(frozen=True)
class Index:
    """The models' entries, and the tables in a DuckDB database in memory."""

    open_database: "Callable[[], duckdb.DuckDBPyConnection]"
    headings: dict[str, str]
    """The factors that tell models apart: dotted name -> short name, "optimizer.lr" -> "lr"."""
    stamps: dict[str, str]
    entries: dict[str, Entry]
    """By id; empty unless they were asked for."""

    @cached_property
    def database(self) -> "duckdb.DuckDBPyConnection":
        """Raises QueryTooLarge. Of a new index it is made when it is first asked for."""
        return self.open_database()


def load(zoo: Path, *, with_entries: bool = False) -> Index:
    """The index as of now; only models whose files have changed are read.

    An index that is damaged is made anew, with the warning DamagedCache. Raises CorruptFile where a
    model's own files are damaged, and QueryTooLarge.
    """
    stamps, is_damaged = model_stamps(zoo), False
    cached: Index | None = None
    for home in _homes(zoo):
        try:
            index = read(home, with_entries=with_entries)
            if index and index.stamps == stamps:
                return index
            if index:
                cached = index if with_entries else read(home, with_entries=True) or cached
        except QueryTooLarge:
            raise
        except Exception:  # whatever a reader of parquet says of a file that is none
            is_damaged = True
    index, content = build(zoo, stamps, unchanged_entries(cached, stamps) if cached else {})
    is_written = _write(zoo, content)
    if is_damaged and not cached:
        cure = "has been rebuilt" if is_written else "cannot be written; it is made anew each time"
        warnings.warn(DamagedCache(f"the index of {zoo} was damaged and {cure}"), stacklevel=2)
    return index


def count_changed(zoo: Path) -> int:
    """Models that `load` would have to read, as the index does not have them as they are."""
    stamps = model_stamps(zoo)
    counts = [len(stamps)]
    for home in _homes(zoo):
        with suppress(Exception):  # whatever a reader of parquet says of a file that is none
            if index := read(home, with_entries=False):
                counts.append(sum(index.stamps.get(id) != s for id, s in stamps.items()))
    return min(counts)


def rows(zoo: Path) -> list[dict[str, Any]]:
    """A row per model, in order of id: its `PARTS`, and seconds.

    Raises CorruptFile where a model's own files are damaged.
    """
    return [row_of(entry) for entry in load(zoo, with_entries=True).entries.values()]


def row_of(entry: Entry) -> dict[str, Any]:
    parts = [entry[part] for part in PARTS]
    order = dict.fromkeys(key for part in parts for key in part if key != "seconds")
    row = {**order, "seconds": None}
    for part in reversed(parts):
        row |= part
    return row


def remove(zoo: Path) -> None:
    """Delete the index; it is made anew when it is needed."""
    for home in _homes(zoo):
        files.discard(home / "index")


def unchanged_entries(index: Index, stamps: Mapping[str, str]) -> dict[str, Entry]:
    return {id: e for id, e in index.entries.items() if index.stamps[id] == stamps.get(id)}


def path_of(home: Path) -> Path:
    return home / "index" / "tables.parquet"


def _homes(zoo: Path) -> tuple[Path, Path]:
    """Folders with a folder `index`: the zoo, and one in our cache where the zoo is read-only."""
    return zoo, zoo_cache(zoo)


def seal(content: bytes) -> bytes:
    """The file with the checksum of itself, which is taken with zeros in its place."""
    start, mark, end = content.rpartition(_MARK)
    end = end[len(_ZEROS) :]
    return start + mark + files.checksum(start + mark + _ZEROS + end).encode() + end


def read(home: Path, *, with_entries: bool) -> Index | None:
    """The index as it is; None where there is none, or one of another version.

    By DuckDB alone: pyarrow would take longer to import than all this takes. Raises QueryTooLarge,
    and whatever DuckDB says of a file that is damaged.
    """
    path, hidden = path_of(home), "_entry" if with_entries else "NULL"
    if not os.path.lexists(path) and (path.parent.is_dir() or not os.path.lexists(path.parent)):
        return None
    database = in_memory()
    with files.plain_path(path, hold=True) as held:
        # before anything is parsed: who parses damaged bytes may end with all of the process
        content = files.read(held)
        if seal(content) != content:
            raise ValueError("not as it was written")
        name = str(held).replace("'", "''")
        metadata = f"SELECT decode(value) FROM parquet_kv_metadata('{name}') WHERE decode(key) = ?"
        words = json.loads(database.execute(metadata, [METADATA]).fetchall()[0][0])
        if words["version"] != VERSION:
            return None
        source = f"read_parquet('{name}', hive_partitioning = false)"
        _fill(database, source)
        select = f'SELECT "models:id", _stamp, {hidden} FROM {source} WHERE _stamp IS NOT NULL'
        models = database.execute(select).fetchall()
    _check(database, words["headings"])
    stamps = {id: stamp for id, stamp, _ in models}
    if len(stamps) != len(models):
        raise ValueError("a model twice")
    entries = {id: _entry(id, text) for id, _, text in models if with_entries}
    return Index(lambda: database, words["headings"], stamps, entries)


def build(zoo: Path, stamps: Mapping[str, str], cached: Mapping[str, Entry]) -> tuple[Index, bytes]:
    """The index of the models with these stamps, and its file; what is not cached is read."""
    from vitarium.zoo import _index_tables as tables  # and with it pyarrow

    entries = tables.read_entries(zoo, stamps, cached)
    table, headings, content = tables.encode(entries, stamps)

    def open_database() -> "duckdb.DuckDBPyConnection":
        database = in_memory()
        database.register("arrow_table", table)
        _fill(database, "arrow_table")
        database.unregister("arrow_table")
        return database

    present = {id: stamps[id] for id in entries}
    return Index(open_database, headings, present, entries), seal(content)


def in_memory() -> "duckdb.DuckDBPyConnection":
    """An empty database that writes nothing to disk, and takes no more memory than it may.

    30 ms each, so it is made where tables are asked for alone.
    """
    import duckdb

    return duckdb.connect(":memory:", config={"memory_limit": limits.MEMORY, "temp_directory": ""})


def _fill(database: "duckdb.DuckDBPyConnection", source: str) -> None:
    import duckdb

    try:
        for name, (id, *_) in TABLES.items():
            database.execute(
                f"CREATE TABLE {name} AS SELECT COLUMNS('(?s)^{name}:(.*)$') AS '\\1' "
                f'FROM {source} WHERE "{name}:{id}" IS NOT NULL'
            )
    except duckdb.OutOfMemoryException:
        needed = f"the zoo's tables need more than {limits.MEMORY} of the memory here"
        raise QueryTooLarge(f"{needed}; use a larger machine") from None


def columns(
    database: "duckdb.DuckDBPyConnection", tables: Iterable[str] = TABLES
) -> dict[str, dict[str, str]]:
    """Names and types of the tables' columns."""
    return {
        name: {column: kind for column, kind, *_ in database.execute(f"DESCRIBE {name}").fetchall()}
        for name in tables
    }


def _check(database: "duckdb.DuckDBPyConnection", headings: Any) -> None:
    """Raises ValueError for columns and headings that are none of an index, whatever its seal."""
    by_table = columns(database)
    for name, required in TABLES.items():
        kinds = by_table[name]
        if not required.items() <= kinds.items() or not _KINDS.issuperset(kinds.values()):
            raise ValueError("columns are missing, or of other types")
    if not by_table["models"].keys() >= headings.keys() or {*map(type, headings.values())} - {str}:
        raise ValueError("headings that are none")


def _entry(id: str, text: str) -> Entry:
    """Raises ValueError, TypeError and KeyError for what is none."""
    entry: Entry = json.loads(text)
    is_whole = all(isinstance(entry[part], dict) for part in PARTS)
    is_whole = is_whole and entry["facts"].keys() == TABLES["models"].keys()
    if not is_whole or row_of(entry)["id"] != id:
        raise ValueError(f"no entry of {id}")
    return entry


def _write(zoo: Path, content: bytes) -> bool:
    """Whether it could be; someone else's zoo on a read-only disk is listed all the same."""
    for home in _homes(zoo):
        with suppress(OSError):
            try:
                files.write(path_of(home), content, root=home)
            except UnusablePath:  # something else is there
                files.discard(home / "index")
                files.write(path_of(home), content, root=home)
            return True
    return False
