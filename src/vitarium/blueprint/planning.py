"""Works out the models of a blueprint's stages, and everything that is wrong with them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from typing import Any

from vitarium.blueprint._model_spec import model_spec
from vitarium.blueprint._needed_stages import needed_stages
from vitarium.blueprint.hints import hinted
from vitarium.blueprint.parents import (
    Check,
    DivergedParent,
    Find,
    Parent,
    inherited,
    names_architecture,
    with_parents_normalization,
)
from vitarium.blueprint.recipe import Recipe
from vitarium.blueprint.recipe_problems import recipe_problems
from vitarium.blueprint.spec import ModelSpec
from vitarium.blueprint.stage import SCRATCH, Stage, Start
from vitarium.blueprint.teacher_stage import taught_by, teacher_stage, with_unknown_teacher
from vitarium.core.config import InvalidConfig, KeyPath, Problem
from vitarium.core.errors import InvalidInput, VitariumError, did_you_mean
from vitarium.core.parameters import parameter
from vitarium.core.printable import brief
from vitarium.core.weight_suffixes import weight_suffix

Settings = dict[str, Any]
Paths = dict[str, KeyPath]


class UnknownParent(Exception):
    """What a stage starts from is not clear, and a problem of its own."""


class NotGrown(UnknownParent):
    """The last epoch of a stage that may stop early is known when it is grown."""

    def __init__(self, stage: str) -> None:
        self.stage = stage


class Planner:
    """Models by id in `models`, stage by stage in `grown`; what is wrong in `problems`.

    Nothing that is wrong hides anything else: a stage whose parents are not known is checked as far
    as it can be without them.

    Args:
        find: finds the models of the zoo that stages start from; raises UnknownParent for those
            that are not to be looked for.
        check: is called for every model, see Check.
        unreadable: names of stages that cannot be read; others may start from them.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        find: Find | None = None,
        check: Check | None = None,
        unreadable: Collection[str] = (),
    ) -> None:
        self.stages, self.find, self.check = stages, find, check
        self.names = [*stages, *unreadable]
        self.models: dict[str, ModelSpec] = {}
        self.grown: dict[str, list[ModelSpec]] = {}
        self.waiting: dict[str, str] = {}
        """Stages that cannot be planned before another, which may stop early, is grown."""
        self._problems: dict[Problem, None] = {}
        self._recipes: dict[str, Recipe | list[Problem]] = {}
        self._circular: set[str] = set()
        self._architectures: dict[str, str] = {}  # names of the stages'
        for name in self._in_order():
            self.grown[name] = list(dict.fromkeys(self._models(name)))

    @property
    def problems(self) -> list[Problem]:
        return list(self._problems)

    def _models(self, name: str) -> Iterator[ModelSpec]:
        stage = self.stages[name]
        try:
            points = list(stage.points())
        except KeyError as error:
            factor = error.args[0]
            self._note(name, Problem((factor,), "there is no such setting to change"), {}, stage)
            return
        for settings, paths in points:
            architecture = self._architecture(settings)
            self._architectures.setdefault(name, architecture)
            try:
                with _under("objective", "teacher"):
                    students = self._students(name, settings)
            except (InvalidConfig, UnknownParent) as error:
                unknown = with_unknown_teacher(settings)
                self._note_unplanned(name, error, unknown, paths, architecture)
                continue
            for student in students:
                yield from self._started(name, student, paths, architecture)

    def _started(
        self, name: str, settings: Settings, paths: Paths, architecture: str
    ) -> Iterator[ModelSpec]:
        """The models of one point of a stage, one from each parent."""
        settings = dict(settings)
        try:
            with _under("start"):
                start = self._start(name, settings.pop("start", SCRATCH))
                parents = self._parents(start)
        except (InvalidConfig, UnknownParent) as error:
            self._note_unplanned(name, error, settings, paths, architecture)
            return
        specs = (self._model(name, settings, paths, start, parent) for parent in parents)
        yield from filter(None, specs)

    def _note_unplanned(
        self,
        name: str,
        error: InvalidConfig | UnknownParent,
        settings: Settings,
        paths: Paths,
        architecture: str,
    ) -> None:
        """Of a point whose models are not known: why, and what is wrong with its settings."""
        if isinstance(error, NotGrown):
            self.waiting[name] = error.stage
        for problem in error.problems if isinstance(error, InvalidConfig) else ():
            self._note(name, problem, paths, settings)
        self._recipe(name, settings, paths, architecture)

    def _students(self, name: str, settings: Settings) -> list[Settings]:
        """The settings, once for each teacher where these are models of another stage.

        Raises InvalidConfig, and UnknownParent for a stage of which no model is known.
        """
        teacher = teacher_stage(settings)
        if teacher is None:
            return [settings]
        start = self._start(name, teacher)
        if start is None:
            raise InvalidInput(f"'{SCRATCH}' is no stage; name one whose models teach")
        planned = [self._planned(spec, start.stage) for spec in self.grown[start.stage]]
        return taught_by(settings, planned, start.epoch)

    def _start(self, name: str, value: Any) -> Start | None:
        """Raises InvalidConfig, and UnknownParent for a stage of which no model is known."""
        value = {"stage": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            forms = f"'{SCRATCH}', nor the name of a stage, nor a mapping with models of a zoo"
            raise InvalidConfig([Problem((), f"{brief(value)} is not {forms}")])
        if value == {"stage": SCRATCH}:
            return None
        start = Start.read(value)
        if start.stage and start.stage not in self.names:
            message = f"unknown stage '{start.stage}'"
            if weight_suffix(start.stage):
                message += f"; write a file of weights as {{checkpoint: {start.stage}}}"
            else:
                message += did_you_mean(start.stage, [*self.names, SCRATCH])
            raise InvalidConfig([Problem((), message)])
        if start.stage in self.waiting:
            raise NotGrown(self.waiting[start.stage])
        if start.stage and (name in self._circular or not self.grown.get(start.stage)):
            raise UnknownParent
        return start

    def _parents(self, start: Start | None) -> Sequence[Parent | None]:
        if start is None:
            return [None]
        if start.stage:
            return [self._planned(spec, start.stage) for spec in self.grown[start.stage]]
        if self.find is None:
            how = parameter("zoo", "DIR")
            raise InvalidInput(f"starts from models of a zoo; name it: {how}")
        return self.find(start)

    def _planned(self, spec: ModelSpec, stage: str) -> Parent:
        """Raises NotGrown for one that may stop early, and is not in the zoo yet."""
        if not spec.recipe.early_stopping:
            return Parent(spec.id, spec.recipe, tuple(spec.recipe.kept_epochs))
        try:
            grown = self.find(Start.read({"models": [spec.id]})) if self.find else ()
        except DivergedParent:  # of which children are skipped
            return Parent(spec.id, spec.recipe, tuple(spec.recipe.kept_epochs))
        except (VitariumError, UnknownParent):
            grown = ()
        if not grown:
            raise NotGrown(stage)
        return Parent(spec.id, spec.recipe, grown[0].epochs)

    def _model(
        self,
        stage: str,
        settings: Settings,
        paths: Paths,
        start: Start | None,
        parent: Parent | None,
    ) -> ModelSpec | None:
        """One point of a stage, from one parent; None where something is wrong with it."""
        origin = parent.origin if parent else None
        try:
            with _under("start", "operator"):
                complete = inherited(settings, origin, start)
            with _under("normalization"):
                complete = with_parents_normalization(complete, origin)
        except InvalidConfig as error:
            for problem in error.problems:
                self._note(stage, problem, paths, settings)
            self._recipe(stage, settings, paths, "")
            return None
        recipe = self._recipe(stage, complete, paths)
        if recipe is None:
            return None
        try:
            spec = model_spec(stage, recipe, start, parent)
            if self.check:
                self.check(spec, parent)
        except InvalidConfig as error:
            for problem in error.problems:
                self._note(stage, problem, paths, settings)
            return None
        planned = self.models.setdefault(spec.id, spec)
        if planned.recipe.evaluate_on != recipe.evaluate_on:
            fault = f"they change no weights, and model {spec.id} is planned with others already"
            self._note(stage, Problem(("evaluate_on",), fault), paths, settings)
        return planned

    def _recipe(
        self, stage: str, settings: Settings, paths: Paths, inherited_from: str | None = None
    ) -> Recipe | None:
        """The recipe, or None after noting what is wrong; see `recipe_problems`."""
        key = repr((settings, inherited_from))
        if key not in self._recipes:
            problems = recipe_problems(settings, inherited_from)
            complete = not problems and inherited_from is None
            self._recipes[key] = Recipe.read(settings) if complete else problems
        recipe = self._recipes[key]
        if isinstance(recipe, Recipe):
            return recipe
        for problem in recipe:
            self._note(stage, problem, paths, settings)
        return None

    def _architecture(self, settings: Settings) -> str:
        """The name of a stage's architecture, or of the stage's that it starts from; or ""."""
        if names_architecture(settings):
            value = settings["architecture"]
            return str(value["name"] if isinstance(value, dict) else value)
        start = settings.get("start", SCRATCH)
        if isinstance(start, dict):
            start = "" if "operator" in start else start.get("stage")
        return self._architectures.get(str(start), "")

    def _note(self, stage: str, problem: Problem, paths: Paths, settings: Any) -> None:
        """Keep a problem, with its path where the blueprint sets the value: in the grid, a variant,
        or the stage."""
        path, dotted = problem.path, ".".join(map(str, problem.path))
        near = [factor for factor in paths if (dotted + ".").startswith(factor + ".")]
        if not any({"grid", "sample"} & {*paths[factor]} for factor in near):
            problem = hinted(problem, settings)
        if near:
            nearest = max(near, key=len)
            path = (*paths[nearest], *path[nearest.count(".") + 1 :])
        path = ("stages", stage, *path)
        if path[2:3] == ("sample",) and any(noted.path == path for noted in self._problems):
            return  # one of its many values stands for all that are wrong
        self._problems[Problem(path, problem.message)] = None

    def _in_order(self) -> list[str]:
        """The stages' names, each after those that it starts from; notes circles."""
        needs = {name: needed_stages(each) & {*self.stages} for name, each in self.stages.items()}
        while True:
            try:
                TopologicalSorter(needs).prepare()
                break
            except CycleError as error:
                circle = error.args[1]
                message = f"stages start in a circle: {' -> '.join(reversed(circle))}"
                self._problems[Problem(("stages", circle[0], "start"), message)] = None
                self._circular |= set(circle)
                needs |= {name: needs[name] - set(circle) for name in circle}
        order: list[str] = []
        while len(order) < len(needs):  # as the file has them, where that is possible
            order.append(next(n for n in needs if n not in order and needs[n] <= set(order)))
        return order


@contextmanager
def _under(*path: str) -> Iterator[None]:
    """What is wrong inside is a problem of this path."""
    try:
        yield
    except InvalidConfig as error:
        raise InvalidConfig([problem.under(*path) for problem in error.problems]) from None
    except VitariumError as error:
        raise InvalidConfig([Problem(path, str(error))]) from None
