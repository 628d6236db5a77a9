"""Measured numbers, as parquet files to which nothing is ever added: new ones come beside them.

    records/<time>-<checksum>.parquet

The name begins with the time of writing, so that of two records of the same the later one counts,
and ends with XXH3 of the content, so that a changed byte is found. Several processes may write at
the same time. Once there are many files, they are made one.
"""

import io
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core import files
from vitarium.core.errors import CorruptFile, QueryTooLarge
from vitarium.zoo._query_limits import Answer

if TYPE_CHECKING:
    import duckdb

MANY = 64
"""Files from which on they are made one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured number: of what, by what, on what."""

    model: str
    epoch: int
    other: str | None
    """The second model of a pair, and its epoch."""
    other_epoch: int | None
    measure: str
    settings: str
    """JSON, defaults included, keys in order."""
    part: str
    """What of the model it is of, e.g. a tensor; "": the whole."""
    value: float
    unit: str
    data: str
    """Name of the data set; "" where the weights alone are looked at."""
    split: str
    num_images: int
    images: str
    """Tells the images from all others."""
    trained_on: bool
    """Whether these images were trained on, so that the number says nothing of new ones."""
    weights: str
    """Tells the weights from all others: the beginning of `zoo._format.description.content_of`."""


_TYPES = {
    **dict.fromkeys(("epoch", "other_epoch", "num_images"), "BIGINT"),
    "value": "DOUBLE",
    "trained_on": "BOOLEAN",
}
COLUMNS: Mapping[str, str] = {
    field.name: _TYPES.get(field.name, "VARCHAR") for field in fields(Measured)
}
"""Of the table, with DuckDB's types."""
KEY = [name for name in COLUMNS if name not in ("value", "unit", "data", "trained_on")]
"""What a record is of: there is one number for each."""


def add(zoo: Path, measured: Sequence[Measured]) -> list[str]:
    """Keep numbers; the new one counts. Raises DiskFull, NotWritable and LeadsOutside.

    Returns the names of the files that were written.
    """
    if not measured:
        return []
    import duckdb
    import pyarrow as pa

    columns = {name: [getattr(record, name) for record in measured] for name in COLUMNS}
    written = [_write(zoo, pa.table(columns, schema=_schema())).name]
    if len(paths := _paths(zoo)) <= MANY:
        return written
    with duckdb.connect(":memory:") as database, files.plain_path(zoo) as folder:
        table = database.sql(f"SELECT * FROM {_latest(zoo, folder)} ORDER BY {', '.join(KEY)}")
        # as old as the newest of them: what another process writes meanwhile is newer
        since = paths[-1].stem.partition("-")[0]
        written.append(_write(zoo, table.to_arrow_table().cast(_schema()), since).name)
    for path in paths:
        files.unlink(path)
    return written


def attach(database: "duckdb.DuckDBPyConnection", zoo: Path) -> None:
    """Add to a table `records` what is kept here of the `models`. Raises CorruptFile."""
    merged = "CREATE OR REPLACE TABLE records AS SELECT * FROM records UNION ALL BY NAME "
    is_model = "model IN (SELECT id FROM models)"
    of_models = f"{is_model} AND (other IS NULL OR other IN (SELECT id FROM models))"
    with files.plain_path(zoo) as folder:
        query = f"{merged} (FROM {_latest(zoo, folder)} WHERE {of_models})"
        _patiently(zoo, lambda: database.execute(query))


def find(zoo: Path, measure: str, settings: str) -> list[Measured]:
    """All numbers of a measure with these settings. Raises CorruptFile."""
    if not _paths(zoo):
        return []
    import duckdb

    def select() -> list[tuple[Any, ...]]:
        sql = f"SELECT * FROM {_latest(zoo, folder)} WHERE measure = ? AND settings = ?"
        return database.execute(sql, [measure, settings]).fetchall()

    with duckdb.connect(":memory:") as database, files.plain_path(zoo) as folder:
        return [Measured(*row) for row in _patiently(zoo, select)]


def exist(zoo: Path) -> bool:
    """Whether anything was measured, by this version or an earlier one."""
    return bool(_paths(zoo)) or any((zoo / "models").glob("*/records.jsonl"))


def stamps(zoo: Path) -> list[str]:
    """Names of the files, which tell what has changed: a name has a checksum of the content."""
    return [path.name for path in _paths(zoo)]


def count(zoo: Path, models: Collection[str]) -> int:
    """How many numbers are of these models, alone or in a pair. Raises CorruptFile."""
    return len(of(zoo, models))


def remove(zoo: Path, models: Collection[str]) -> None:
    """Remove all numbers of these models, alone or in a pair. Raises CorruptFile and DiskFull."""
    if not of(zoo, models):
        return
    import duckdb

    paths = _paths(zoo)
    with duckdb.connect(":memory:") as database, files.plain_path(zoo) as folder:
        rest = f"SELECT * FROM {_latest(zoo, folder)} WHERE NOT {_are(models)}"
        table = database.sql(f"{rest} ORDER BY {', '.join(KEY)}").to_arrow_table()
        written = _write(zoo, table.cast(_schema()), paths[-1].stem.partition("-")[0])
    for path in paths:
        if path != written:  # by who was killed before the others were removed
            files.unlink(path)


def of(zoo: Path, models: Collection[str]) -> list[Measured]:
    """All numbers of these models, alone or in a pair. Raises CorruptFile."""
    if not _paths(zoo) or not models:
        return []
    import duckdb

    def select() -> list[tuple[Any, ...]]:
        sql = f"SELECT * FROM {_latest(zoo, folder)} WHERE {_are(models)}"
        return database.execute(sql).fetchall()

    with duckdb.connect(":memory:") as database, files.plain_path(zoo) as folder:
        return [Measured(*row) for row in _patiently(zoo, select)]


def _are(models: Iterable[str]) -> str:
    """SQL of a row's being of one of these models; ids are hexadecimal digits."""
    ids = ", ".join(f"'{id}'" for id in models)
    return f"(model IN ({ids}) OR coalesce(other, '') IN ({ids}))"


def damaged(zoo: Path) -> list[Path]:
    """Files that are not as they were written."""
    return [path for path in _paths(zoo) if _fault(path)]


def _latest(zoo: Path, folder: Path) -> str:
    """SQL that gives every record once, as last written; `folder`: see `files.plain_path`."""
    for path in (paths := _paths(zoo)):
        if fault := _fault(path):
            raise CorruptFile(path, f"{fault}; remove it, and measure again what it held")
    if not paths:
        empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
        return f"(SELECT {empty} LIMIT 0)"
    names = [str(folder / path.relative_to(zoo)).replace("'", "''") for path in paths]
    listed = ", ".join(f"'{name}'" for name in names)
    return (
        f"(SELECT {', '.join(COLUMNS)} FROM read_parquet([{listed}], filename = '_file', "
        f"hive_partitioning = false) QUALIFY row_number() OVER "
        f"(PARTITION BY {', '.join(KEY)} ORDER BY _file DESC) = 1)"
    )


def _paths(zoo: Path) -> list[Path]:
    return [path for path in files.listed(zoo / "records") if path.suffix == ".parquet"]


def _fault(path: Path) -> str:
    try:
        checksum = files.checksum(files.read(path))
    except FileNotFoundError:  # just made one with others
        return ""
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "" if path.stem.endswith(f"-{checksum}") else "it is not as it was written"


def _patiently(zoo: Path, ask: Callable[[], Answer]) -> Answer:
    """Ask, and once more where another process has just made many files one.

    Raises CorruptFile where a file is as it was written, but no table of records.
    """
    import duckdb

    try:
        return ask()
    except duckdb.IOException:
        return ask()
    except duckdb.OutOfMemoryException:
        raise QueryTooLarge(
            f"the measured numbers of {zoo} take more memory than a query may; use a larger machine"
        ) from None
    except duckdb.Error as error:
        fault = " ".join(str(error).split())
        raise CorruptFile(zoo / "records", f"they cannot be read together: {fault}") from None


def _write(zoo: Path, table: Any, written: str = "") -> Path:
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    parquet = content.getvalue()
    name = f"{written or f'{time.time_ns():016x}'}-{files.checksum(parquet)}.parquet"
    files.write(path := zoo / "records" / name, parquet, root=zoo)
    return path


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}
    return pa.schema([(name, kinds.get(kind, pa.bool_())) for name, kind in COLUMNS.items()])
