"""How a model can be made again: the blueprint that grows it, or the command that merges it.

Unlike the rest of what the page is told, this asks plug-ins for their settings, so it takes torch.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitarium.blueprint import ModelSpec, Recipe, Spec
from vitarium.blueprint.reproduction import reproduction, yaml_text
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.page.answers.models import Reproduction
from vitarium.page.command_lines import argument, command
from vitarium.zoo import Zoo

_NUMERICS: Mapping[str, Callable[[str], Any]]
_NUMERICS = {"precision": str, "compiled": "True".__eq__, "threads": int}
"""What is recorded of how a model was computed, and how a blueprint says it."""


def reproduction_page(zoo: Zoo | Path, name: str, path: str = "") -> Reproduction:
    """How to make a model again, and what that needs.

    Args:
        name: the model's id, or a beginning of it.
        path: of the zoo, as the lines write it; "": where it lies now.

    Raises UnknownName, CorruptFile, MissingPlugin, and NotApplicable where a model that it comes
    from is no longer in the zoo.
    """
    zoo = Zoo.open(zoo)
    spec, path = zoo.spec(zoo.find(name)), path or str(zoo.path)
    if spec.operator:
        return _merged(zoo, spec, path)
    if isinstance(spec, ModelSpec):
        return _trained(zoo, spec, path)
    return _imported(spec, path)


def _trained(zoo: Zoo, spec: ModelSpec, path: str) -> Reproduction:
    models = [spec]
    origin: Spec | None = None
    while (parent := models[0].parent) is not None and origin is None:
        above = _spec(zoo, parent, models[0].id)
        if isinstance(above, ModelSpec) and not above.operator:
            models.insert(0, above)
        else:
            origin = above
    values = reproduction(models, origin.origin if origin else None, _numerics(zoo, models))
    file = f"{values['name']}.yaml"
    folder = path if origin or _teachers(models) else f"{values['name']}-zoo"
    return {
        "blueprint": yaml_text(values),
        "file": file,
        "commands": [command("grow", file, zoo=argument(folder))],
        "python": [
            "import vitarium",
            f"zoo = vitarium.grow({file!r}, {folder!r}).zoo",
            f"model = zoo.load({spec.id!r})",
        ],
        "notes": _notes(zoo, models, origin),
    }


def _notes(zoo: Zoo, models: Sequence[ModelSpec], origin: Spec | None) -> list[str]:
    notes = []
    if origin:
        how = f"made by {origin.operator.name}" if origin.operator else "imported"
        notes.append(
            f"It starts from model {origin.id}, which was {how}: no blueprint makes that one, so "
            "grow it in a zoo that has it."
        )
    notes += [
        f"It learns from the teacher {teacher}, which has to be there as well."
        for teacher in _teachers(models)
    ]
    software = zoo.folder(models[-1].id).about().software
    if "torch" in software and "device" in software:
        notes.append(
            f"Its id will be the same. The same bits take the same software and the same kind of "
            f"machine: it was trained with torch {software['torch']} on {software['device']}."
        )
    return notes


def _teachers(models: Sequence[ModelSpec]) -> list[str]:
    """Those that are no parents: models of the zoo, or files."""
    names = dict[str, None]()
    for spec in models:
        objective = spec.recipe.objective
        if teacher_of := objective.plugin.facts.get("teacher"):
            teacher = teacher_of(objective.config)
            names |= {} if teacher.is_parent else {teacher.source: None}
    return list(names)


def _numerics(zoo: Zoo, models: Sequence[ModelSpec]) -> dict[str, Any]:
    """In which all of the models were computed alike."""
    records = [zoo.folder(spec.id).about().software for spec in models]
    common = {n: {software.get(n) for software in records} for n in _NUMERICS}
    return {
        name: _NUMERICS[name](value)
        for name, values in common.items()
        if len(values) == 1 and (value := values.pop()) is not None
    }


def _merged(zoo: Zoo, spec: Spec, path: str) -> Reproduction:
    operator = spec.operator
    assert operator
    for ref in spec.ingredients:
        _spec(zoo, ref.model, spec.id)
    facts, refs = operator.plugin.facts, [str(ref) for ref in spec.ingredients]
    if facts["epochs"]:  # it takes the model, and chooses its epochs itself
        refs = [_chosen_from(zoo, spec)]
    settings = operator.factors(defaults=False)
    del settings["name"]
    base = str(CheckpointRef(spec.parent, spec.parent_epoch or 0)) if spec.parent else None
    stage = None if spec.stage == "merge" else spec.stage
    named = {"base": base, "heads": spec.heads, "stage": stage}
    options = {name: value for name, value in named.items() if value}
    written = [f"{name}={_written(value)}" for name, value in settings.items()]
    arguments = {"models": refs, **options, **settings}
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    notes = ["What it is made of has to be in the zoo."]
    if facts["split"]:
        notes.append(
            f"{operator.name} looks at images. They are those of the models' own data; if others "
            "were given, that is not recorded."
        )
    return {
        "blueprint": None,
        "file": "",
        "commands": [command("merge", path, *refs, method=operator.name, **options, set=written)],
        "python": [
            "import vitarium",
            f"model = vitarium.merge({path!r}, {operator.name!r}, {listed}).load()",
        ],
        "notes": notes,
    }


def _chosen_from(zoo: Zoo, spec: Spec) -> str:
    """The checkpoint whose epochs the operator chose: `ID`, or `ID@EPOCH`. Raises NotApplicable."""
    operator, id = spec.operator, spec.ingredients[0].model
    assert operator
    model, epochs = zoo[id], [ref.epoch for ref in spec.ingredients]
    stored = [ref.epoch for ref in model.checkpoints if ref.epoch != model.initial_epoch]
    for last in reversed(stored):
        upto = [epoch for epoch in stored if epoch <= last]
        with suppress(InvalidInput):  # too few for it
            if list(operator.plugin.facts["epochs"](operator.config, upto)) == epochs:
                return id if last == stored[-1] else f"{id}@{last}"
    listed = ", ".join(map(str, epochs))
    raise NotApplicable(
        f"it was made of epochs {listed} of model {id}, which does not keep the epochs any more "
        f"from which {operator.name} chose them"
    )


def _imported(spec: Spec, path: str) -> Reproduction:
    origin = spec.origin
    assert not isinstance(origin, Recipe)
    return {
        "blueprint": None,
        "file": "",
        "commands": [command("archive", path, spec.id, out=f"{spec.id}-zoo")],
        "python": [],
        "notes": [
            f"It was trained elsewhere, and imported by {origin.source}, where it is called "
            f"{origin.name}. Which folder or file that was is not recorded, so no command can "
            "train or import it again; but it can be copied to a zoo of its own.",
            f"The SHA-256 of its tensors is {origin.weights}.",
        ],
    }


def _spec(zoo: Zoo, id: str, of: str) -> Spec:
    """Of a model that another one comes from."""
    if not zoo.folder(id).exists:
        raise NotApplicable(f"{of} comes from {id}, which is no longer in the zoo")
    return zoo.spec(id)


def _written(value: Any) -> str:
    """A setting as `--set` reads it: JSON, or a text that is none."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value if not isinstance(value, Mapping) else dict(value))
