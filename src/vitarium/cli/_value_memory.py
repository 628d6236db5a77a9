"""Measured values that are given again without torch, which takes seconds to import."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.cache import cache_folder, source_stamps
from vitarium.core.errors import CorruptFile
from vitarium.zoo import Zoo, records
from vitarium.zoo._model_files import model_stamps
from vitarium.zoo.listing import select

_MAX_ROWS = 100_000  # of a measure: more take longer to read than torch to import

Row = Mapping[str, Any]
Answer = dict[str, Any]
"""`rows` and attributes (`final`, `written`) of what `vitarium.measure` gives, and `tensors`, names
of the models' tensors."""


class ValueMemory:
    """Rows of a zoo's models, a file per measure and options, each with the models that it covers.

    They hold as long as neither vitarium's files nor the zoo's models nor its numbers change, but
    for numbers that came of measuring what was not yet remembered.
    """

    def __init__(self, zoo: Zoo, options: Mapping[str, Any]) -> None:
        """`options`: all that the rows depend on beside the measure and the models."""
        self._zoo, self._options = zoo, options
        name = _digest(os.path.realpath(zoo.path))
        self._folder = cache_folder() / "remembered" / f"measures-{name}"
        self._before = self._stamps()
        current = _read(self._folder / "stamps.json")
        is_current = current.get("stamps") == _digest(self._before)
        self._generation = str(current["generation"]) if is_current else ""
        """Common to all files that hold; empty: none does."""

    def recall(self, measures: Sequence[str], models: Sequence[str], where: str) -> Answer | None:
        """The answer, if each measure's rows are known for all of the models.

        Raises InvalidInput and UnknownName for models that the zoo lacks.
        """
        entries = [self._entry(measure, models) for measure in measures]
        if not all(entries):
            return None
        ids = self._ids(models, where)
        if not all(_covers(entry, ids) for entry in entries):
            return None
        rows = [row for entry in entries for row in _rows(entry)]
        tensors = sorted({name for entry in entries for name in entry["tensors"]})
        return _ordered({"rows": rows, "tensors": tensors}, measures, ids) if rows else None

    def add(
        self, answer: Answer, measures: Sequence[str], models: Sequence[str], where: str
    ) -> Answer:
        """Remember of an answer that was computed what is final; gives it in the order in which
        it is recalled."""
        after = self._stamps()
        if not is_final(answer, self._before[1:], after[1:]) or self._before[0] != after[0]:
            return answer
        ids = self._ids(models, where)
        with suppress(OSError):  # where nothing can be kept, it is computed each time
            self._write(answer, measures, models, ids)
            current = {"stamps": _digest(after), "generation": self._generation}
            _write(self._folder / "stamps.json", current)
        return _ordered(answer, measures, ids)

    def _write(
        self, answer: Answer, measures: Sequence[str], models: Sequence[str], ids: Sequence[str]
    ) -> None:
        if not self._generation:
            files.discard(self._folder)
            self._generation = _digest(self._before)
        final = {_plain(name) for name in answer["final"]}
        for measure in measures:
            rows = [row for row in answer["rows"] if _plain(row["measure"]) == _plain(measure)]
            if not rows or _plain(measure) not in final:
                continue
            of_pairs = any(row["other"] is not None for row in rows)
            tensors, covered, selected = answer["tensors"], list(ids), set(ids)
            if (stored := self._entry(measure, models)) and not of_pairs:
                rows += [row for row in _rows(stored) if row["model"] not in selected]
                covered += [id for id in stored["models"] if id not in selected]
                tensors = sorted({*tensors, *stored["tensors"]})
            if len(rows) > _MAX_ROWS:
                continue
            entry = {"generation": self._generation, "of_pairs": of_pairs, "models": covered}
            entry |= {"tensors": tensors, "columns": _columns(rows)}
            _write(self._path(measure, models), entry)

    def _entry(self, measure: str, models: Sequence[str]) -> dict[str, Any]:
        """What is remembered of a measure; empty, if nothing that holds is."""
        if not self._generation:
            return {}
        entry = _read(self._path(measure, models))
        return entry if entry.get("generation") == self._generation else {}

    def _path(self, measure: str, models: Sequence[str]) -> Path:
        """Models after epochs of their own have a file of their own."""
        options = {**self._options, "models": models if any("@" in name for name in models) else []}
        text = json.dumps([_plain(measure), options], sort_keys=True, default=str)
        return self._folder / f"{_digest(text)}.json"

    def _ids(self, models: Sequence[str], where: str) -> list[str]:
        """Of the models that are selected, in their order."""
        names = select(self._zoo, models or None, where)
        return list(dict.fromkeys(self._zoo.find(name.partition("@")[0]) for name in names))

    def _stamps(self) -> list[Any]:
        return [source_stamps(), model_stamps(self._zoo.path), records.stamps(self._zoo.path)]


def is_final(answer: Mapping[str, Any], before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether nothing but the answer's own numbers came to the zoo while it was measured.

    `before` and `after`: stamps of the models and of the numbers.
    """
    (models, numbers), (models_after, numbers_after) = before, after
    own = {*numbers, *answer["written"]}
    return bool(answer["final"]) and models == models_after and own == {*numbers_after}


def _covers(entry: Mapping[str, Any], ids: Sequence[str]) -> bool:
    """Which pairs there are depends on all of the models."""
    covered = set(entry["models"])
    return covered == set(ids) if entry["of_pairs"] else covered >= set(ids)


def _ordered(answer: Answer, measures: Sequence[str], ids: Sequence[str]) -> Answer:
    """Rows of these models: values before refusals; by model, of each all measures; then pairs."""
    positions = {id: position for position, id in enumerate(ids)}
    order = {_plain(measure): position for position, measure in enumerate(measures)}

    def key(row: Row) -> tuple[int, ...]:
        is_pair = row["other"] is not None
        model = (positions[row["model"]], row["epoch"]) if not is_pair else (0, 0)
        return (bool(row["refused"]), is_pair, *model, order[_plain(row["measure"])])

    rows = [row for row in answer["rows"] if row["model"] in positions]
    return {**answer, "rows": sorted(rows, key=key)}


def _columns(rows: Sequence[Row]) -> dict[str, Any]:
    """By column its distinct entries, and of each row the number of its own; values as they are."""
    columns: dict[str, Any] = {}
    for name in rows[0]:
        entries = [row[name] for row in rows]
        numbers = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        columns[name] = (
            entries if name == "value" else [list(numbers), [numbers[entry] for entry in entries]]
        )
    return columns


def _rows(entry: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    columns = entry["columns"]
    lists = [
        column if name == "value" else [column[0][number] for number in column[1]]
        for name, column in columns.items()
    ]
    return (dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True))


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is nothing that can be read."""
    with suppress(OSError, CorruptFile):
        return files.read_sealed(path)
    return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    files.write(path, files.utf8(files.with_checksum(value)))  # on few lines, which is read faster


def _plain(measure: str) -> str:
    """Hyphens and underscores in names of plug-ins are alike."""
    return measure.replace("-", "_")


def _digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf8", "surrogateescape")).hexdigest()[:16]
