"""How measured numbers are printed: by model, and their spread in each stage."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from vitarium.zoo import Zoo

_MAX_COLUMNS, _MAX_ROWS = 4, 40
"""Of a table of models, or pairs of them; of more, the spread alone is printed."""

Row = Mapping[str, Any]


def tables(
    zoo: Zoo, rows: Sequence[Row], tensors: Collection[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Titles and rows: of few models and measures each model's numbers; and each stage's spread.

    `rows` are those of `vitarium.measure`; parts that are layers or one of the `tensors` are left
    out.
    """
    stages = _stages(zoo)
    numbers = [{**row, "stage": _stage(row, stages)} for row in rows if _is_of_model(row, tensors)]
    if not numbers:
        return
    by_model = _by_model(numbers)
    names = {(row["measure"], row["part"]) for row in numbers}
    if len(by_model) <= _MAX_ROWS and len(names) <= _MAX_COLUMNS:
        yield "", by_model
    if len(by_model) > 1:
        yield "by stage", _by_stage(numbers)


def _stages(zoo: Zoo) -> dict[str, str]:
    from vitarium.zoo.query import Database

    return dict(Database(zoo.path).rows("SELECT id, stage FROM models")[1])


def _stage(row: Row, stages: Mapping[str, str]) -> str:
    """Of a model; of a pair both, if they differ."""
    ids = [id for id in (row["model"], row["other"]) if id is not None]
    return ", ".join(sorted({stages[id] for id in ids if id in stages}))


def _is_of_model(row: Row, tensors: Collection[str]) -> bool:
    """Whether it is a number of the model as such, or of a part that is no tensor and no layer."""
    first = row["part"].partition("/")[0]
    return not row["refused"] and "." not in first and first not in tensors


def _by_model(numbers: Sequence[Row]) -> list[dict[str, Any]]:
    """A row per model, or pair; a column per measure and part."""
    several = len({(n["model"], n["epoch"]) for n in numbers}) > len({n["model"] for n in numbers})
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number in numbers:
        key = tuple(number[name] for name in ("model", "epoch", "other", "other_epoch"))
        row = {"model": _name(number["model"], number["epoch"] if several else None)}
        if number["other"] is not None:
            row["other"] = _name(number["other"], number["other_epoch"] if several else None)
        row = rows.setdefault(key, {**row, "stage": number["stage"]})
        row["/".join(filter(None, (number["measure"], number["part"])))] = number["value"]
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name) for name in columns} for row in rows.values()]


def _name(id: str, epoch: int | None) -> str:
    return id[:8] if epoch is None else f"{id[:8]}@{epoch}"


def _by_stage(numbers: Sequence[Row]) -> list[dict[str, Any]]:
    spreads: dict[tuple[str, str, str], list[float]] = {}
    units: dict[str, str] = {}
    for row in numbers:
        spreads.setdefault((row["measure"], row["part"], row["stage"]), []).append(row["value"])
        units[row["measure"]] = row["unit"]
    return [
        {
            "measure": measure,
            "part": part,
            "stage": stage,
            "count": len(values),
            "mean": fmean(values),
            "std": pstdev(values),
            "min": min(values),
            "max": max(values),
            "unit": units[measure],
        }
        for (measure, part, stage), values in spreads.items()
    ]
