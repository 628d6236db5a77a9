"""What the page is told of a zoo, as values that become JSON: one function per address."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import vitarium
from vitarium.core.printable import printable
from vitarium.zoo import Zoo, records
from vitarium.zoo import _index as index
from vitarium.zoo._measured import measured_columns
from vitarium.zoo.listing import listing
from vitarium.zoo.query import Database

Json = dict[str, Any]
_FACTS = ("stage", "parent", "operator", "ingredients", "status", "tags", "note")
_SCORES = ("before", "after", "score")
"""Of a listing, beside facts and factors."""


def zoo_summary(zoo: Zoo) -> Json:
    """The zoo's name, its number of models, and what the page may do."""
    return {
        "name": printable(zoo.path.resolve().name),
        "models": len(zoo),
        "version": vitarium.__version__,
        "studies": [],
    }


def models_table(zoo: Zoo) -> Json:
    """Every model with its factors, metrics and measured numbers, column by column.

    Rows are in the order of `vitarium ls`: parents before children, stage by stage. Columns have
    `name` (as SQL knows it), `label`, `group` ("fact", "factor", "score", "metric", "training",
    "measure") and `values`; texts as `levels` with `codes` into them, -1 where there is no value.
    `shown` are the columns of `vitarium ls`; `constants` have one value in all models.
    """
    rows = listing(zoo.path).rows
    entries = index.load(zoo.path, with_entries=True).entries
    database = Database(zoo.path)
    groups = _groups(entries.values())
    by_id = {id: index.row_of(entry) for id, entry in entries.items()}
    measured = _measured(zoo, database, groups)
    ids = [row["model"] for row in rows]
    values = {name: [by_id[id].get(name) for id in ids] for name in groups if name != "id"}
    values |= {name: [row[name] for row in rows] for name in _SCORES if rows and name in rows[0]}
    values |= {name: [numbers.get(id) for id in ids] for name, numbers in measured.items()}
    groups |= {**dict.fromkeys(_SCORES, "score"), **dict.fromkeys(measured, "measure")}
    constants = {name: _plain(of[0]) for name, of in values.items() if of and _is_constant(of)}
    columns = [
        {"name": name, "label": database.headings.get(name, name), "group": groups[name]}
        | _encoded(of)
        for name, of in values.items()
        if name not in constants
    ]
    varying = {column["name"] for column in columns}
    shown = [name for name in (*_FACTS, *database.headings, *_SCORES) if name in varying]
    return {
        "ids": ids,
        "columns": columns,
        "shown": shown,
        "constants": {name: value for name, value in constants.items() if value is not None},
    }


def model_page(zoo: Zoo, name: str) -> Json:
    """All that is known of a model: facts, factors, epochs, family, measured numbers.

    Raises UnknownName and CorruptFile.
    """
    model = zoo[name]
    folder = zoo.folder(model.id)
    spec, about = folder.factors(), folder.about()
    entries = index.load(zoo.path, with_entries=True).entries
    row = index.row_of(entries[model.id])
    parent = model.parent_checkpoint
    siblings = [
        id for id, e in entries.items() if e["facts"]["parent"] == row["parent"] and id != model.id
    ]
    siblings = [id for id in siblings if entries[id]["facts"]["stage"] == row["stage"]]
    factors = {name: value for name, value in model.factors.items() if value is not None}
    return {
        "id": model.id,
        "stage": model.stage,
        "status": row["status"],
        "message": (folder.result() or {}).get("message", ""),
        "parent": parent and {"model": parent.model, "epoch": parent.epoch},
        "children": zoo.children(model.id),
        "siblings": siblings,
        "ingredients": spec["ingredients"],
        "operator": (spec["operator"] or {}).get("name"),
        "tags": list(model.tags),
        "note": model.note,
        "factors": {name: _plain(value) for name, value in factors.items()},
        "differing": _differing(factors, [entries[id]["factors"] for id in siblings]),
        "trained": {name: _plain(value) for name, value in entries[model.id]["trained"].items()},
        "classes": list(about.classes),
        "outputs": about.num_outputs,
        "epochs": [
            {"epoch": e.number, "kept": e.checkpoint is not None}
            | {name: _plain(value) for name, value in e.metrics.items()}
            for e in folder.epochs()
        ],
        "measured": _records(zoo, model.id),
        "python": [
            "import vitarium",
            f"zoo = vitarium.Zoo.open({str(zoo.path)!r})",
            f"model = zoo.load({model.id!r})  # an nn.Module; epoch=3 for an earlier state",
            f"images = zoo.data({model.id!r})  # its test images as it sees them, with labels",
        ],
    }


def _groups(entries: Iterable[index.Entry]) -> dict[str, str]:
    """The columns of models, and of which kind each is."""
    kinds = {"facts": "fact", "factors": "factor", "trained": "training", "metrics": "metric"}
    groups: dict[str, str] = {}
    for entry in entries:
        for part, kind in kinds.items():
            for name in entry[part]:
                groups.setdefault(name, kind)
    return groups


def _measured(
    zoo: Zoo, database: Database, taken: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """A column per measure: number by model."""
    if not records.exist(zoo.path):
        return {}
    measured = measured_columns(database, taken)
    names, rows = database.rows(measured.table)
    return {
        name: {row[0]: row[number] for row in rows if row[number] is not None}
        for number, name in enumerate(names)
        if number
    }


def _records(zoo: Zoo, id: str) -> list[Json]:
    """Measured numbers of a model by itself."""
    return [
        {
            "measure": record.measure,
            "part": record.part,
            "epoch": record.epoch,
            "value": _plain(record.value),
            "unit": record.unit,
            "data": record.data,
            "split": record.split,
            "settings": record.settings,
        }
        for record in records.of(zoo.path, [id])
        if record.model == id and record.other is None
    ]


def _differing(factors: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """The factors in which a model differs from any of its siblings."""
    return [
        name
        for name, value in factors.items()
        if any(name in other and other[name] != value for other in others)
    ]


def _is_constant(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _encoded(values: Sequence[Any]) -> Json:
    """Numbers as they are; all else as codes into its levels, in the order in which they come."""
    present = [value for value in values if value is not None]
    if present and all(type(value) in (int, float) for value in present):
        return {"type": "number", "values": [_plain(value) for value in values]}
    texts = [None if value is None else _text(value) for value in values]
    levels = list(dict.fromkeys(text for text in texts if text is not None))
    codes = {text: code for code, text in enumerate(levels)}
    return {
        "type": "text",
        "levels": levels,
        "codes": [-1 if text is None else codes[text] for text in texts],
    }


def _text(value: Any) -> str:
    """As blueprints write it; checkpoints (texts `ID@EPOCH`) one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    """As JSON can have it: what is no finite number is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
