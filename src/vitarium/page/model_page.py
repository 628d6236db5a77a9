"""What the page is told of a zoo as such, and of a model, as values that become JSON."""

import json
import math
import sys
from typing import Any

import vitarium
from vitarium.core.printable import printable
from vitarium.page.answers.models import CheckpointName, MeasuredNumber, ModelPage, Summary
from vitarium.page.command_lines import argument, command
from vitarium.page.family import family
from vitarium.zoo import Zoo, records


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
    folder, relatives = zoo.folder(model.id), family(zoo, model.id)
    about, facts = folder.about(), relatives.facts
    has_parent = "parent" in facts
    return {
        "id": model.id,
        "stage": facts["stage"],
        "status": facts["status"],
        "message": (folder.result() or {}).get("message", ""),
        "parent": _checkpoint(f"{facts['parent']}@{facts['parent_epoch']}") if has_parent else None,
        "children": relatives.children,
        "siblings": list(relatives.siblings),
        "ingredients": [_checkpoint(name) for name in json.loads(facts.get("ingredients", "[]"))],
        "operator": facts.get("operator"),
        "tags": list(model.tags),
        "note": model.note,
        "factors": {name: _plain(value) for name, value in relatives.factors.items()},
        "differing": relatives.differing(),
        "trained": {name: _plain(value) for name, value in relatives.trained.items()},
        "classes": list(about.classes),
        "outputs": about.num_outputs,
        "epochs": [
            {"epoch": e.number, "kept": e.checkpoint is not None}
            | {name: _plain(value) for name, value in e.metrics.items()}
            for e in folder.epochs()
        ],
        "measured": _records(zoo, model.id),
        "commands": [
            command("show", path, model.id),
            command("measure", path, "accuracy", model.id),
            command("export", path, model.id, exporter="timm", out=f"{model.id}-timm"),
        ],
        "python": [
            "import vitarium",
            f"zoo = vitarium.Zoo.open({path!r})",
            f"model = zoo.load({model.id!r})  # an nn.Module; epoch=3 for an earlier state",
            f"images = zoo.data({model.id!r})  # its test images as it sees them, with labels",
        ],
    }


def _checkpoint(name: str) -> CheckpointName:
    """Of `ID@EPOCH`."""
    model, _, epoch = name.partition("@")
    return {"model": model, "epoch": int(epoch)}


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


def _plain(value: Any) -> Any:
    """As JSON can have it: what is no finite number is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if type(value) is int and abs(value) > sys.float_info.max:
        return None
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
