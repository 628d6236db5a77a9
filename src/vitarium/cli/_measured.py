"""How measured numbers are printed: by model, and their spread in each stage."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from vitarium.cli._tables import HAS_ALL, print_rows, print_text, text
from vitarium.core.terminal import print_line
from vitarium.zoo import Zoo

_MAX_COLUMNS, _MAX_ROWS = 4, 40
"""Of a table of models, or pairs of them; of more, the spread alone is printed."""
_MAX_PARTS = 4
"""Of a measure, where there are more rows than `_MAX_ROWS`: more are classes, or alike."""

Row = Mapping[str, Any]


def print_measured(zoo: Zoo, rows: Sequence[Row], tensors: Collection[str]) -> None:
    """Print of few models and measures each model's numbers; and each stage's mean and spread.

    `rows` are those of `vitarium.measure`; parts that are layers or one of the `tensors` are left
    out, and where the table becomes too long, measures' many parts.
    """
    stages = _stages(zoo)
    numbers = [{**row, "stage": _stage(row, stages)} for row in rows if _is_of_model(row, tensors)]
    if not numbers:
        return
    by_model = _by_model(numbers)
    names = {(row["measure"], row["part"]) for row in numbers}
    each_fits = len(by_model) <= _MAX_ROWS and len(names) <= _MAX_COLUMNS
    if each_fits:
        print_rows(by_model, title=f"{zoo.path}: measured values", complete=HAS_ALL)
    if len(by_model) > 1:
        if each_fits:
            print_line()
        many = _many_parts(names) if len(names) > _MAX_ROWS else set()
        listed = [row for row in numbers if not (row["part"] and row["measure"] in many)]
        title = f"{zoo.path}: mean ± standard deviation by stage"
        print_rows(_by_stage(listed), title=title, spare=["unit"], complete=HAS_ALL)
        if many:
            print_text(f"without the parts of {', '.join(sorted(many))}; {HAS_ALL}")


def _many_parts(names: Collection[tuple[str, str]]) -> set[str]:
    """Measures that have a number as a whole and many of parts."""
    counts = Counter(measure for measure, part in names if part)
    return {m for m, count in counts.items() if count > _MAX_PARTS and (m, "") in names}


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
    """A row per measure and part, a column per stage."""
    values: dict[str, dict[str, list[float]]] = {}
    units: dict[str, str] = {}
    for row in numbers:
        measure = "/".join(filter(None, (row["measure"], row["part"])))
        values.setdefault(measure, {}).setdefault(row["stage"], []).append(row["value"])
        units[measure] = row["unit"]
    headings = {
        stage: _heading(
            stage, [by_stage[stage] for by_stage in values.values() if stage in by_stage]
        )
        for stage in dict.fromkeys(row["stage"] for row in numbers)
    }
    return [
        {
            "measure": measure,
            **{heading: _mean_and_std(by_stage.get(s, ())) for s, heading in headings.items()},
            "unit": units[measure],
        }
        for measure, by_stage in values.items()
    ]


def _heading(stage: str, values: Collection[Sequence[float]]) -> str:
    """With the number of models, or of pairs, if every measure has as many."""
    counts = set(map(len, values))
    return f"{stage} ({counts.pop()})" if len(counts) == 1 else stage


def _mean_and_std(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(map(text, values))
    return f"{text(fmean(values))} ± {pstdev(values):.2g}"
