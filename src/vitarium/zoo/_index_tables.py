"""The index's tables: made of what every model's own files say, in columns of one type each."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vitarium.blueprint.plan import distinguishing_factors
from vitarium.zoo import _index_entries as entries
from vitarium.zoo._index_files import REQUIRED

TEXT, INTEGER, NUMBER, BOOLEAN = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_LARGEST = 2**63
_NAMES_ELSEWHERE = {"source", "name"}


@dataclass(frozen=True)
class Tables:
    """The three tables, and how the factors that tell models apart are called for short."""

    models: pa.Table
    epochs: pa.Table
    records: pa.Table
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


def make(zoo: Path, stamps: Mapping[str, str], cached: Tables | None) -> Tables:
    """Tables of what is known of models that have not changed, and of the others' files."""
    if cached and not _plain(cached.epochs):
        cached = None  # what its columns would be without the models that changed is not known
    unchanged = {id for id, stamp in stamps.items() if cached and cached.stamps.get(id) == stamp}
    fresh = {id: entry for id in stamps if id not in unchanged and (entry := _entry(zoo, id))}
    epochs = _table("epochs", [row for entry in fresh.values() for row in entry.epochs])
    records = _table("records", [row for entry in fresh.values() for row in entry.records])
    abouts = {id: entry.about for id, entry in fresh.items()}
    if cached:
        if not _plain(epochs):
            return make(zoo, stamps, None)
        abouts |= {id: cached.abouts[id] for id in unchanged}
        epochs = _joined(cached.epochs, epochs, unchanged)
        records = _joined(cached.records, records, unchanged)
    abouts = dict(sorted(abouts.items()))
    headings = _headings(list(abouts.values()))
    return Tables(_models(abouts, stamps), _without_empty(epochs), records, headings)


def _entry(zoo: Path, id: str) -> entries.Entry | None:
    """None for a model that was deleted while we came to it."""
    try:
        return entries.read(zoo / "models" / id)
    except FileNotFoundError:
        return None


def _models(abouts: Mapping[str, Any], stamps: Mapping[str, str]) -> pa.Table:
    keys = [key for part in ("factors", "metrics") for a in abouts.values() for key in a[part]]
    rows = [
        {**entries.row(about), "_stamp": stamps[id], "_entry": json.dumps(about)}
        for id, about in abouts.items()
    ]
    models = _table("models", rows, keys)
    last = ["seconds", "_stamp", "_entry"]
    return models.select([name for name in models.column_names if name not in last] + last)


def _table(
    name: str, rows: Sequence[Mapping[str, Any]], keys: Iterable[str] | None = None
) -> pa.Table:
    fixed = {key: pa.type_for_alias(kind) for key, kind in REQUIRED[name].items()}
    return table(rows, fixed, (key for row in rows for key in row) if keys is None else keys)


def _metrics(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name not in REQUIRED["epochs"]]


def _plain(epochs: pa.Table) -> bool:
    """Whether all metrics are numbers, so that the types of its columns hang on no single model."""
    return all(str(epochs.schema.field(name).type) == "double" for name in _metrics(epochs))


def _without_empty(epochs: pa.Table) -> pa.Table:
    return epochs.drop_columns(
        [name for name in _metrics(epochs) if epochs[name].null_count == len(epochs)]
    )


def _joined(cached: pa.Table, fresh: pa.Table, unchanged: Collection[str]) -> pa.Table:
    """What is known of the kept models and what is new, in order of model and epoch."""
    cached = cached.filter(pc.is_in(cached["model"], pa.array(list(unchanged), pa.string())))
    joined = pa.concat_tables([cached, fresh], promote_options="default")
    return joined.sort_by([("model", "ascending"), ("epoch", "ascending")])


def _headings(abouts: list[Any]) -> dict[str, str]:
    """The factors that vary inside a stage (those that only tell stages apart would be many).

    What an imported model is called where it comes from tells models apart, but is no factor.
    The last part of each name, where that is enough to tell them apart.
    """
    distinguishing: set[str] = set()
    for stage in {about["facts"]["stage"] for about in abouts}:
        distinguishing.update(
            distinguishing_factors(
                [about["factors"] for about in abouts if about["facts"]["stage"] == stage]
            )
        )
    factors = dict.fromkeys(factor for about in abouts for factor in about["factors"])
    names = [name for name in factors if name in distinguishing - _NAMES_ELSEWHERE]
    last = {name: name.rpartition(".")[2] or name for name in names}
    count = Counter(short.lower() for short in last.values())
    return {name: short if count[short.lower()] == 1 else name for name, short in last.items()}


def _about(id: str, text: str) -> Any:
    about = json.loads(text)
    parts = [about[part] for part in ("facts", "factors", "metrics")]
    if not all(isinstance(part, dict) for part in parts) or about["facts"].get("id") != id:
        raise ValueError(f"no entry of {id}")
    if about["facts"].keys() != REQUIRED["models"].keys() - {"_stamp", "_entry"}:
        raise ValueError(f"an entry of {id} without all that is known of a model")
    return about


def table(
    rows: Sequence[Mapping[str, Any]], fixed: Mapping[str, pa.DataType], keys: Iterable[str]
) -> pa.Table:
    """A column for each of the `fixed` (with its type) and of the other `keys`, in that order.

    A row without a key has no value (null) in its column. Names that differ in case alone, which
    are one name in SQL, get a number.
    """
    columns = {
        key: column([row.get(key) for row in rows], fixed.get(key))
        for key in dict.fromkeys([*fixed, *keys])
    }
    return pa.table(dict(zip(_told_apart(columns), columns.values(), strict=True)))


def column(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Values as booleans, 64-bit integers, doubles or text: the narrowest that holds them all.

    What is no plain value (a list, a mapping, a very large integer) and what has to share a column
    with text becomes text: a string as it is, anything else as JSON.
    """
    kind = kind or _kind(values)
    if kind == TEXT:
        values = [None if value is None else text(value) for value in values]
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # half a surrogate pair: JSON can say it, UTF-8 cannot
        return pa.array([v and v.encode(errors="replace").decode() for v in values], kind)


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return BOOLEAN
    if kinds and kinds <= {int, float}:
        integers = [value for value in values if type(value) is int]
        if all(-_LARGEST <= value < _LARGEST for value in integers):
            return NUMBER if float in kinds else INTEGER
    return TEXT


def _told_apart(names: Iterable[str]) -> list[str]:
    """The names, with a number after one that SQL would take for an earlier one."""
    taken: dict[str, str] = {}
    for name in names:
        free, number = name, 1
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free.lower()] = free
    return list(taken.values())
