"""A table of all models, kept beside them so that listing needs not read every folder.

It holds nothing of its own: an entry is used while the model's files are as they were when it was
written, and is made anew otherwise; the whole file can be deleted.
"""

from pathlib import Path
from typing import Any

from vitarium.errors import CorruptFile
from vitarium.store import files
from vitarium.store.model_folder import ModelFolder

VERSION = 1
_WATCHED = ("model.json", "epochs.jsonl", "result.json")


def rows(zoo: Path) -> list[dict[str, Any]]:
    """One row per model, in order of id: what it is, its factors, and its last metrics.

    Raises CorruptFile where a model's own files are damaged.
    """
    known = _read(zoo)
    entries = {}
    for folder in sorted((zoo / "models").glob("*/model.json")):
        model = ModelFolder(folder.parent)
        stamp = _stamp(model)
        entry = known.get(model.path.name)
        if entry is None or entry["stamp"] != stamp:
            entry = {"stamp": stamp, "row": row(model)}
        entries[model.path.name] = entry
    if entries != known:
        _write(zoo, entries)
    return [entry["row"] for entry in entries.values()]


def disagreements(zoo: Path) -> list[str]:
    """Models whose entry should hold, but is not what their files say."""
    known = _read(zoo)
    folders = {id: ModelFolder(zoo / "models" / id) for id in known}
    return [
        f"model {id} is listed with other values than its files have"
        for id, entry in known.items()
        if entry["stamp"] == _stamp(folders[id]) and entry["row"] != row(folders[id])
    ]


def row(model: ModelFolder) -> dict[str, Any]:
    """A model on one line: what it is, its factors (dotted names), its last epoch's metrics."""
    spec, epochs, result = model.spec(), model.epochs(), model.result()
    last = epochs[-1] if epochs else None
    return {
        "id": spec.id,
        "stage": spec.stage,
        "parent": spec.parent,
        "parent_epoch": spec.parent_epoch,
        "operator": spec.operator.name if spec.operator else None,
        "status": result["status"] if result else "training",
        "last_epoch": last.number if last else None,
        **spec.origin.described(),
        **(last.metrics if last else {}),
        "seconds": sum(e.metrics.get("seconds", 0.0) for e in epochs),
    }


def _stamp(model: ModelFolder) -> list[list[int] | None]:
    stamps: list[list[int] | None] = []
    for name in _WATCHED:
        try:
            status = (model.path / name).stat()
            stamps.append([status.st_mtime_ns, status.st_size])
        except FileNotFoundError:
            stamps.append(None)
    return stamps


def _read(zoo: Path) -> dict[str, Any]:
    file = zoo / "index.json"
    try:
        content = files.read_json(file)
        return content["models"] if content["version"] == VERSION else {}
    except (FileNotFoundError, CorruptFile, KeyError, TypeError):
        return {}


def _write(zoo: Path, entries: dict[str, Any]) -> None:
    try:
        files.write_json(zoo / "index.json", {"version": VERSION, "models": entries})
    except OSError:  # someone else's zoo on a read-only disk is listed all the same
        return
