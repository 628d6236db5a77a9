"""A blueprint's values as they were written: stages in a list; what is left without mistakes."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from vitarium.blueprint.yaml_file import spelled
from vitarium.core.config import InvalidConfig, KeyPath, Problem


def with_named_stages(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with stages that stand in a list by their names. Raises InvalidConfig."""
    stages = values.get("stages")
    if not isinstance(stages, list):
        return dict(values)
    names = [stage.get("name") if isinstance(stage, dict) else None for stage in stages]
    if not stages or not all(isinstance(name, str) for name in names):
        form = "give each of them a `name`, or write `stages: {NAME: {...}}`"
        raise InvalidConfig([Problem(("stages",), f"a list whose items have no names: {form}")])
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidConfig([Problem(("stages",), f"two stages are called '{twice[0]}'")])
    named = {stage["name"]: {k: v for k, v in stage.items() if k != "name"} for stage in stages}
    return {**values, "stages": named}


def without(values: dict[str, Any], problems: list[Problem]) -> dict[str, Any] | None:
    """A copy of the values without what is wrong; None where nothing can be left out any more."""
    rest = deepcopy(values)
    changed = False
    for problem in problems:
        if problem.path == ("name",):
            rest["name"], changed = "unnamed", True
        else:
            changed |= _left_out(rest, problem.path)
    return rest if changed and rest.get("stages") else None


def _left_out(node: Any, path: KeyPath) -> bool:
    """Leave out the deepest of the path that there is; in a list it becomes an empty mapping."""
    if not path or not isinstance(node, dict | list):
        return False
    key, *deeper = path
    key = spelled(node, key)
    if key == "sample" and isinstance(node, dict):
        return _sample_left_out(node, tuple(deeper))
    try:
        inner = node[key]
    except (KeyError, IndexError, TypeError):
        return False
    if key == "grid" and isinstance(inner, dict) and len(deeper) == 1:
        factor = spelled(inner, deeper[0])
        if factor in inner and not isinstance(inner[factor], list | dict):
            inner[factor] = [inner[factor]]  # what is set is not missing
            return True
    if _left_out(inner, tuple(deeper)):
        if key == "grid" and not inner:
            del node[key]
        return True
    if isinstance(node, list):
        node[key] = {}
    else:
        del node[key]
    return True


def _sample_left_out(stage: dict[str, Any], path: KeyPath) -> bool:
    """As `_left_out`, of what is wrong with a stage's sample; without factors it is left out."""
    sample = stage.get("sample")
    if not (isinstance(sample, dict) and _left_out(sample, path) and sample.get("factors")):
        stage.pop("sample", None)
    return True
