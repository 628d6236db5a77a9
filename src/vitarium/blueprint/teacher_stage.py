"""Teachers that are models of another stage of the same blueprint: `teacher: {stage: NAME}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitarium.blueprint.parents import Parent
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.printable import brief

Settings = dict[str, Any]
_KEYS = {"stage", "epoch"}
_UNKNOWN = "0" * 12
"""Stands for the id of a teacher that is not known, while other settings are checked."""


def teacher_stage(settings: Mapping[str, Any]) -> Settings | None:
    """Stage and epoch of the teacher that a point of a stage names; None: it names no stage.

    Raises InvalidConfig for a mapping of anything else.
    """
    objective = settings.get("objective")
    teacher = objective.get("teacher") if isinstance(objective, Mapping) else None
    if not isinstance(teacher, Mapping):
        return None
    if "stage" not in teacher or not teacher.keys() <= _KEYS:
        what = f"{brief(dict(teacher))} is no model, no file, and no stage"
        raise InvalidConfig([Problem((), f"{what}; write {{stage: NAME}}, or its epoch, too")])
    return dict(teacher)


def taught_by(settings: Settings, teachers: Sequence[Parent], epoch: int) -> list[Settings]:
    """The settings once for each teacher, named by id and epoch; epoch -1 is its last.

    Raises InvalidConfig for an epoch that a teacher does not keep.
    """
    students = []
    for teacher in teachers:
        after = teacher.epochs[-1] if epoch == -1 else epoch
        if after not in teacher.epochs:
            fault = f"it does not keep epoch {after}; it keeps {list(teacher.epochs)}"
            raise InvalidConfig([Problem((), fault)])
        students.append(_with_teacher(settings, str(CheckpointRef(teacher.id, after))))
    return students


def with_unknown_teacher(settings: Settings) -> Settings:
    """The settings without a start, to check the others where no model teaches."""
    rest = {name: value for name, value in settings.items() if name != "start"}
    return _with_teacher(rest, _UNKNOWN)


def _with_teacher(settings: Settings, teacher: str) -> Settings:
    return {**settings, "objective": {**settings["objective"], "teacher": teacher}}
