"""A plan: every model that a blueprint asks for, with all factors resolved and an id each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from vitarium.blueprint.blueprint import SCRATCH, Blueprint, Stage, Start
from vitarium.blueprint.imported import Imported
from vitarium.blueprint.parents import Find, Parent
from vitarium.blueprint.parents import grown as grown_parent
from vitarium.blueprint.recipe import Recipe, flatten
from vitarium.blueprint.spec import ModelSpec
from vitarium.core.config import InvalidConfig, KeyPath, Problem
from vitarium.core.errors import InvalidInput, VitariumError, did_you_mean


@dataclass(frozen=True)
class Plan:
    """Models in an order in which every parent stands before its children, or is in the zoo."""

    name: str
    models: tuple[ModelSpec, ...]

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, id: str) -> ModelSpec:
        return self._by_id[id]

    def __contains__(self, id: object) -> bool:
        return id in self._by_id

    @cached_property
    def _by_id(self) -> dict[str, ModelSpec]:
        return {model.id: model for model in self.models}

    @property
    def stages(self) -> dict[str, int]:
        """Number of models per stage, in the order in which they can be grown."""
        return dict(Counter(model.stage for model in self.models))

    def of_stage(self, stage: str) -> list[ModelSpec]:
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
    """The few factors that tell models apart.

    A setting that differs only because its plug-in does is left out: the plug-in's name tells it.
    """

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
        specs, problems = [], []
        for point in _Points(name, blueprint.stages[name], grown, find):
            if isinstance(point, ModelSpec):
                specs.append(models.setdefault(point.id, point))
            elif point not in problems:
                problems.append(point)
        if problems:
            raise blueprint.refusal(problems)
        grown[name] = list(dict.fromkeys(specs))
    return Plan(blueprint.name, tuple(models.values()))


def _in_order(blueprint: Blueprint) -> list[str]:
    """The stages' names, each after those that it starts from."""
    needs: dict[str, set[str]] = {}
    for name, stage in blueprint.stages.items():
        starts = {_start_name(settings) for settings, _ in stage.points()} - {SCRATCH}
        for start in sorted(starts - blueprint.stages.keys()):
            hint = did_you_mean(start, [*blueprint.stages, SCRATCH])
            raise blueprint.refusal(
                [Problem(("stages", name, "start"), f"unknown stage '{start}'{hint}")]
            )
        needs[name] = starts
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        problem = Problem(
            ("stages", error.args[1][0], "start"), f"stages start in a circle: {circle}"
        )
        raise blueprint.refusal([problem]) from None
    order: list[str] = []
    while len(order) < len(needs):  # as the file has them, where that is possible
        order.append(next(n for n in needs if n not in order and needs[n] <= set(order)))
    return order


def _start_name(settings: dict[str, Any]) -> str:
    start = settings.get("start", SCRATCH)
    return str(start.get("stage") or SCRATCH if isinstance(start, dict) else start)


@dataclass(frozen=True)
class _Points:
    """The models of one stage, or the problems in their place."""

    name: str
    stage: Stage
    grown: dict[str, list[ModelSpec]]
    find: Find | None

    def __iter__(self) -> Iterator[ModelSpec | Problem]:
        recipes: dict[str, Recipe | InvalidConfig] = {}
        for settings, paths in self.stage.points():
            start = settings.pop("start", SCRATCH)
            try:
                start = (
                    None
                    if start == SCRATCH
                    else Start.read({"stage": start} if isinstance(start, str) else start)
                )
                parents = self._parents(start) if start else [None]
            except InvalidConfig as error:
                yield from self._located(error, paths, "start")
                continue
            for parent in parents:
                try:
                    full = inherited(settings, parent.origin if parent else None, start)
                except VitariumError as error:
                    problem = Problem(("operator",), str(error))
                    yield from self._located(InvalidConfig([problem]), paths, "start")
                    continue
                key = repr(full)
                if key not in recipes:
                    recipes[key] = _read(full)
                recipe = recipes[key]
                if isinstance(recipe, InvalidConfig):
                    yield from self._located(recipe, paths)
                elif parent is None and _taught_by_parent(recipe):
                    message = "there is no parent to learn from: name a teacher, or a `start`"
                    problem = Problem(("objective", "teacher"), message)
                    yield from self._located(InvalidConfig([problem]), paths)
                elif start is None or parent is None:
                    yield ModelSpec(stage=self.name, recipe=recipe)
                else:
                    yield self._child(recipe, parent, start, paths)

    def _parents(self, start: Start) -> Sequence[Parent]:
        """Raises InvalidConfig where the zoo has none such."""
        if not start.is_in_zoo:
            return [grown_parent(spec) for spec in self.grown[start.stage]]
        if self.find is None:
            message = (
                "starts from models of a zoo: name it (vitarium grow FILE --zoo DIR --dry-run)"
            )
            raise InvalidConfig([Problem((), message)])
        try:
            return self.find(start)
        except VitariumError as error:
            raise InvalidConfig([Problem((), str(error))]) from None

    def _child(
        self, recipe: Recipe, parent: Parent, start: Start, paths: dict[str, KeyPath]
    ) -> ModelSpec | Problem:
        epoch = parent.epochs[-1] if start.epoch == -1 else start.epoch
        if epoch not in parent.epochs:
            path = paths.get("start", ("start",))
            who = f"model {parent.id}" if start.is_in_zoo else f"stage '{start.stage}'"
            return Problem(
                ("stages", self.name, *path),
                f"{who} does not keep epoch {epoch}; it keeps {list(parent.epochs)}",
            )
        return ModelSpec(
            stage=self.name,
            parent=parent.id,
            parent_epoch=epoch,
            recipe=recipe,
            conversion=start.operator,
            keep_head=start.keep_head,
        )

    def _located(
        self, error: InvalidConfig, paths: dict[str, KeyPath], *prefix: str
    ) -> Iterator[Problem]:
        """The problems where the blueprint sets the value: in the grid, a variant, or the stage."""
        for problem in error.problems:
            path = (*prefix, *problem.path)
            dotted = ".".join(map(str, path))
            near = [factor for factor in paths if (dotted + ".").startswith(factor + ".")]
            if near:
                nearest = max(near, key=len)
                rest = path[nearest.count(".") + 1 :]
                path = (*paths[nearest], *rest)
            yield Problem(("stages", self.name, *path), problem.message)


def _read(settings: dict[str, Any]) -> Recipe | InvalidConfig:
    try:
        return Recipe.read(settings)
    except InvalidConfig as error:
        return error


def _taught_by_parent(recipe: Recipe) -> bool:
    objective = recipe.objective
    teacher = objective.plugin.facts.get("teacher")
    return bool(teacher and teacher(objective.config).is_parent)


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
        complete["architecture"] = {
            **architecture.factors(defaults=False),
            **changes,
        }
    if start.keep_head and "head" not in settings and parent.head:
        complete["head"] = parent.head.factors(defaults=False)
    return complete


def _distinct(values: list[Any]) -> list[Any]:
    """Each value once, in order; values may be lists."""
    return list({repr(value): value for value in values}.values())
