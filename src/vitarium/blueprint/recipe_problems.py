"""Everything that is wrong with the settings of a recipe, though one mistake hides others."""

from collections.abc import Mapping
from typing import Any

from vitarium.blueprint.parents import names_architecture
from vitarium.blueprint.recipe import MAX_EPOCHS, Recipe
from vitarium.core.config import InvalidConfig, KeyPath, Problem

Settings = dict[str, Any]
_NEUTRAL = {"architecture": "vit", "data": "digits", "epochs": MAX_EPOCHS, "batch_size": 2}
"""Stand for required settings that are wrong, while the others are checked against each other."""
_LOOKED_AT_WITH = {
    "objective": ("head", "augmentation", "accumulation", "progressive"),
    "epochs": ("progressive",),
    "batch_size": ("accumulation",),
    "architecture": ("normalization", "drop_path_schedule"),
}
"""Of a factor: those that are right or wrong by it."""


def recipe_problems(settings: Settings, inherited_from: str | None = None) -> list[Problem]:
    """Everything that is wrong with the settings of a recipe.

    Settings that are wrong are replaced by neutral ones to see whether the others go together.

    Args:
        inherited_from: the name of the architecture of parents that are not known any further, or
            "": of what the settings change of it, the types are checked.
    """
    changed: list[Problem] = []
    if inherited_from is not None and not names_architecture(settings):
        changes = settings.get("architecture", {})
        settings = {**settings, "architecture": _neutral_architecture(settings)}
        if inherited_from and changes:
            changed = _changed_problems(settings, inherited_from, changes)
    problems = [*changed, *_read_problems(settings)]
    wrong = {str(problem.path[0]) for problem in problems if problem.path}
    if not wrong:
        return problems
    repaired = {factor: value for factor, value in settings.items() if factor not in wrong}
    repaired |= {factor: value for factor, value in _NEUTRAL.items() if factor in wrong}
    unclear = {name for factor in wrong for name in _LOOKED_AT_WITH.get(factor, ())}
    hidden = (p for p in _read_problems(repaired) if p.path and p.path[0] not in unclear)
    return list(dict.fromkeys([*problems, *hidden]))


def _neutral_architecture(settings: Settings) -> Settings:
    """One whose images have as many channels as the normalization, which may be right."""
    normalization = settings.get("normalization")
    mean = normalization.get("mean") if isinstance(normalization, dict) else None
    channels = len(mean) if isinstance(mean, list) and mean else 3
    return {"name": _NEUTRAL["architecture"], "in_chans": channels}


def _changed_problems(
    settings: Settings, architecture: str, changes: Mapping[str, Any]
) -> list[Problem]:
    """What is wrong with single settings of an architecture."""
    problems = _read_problems({**settings, "architecture": {**changes, "name": architecture}})
    return [p for p in problems if p.path[0] == "architecture" and p.path[1:2] in _keys(changes)]


def _keys(changes: Mapping[str, Any]) -> set[KeyPath]:
    return {(name,) for name in changes}


def _read_problems(settings: Settings) -> list[Problem]:
    try:
        Recipe.read(settings)
    except InvalidConfig as error:
        return error.problems
    return []
