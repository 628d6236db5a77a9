"""What the page is told of a zoo as such, and of a model, as values that become JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import vitarium
from vitarium.core.printable import printable
from vitarium.page.answers import MeasuredNumber, ModelPage, Summary
from vitarium.zoo import Zoo, records
from vitarium.zoo import _index as index

_EXPORT = ("--exporter", "timm", "--out")


def zoo_summary(zoo: Zoo, *, path: str = "") -> Summary:
    """The zoo's name, its number of models, and by which version it is shown; `path`: of the zoo,
    as commands and Python write it, "": where it lies now."""
    return {
        "name": printable(zoo.path.resolve().name),
        "path": argument(path or str(zoo.path)),
        "models": len(zoo),
        "version": vitarium.__version__,
    }


def model_page(zoo: Zoo, name: str, *, path: str = "") -> ModelPage:
    """All that is known of a model: facts, factors, epochs, family, measured numbers.

    `commands` are lines of arguments, not quoted for any shell.

    Args:
        name: its id, or a beginning of it.
        path: of the zoo, as lines for a shell and of Python write it; "": where it lies now.

    Raises UnknownName and CorruptFile.
    """
    model, path = zoo[name], path or str(zoo.path)
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
        "commands": [
            ["vitarium", "show", argument(path), model.id],
            ["vitarium", "measure", argument(path), "accuracy", model.id],
            ["vitarium", "export", argument(path), model.id, *_EXPORT, f"{model.id}-timm"],
        ],
        "python": [
            "import vitarium",
            f"zoo = vitarium.Zoo.open({path!r})",
            f"model = zoo.load({model.id!r})  # an nn.Module; epoch=3 for an earlier state",
            f"images = zoo.data({model.id!r})  # its test images as it sees them, with labels",
        ],
    }


def argument(path: str) -> str:
    """A path as an argument of a command, where a dash would begin an option."""
    return f"./{path}" if path.startswith("-") else path


def _records(zoo: Zoo, id: str) -> list[MeasuredNumber]:
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


def _plain(value: Any) -> Any:
    """As JSON can have it: what is no finite number is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
