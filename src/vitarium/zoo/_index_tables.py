"""Makes the index's tables of what every model's own files say, and compares them."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitarium.blueprint.plan import distinguishing_factors
from vitarium.blueprint.spec import described, initial_epoch
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile
from vitarium.core.numerals import is_number
from vitarium.core.printable import distinct
from vitarium.zoo import _index, annotations
from vitarium.zoo._index import TABLES, Entry
from vitarium.zoo._model_files import model_stamps
from vitarium.zoo.model_folder import ModelFolder

ARROW_TYPES = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}
_LARGEST = 2**63
_NAMES_ELSEWHERE = {"source", "name"}


def read_entries(zoo: Path, ids: Iterable[str], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries of these models; what is not known is read. Raises CorruptFile."""
    entries, labels = {}, annotations.stage_labels(zoo)
    for id in ids:
        with suppress(FileNotFoundError):  # a model that was deleted while we came to it
            entries[id] = known[id] if id in known else read_entry(zoo / "models" / id, labels)
    return entries


def read_entry(folder: Path, stage_labels: Mapping[str, str]) -> Entry:
    """Read a model's own files. Raises CorruptFile, and FileNotFoundError where it has gone."""
    try:
        return _entry(ModelFolder(folder), stage_labels)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        fault = f"its epochs, records or result are not what vitarium writes ({error})"
        raise CorruptFile(folder, fault) from None


def _entry(model: ModelFolder, stage_labels: Mapping[str, str]) -> Entry:
    spec, epochs, result = model.factors(), model.epochs(), model.result()
    last, words = epochs[-1] if epochs else None, annotations.read(model.path)
    id = spec["id"]
    return {
        "facts": {
            **{name: spec[name] for name in ("id", "stage", "parent", "parent_epoch")},
            "stage": stage_labels.get(spec["stage"], spec["stage"]),
            "operator": spec["operator"]["name"] if spec["operator"] else None,
            "ingredients": [str(CheckpointRef(**ref)) for ref in spec["ingredients"]] or None,
            "status": _a(str, result["status"]) if result else "training",
            "initial_epoch": initial_epoch(spec),
            "last_epoch": _a(int, last.number) if last else None,
            "tags": annotations.SEPARATOR.join(words.tags) or None,
            "note": words.note or None,
            "seconds": float(sum(epoch.metrics.get("seconds", 0.0) for epoch in epochs)),
        },
        "factors": _columns(described(spec)),
        "trained": _columns(_trained(model.about().software)),
        "metrics": _columns(last.metrics) if last else {},
        "epochs": [
            {
                # as floats: 1 in one epoch and 0.5 in the next are one column
                **{k: _number(v) for k, v in _columns(e.metrics).items()},
                "model": id,
                "epoch": _a(int, e.number),
                "kept": e.checkpoint is not None,
            }
            for e in epochs
        ],
        "records": [
            {
                "model": id,
                "epoch": _a(int, r.epoch),
                "measure": _a(str, r.measure),
                "settings": json.dumps(r.settings, sort_keys=True),
                "value": float(r.value),
                "unit": _a(str, r.unit),
            }
            for r in model.records()
        ],
    }


def _trained(software: Mapping[str, Any]) -> dict[str, Any]:
    """With which versions, device, threads and precision a model was trained, as it says itself."""
    plain: Mapping[Any, Any] = {"True": True, "False": False}
    values = {f"trained.{name}": plain.get(value, value) for name, value in software.items()}
    threads = values.get("trained.threads")
    if isinstance(threads, str) and is_number(threads):
        values["trained.threads"] = int(threads)
    return values


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Under names that SQL and terminals take; those of ordinary names are the same."""
    if all(name and name.isprintable() for name in values):
        return dict(values)
    names = distinct(values)
    return {names[name]: value for name, value in values.items()}


def _number(value: Any) -> Any:
    """An integer as a float, where it is not too large for one; all else as it is."""
    return float(value) if type(value) is int and abs(value) < 2**1023 else value


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def encode(
    entries: Mapping[str, Entry], stamps: Mapping[str, str]
) -> tuple[pa.Table, dict[str, str], bytes]:
    """The tables as one, the headings, and a parquet file of them, with zeros for its checksum."""
    parts = {
        name: columns.rename_columns([f"{name}:{column}" for column in columns.column_names])
        for name, columns in _tables(entries).items()
    }
    stamp_column = pa.array([stamps[id] for id in entries], pa.string())
    texts = pa.array([json.dumps(entry) for entry in entries.values()], pa.string())
    models = parts["models"].append_column("_stamp", stamp_column).append_column("_entry", texts)
    tables = [models, parts["epochs"], parts["records"]]
    headings = _headings(list(entries.values()))
    words = {"version": _index.VERSION, "headings": headings, "checksum": "0" * 16}
    combined = pa.concat_tables(tables, promote_options="default")
    content, start = io.BytesIO(), 0
    with pq.ParquetWriter(
        content, combined.schema, compression="zstd", store_schema=False
    ) as writer:
        for part in filter(len, tables):  # whoever reads one table passes over the others' rows
            writer.write_table(combined.slice(start, len(part)))
            start += len(part)
        writer.add_key_value_metadata({_index.METADATA: json.dumps(words)})
    return combined, headings, content.getvalue()


def _tables(entries: Mapping[str, Entry]) -> dict[str, pa.Table]:
    """The tables `models`, `epochs` and `records`, without the prefixes of their columns."""
    keys = [key for part in _index.PARTS[1:] for e in entries.values() for key in e[part]]
    names = [name for name in (*TABLES["models"], *keys) if name != "seconds"]
    rows = [_index.row_of(entry) for entry in entries.values()]
    tables = {"models": _table("models", rows, [*names, "seconds"])}
    for name in ("epochs", "records"):
        rows = [row for entry in entries.values() for row in entry[name]]
        present = (key for row in rows for key, value in row.items() if value is not None)
        tables[name] = _table(name, rows, [*TABLES[name], *present])
    return tables


def _table(name: str, rows: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> pa.Table:
    return table(rows, {**dict.fromkeys(keys), **TABLES[name]})


def table(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str | None]) -> pa.Table:
    """A column for each name, of its type, or else of the narrowest that holds all values.

    A row without a key has no value (null) in its column. Names that differ in case alone, which
    are one name in SQL, get a number.
    """
    columns: dict[str, pa.Array] = {}
    taken: set[str] = set()
    for key, kind in types.items():
        name, number = key, 1
        while name.lower() in taken:
            number += 1
            name = f"{key}_{number}"
        taken.add(name.lower())
        columns[name] = _column([row.get(key) for row in rows], kind and ARROW_TYPES[kind])
    return pa.table(columns)


def _column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Values as booleans, 64-bit integers, doubles or text: the narrowest that holds them all.

    What is no plain value (a list, a mapping, a very large integer) and what has to share a column
    with text becomes text: a string as it is, anything else as JSON.
    """
    kind = kind or _kind(values)
    if kind == pa.string():
        plain = str | None
        values = [v if isinstance(v, plain) else json.dumps(v, ensure_ascii=False) for v in values]
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # half a surrogate pair: JSON can say it, UTF-8 cannot
        return pa.array([v and v.encode(errors="replace").decode() for v in values], kind)


def _kind(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pa.bool_()
    if not kinds or not kinds <= {int, float}:
        return pa.string()
    if not all(-_LARGEST <= value < _LARGEST for value in values if type(value) is int):
        return pa.string()
    return pa.float64() if float in kinds else pa.int64()


def _headings(entries: list[Entry]) -> dict[str, str]:
    """The factors that vary inside a stage, by the last part of their names where that will do:
    `lr` is never `optimizer.base.lr` where there is an `optimizer.lr`.

    What an imported model is called where it comes from tells models apart, but is no factor.
    """
    distinguishing: set[str] = set()
    for stage in {entry["facts"]["stage"] for entry in entries}:
        of_stage = [entry["factors"] for entry in entries if entry["facts"]["stage"] == stage]
        distinguishing.update(distinguishing_factors(of_stage))
    factors = dict.fromkeys(factor for entry in entries for factor in entry["factors"])
    names = [name for name in factors if name in distinguishing - _NAMES_ELSEWHERE]
    last = {name: name.rpartition(".")[2] or name for name in names}
    count = Counter(short.lower() for short in last.values())
    depth: dict[str, int] = {}
    for factor in factors:
        short = (factor.rpartition(".")[2] or factor).lower()
        depth[short] = min(factor.count("."), depth.get(short, factor.count(".")))
    return {
        name: short
        if count[short.lower()] == 1 and name.count(".") == depth[short.lower()]
        else name
        for name, short in last.items()
    }


def disagreements(zoo: Path) -> list[str]:
    """Where the index says otherwise than the models' own files, a sentence each.

    An entry that is out of date is none: it will be made anew. Raises CorruptFile of models' files.
    """
    cure = f"delete {zoo / 'index'} to have it made anew"
    stamps = model_stamps(zoo)
    try:
        cached = _index.read(zoo, with_entries=True)
    except OSError as error:
        return [f"{_index.path_of(zoo)} cannot be read ({error}); {cure}"]
    except Exception:  # whatever a reader of parquet says of a file that is none
        return [f"{_index.path_of(zoo)} is not as it was written; {cure}"]
    if cached is None:
        return []
    unchanged = _index.unchanged_entries(cached, stamps)
    fresh = read_entries(zoo, [id for id in stamps if id in unchanged], {})
    if cached.stamps == stamps:
        actual = _rows_by_model(unchanged, {name: _rows(cached.database, name) for name in TABLES})
    else:  # its tables are made anew of its entries, and do not matter
        actual = _rows_by_model(unchanged, _rows_of_entries(unchanged))
    expected = _rows_by_model(fresh, _rows_of_entries(fresh))
    return [
        f"model {id}: the index ({', '.join(wrong)}) is not what the model's files say; {cure}"
        for id in fresh
        if (wrong := [n for n in TABLES if expected.get((id, n)) != actual.get((id, n))])
    ]


def _rows(database: Any, table: str) -> list[dict[str, Any]]:
    answer = database.execute(f"FROM {table}")
    columns = [column[0] for column in answer.description]
    return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]


def _rows_of_entries(entries: Mapping[str, Entry]) -> dict[str, list[dict[str, Any]]]:
    """The rows of `_rows`, without a database."""
    return {name: table.to_pylist() for name, table in _tables(entries).items()}


def _rows_by_model(
    entries: Mapping[str, Entry], tables: Mapping[str, list[dict[str, Any]]]
) -> dict[tuple[str, str], list[str]]:
    """Rows as text by model and table, without what has no value."""
    texts = {(id, "models"): [json.dumps(entry)] for id, entry in entries.items()}
    for name, rows in tables.items():
        id = next(iter(TABLES[name]))
        for row in rows:
            values = sorted(pair for pair in row.items() if pair[1] is not None)
            texts.setdefault((row[id], name), []).append(repr(values))
    return texts
