"""Tables of all models, kept beside them so that asking about a zoo needs not read every folder.

    index/models.parquet    a row per model, and hidden: its stamp, and its entry as JSON
    index/epochs.parquet    a row per model and epoch
    index/records.parquet   a row per measured number
    index/checksums.json    of the three files

They hold nothing of their own: an entry is used while the model's files are as they were when it
was written, and is made anew otherwise; the folder can be deleted at any time. Each file has the
index's version and a name of its generation in its metadata, and is used with files of the same
generation alone, so that who reads while another process writes never mixes old and new.
"""

import io
import json
import time
import uuid
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitarium.core import files
from vitarium.core.errors import DamagedCache
from vitarium.zoo import _index_entries as entries
from vitarium.zoo import _index_files as index_files
from vitarium.zoo._index_files import (
    METADATA,
    NAMES,
    VERSION,
    check_columns,
    check_headings,
    damaged,
    exists,
    homes,
    path_of,
    replace,
)
from vitarium.zoo._index_tables import Tables, make


def tables(zoo: Path) -> Tables:
    """The tables as of now; only models whose files have changed are read.

    An index that is damaged is made anew, with the warning DamagedCache. Raises CorruptFile where a
    model's own files are damaged.
    """
    stamps, cached = entries.stamps(zoo), None
    for home in homes(zoo):
        cached = _read(home) or cached
        if cached and cached.stamps == stamps:
            return cached
    is_damaged = cached is None and any(map(_faults, homes(zoo)))
    fresh = make(zoo, stamps, cached)
    is_written = _write(zoo, fresh)
    if is_damaged:
        cure = "has been rebuilt" if is_written else "cannot be written; it is made anew each time"
        warnings.warn(DamagedCache(f"the index of {zoo} was damaged and {cure}"), stacklevel=2)
    return fresh


def rows(zoo: Path) -> list[dict[str, Any]]:
    """One row per model, in order of id: what it is, its factors, and its last metrics.

    Raises CorruptFile where a model's own files are damaged.
    """
    return [entries.row(about) for about in tables(zoo).abouts.values()]


def remove(zoo: Path) -> None:
    """Delete the index; it is made anew when it is needed."""
    for home in homes(zoo):
        files.discard(home / "index")


def disagreements(zoo: Path) -> list[str]:
    """Where the index says otherwise than the models' own files, a sentence each.

    An entry that is out of date is none: it will be made anew. Reads every model; writes nothing.
    Raises CorruptFile where a model's own files are damaged.
    """
    cure = f"delete {zoo / 'index'} to have it made anew"
    _wait_for_writer(zoo)
    if faults := _faults(zoo):
        return [f"{fault}; {cure}" for fault in faults]
    stamps, cached = entries.stamps(zoo), _read(zoo)
    if cached is None:
        return []
    fresh = make(zoo, stamps, None)
    same = [id for id, stamp in stamps.items() if cached.stamps.get(id) == stamp]
    # a table that is out of date is made anew of its entries, so nothing else of it matters
    current = cached.stamps == stamps
    wrong: dict[str, list[str]] = {}
    for name in NAMES:
        fresh_rows, cached_rows = (
            _by_model(getattr(side, name), only_entries=name == "models" and not current)
            for side in (fresh, cached)
        )
        for id in same:
            if fresh_rows.get(id) != cached_rows.get(id):
                wrong.setdefault(id, []).append(name)
    return [
        f"model {id}: the index ({', '.join(names)}) is not what the model's files say; {cure}"
        for id, names in wrong.items()
    ]


def _write(zoo: Path, tables: Tables) -> bool:
    """Whether it could be; someone else's zoo on a read-only disk is listed all the same."""
    words = {"version": VERSION, "generation": uuid.uuid4().hex, "headings": dict(tables.headings)}
    contents = {}
    for name in reversed(NAMES):  # models last: until then, who reads finds the old generation
        content = io.BytesIO()
        table = getattr(tables, name).replace_schema_metadata({METADATA: json.dumps(words)})
        pq.write_table(table, content, compression="zstd")
        contents[name] = content.getvalue()
    files.discard(zoo / "index.json")  # the index of earlier versions
    for home in homes(zoo):
        with suppress(OSError):  # another user's zoo, or a full disk, is listed all the same
            replace(home, contents)
            return True
    return False


def _read(zoo: Path) -> Tables | None:
    """The index as it is; None where there is none, or none that can be used."""
    if not exists(zoo):
        return None
    end = time.monotonic() + index_files.PATIENCE
    while True:
        try:
            # before anything is parsed: who parses damaged bytes may end with all of the process
            if not damaged(zoo):
                read = {name: _table_of(path_of(zoo, name), name) for name in NAMES}
                generations = {words["generation"] for _, words in read.values()}
                if len(generations) == 1 and not damaged(zoo):
                    tables = {name: table for name, (table, _) in read.items()}
                    return _usable(Tables(**tables, headings=read["models"][1]["headings"]))
        except Exception:  # whatever a reader of parquet says of a file that is none
            return None
        if time.monotonic() > end:  # two processes wrote at the same time, or one was killed
            return None
        time.sleep(0.05)


def _wait_for_writer(zoo: Path) -> None:
    """Until nothing is damaged, if another process is just replacing the files."""
    end = time.monotonic() + index_files.PATIENCE
    while exists(zoo) and damaged(zoo) and time.monotonic() < end:
        time.sleep(0.05)


def _faults(zoo: Path) -> list[str]:
    """What is wrong with the index as it is now, a clause for each file."""
    if not exists(zoo):
        return []
    if paths := damaged(zoo):
        return [f"{path} is not as it was written" for path in paths]
    paths = [path_of(zoo, name) for name in NAMES if _unreadable(path_of(zoo, name), name)]
    return [f"{path} cannot be read" for path in paths]


class _OtherVersion(Exception):
    """Written by another version of vitarium."""


def _table_of(path: Path, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """A file's table and our words in its metadata. Raises where they are not what we write."""
    with path.open("rb") as handle:  # held open: a file that is replaced is read to its end
        table = pq.ParquetFile(handle).read()
    words = json.loads((table.schema.metadata or {}).get(METADATA.encode(), b"{}"))
    if words.get("version", VERSION) != VERSION:
        raise _OtherVersion
    check_headings(words["headings"])
    check_columns(name, {field.name: str(field.type) for field in table.schema}, table.num_columns)
    return table, words


def _usable(tables: Tables) -> Tables | None:
    each_once = len(tables.abouts) == len(tables.models)
    return tables if each_once and set(tables.headings) <= set(tables.models.column_names) else None


def _unreadable(path: Path, name: str) -> bool:
    try:
        _table_of(path, name)
    except (FileNotFoundError, _OtherVersion):
        return False
    except Exception:
        return True
    return False


def _by_model(table: pa.Table, *, only_entries: bool) -> dict[str, list[str]]:
    """Each model's rows as text, without what has no value, so that equal ones are equal texts."""
    if only_entries:
        table = table.select(["id", "_stamp", "_entry"])
    key = "id" if "id" in table.column_names else "model"
    rows: dict[str, list[str]] = {}
    for row in table.to_pylist():
        present = {name: value for name, value in sorted(row.items()) if value is not None}
        rows.setdefault(row[key], []).append(repr(present))
    return rows
