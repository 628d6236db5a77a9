"""The blueprint that grows one model again: its chain of parents, a stage of one point for each."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from vitarium.blueprint.parents import parents_normalization, start_architecture
from vitarium.blueprint.recipe import Imported, Recipe
from vitarium.blueprint.spec import ModelSpec
from vitarium.blueprint.stage import SCRATCH
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import Section, section

Settings = dict[str, Any]
_MAX_LINE = 76  # characters of a mapping that stands on one line


def reproduction(
    models: Sequence[ModelSpec],
    origin: Recipe | Imported | None = None,
    numerics: Mapping[str, Any] | None = None,
) -> Settings:
    """The values of a blueprint whose plan is these models, ids included.

    Factors that are at their defaults, or are a parent's, are left out, as a person would.

    Args:
        models: from the root on down; each is the parent of the next. Those that others are
            trained from keep the epoch from which.
        origin: of the first one's parent, where it has one: that is a model of the zoo in which the
            blueprint is grown, which no blueprint makes (imported, or made by an operator).
        numerics: settings of `Numerics`, which are no factors.
    """
    stages: dict[str, Settings] = {}
    before: str | None = None
    for spec in models:
        stage = _unused(spec.stage, stages)
        stages[stage] = _stage(spec, before, origin)
        before, origin = stage, spec.recipe
    values: Settings = {"vitarium": 1, "name": f"model-{models[-1].id}"}
    return {**values, **({"numerics": dict(numerics)} if numerics else {}), "stages": stages}


def yaml_text(values: Mapping[str, Any]) -> str:
    """Values as a blueprint's file has them: what is short stands on one line."""
    yaml, text = YAML(pure=True), io.StringIO()
    yaml.width = 10_000  # else strings are folded
    yaml.dump(_styled(values), text)
    return text.getvalue()


def _styled(value: Any) -> Any:
    """With mappings and lists in brackets where these are short."""
    styled: Any = value
    is_flat = True
    if isinstance(value, Mapping):
        styled = CommentedMap((name, _styled(inner)) for name, inner in value.items())
        is_flat = not any(isinstance(inner, Mapping) for inner in value.values())
    elif isinstance(value, list | tuple):
        styled = CommentedSeq(map(_styled, value))
    if styled is not value and is_flat and len(json.dumps(value)) <= _MAX_LINE:
        styled.fa.set_flow_style()
    return styled


def _stage(spec: ModelSpec, before: str | None, origin: Recipe | Imported | None) -> Settings:
    recipe = spec.recipe
    settings = _needed(recipe.factors(defaults=False), Recipe.read)
    for name in settings:
        if isinstance(value := getattr(recipe, name), Section):
            settings[name] = _short(value)
    if spec.parent is None or origin is None:
        return settings
    planned = isinstance(origin, Recipe) and not origin.early_stopping
    start: Settings = {"stage": before} if before and planned else {"models": [spec.parent]}
    kept_epochs = origin.kept_epochs if before and isinstance(origin, Recipe) else ()
    if not kept_epochs or spec.parent_epoch != kept_epochs[-1]:
        start["epoch"] = spec.parent_epoch
    if spec.conversion:
        start["operator"] = _short(spec.conversion)
    if spec.keep_head:
        start["keep_head"] = True
        settings.pop("head", None)
        settings |= {} if origin.head == recipe.head else {"head": _short(recipe.head)}
    changes = _architecture(recipe.architecture, start_architecture(origin, spec.conversion))
    settings.pop("architecture", None)
    settings |= {"architecture": changes} if changes else {}
    settings.pop("normalization", None)
    if recipe.normalization != parents_normalization(origin):
        normalization = recipe.normalization
        settings["normalization"] = normalization.factors() if normalization else "data"
    return {"start": start["stage"] if start.keys() == {"stage"} else start, **settings}


def _architecture(own: Section, inherited: Section | None) -> Any:
    """What a stage has to say of an architecture beside the one that it inherits; None: nothing."""
    if inherited is None or own.name != inherited.name:
        return _short(own)
    values, before = own.factors(), inherited.factors()
    return {name: value for name, value in values.items() if before[name] != value} or None


def _short(chosen: Section) -> Any:
    """A section without settings at their defaults: `sgd`, or `{name: sgd, lr: 1}`."""
    values = chosen.factors(defaults=False)
    for name, value in values.items():
        if isinstance(inner := getattr(chosen.config, name, None), Section):
            values[name] = _short(inner)
        elif isinstance(value, list) and value and isinstance(inner, tuple):
            values[name] = [
                _short(item) if isinstance(item, Section) else plain
                for item, plain in zip(inner, value, strict=True)
            ]
    values = _needed(values, lambda values: section(chosen.kind, values))
    return chosen.name if values.keys() == {"name"} else values


def _needed(values: Mapping[str, Any], read: Callable[[Settings], Any]) -> Settings:
    """The values without those that reading fills in by itself."""
    needed, complete = dict(values), read(dict(values))
    for name in values:
        rest = {other: value for other, value in needed.items() if other != name}
        try:
            needed = rest if read(rest) == complete else needed
        except InvalidConfig:  # it cannot be left out
            continue
    return needed


def _unused(stage: str, stages: Mapping[str, Any]) -> str:
    """The stage's name, with a number where an earlier one has it, or it means no stage."""
    name, number = stage, 2
    while name in stages or name == SCRATCH:
        name, number = f"{stage}-{number}", number + 1
    return name
