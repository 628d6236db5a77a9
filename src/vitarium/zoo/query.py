"""The tables of a zoo in DuckDB, in memory: for SQL that reads them, and can do nothing else."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vitarium.core.errors import InvalidInput, QueryTooLarge, UnknownName, VitariumError
from vitarium.zoo import _index, records
from vitarium.zoo import _query_limits as limits
from vitarium.zoo._query_limits import Answer, TimeLimit, capped
from vitarium.zoo._sql_names import hyphenated, short_names, with_column, with_full_ids, with_quotes

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

Row = tuple[Any, ...]

_LOCKS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",  # our own variables are no tables
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_BATCH_ROWS, _ARROW_ROWS = 10_000, 122_880
_NESTED = re.compile(r"\]$|^(?:STRUCT|MAP|UNION|VARIANT)")
"""Types whose values are lists of others, of any length."""
_NESTED_ROWS = 2048
_FRAME_VECTORS = 50  # of 2,048 rows: what is made a DataFrame at a time
_ASKING = ("SELECT", "MULTI")  # MULTI is what a PIVOT becomes

_STACK = re.compile(
    r"\n\n(?:LINE |Stack Trace)|, due to the following Python exception|\s+Candidate functions:"
)
"""What DuckDB adds to an error after what is wrong."""
_UNKNOWN_TABLE = re.compile(r"Table with name (.+?) does not exist")
_UNKNOWN_COLUMN = re.compile(
    r'(?:Referenced column|does not have a column named|Column) "(.+?)"(?: in \w+ list)?'
    r"(?: not found|\s|$)"
)
_UNKNOWN_PART = re.compile(r"Cannot extract field '(.+?)' from expression \"(.+?)\"")
"""A name with a dot, of which the first part is a column."""


class Database:
    """Tables `models`, `epochs` and `records`, as of when it was opened.

    The SQL may be anyone's, and so may the zoo: the connection reads and writes no files, loads no
    extensions and cannot be told to, and what it holds is a copy. A question comes to an end: see
    `_query_limits`; `timeout` are the seconds that each may take, 0 or None: no limit.

    Raises CorruptFile where a model's own files are damaged.
    """

    def __init__(self, zoo: Path, *, timeout: float | None = limits.TIMEOUT) -> None:
        index = _index.load(zoo)
        self.headings = index.headings
        """Factors that tell models apart: dotted name -> short name."""
        records.attach(index.database, zoo)
        self._open(index.database, timeout, _index.TABLES)

    @classmethod
    def of_models(
        cls, rows: Sequence[Mapping[str, Any]], *, timeout: float | None = limits.TIMEOUT
    ) -> Self:
        """A table `models` of these rows alone, not of a zoo."""
        from vitarium.zoo._index_tables import table

        self = cls.__new__(cls)
        self.headings = {}
        connection = _index.in_memory()
        connection.register("rows", table(rows, dict.fromkeys(key for row in rows for key in row)))
        connection.execute("CREATE TABLE models AS FROM rows")
        connection.unregister("rows")
        self._open(connection, timeout, ["models"])
        return self

    def _open(
        self,
        database: "duckdb.DuckDBPyConnection",
        timeout: float | None,
        tables: Iterable[str],
    ) -> None:
        self._duckdb, self._timeout = database, timeout
        self._reader: pa.RecordBatchReader | None = None
        self._hyphenated: dict[str, str] = {}  # of the last question
        self.columns = _index.columns(self._duckdb, tables)
        """Of each table the names and types (VARCHAR, BIGINT, DOUBLE, BOOLEAN) of its columns."""
        all_columns = [name for table in self.columns.values() for name in table]
        self.short_names = short_names(self.columns["models"], all_columns)
        """Last parts of factors' names where that is enough: "lr" -> "optimizer.lr"."""
        for lock in _LOCKS:
            self._duckdb.execute(lock)
        self._memory = limits.memory_limit(self._duckdb)

    def rows(self, sql: str) -> tuple[list[str], list[Row]]:
        """Names of the columns, and rows; raises as `Zoo.query` does."""
        names, batches = self.batches(sql)
        pieces = capped(batches, limits.nbytes_of, self._memory * limits.ROWS_SHARE)
        return names, list(chain.from_iterable(pieces))

    def batches(self, sql: str) -> tuple[list[str], Iterator[list[Row]]]:
        """Names of the columns, and the rows piece by piece; both raise as `rows` does.

        What was given before is not kept, however large the answer. The next question ends it.
        """
        limit = self._begin()
        answer = self._ask(limit, lambda: self._duckdb.execute(self._one_question(sql)))
        names = [column[0] for column in answer.description or ()]
        is_nested = any(_NESTED.search(str(column[1])) for column in answer.description or ())
        if is_nested:
            answer = self._weighed(limit, sql)
        size = _NESTED_ROWS if is_nested else _BATCH_ROWS
        return names, iter(lambda: self._ask(limit, lambda: answer.fetchmany(size)), [])

    def _weighed(self, limit: TimeLimit, sql: str) -> "duckdb.DuckDBPyConnection":
        """The answer, once it is known that no piece of it is too large for Python.

        A list of numbers takes five times as much there, all at once; and while it is made, neither
        the clock nor Ctrl-C is heard.
        """
        make = f"CREATE OR REPLACE TEMP TABLE nested_answer AS\n{self._one_question(sql).query}"
        self._ask(limit, lambda: self._duckdb.execute(make))
        for batch in self._arrow(limit, "FROM nested_answer", _NESTED_ROWS)[1]:
            if batch.nbytes > limits.NESTED_BYTES:
                megabytes = limits.NESTED_BYTES / 1e6
                raise QueryTooLarge(
                    f"the answer's lists take more than {megabytes:.0f} MB of memory; "
                    "ask for shorter ones, or one row per value: unnest()"
                )
        return self._ask(limit, lambda: self._duckdb.execute("FROM nested_answer"))

    def frame(self, sql: str) -> "pd.DataFrame":
        """Raises as `Zoo.query` does."""
        limit = self._begin()
        answer = self._ask(limit, lambda: self._duckdb.execute(self._one_question(sql)))

        def fetch() -> "pd.DataFrame":
            return self._ask(limit, lambda: answer.fetch_df_chunk(_FRAME_VECTORS))

        def nbytes(frame: "pd.DataFrame") -> int:
            return int(frame.memory_usage(index=False, deep=True).sum())

        first = fetch()
        more = takewhile(len, (fetch() for _ in count())) if len(first) else ()
        frames = list(capped(chain([first], more), nbytes, self._memory * limits.FRAME_SHARE))
        return first if len(frames) == 1 else _joined(frames)

    def arrow(self, sql: str) -> tuple["pa.Schema", Iterator["pa.RecordBatch"]]:
        """The columns, and the rows piece by piece, as `batches` gives them."""
        limit = self._begin()
        question = self._ask(limit, lambda: self._one_question(sql))
        return self._arrow(limit, question, _ARROW_ROWS)

    def _arrow(
        self, limit: TimeLimit, question: "str | duckdb.Statement", size: int
    ) -> tuple["pa.Schema", Iterator["pa.RecordBatch"]]:
        # of a relation: of what was executed, all of the answer would be made at once
        reader = self._ask(limit, lambda: self._duckdb.sql(question).to_arrow_reader(size))
        self._reader = reader
        return reader.schema, iter(lambda: self._ask(limit, lambda: next(reader, None)), None)

    def _begin(self) -> TimeLimit:
        """A new question: what is left of the answer to the last one is given up."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._duckdb.abort()
        return TimeLimit(self._duckdb, self._timeout)

    def _ask(self, limit: TimeLimit, work: Callable[[], Answer]) -> Answer:
        """Raises whatever DuckDB says as an error of ours."""
        try:
            return limit.run(work)
        except VitariumError:
            raise
        except Exception as error:
            raise self._explained(error) from None

    def _one_question(self, sql: str) -> "duckdb.Statement":
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            code = ord(sql[error.start])  # of a byte that is no UTF-8, Python makes half a letter
            what = f"the byte {code - 0xDC00:#x}" if code > 0xDC00 else "half a letter"
            fault = f"the SQL has {what}, which is no valid Unicode; write it in UTF-8"
            raise InvalidInput(fault) from None
        names = [name for table in self.columns.values() for name in table]
        self._hyphenated = hyphenated(sql, [*names, *self.short_names])
        return self._with_short_names(self.with_full_ids(with_quotes(sql, names)))

    def with_full_ids(self, sql: str) -> str:
        """As `_sql_names.with_full_ids` does, with the ids of this zoo."""

        def ids() -> list[str]:
            return [id for (id,) in self._duckdb.execute("SELECT id FROM models").fetchall()]

        return with_full_ids(sql, ids)

    def _with_short_names(self, sql: str) -> "duckdb.Statement":
        """The statement; a name that is none of its columns may be a factor's in short."""
        import duckdb

        statement = self._statement(sql)
        for _ in self.short_names:
            try:
                if statement.type.name == "SELECT":
                    self._duckdb.sql(statement)  # looks columns up, and computes nothing
                return statement
            except duckdb.Error as error:
                column = _UNKNOWN_COLUMN.search(str(error))
                by_lower = {short.lower(): short for short in self.short_names}
                if not column or column[1].lower() not in by_lower:
                    return statement
                short = by_lower[column[1].lower()]
                sql = with_column(sql, short, self.short_names[short])
                statement = self._statement(sql)
        return statement

    def _statement(self, sql: str) -> "duckdb.Statement":
        statements = self._duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise InvalidInput(f"{len(statements)} statements; write one SELECT, e.g. {EXAMPLE}")
        kind = statements[0].type.name
        if kind not in _ASKING:
            fault = f"a zoo can only be asked: write a SELECT, not {kind}, e.g. {EXAMPLE}"
            raise InvalidInput(fault)
        return statements[0]

    def _explained(self, error: Exception) -> InvalidInput:
        """DuckDB's error in one line, with the names that there are for one that there is not."""
        message = " ".join(_STACK.split(str(error))[0].split())
        if isinstance(error, MemoryError) or message.startswith("Out of Memory Error"):
            return QueryTooLarge(
                f"the query needs more than the {self._memory / 1e9:.1f} GB of memory that it may "
                "take; ask for less: fewer rows or columns, an aggregate before a join or a sort"
            )
        if isinstance(error, UnicodeError):
            return InvalidInput(f"the answer has text that is no valid Unicode ({message})")
        if table := _UNKNOWN_TABLE.search(message):
            return UnknownName("table", table[1], self.columns)
        for name, meant in self._hyphenated.items():  # which SQL reads as a subtraction
            return UnknownName("column", name, [meant])
        columns = {name for names in self.columns.values() for name in names}
        if column := _UNKNOWN_COLUMN.search(message):
            return UnknownColumn(column[1], columns | self.short_names.keys())
        if part := _UNKNOWN_PART.search(message):
            return UnknownColumn(f"{part[2]}.{part[1]}", columns | self.short_names.keys())
        if message.startswith("Permission Error"):
            return InvalidInput(f"a query reads the zoo's tables and no files: {message}")
        return InvalidInput(f"the SQL cannot be used: {message}")


class UnknownColumn(UnknownName):
    """A column that no table has; often a text without its quotes, or another word for one."""

    def __init__(self, name: str, columns: Iterable[str], *, is_text: bool = True) -> None:
        super().__init__("column", name, columns)
        if (meant := _SYNONYMS.get(name.lower())) in self.candidates:
            self.args = (f"unknown column '{name}'; did you mean '{meant}'?",)
        elif ending := [c for c in self.candidates if c.lower().endswith(f".{name.lower()}")]:
            meant = " or ".join(map(repr, sorted(ending, key=lambda c: c.count("."))[:3]))
            self.args = (f"unknown column '{name}'; did you mean {meant}?",)
        elif is_text and not difflib.get_close_matches(name, self.candidates, cutoff=0.7):
            is_alike = difflib.get_close_matches(name, self.candidates, cutoff=0.5)
            known = "" if is_alike else "".join(str(self).partition("; known: ")[1:])
            in_shell = "in a shell, double quotes around the condition keep them"
            text = f"(a text stands in single quotes: '{name}'; {in_shell})"
            self.args = (f"unknown column '{name}' {text}{known}",)  # what is alike is hardly meant


_SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "accuracy": "test_accuracy",
    "knn_accuracy": "test_knn_accuracy",
    "loss": "test_loss",
    "model": "id",
    "epochs": "last_epoch",
}
"""What columns are called elsewhere, and here."""
EXAMPLE = '"SELECT stage, count(*) FROM models GROUP BY stage"'


def _joined(frames: "list[pd.DataFrame]") -> "pd.DataFrame":
    """Pieces of an answer as one; of a column without any value, a piece does not know the type."""
    import pandas as pd

    for name in frames[0].columns:
        types = [frame[name].dtype for frame in frames if frame[name].notna().any()]
        for number, frame in enumerate(frames):
            if types and frame[name].dtype != types[0] and frame[name].isna().all():
                frames[number] = frame.astype({name: types[0]})
    return pd.concat(frames, ignore_index=True)
