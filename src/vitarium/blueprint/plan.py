"""A plan: every model that a blueprint asks for, with all factors resolved and an id each."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from vitarium.blueprint.blueprint import SCRATCH, Blueprint, Start
from vitarium.blueprint.recipe import Imported, Recipe, flatten
from vitarium.blueprint.spec import ModelSpec
from vitarium.core.config import InvalidConfig, KeyPath, Problem
from vitarium.core.errors import InvalidInput, VitariumError, did_you_mean


@dataclass(frozen=True)
class Parent:
    """A model that others start from: of an earlier stage, or of the zoo that is grown."""

    id: str
    origin: Recipe | Imported
    epochs: tuple[int, ...]
    """Epochs whose weights there are, or will be; the last one is what children start from."""


Find = Callable[[Start], Sequence[Parent]]
"""Finds what a start names in a zoo."""


@dataclass(frozen=True)
class Plan:
    """Models in an order in which every parent stands before its children, or is in the zoo."""

    name: str
    models: tuple[ModelSpec, ...]

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


def plan(blueprint: Blueprint, find: Find | None = None) -> Plan:
    """Work out every model of a blueprint.

    Models that two points of a grid, or two stages, ask for alike are one model.

    Args:
        find: finds the models of the zoo that stages start from (`engine.parents.parents_in`).

    Raises InvalidConfig that lists every problem with its path in the blueprint.
    """
    grown: dict[str, list[ModelSpec]] = {}
    models: dict[str, ModelSpec] = {}
    for name in _in_order(blueprint):
        specs: list[ModelSpec] = []
        problems: list[Problem] = []
        recipes: dict[str, Recipe] = {}
        for settings, paths in blueprint.stages[name].points():
            value = settings.pop("start", SCRATCH)
            value = {"stage": value} if isinstance(value, str) else value
            try:
                with _under("start"):
                    start = None if value == {"stage": SCRATCH} else Start.read(value)
                    parents = _parents(start, grown, find)
            except InvalidConfig as error:
                problems += _located(error, name, paths)
                continue
            for parent in parents:
                try:
                    spec = _model(name, settings, start, parent, recipes)
                except InvalidConfig as error:
                    problems += _located(error, name, paths)
                else:
                    specs.append(models.setdefault(spec.id, spec))
        if problems:
            raise blueprint.refusal(list(dict.fromkeys(problems)))
        grown[name] = list(dict.fromkeys(specs))
    return Plan(blueprint.name, tuple(models.values()))


def _parents(
    start: Start | None, grown: dict[str, list[ModelSpec]], find: Find | None
) -> Sequence[Parent | None]:
    if start is None:
        return [None]
    if start.stage:
        specs = grown[start.stage]
        return [Parent(s.id, s.recipe, tuple(s.recipe.kept_epochs)) for s in specs]
    if find is None:
        name_it = "name it (vitarium grow FILE --zoo DIR --dry-run)"
        raise InvalidInput(f"starts from models of a zoo: {name_it}")
    return find(start)


def _in_order(blueprint: Blueprint) -> list[str]:
    """The stages' names, each after those that it starts from."""

    def refusal(name: str, message: str) -> InvalidConfig:
        return blueprint.refusal([Problem(("stages", name, "start"), message)])

    needs: dict[str, set[str]] = {}
    for name, stage in blueprint.stages.items():
        starts = [settings.get("start", SCRATCH) for settings, _ in stage.points()]
        names = {s.get("stage") or SCRATCH if isinstance(s, dict) else s for s in starts}
        needs[name] = {str(start) for start in names} - {SCRATCH}
        for start in sorted(needs[name] - blueprint.stages.keys()):
            hint = did_you_mean(start, [*blueprint.stages, SCRATCH])
            raise refusal(name, f"unknown stage '{start}'{hint}")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
        message = f"stages start in a circle: {' -> '.join(reversed(circle))}"
        raise refusal(circle[0], message) from None
    order: list[str] = []
    while len(order) < len(needs):  # as the file has them, where that is possible
        order.append(next(n for n in needs if n not in order and needs[n] <= set(order)))
    return order


def _model(
    stage: str,
    settings: dict[str, Any],
    start: Start | None,
    parent: Parent | None,
    recipes: dict[str, Recipe],
) -> ModelSpec:
    """One point of a stage, from one parent; raises InvalidConfig. `recipes` is a cache."""
    with _under("start", "operator"):
        settings = inherited(settings, parent.origin if parent else None, start)
    key = repr(settings)
    if key not in recipes:
        recipes[key] = Recipe.read(settings)
    recipe = recipes[key]
    if start is None or parent is None:
        objective = recipe.objective
        teacher = objective.plugin.facts.get("teacher")
        if teacher and teacher(objective.config).is_parent:
            message = "there is no parent to learn from: name a teacher, or a `start`"
            raise InvalidConfig([Problem(("objective", "teacher"), message)])
        return ModelSpec(stage=stage, recipe=recipe)
    epoch = parent.epochs[-1] if start.epoch == -1 else start.epoch
    if epoch not in parent.epochs:
        who = f"stage '{start.stage}'" if start.stage else f"model {parent.id}"
        message = f"{who} does not keep epoch {epoch}; it keeps {list(parent.epochs)}"
        raise InvalidConfig([Problem(("start",), message)])
    return ModelSpec(
        stage=stage,
        parent=parent.id,
        parent_epoch=epoch,
        recipe=recipe,
        conversion=start.operator,
        keep_head=start.keep_head,
    )


@contextmanager
def _under(*path: str) -> Iterator[None]:
    """What is wrong inside is a problem of this path."""
    try:
        yield
    except InvalidConfig as error:
        raise InvalidConfig([problem.under(*path) for problem in error.problems]) from None
    except VitariumError as error:
        raise InvalidConfig([Problem(path, str(error))]) from None


def _located(error: InvalidConfig, stage: str, paths: dict[str, KeyPath]) -> Iterator[Problem]:
    """The problems where the blueprint sets the value: in the grid, a variant, or the stage."""
    for problem in error.problems:
        path, dotted = problem.path, ".".join(map(str, problem.path))
        near = [factor for factor in paths if (dotted + ".").startswith(factor + ".")]
        if near:
            nearest = max(near, key=len)
            path = (*paths[nearest], *path[nearest.count(".") + 1 :])
        yield Problem(("stages", stage, *path), problem.message)


def inherited(
    settings: dict[str, Any], parent: Recipe | Imported | None, start: Start | None
) -> dict[str, Any]:
    """The settings, with what a model takes from its parent, but for what is set anew.

    That is the architecture, as the start's operator changes it, and the head where it is kept.
    Raises InvalidInput, and as the operator does for an architecture that it cannot change.
    """
    if parent is None or start is None:
        return settings
    complete = dict(settings)
    changes = settings.get("architecture", {})
    change = start.operator.plugin.facts.get("architecture") if start.operator else None
    named = not isinstance(changes, dict) or "name" in changes
    if named and change:
        raise InvalidInput("the operator decides the architecture; leave out its name")
    if not named:
        architecture = parent.architecture
        if change and start.operator:
            architecture = change(start.operator.config, architecture)
        if architecture is None:
            raise InvalidInput("nothing here builds the parent's architecture")
        complete["architecture"] = {**architecture.factors(defaults=False), **changes}
    if start.keep_head and "head" not in settings and parent.head:
        complete["head"] = parent.head.factors(defaults=False)
    return complete


def _distinct(values: list[Any]) -> list[Any]:
    """Each value once, in order; values may be lists."""
    return list({repr(value): value for value in values}.values())
