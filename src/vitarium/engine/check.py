"""Whether the models of a plan can be trained, known before any is: images, shapes, teachers."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from vitarium.architectures.adaptation import start_weights
from vitarium.blueprint import ModelSpec, Plan, Recipe
from vitarium.blueprint.parents import Parent
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.devices import meta_device
from vitarium.core.errors import DataNotFound, IncompatibleWeights, InvalidInput
from vitarium.engine._checked_faults import (
    adapt_hollow,
    built_hollow,
    faults_of_libraries,
    problems_at,
    values_may_be_needed,
)
from vitarium.engine._evaluation_set_problems import evaluation_set_problems
from vitarium.engine._image_channels import check_image_channels
from vitarium.engine._label_problems import label_problems
from vitarium.engine._parent_models import ParentModels
from vitarium.engine._start_misfits import other_additions, start_misfit
from vitarium.engine._view_problems import view_problems
from vitarium.engine.kept_companions import expected_companions, hollow_teacher
from vitarium.engine.teacher_images import teacher_normalization
from vitarium.engine.teachers import load_teacher, planned_teacher, teacher_of
from vitarium.engine.tuning.model_size import num_classes, num_outputs, num_train
from vitarium.training._companions import check_fit
from vitarium.training._progressive import image_sizes
from vitarium.training._trial_step import check_step
from vitarium.training.teacher import Teacher
from vitarium.zoo import Zoo


class ModelCheck:
    """Looks at every model of a plan before it is trained; at each kind of model once.

    Models are built without memory, their parents, too, and the weights are fitted as they will be.
    `adaptations` has what will be adapted, by stage, e.g. "positions resampled 4×4 → 8×8".

    Args:
        folder: of the zoo in which they will be; models that are finished there are left out.
        data_dir: dataset folder, searched first.
        needs_data: data that is not on this machine is a mistake; otherwise what depends on it is
            not looked at.
    """

    def __init__(
        self,
        folder: Zoo | str | Path | None = None,
        data_dir: Path | None = None,
        *,
        needs_data: bool = False,
    ) -> None:
        self.data_dir, self.needs_data = data_dir, needs_data
        self.adaptations: dict[str, list[str]] = {}
        self._parents = ParentModels(folder, data_dir)
        self._problems: dict[Hashable, list[Problem]] = {}
        self._changes: dict[Hashable, tuple[str, ...]] = {}

    def __call__(self, spec: ModelSpec, parent: Parent | None) -> None:
        """Raises InvalidConfig with everything that stands against training the model."""
        self._parents.planned[spec.id] = spec.recipe
        if self._is_finished(spec.id):
            return
        recipe = spec.recipe
        sizes = (recipe.augmentation, recipe.batch_size, recipe.architecture)
        views = recipe.objective.facts.get("views")
        images = repr((recipe.data, recipe.evaluate_on, views, *sizes))
        parts = (recipe.architecture, recipe.head, recipe.initialization, recipe.objective)
        how = (recipe.adaptation, recipe.data, recipe.progressive)
        start = (spec.conversion, spec.keep_head, self._kind(parent, spec.parent_epoch))
        kind = repr((*parts, *how, *start))
        outputs = repr((recipe.objective, recipe.data))
        if problems := self._once(("outputs", outputs), lambda: self._check_outputs(recipe)):
            raise InvalidConfig(problems)
        if problems := label_problems(recipe, self.data_dir, self.needs_data):
            raise InvalidConfig(problems)
        problems = self._once(("images", images), lambda: self._check_images(recipe))
        problems += self._once(("shapes", kind), lambda: self._check_shapes(spec, parent, kind))
        problems += self._once(("start", spec.parent, spec.parent_epoch), lambda: self._gone(spec))
        if not problems:
            batch = (kind, recipe.augmentation, recipe.batch_size, recipe.accumulation)
            problems = self._once(("step", repr(batch)), lambda: self._check_step(spec, parent))
        if not problems:
            problems = list(self._check_stored(spec))
        if problems:
            raise InvalidConfig(problems)
        noted = self.adaptations.setdefault(spec.stage, [])
        noted += [change for change in self._changes.get(kind, ()) if change not in noted]

    def check_plan(self, plan: Plan) -> None:
        """Look at every model of a plan. Raises InvalidConfig, with paths in its blueprint."""
        problems: list[Problem] = []
        for spec in plan.models:
            try:
                self(spec, self._parents.of(spec, plan))
            except InvalidConfig as error:
                problems += [problem.under("stages", spec.stage) for problem in error.problems]
        if problems:
            raise InvalidConfig(list(dict.fromkeys(problems)))

    def _is_finished(self, id: str) -> bool:
        zoo = self._parents.zoo
        return zoo is not None and zoo.folder(id).exists and bool(zoo.folder(id).result())

    def _is_trained(self, id: str) -> bool:
        """Whether it is in the zoo, with weights to start from."""
        zoo = self._parents.zoo
        return zoo is not None and zoo.folder(id).status == "finished"

    def _gone(self, spec: ModelSpec) -> Iterator[Problem]:
        """Weights to start from that were removed, of a parent that is not trained again."""
        id, epoch = spec.parent, spec.parent_epoch or 0
        if id is None or self._parents.zoo is None or not self._is_finished(id):
            return
        folder = self._parents.zoo.folder(id)
        is_trained = folder.status == "finished"  # children of diverged models are skipped
        if is_trained and epoch not in [e.number for e in folder.epochs() if e.checkpoint]:
            fault = f"the weights of {id} after epoch {epoch} were removed from the zoo"
            yield Problem(("start",), f"{fault}; remove the whole model, so that it is grown again")

    def _kind(self, parent: Parent | None, epoch: int | None) -> Hashable:
        """What parents have in common from which models start alike."""
        if parent is None or parent.id not in self._parents.planned:
            return parent and (parent.id, epoch)
        recipe = self._parents.planned[parent.id]
        parts = (recipe.architecture, recipe.head, recipe.data, recipe.objective)
        return (*parts, recipe.adaptation, recipe.keep_companions)

    def _once(self, key: Hashable, check: Callable[[], Iterator[Problem]]) -> list[Problem]:
        if key not in self._problems:
            self._problems[key] = list(check())
        return list(self._problems[key])

    def _check_outputs(self, recipe: Recipe) -> Iterator[Problem]:
        """An objective may not go with the number of classes."""
        with problems_at("objective") as problems:
            num_outputs(recipe, self.data_dir)
        yield from problems

    def _check_images(self, recipe: Recipe) -> Iterator[Problem]:
        with problems_at("data") as problems:
            check_image_channels(recipe, self.data_dir, self.needs_data)
            images = num_train(recipe, self.data_dir)
            if images is not None and images < recipe.batch_size:
                fault = f"a batch of {recipe.batch_size} images is more than the {images} training"
                remedy = f"images of '{recipe.data.name}'; choose a smaller one"
                problems.append(Problem(("batch_size",), f"{fault} {remedy}"))
        yield from problems
        if not problems:
            yield from evaluation_set_problems(recipe, self.data_dir, self.needs_data)
        with (
            problems_at("augmentation") as problems,
            faults_of_libraries("it does not go with the images"),
        ):
            outputs = num_outputs(recipe, self.data_dir) or 1
            recipe.augmentation(recipe.image_size, outputs)
            problems += view_problems(recipe, outputs)
        yield from problems

    def _check_shapes(
        self, spec: ModelSpec, parent: Parent | None, kind: Hashable
    ) -> Iterator[Problem]:
        outputs = num_outputs(spec.recipe, self.data_dir)
        with problems_at("architecture") as problems:
            model = built_hollow(spec.recipe, outputs or 1)
        yield from problems
        if problems:
            return
        goes_on = parent is not None and parent.origin.adds_modules
        if goes_on and (problem := other_additions(spec, parent)):
            yield problem
            return
        if not goes_on:
            yield from self._check_start(spec, parent, kind, model, outputs)
        with problems_at("adaptation") as problems:
            adapt_hollow(spec.recipe, model)
        yield from problems
        if not problems and spec.recipe.progressive:
            with problems_at("progressive") as problems:
                image_sizes(spec.recipe, model)
            yield from problems
        if problems:
            return
        if goes_on:
            yield from self._check_start(spec, parent, kind, model, outputs)
        yield from self._check_objective(spec, parent, kind, model)

    def _check_objective(
        self, spec: ModelSpec, parent: Parent | None, kind: Hashable, model: nn.Module
    ) -> Iterator[Problem]:
        """Whether it goes with the model, and with the companions that the parent kept."""
        beside = None
        if parent is not None:
            with problems_at("start") as problems:
                beside = expected_companions(spec, parent, self._parents)
                self._changes[kind] = (*self._changes.get(kind, ()), *filter(None, [beside.remark]))
            yield from problems
        with problems_at("objective") as problems, meta_device():
            classes, scratch = num_classes(spec.recipe, self.data_dir) or 1, parent is None
            with faults_of_libraries("it does not go with the model"):
                check_fit(spec.recipe, model, classes, from_scratch=scratch, parent=beside)
        yield from problems

    def _check_start(
        self,
        spec: ModelSpec,
        parent: Parent | None,
        kind: Hashable,
        model: nn.Module,
        outputs: int | None,
    ) -> Iterator[Problem]:
        config = spec.recipe.architecture.config
        if reason := config.fixed_weights or ("" if parent else config.needs_parent):
            yield Problem(("architecture",), reason)
        if reason or parent is None:
            return
        with problems_at("start") as problems:
            weights, parent_model = self._parents.start(spec, parent)
        yield from problems
        if problems:
            return
        try:
            fitted = start_weights(model, weights, head=False, parent_model=parent_model)
        except IncompatibleWeights as error:
            yield start_misfit(spec, parent, error)
            return
        self._changes[kind] = fitted.changes
        if spec.keep_head and outputs:
            try:
                start_weights(model, weights, head=True, parent_model=parent_model)
            except IncompatibleWeights as error:
                yield Problem(("start", "keep_head"), f"its head does not fit: {error}")

    def _check_step(self, spec: ModelSpec, parent: Parent | None) -> Iterator[Problem]:
        """Whether a batch can be learned from, and with a teacher what it says of it."""
        recipe = spec.recipe
        outputs, classes = (of(recipe, self.data_dir) for of in (num_outputs, num_classes))
        if outputs is None or classes is None:
            return
        student = built_hollow(recipe, outputs)
        adapt_hollow(recipe, student)
        teacher: Teacher | None = None
        if teacher_of(spec):
            with (
                problems_at("objective", "teacher") as problems,
                faults_of_libraries("it does not go with the model"),
                values_may_be_needed(),
            ):
                teacher = self._teacher(spec, parent, student)
            yield from problems
        if recipe.objective.facts.get("stored_outputs") or (teacher_of(spec) and not teacher):
            return
        with (
            problems_at("objective") as problems,
            faults_of_libraries("a step of training fails"),
            values_may_be_needed(),
        ):
            check_step(recipe, student, classes, from_scratch=parent is None, teacher=teacher)
        yield from problems

    def _teacher(self, spec: ModelSpec, parent: Parent | None, student: nn.Module) -> Teacher:
        """Raises InvalidInput where it is none of the student's, and as what reads it."""
        recipe, reference = spec.recipe, teacher_of(spec)
        assert reference
        planned = planned_teacher(spec, self._parents.planned)
        if reference.is_parent and parent:
            teacher = hollow_teacher(spec, parent, spec.parent_epoch, self._parents)
        elif planned and not self._is_trained(planned):  # it comes before this one
            named = self._parents.of_plan(planned)
            teacher = hollow_teacher(spec, named, reference.epoch, self._parents)
        elif reference.is_path or self._parents.zoo:
            zoo = self._parents.zoo or Zoo(Path())
            teacher = load_teacher(spec, zoo)
            with suppress(DataNotFound):  # no matter of the teacher
                teacher_normalization(spec, zoo, self.data_dir)
        else:
            raise InvalidInput(f"'{reference.source}' is a model of a zoo; name the zoo")
        example = torch.zeros(1, *recipe.architecture.config.input_size, device="meta")
        return Teacher(recipe, teacher, student, example)

    def _check_stored(self, spec: ModelSpec) -> Iterator[Problem]:
        """A teacher's outputs that were computed before are there, and go with the recipe."""
        objective, outputs = spec.recipe.objective, num_outputs(spec.recipe, self.data_dir)
        find_stored = objective.facts.get("stored_outputs")
        if find_stored is None or outputs is None:
            return
        if spec.parent is not None and not self._is_finished(spec.parent):
            return  # its teacher may be that parent, which is trained before this one
        with problems_at("objective") as problems:
            zoo = self._parents.zoo.path if self._parents.zoo else Path()
            find_stored(objective.config, spec, zoo).check(outputs)
        yield from problems
