"""The tables of a zoo in DuckDB, in memory: for SQL that reads them, and can do nothing else."""

import difflib
import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.errors import InvalidInput, UnknownName
from vitarium.store import entries, files, index, index_files, records

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_LOCKS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",  # our own variables are no tables
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_ASKING = ("SELECT", "MULTI")  # MULTI is what a PIVOT becomes

_WORDS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | \$\$.*?\$\$
    | (?P<dotted>[^\W\d]\w*(?:\.\w+)+)""",
    re.VERBOSE | re.DOTALL,
)
_UNKNOWN_TABLE = re.compile(r"Table with name (.+?) does not exist")
_UNKNOWN_COLUMN = re.compile(
    r'(?:Referenced column|does not have a column named|Column) "(.+?)"(?: in \w+ list)?'
    r"(?: not found|\s|$)"
)


class Database:
    """Tables `models`, `epochs` and `records`, as of when it was opened.

    The SQL may be anyone's, and so may the zoo: the connection reads and writes no files, loads no
    extensions and cannot be told to, and what it holds is a copy.

    Raises CorruptFile where a model's own files are damaged.
    """

    def __init__(self, zoo: Path) -> None:
        import duckdb

        self._duckdb = duckdb.connect(":memory:")
        stamps = entries.stamps(zoo)
        loaded = (_loaded(self._duckdb, home, stamps) for home in index_files.homes(zoo))
        headings = next((names for names in loaded if names is not None), None)
        self.headings = _made(self._duckdb, zoo) if headings is None else headings
        """Factors that tell models apart: dotted name -> short name."""
        records.attach(self._duckdb, zoo)
        self.columns = _columns(self._duckdb)
        """Of each table the names and types (VARCHAR, BIGINT, DOUBLE, BOOLEAN) of its columns."""
        for lock in _LOCKS:
            self._duckdb.execute(lock)

    def rows(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of the columns, and rows. Raises InvalidInput, UnknownName."""
        with self._telling():
            answer = self._duckdb.execute(self._one_question(sql))
            return [column[0] for column in answer.description or ()], answer.fetchall()

    def frame(self, sql: str) -> "pd.DataFrame":
        """Raises InvalidInput, UnknownName."""
        with self._telling():
            return self._duckdb.execute(self._one_question(sql)).df()

    def arrow(self, sql: str) -> "pa.Table":
        """Raises InvalidInput, UnknownName."""
        with self._telling():
            return self._duckdb.sql(self._one_question(sql)).to_arrow_table()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise self._told(error) from None

    def _one_question(self, sql: str) -> "duckdb.Statement":
        statements = self._duckdb.extract_statements(self.quoted(sql))
        if len(statements) != 1:
            raise InvalidInput(f"{len(statements)} statements; write one SELECT, e.g. {EXAMPLE}")
        kind = statements[0].type.name
        if kind not in _ASKING:
            raise InvalidInput(
                f"a zoo can only be asked: write a SELECT, not {kind}, e.g. {EXAMPLE}"
            )
        return statements[0]

    def quoted(self, sql: str) -> str:
        """The SQL with quotes around names with dots, so that `optimizer.lr` is that column."""
        names = {
            name.lower(): name for table in self.columns.values() for name in table if "." in name
        }

        def quote_known(match: re.Match[str]) -> str:
            whole: str = match[0]
            first, _, rest = whole.partition(".")
            if match["dotted"] is None:
                return whole
            if whole.lower() in names:
                return quote(whole)
            return f"{first}.{quote(rest)}" if rest.lower() in names else whole

        return _WORDS.sub(quote_known, sql)

    def _told(self, error: Exception) -> InvalidInput:
        """DuckDB's error in one line, with the names that there are for one that there is not."""
        said = " ".join(str(error).partition("\n\nLINE ")[0].split())
        if table := _UNKNOWN_TABLE.search(said):
            return UnknownName("table", table[1], self.columns)
        if column := _UNKNOWN_COLUMN.search(said):
            known = {name for names in self.columns.values() for name in names}
            return UnknownColumn(column[1], known)
        if said.startswith("Permission Error"):
            return InvalidInput(f"a query reads the zoo's tables and no files: {said}")
        return InvalidInput(f"the SQL cannot be used: {said}")


class UnknownColumn(UnknownName):
    """A column that no table has; often a text without its quotes."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("column", name, known)

    def __str__(self) -> str:
        said = super().__str__()
        if difflib.get_close_matches(self.name, self.known, cutoff=0.7):
            return said
        return f"{said} (a text stands in single quotes: '{self.name}')"


EXAMPLE = '"SELECT stage, count(*) FROM models GROUP BY stage"'


def quote(name: str) -> str:
    """A name as SQL writes it: in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def _loaded(
    database: "duckdb.DuckDBPyConnection", zoo: Path, stamps: dict[str, str]
) -> dict[str, str] | None:
    """Fill the database from the index, if that is up to date; gives its headings, else None.

    By DuckDB alone, without pyarrow, which would take longer to import than all this takes.

    Args:
        zoo: or what else has the index, see `index_files.homes`.
    """
    if not index_files.exists(zoo):
        return None
    with files.plain_path(zoo) as folder:
        paths = {name: str(index_files.path_of(folder, name)) for name in index_files.NAMES}
        return _loaded_from(database, zoo, paths, stamps)


def _loaded_from(
    database: "duckdb.DuckDBPyConnection",
    zoo: Path,
    paths: dict[str, str],
    stamps: dict[str, str],
) -> dict[str, str] | None:
    import duckdb

    end = time.monotonic() + index.PATIENCE
    # what is wrong with an index is found, and mended, by `index.tables`
    with suppress(duckdb.Error, ValueError, KeyError, TypeError, AttributeError):
        while time.monotonic() < end:
            before = _words(database, paths)
            if len(set(before)) == 1:
                for name, path in paths.items():
                    _fill(database, name, f"read_parquet({_text(path)}, hive_partitioning = false)")
                # nobody has damaged a file, nor replaced one meanwhile
                if not index_files.damaged(zoo) and _words(database, paths) == before:
                    headings = _checked(database, before[0])
                    return headings if _stamps(database) == stamps else None
            time.sleep(0.05)
    return None


def _made(database: "duckdb.DuckDBPyConnection", zoo: Path) -> dict[str, str]:
    """Fill the database from what `index.tables` finds or makes; gives the headings."""
    made = index.tables(zoo)
    for name in index_files.NAMES:
        database.register("made", getattr(made, name))
        _fill(database, name, "made")
        database.unregister("made")
    _stamps(database)
    return dict(made.headings)


def _fill(database: "duckdb.DuckDBPyConnection", name: str, source: str) -> None:
    hidden = "EXCLUDE (_entry)" if name == "models" else ""
    database.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * {hidden} FROM {source}")


def _words(database: "duckdb.DuckDBPyConnection", paths: dict[str, str]) -> list[str]:
    """Our words in each file's metadata: alike in files of one generation."""
    return [
        database.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?",
            [path, index.METADATA],
        ).fetchall()[0][0]
        for path in paths.values()
    ]


def _checked(database: "duckdb.DuckDBPyConnection", words: str) -> dict[str, str]:
    """The headings of an index whose version and columns are right; else raises ValueError."""
    said = json.loads(words)
    if said["version"] != index.VERSION:
        raise ValueError("another version's")
    found = _columns(database)
    arrow_types = {theirs: ours for ours, theirs in index.TYPES.items()}
    for name, columns in found.items():
        kinds = {column: arrow_types.get(kind, kind) for column, kind in columns.items()}
        if name == "models":
            kinds["_entry"] = "string"  # had it not been there, it could not have been left out
        index.check_columns(name, kinds, len(kinds))
    index.check_headings(said["headings"])
    if not set(said["headings"]) <= set(found["models"]):
        raise ValueError("headings of no columns")
    return dict(said["headings"])


def _stamps(database: "duckdb.DuckDBPyConnection") -> dict[str, str]:
    """Take the models' stamps out of their table."""
    pairs = database.execute("SELECT id, _stamp FROM models").fetchall()
    found: dict[str, str] = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a model twice")
    database.execute("ALTER TABLE models DROP COLUMN _stamp")
    return found


def _columns(database: "duckdb.DuckDBPyConnection") -> dict[str, dict[str, str]]:
    """Names and types of every table's columns."""
    return {
        name: {column: kind for column, kind, *_ in database.execute(f"DESCRIBE {name}").fetchall()}
        for name in index_files.NAMES
    }


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
