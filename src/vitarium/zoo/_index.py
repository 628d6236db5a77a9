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
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core import files
from vitarium.core.errors import DamagedCache
from vitarium.zoo import _index_entries as entries
from vitarium.zoo._index_files import NAMES, damaged, exists, homes, path_of, replace
from vitarium.zoo._index_schema import METADATA, REQUIRED, VERSION, check_columns, check_headings

if TYPE_CHECKING:
    import pyarrow as pa

PATIENCE = 1.0
"""Seconds to wait for a process that is just replacing the files."""

_NAMES_ELSEWHERE = {"source", "name"}


@dataclass(frozen=True)
class Tables:
    """The three tables, and how the factors that tell models apart are called for short."""

    models: "pa.Table"
    epochs: "pa.Table"
    records: "pa.Table"
    headings: Mapping[str, str]
    """Dotted name -> short name, e.g. {"optimizer.lr": "lr"}."""

    @cached_property
    def stamps(self) -> dict[str, str]:
        columns = self.models.select(["id", "_stamp"]).to_pydict()
        return dict(zip(columns["id"], columns["_stamp"], strict=True))

    @cached_property
    def abouts(self) -> dict[str, Any]:
        """What `entries.row` makes a row of, by id. Raises ValueError where it is no such thing."""
        columns = self.models.select(["id", "_entry"]).to_pydict()
        return {
            id: _about(id, text) for id, text in zip(columns["id"], columns["_entry"], strict=True)
        }


def tables(zoo: Path) -> Tables:
    """The tables as of now; only models whose files have changed are read.

    An index that is damaged is made anew, with the warning DamagedCache. Raises CorruptFile where a
    model's own files are damaged.
    """
    stamps, known = entries.stamps(zoo), None
    for home in homes(zoo):
        known = _read(home) or known
        if known and known.stamps == stamps:
            return known
    is_damaged = known is None and any(map(_faults, homes(zoo)))
    made = _make(zoo, stamps, known)
    is_written = _write(zoo, made)
    if is_damaged:
        cure = "has been rebuilt" if is_written else "cannot be written; it is made anew each time"
        warnings.warn(DamagedCache(f"the index of {zoo} was damaged and {cure}"), stacklevel=2)
    return made


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
    stamps, known = entries.stamps(zoo), _read(zoo)
    if known is None:
        return []
    fresh = _make(zoo, stamps, None)
    same = [id for id, stamp in stamps.items() if known.stamps.get(id) == stamp]
    # a table that is out of date is made anew of its entries, so nothing else of it matters
    current = known.stamps == stamps
    wrong: dict[str, list[str]] = {}
    for name in NAMES:
        ours, theirs = (
            _by_model(getattr(side, name), only_entries=name == "models" and not current)
            for side in (fresh, known)
        )
        for id in same:
            if ours.get(id) != theirs.get(id):
                wrong.setdefault(id, []).append(name)
    return [
        f"model {id}: the index ({', '.join(names)}) is not what the model's files say; {cure}"
        for id, names in wrong.items()
    ]


# Making


def _make(zoo: Path, stamps: Mapping[str, str], known: Tables | None) -> Tables:
    """Tables of what is known of models that have not changed, and of the others' files."""
    if known and not _plain(known.epochs):
        known = None  # what its columns would be without the models that changed is not known
    kept = {id for id, stamp in stamps.items() if known and known.stamps.get(id) == stamp}
    fresh = {id: entry for id in stamps if id not in kept and (entry := _entry(zoo, id))}
    epochs = _table("epochs", [row for entry in fresh.values() for row in entry.epochs])
    records = _table("records", [row for entry in fresh.values() for row in entry.records])
    abouts = {id: entry.about for id, entry in fresh.items()}
    if known:
        if not _plain(epochs):
            return _make(zoo, stamps, None)
        abouts |= {id: known.abouts[id] for id in kept}
        epochs = _joined(known.epochs, epochs, kept)
        records = _joined(known.records, records, kept)
    abouts = dict(sorted(abouts.items()))
    headings = _headings(list(abouts.values()))
    return Tables(_models(abouts, stamps), _without_empty(epochs), records, headings)


def _entry(zoo: Path, id: str) -> entries.Entry | None:
    """None for a model that was deleted while we came to it."""
    try:
        return entries.read(zoo / "models" / id)
    except FileNotFoundError:
        return None


def _models(abouts: Mapping[str, Any], stamps: Mapping[str, str]) -> "pa.Table":
    keys = [key for part in ("factors", "metrics") for a in abouts.values() for key in a[part]]
    rows = [
        {**entries.row(about), "_stamp": stamps[id], "_entry": json.dumps(about)}
        for id, about in abouts.items()
    ]
    made = _table("models", rows, keys)
    last = ["seconds", "_stamp", "_entry"]
    return made.select([name for name in made.column_names if name not in last] + last)


def _table(
    name: str, rows: Sequence[Mapping[str, Any]], keys: Iterable[str] | None = None
) -> "pa.Table":
    import pyarrow as pa

    from vitarium.zoo import _index_columns as columns

    fixed = {key: pa.type_for_alias(kind) for key, kind in REQUIRED[name].items()}
    return columns.table(
        rows, fixed, (key for row in rows for key in row) if keys is None else keys
    )


def _metrics(table: "pa.Table") -> list[str]:
    return [name for name in table.column_names if name not in REQUIRED["epochs"]]


def _plain(epochs: "pa.Table") -> bool:
    """Whether all metrics are numbers, so that the types of its columns hang on no single model."""
    return all(str(epochs.schema.field(name).type) == "double" for name in _metrics(epochs))


def _without_empty(epochs: "pa.Table") -> "pa.Table":
    return epochs.drop_columns(
        [name for name in _metrics(epochs) if epochs[name].null_count == len(epochs)]
    )


def _joined(known: "pa.Table", fresh: "pa.Table", kept: Collection[str]) -> "pa.Table":
    """What is known of the kept models and what is new, in order of model and epoch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = known.filter(pc.is_in(known["model"], pa.array(list(kept), pa.string())))
    joined = pa.concat_tables([known, fresh], promote_options="default")
    return joined.sort_by([("model", "ascending"), ("epoch", "ascending")])


def _headings(abouts: list[Any]) -> dict[str, str]:
    """The factors that vary inside a stage (those that only tell stages apart would be many).

    What an imported model is called where it comes from tells models apart, but is no factor.
    The last part of each name, where that is enough to tell them apart.
    """
    from vitarium.blueprint.plan import telling

    telling_any: set[str] = set()
    for stage in {about["facts"]["stage"] for about in abouts}:
        telling_any.update(
            telling([about["factors"] for about in abouts if about["facts"]["stage"] == stage])
        )
    factors = dict.fromkeys(factor for about in abouts for factor in about["factors"])
    names = [name for name in factors if name in telling_any - _NAMES_ELSEWHERE]
    last = {name: name.rpartition(".")[2] or name for name in names}
    count = Counter(short.lower() for short in last.values())
    return {name: short if count[short.lower()] == 1 else name for name, short in last.items()}


# Keeping


def _write(zoo: Path, made: Tables) -> bool:
    """Whether it could be; someone else's zoo on a read-only disk is listed all the same."""
    import pyarrow.parquet as pq

    words = {"version": VERSION, "generation": uuid.uuid4().hex, "headings": dict(made.headings)}
    contents = {}
    for name in reversed(NAMES):  # models last: until then, who reads finds the old generation
        content = io.BytesIO()
        table = getattr(made, name).replace_schema_metadata({METADATA: json.dumps(words)})
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
    end = time.monotonic() + PATIENCE
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
    end = time.monotonic() + PATIENCE
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


def _table_of(path: Path, name: str) -> tuple["pa.Table", dict[str, Any]]:
    """A file's table and our words in its metadata. Raises where they are not what we write."""
    import pyarrow.parquet as pq

    with path.open("rb") as handle:  # held open: a file that is replaced is read to its end
        table = pq.ParquetFile(handle).read()
    words = json.loads((table.schema.metadata or {}).get(METADATA.encode(), b"{}"))
    if words.get("version", VERSION) != VERSION:
        raise _OtherVersion
    check_headings(words["headings"])
    check_columns(name, {field.name: str(field.type) for field in table.schema}, table.num_columns)
    return table, words


def _about(id: str, text: str) -> Any:
    about = json.loads(text)
    parts = [about[part] for part in ("facts", "factors", "metrics")]
    if not all(isinstance(part, dict) for part in parts) or about["facts"].get("id") != id:
        raise ValueError(f"no entry of {id}")
    if about["facts"].keys() != REQUIRED["models"].keys() - {"_stamp", "_entry"}:
        raise ValueError(f"an entry of {id} without all that is known of a model")
    return about


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


def _by_model(table: "pa.Table", *, only_entries: bool) -> dict[str, list[str]]:
    """Each model's rows as text, without what has no value, so that equal ones are equal texts."""
    if only_entries:
        table = table.select(["id", "_stamp", "_entry"])
    key = "id" if "id" in table.column_names else "model"
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        told = {name: value for name, value in sorted(row.items()) if value is not None}
        found.setdefault(row[key], []).append(repr(told))
    return found
