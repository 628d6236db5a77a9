"""Training steps on random images, to measure how long they take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch.nn import functional as F

from vitarium.blueprint import Recipe
from vitarium.core.memory import keep_freed_memory
from vitarium.data.batch import Batch
from vitarium.objectives.companions import Progress, TeacherWithCompanions
from vitarium.objectives.distillation.base import PROBABILITIES
from vitarium.training import TrainOptions
from vitarium.training._companions import prepare_model
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.teacher import Teacher
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer


class Bench:
    """Models of one kind that are trained in one mode, without data and without a zoo."""

    def __init__(
        self,
        recipe: Recipe,
        num_outputs: int,
        options: TrainOptions,
        *,
        stacked: int,
        images: int,
    ) -> None:
        keep_freed_memory()  # as where models are trained
        self.options = options
        trials = [_Trial(recipe, num_outputs, options) for _ in range(stacked)]
        self._trainer = (Trainer if stacked == 1 else StackedTrainer)(trials, options)
        self._trainer.training_mode()
        facts, size = recipe.objective.plugin.facts, recipe.image_size
        labels = torch.arange(images, device=options.device).expand(stacked, -1) % num_outputs
        pixels = torch.randn(stacked, images * facts["views"], *size, device=options.device)
        views = recipe.augmentation(size, num_outputs).other_views
        others = {
            name: torch.randn(stacked, images * view.count, *view.size, device=options.device)
            for name, view in views.items()
        }
        targets = F.one_hot(labels, num_outputs).float()
        stored = {PROBABILITIES: targets} if facts["stored_outputs"] else None
        self._batch = Batch(pixels, labels, targets, stored, other_views=others)

    def step(self) -> float:
        """Train one step; the seconds that it took."""
        started = time.perf_counter()
        self._trainer.step(self._batch, 1, 0)
        if self.options.device != "cpu":
            torch.cuda.synchronize(self.options.device)
        return time.perf_counter() - started


class _Trial(TrainState):
    """A model that is only tried: without data, and without a place in a zoo."""

    def __init__(self, recipe: Recipe, num_outputs: int, options: TrainOptions) -> None:
        self.recipe = recipe
        model = recipe.build_unadapted(num_outputs)
        facts = recipe.objective.plugin.facts
        teacher = deepcopy(model) if facts["teacher_outputs"] else None
        recipe.adapt(model)
        prepare_model(recipe, model, from_scratch=True)
        self.start = {}
        self.model = self.forward = model.to(options.device)
        optimize_forward(self.model, options, blocks_are_read=facts.get("records_blocks", False))
        self._bring_companions(num_outputs, options)
        if teacher is not None:
            if bring := facts["teacher_companions"]:
                config = recipe.objective.config
                teacher = TeacherWithCompanions(teacher, bring(config, teacher))
            size = recipe.architecture.config.input_size
            example = torch.zeros(1, *size, device=options.device)
            self.teacher = Teacher(recipe, teacher, self.model, example)

    def rate(self, epoch: int, number: int) -> float:
        return 1e-6

    def step(self, epoch: int, number: int) -> int:
        return number

    def progress(self, epoch: int, number: int) -> Progress:
        return Progress(epoch=1, epochs=1, step=0, steps=1)

    def share(self, epoch: int, number: int) -> float:
        return 0.5


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
