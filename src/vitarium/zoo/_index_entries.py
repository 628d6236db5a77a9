"""What the index keeps of one model, and the stamps that tell when to read it again."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.core.errors import CorruptFile
from vitarium.core.file_faults import fault, reading
from vitarium.core.printable import distinct

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_WATCHED = ("/model.json", "/epochs.jsonl", "/result.json", "/records.jsonl")


@dataclass(frozen=True)
class Entry:
    """A model's lines in the three tables."""

    about: Mapping[str, Mapping[str, Any]]
    """facts (id, stage, ...), factors by dotted name, metrics of the last epoch."""
    epochs: list[dict[str, Any]]
    records: list[dict[str, Any]]

    @property
    def row(self) -> dict[str, Any]:
        return row(self.about)


def row(about: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A model on one line: what it is, its factors, its last epoch's metrics, seconds.

    Where names meet, facts go before factors, and factors before metrics.
    """
    facts, factors, metrics = about["facts"], about["factors"], about["metrics"]
    first = {key: value for key, value in facts.items() if key != "seconds"}
    order = dict.fromkeys([*first, *factors, *metrics, "seconds"])
    return {**order, **metrics, **factors, **facts}


def stamps(zoo: Path) -> dict[str, str]:
    """For every model its files' times and sizes, by which it is seen that something changed.

    Plain system calls, relative to the folder: for 10,000 models, pathlib takes a second longer.

    Raises NotReadable.
    """
    folder = zoo / "models"
    try:
        with reading(folder):
            models = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        return {
            id: " ".join(stamp)
            for id in sorted(os.listdir(models))  # noqa: PTH208 (of an open folder)
            if (stamp := _stamp(models, id))
        }
    except OSError as error:
        raise fault(error, folder / str(error.filename), writing=False) from None
    finally:
        os.close(models)


def _stamp(models: int, id: str) -> list[str]:
    """Time and size of each of a model's files; none for what is no model.

    Raises OSError where that cannot be seen.
    """
    stamp = []
    for name in _WATCHED:
        try:
            status = os.stat(id + name, dir_fd=models)
            stamp.append(f"{status.st_mtime_ns}:{status.st_size}")
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            if not stamp:
                return []
            stamp.append("-")
    return stamp


def read(folder: Path) -> Entry:
    """Read a model's own files. Raises CorruptFile, and FileNotFoundError where it has gone."""
    # takes pydantic to import, which an index that is up to date saves
    from vitarium.zoo.model_folder import ModelFolder

    model = ModelFolder(folder)
    try:
        return _entry(model)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        fault = f"its epochs, records or result are not what vitarium writes ({error})"
        raise CorruptFile(folder, fault) from None


def _entry(model: Any) -> Entry:
    from vitarium.blueprint.spec import described

    spec, epochs, result = model.factors(), model.epochs(), model.result()
    last = epochs[-1] if epochs else None
    facts = {
        "id": spec["id"],
        "stage": spec["stage"],
        "parent": spec["parent"],
        "parent_epoch": spec["parent_epoch"],
        "operator": spec["operator"]["name"] if spec["operator"] else None,
        "status": _a(str, result["status"]) if result else "training",
        "last_epoch": _a(int, last.number) if last else None,
        "seconds": float(sum(epoch.metrics.get("seconds", 0.0) for epoch in epochs)),
    }
    about = {
        "facts": facts,
        "factors": _columns(described(spec)),
        "metrics": _columns(last.metrics) if last else {},
    }
    return Entry(
        about,
        [
            {
                **_numbers(_columns(epoch.metrics)),
                "model": spec["id"],
                "epoch": _a(int, epoch.number),
                "kept": epoch.checkpoint is not None,
            }
            for epoch in epochs
        ],
        [
            {
                "model": spec["id"],
                "epoch": _a(int, record.epoch),
                "measure": _a(str, record.measure),
                "settings": json.dumps(record.settings, sort_keys=True),
                "value": float(record.value),
                "unit": _a(str, record.unit),
            }
            for record in model.records()
        ],
    )


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Under names that SQL and terminals take; those of ordinary names are the same."""
    if all(name and name.isprintable() for name in values):
        return dict(values)
    names = distinct(values)
    return {names[name]: value for name, value in values.items()}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with their integers as floats: 1 in one epoch and 0.5 in the next are one column."""
    return {key: float(value) if type(value) is int else value for key, value in metrics.items()}


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
