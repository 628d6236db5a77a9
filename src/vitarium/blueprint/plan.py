"""A plan: every model that a blueprint asks for, with all factors resolved and an id each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vitarium.blueprint.blueprint import Blueprint
from vitarium.blueprint.numerics import Numerics
from vitarium.blueprint.parents import Check, Find
from vitarium.blueprint.planning import Planner
from vitarium.blueprint.recipe import flatten
from vitarium.blueprint.spec import ModelSpec


@dataclass(frozen=True)
class Plan:
    """Models in an order in which every parent stands before its children, or is in the zoo."""

    name: str
    models: tuple[ModelSpec, ...]
    numerics: Numerics = field(default_factory=Numerics)
    """How they are computed where that is left open when they are grown."""
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Stages of which no model is planned, since they start from another that may stop early and
    is not grown; by name, that other."""

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, id: str) -> ModelSpec:
        """Raises KeyError for the id of a model that is not planned."""
        return self._by_id[id]

    def __contains__(self, id: object) -> bool:
        """Whether a model of this id is planned."""
        return id in self._by_id

    @cached_property
    def _by_id(self) -> dict[str, ModelSpec]:
        return {model.id: model for model in self.models}

    @property
    def stages(self) -> dict[str, int]:
        """Number of models per stage, in the order in which they can be grown."""
        return dict(Counter(model.stage for model in self.models))

    def of_stage(self, stage: str) -> list[ModelSpec]:
        """The models of a stage, in the order in which they are grown."""
        return [model for model in self.models if model.stage == stage]

    def swept(self, stage: str) -> dict[str, list[Any]]:
        """The factors in which the models of a stage differ, with their values in order."""
        return swept_factors(self._rows(stage))

    def distinguishing(self, stage: str) -> list[str]:
        """The few factors that tell the models of a stage apart."""
        return distinguishing_factors(self._rows(stage))

    @property
    def normalizations(self) -> dict[str, list[str]]:
        """By stage: means and stds by which its models normalize images, e.g. `0.5/0.5`, but for
        those that are their data set's."""
        texts: dict[str, dict[str, None]] = {}
        for model in self.models:
            if chosen := model.recipe.normalization:
                texts.setdefault(model.stage, {})[str(chosen)] = None
        return {stage: list(by_stage) for stage, by_stage in texts.items()}

    def _rows(self, stage: str) -> list[dict[str, Any]]:
        return [flatten(model.recipe.factors()) for model in self.of_stage(stage)]


def swept_factors(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values differ between the rows that have them, with the distinct values.

    What only some rows have, always with one value, goes without saying: it is a setting of the
    plug-in by whose name they differ.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    values = {key: _distinct([row[key] for row in rows if key in row]) for key in keys}
    return {key: distinct for key, distinct in values.items() if len(distinct) > 1}


def distinguishing_factors(rows: list[dict[str, Any]]) -> list[str]:
    """The few factors that tell models apart, but for what a plug-in's name tells already."""

    def tells(key: str) -> bool:
        section = key.partition(".")[0]
        if section == key:
            return True
        names = _distinct([row.get(section) for row in rows])
        groups = [[row for row in rows if row.get(section) == name] for name in names]
        return any(key in swept_factors(group) for group in groups)

    return [key for key in swept_factors(rows) if tells(key)]


def plan(
    blueprint: Blueprint | Mapping[str, Any] | str | Path,
    find: Find | None = None,
    check: Check | None = None,
) -> Plan:
    """Work out every model of a blueprint: a mapping, a YAML file, or the name of a shipped one.

    Models that two points of a grid, or two stages, ask for alike are one model.

    Args:
        find: finds the models of the zoo that stages start from (`engine.parents.parents_in`).
        check: looks at every model before it is trained (`engine.check.ModelCheck`).

    Raises InvalidConfig that lists every problem with its path in the blueprint, and UnknownName.
    """
    if isinstance(blueprint, Mapping):
        blueprint = Blueprint.read(dict(blueprint), find, check)
    elif not isinstance(blueprint, Blueprint):
        blueprint = Blueprint.load(blueprint, find, check)
    planner = Planner(blueprint.stages, find, check)
    if planner.problems:
        raise blueprint.refusal(planner.problems)
    models = tuple(planner.models.values())
    return Plan(blueprint.name, models, blueprint.numerics, planner.waiting)


def _distinct(values: list[Any]) -> list[Any]:
    """Each value once, in order; values may be lists."""
    return list({repr(value): value for value in values}.values())
