"""What was meant by a name that is no factor where it stands: also one of another level."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from vitarium.blueprint.numerics import Numerics
from vitarium.blueprint.recipe import Recipe
from vitarium.core.config import KeyPath, Problem, unknown_factor
from vitarium.core.registry import SectionOf, plugins

_SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "dataset": "data",
    "model": "architecture",
    "loss": "objective",
    "parent": "start",
}
_VERY_NEAR = 0.75
_MAX_NAMES = 20
_STAGE = ("start", "grid", "sample", "variants")


def unknown_at_stage(name: str, settings: Mapping[str, Any]) -> str:
    """What to say of a name at a stage, or in its grid, that is no factor of a recipe."""
    if name in _STAGE:
        return f"'{name}' belongs to the stage itself, not into its grid, sample or variants"
    own = [*Recipe.model_fields, *_STAGE]
    elsewhere = _elsewhere(settings)
    near = [name] if name in elsewhere else []
    if not near and not difflib.get_close_matches(name, own, n=1, cutoff=_VERY_NEAR):
        near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=_VERY_NEAR)
    if near:
        return f"unknown factor '{name}'; did you mean '{elsewhere[near[0]]}'?"
    return unknown_factor(name, own, _MAX_NAMES)


def hinted(problem: Problem, settings: Mapping[str, Any]) -> Problem:
    """A problem of a recipe, with what was meant where that stands on another level.

    A name inside of a section that is a factor of the stage or of another section; a list where
    one value belongs.
    """
    name, inside = problem.unknown, problem.path[:-1]
    if name and inside:
        if name in (*Recipe.model_fields, *_STAGE):
            meant = f"'{name}' beside '{inside[0]}'"
        elif path := _elsewhere(settings).get(name):
            meant = f"'{path}'"
        else:
            return problem
        return Problem(problem.path, f"unknown factor '{name}'; did you mean {meant}?", name)
    value = _at(settings, problem.path)
    if isinstance(value, list) and problem.is_of(value):
        factor = ".".join(map(str, problem.path))
        several = f"several values go under `grid`, as {factor}: [...]"
        return Problem(problem.path, f"{problem.message}; {several}")
    return problem


def hinted_at_top(problem: Problem) -> Problem:
    """A problem of the blueprint, with what was meant where that belongs into a section."""
    name = problem.unknown
    if not name or len(problem.path) != 1:
        return problem
    if name in Numerics.model_fields:
        meant = f"'numerics.{name}'"
    elif name in (*Recipe.model_fields, *_STAGE):
        meant = f"'stages.NAME.{name}'"
    else:
        return problem
    return Problem(problem.path, f"unknown factor '{name}'; did you mean {meant}?", name)


def _elsewhere(settings: Mapping[str, Any]) -> dict[str, str]:
    """Names of the sections' settings, and of the blueprint's own, with their paths.

    Those of the plug-ins that are chosen come first, then those of others.
    """
    paths = dict(_SYNONYMS)
    owners: dict[str, list[str]] = {}
    for section, plugin, is_chosen in _sections(settings):
        for name in plugin.config.model_fields:
            if is_chosen:
                paths.setdefault(name, f"{section}.{name}")
            owners.setdefault(f"{section}.{name}", []).append(plugin.name)
    of_others: dict[str, list[str]] = {}
    for path, names in owners.items():
        described = f"{path} (of {', '.join(names)})"
        of_others.setdefault(path.partition(".")[2], []).append(described)
    for name, described_paths in of_others.items():
        paths.setdefault(name, "' or '".join(described_paths))
    for name in Numerics.model_fields:
        paths.setdefault(name, f"numerics.{name} (beside `stages`)")
    return paths


def _sections(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Each section of a recipe with each plug-in for it, and whether that is chosen."""
    for section, field in Recipe.model_fields.items():
        for kind in (each for each in field.metadata if isinstance(each, SectionOf)):
            value = settings.get(section, kind.default)
            name = value.get("name", kind.default) if isinstance(value, Mapping) else value
            for plugin in plugins(kind.kind).values():
                yield section, plugin, plugin.name == name


def _at(settings: Any, path: KeyPath) -> Any:
    for key in path:
        try:
            settings = settings[key]
        except (KeyError, IndexError, TypeError):
            return None
    return settings
