"""How fast this machine trains a kind of model: measured for a moment, once, and kept.

In the cache folder's `speeds.json`, by device, software and kind of model; it can be deleted.
"""

import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from filelock import FileLock
from torch.nn import functional as F

from vitarium.blueprint import Recipe
from vitarium.core import files
from vitarium.core.cache import cache_folder
from vitarium.core.errors import CorruptFile, DamagedCache
from vitarium.core.memory import keep_freed_memory
from vitarium.data.batch import Batch
from vitarium.objectives.distillation.base import Distillation
from vitarium.training import Precision, TrainOptions
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.options import software
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import Teacher, TrainState
from vitarium.training.trainer import Trainer

_MAX_SECONDS = 0.5
_MAX_STEPS = 5
_SMALL_BATCH = 4


class TrainMode(NamedTuple):
    """How to train: with which precision, compiled or not, how many models as one."""

    precision: Precision = "fp32"
    compiled: bool = False
    stacked: int = 1

    def options(self, options: TrainOptions) -> TrainOptions:
        return replace(options, precision=self.precision, compiled=self.compiled)


PLAIN = TrainMode()


class Speed(NamedTuple):
    """What a step costs.

    seconds: of a step.
    images: in that step's batch, of each model; on CPUs a part of the recipe's.
    start: seconds that the first step took beyond that, most of it compilation.
    memory: bytes that training needs at its peak on a GPU, for the recipe's batch; 0 on CPUs.
    """

    seconds: float
    images: int
    start: float
    memory: int

    @property
    def per_image(self) -> float:
        return self.seconds / self.images


class Calibration:
    """Speeds on one device with so many threads; `notify` gets what is going to be measured."""

    def __init__(
        self, device: str, threads: int, notify: Callable[[str], None] = lambda text: None
    ):
        self.device, self.threads, self.notify = device, threads, notify
        self._announced: set[Any] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        """End what was begun to measure with; here nothing is."""

    def speed(self, recipe: Recipe, num_outputs: int, mode: TrainMode = PLAIN) -> Speed:
        """Of training a model of this kind in that mode; cached, or measured now.

        Of one that has a teacher: as if that were another model of its own kind.
        """
        recipe = _with_own_kind(recipe)
        key = self._key(recipe, num_outputs, mode)
        if key not in self._cached:
            kind = (recipe.architecture, recipe.objective)
            if kind not in self._announced:
                self._announced.add(kind)
                name = getattr(recipe.architecture.config, "model", recipe.architecture.name)
                objective = recipe.objective.name
                self.notify(f"measuring how fast {name} trains here, {objective} (once)")
            self._cached[key] = self._measured(recipe, num_outputs, mode)
            _keep(key, self._cached[key])
        return self._cached[key]

    def knows(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> bool:
        """Whether `speed` has nothing to measure."""
        return self._key(_with_own_kind(recipe), num_outputs, mode) in self._cached

    def precisions(self) -> list[Precision]:
        """Those that the device computes in by itself, beside fp32."""
        if self.device != "cpu":
            return ["tf32", "bf16"] if torch.cuda.is_bf16_supported() else []
        return ["bf16"] if torch.cpu._is_avx512_bf16_supported() else []

    @cached_property
    def _cached(self) -> dict[str, Speed]:
        return _read()

    @cached_property
    def _software(self) -> dict[str, str]:
        return software(TrainOptions(device=self.device))

    def _key(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> str:
        sections = ("architecture", "head", "objective")
        kind = {
            "recipe": {name: getattr(recipe, name).factors() for name in sections},
            "optimizer": recipe.optimizer.name,
            "trainable": recipe.trainable,
            "batch_size": recipe.batch_size,
            "outputs": num_outputs,
            "way": [mode.precision, mode.compiled, mode.stacked],
            "threads": self.threads,
            **{name: self._software[name] for name in ("vitarium", "torch", "timm", "device")},
        }
        return json.dumps(kind, sort_keys=True)

    def _measured(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> Speed:
        images = recipe.batch_size
        if self.device == "cpu":
            # a step of a fraction of a second is enough to compare modes
            small_batch = min(images, _SMALL_BATCH)
            seconds, _ = self._timed(recipe, num_outputs, PLAIN, small_batch)
            affordable = int(small_batch * _MAX_SECONDS / _MAX_STEPS / seconds)
            images = max(small_batch, min(images, affordable))
        seconds, start = self._timed(recipe, num_outputs, mode, images)
        memory = 0
        if self.device != "cpu":
            memory = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.empty_cache()  # what is cached here is missing in the workers
        return Speed(seconds, images, start, memory)

    def _timed(
        self, recipe: Recipe, num_outputs: int, mode: TrainMode, images: int
    ) -> tuple[float, float]:
        """Seconds of a step, and of the first one beyond that."""
        keep_freed_memory()  # as where models are trained
        options = mode.options(TrainOptions(self.device, deterministic=False))
        trials = [_Trial(recipe, num_outputs, options) for _ in range(mode.stacked)]
        trainer = (Trainer if mode.stacked == 1 else StackedTrainer)(trials, options)
        trainer.training_mode()
        facts, size = recipe.objective.plugin.facts, recipe.architecture.config.input_size
        labels = torch.arange(images, device=self.device).expand(mode.stacked, -1) % num_outputs
        pixels = torch.randn(mode.stacked, images * facts["views"], *size, device=self.device)
        batch = Batch(pixels, labels, F.one_hot(labels, num_outputs).float())
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats(self.device)

        def step() -> float:
            started = time.perf_counter()
            trainer.step(batch, 1, 0)
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - started

        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            first, times = step(), [step()]
            while len(times) < _MAX_STEPS and sum(times) < _MAX_SECONDS:
                times.append(step())
        finally:
            torch.set_num_threads(threads)
        seconds = min(times)  # others may use the machine now and then
        return seconds, max(first - seconds, 0.0)


class _Trial(TrainState):
    """A model that is only tried: without data, and without a place in a zoo."""

    def __init__(self, recipe: Recipe, num_outputs: int, options: TrainOptions) -> None:
        self.recipe = recipe
        self.model = recipe.build(num_outputs).to(options.device)
        facts = recipe.objective.plugin.facts
        teacher = deepcopy(self.model) if facts["teacher_outputs"] else None
        optimize_forward(self.model, options, blocks_are_read=facts.get("records_blocks", False))
        self._freeze()
        if teacher is not None:
            size = recipe.architecture.config.input_size
            example = torch.zeros(1, *size, device=options.device)
            self.teacher = Teacher(recipe, teacher, self.model, example)

    def rate(self, epoch: int, number: int) -> float:
        return 1e-6


def _with_own_kind(recipe: Recipe) -> Recipe:
    """With the student's own kind as teacher, where there is one."""
    objective = recipe.objective
    if not isinstance(objective.config, Distillation):
        return recipe
    own_kind = replace(objective, config=objective.config.with_teacher_like_student())
    return recipe.changed({"objective": own_kind})


def _read() -> dict[str, Speed]:
    """What is kept; nothing of a file that is damaged, since all can be measured again."""
    file = cache_folder() / "speeds.json"
    try:
        speeds = files.read_sealed(file)["speeds"]
        return {key: Speed(**values) for key, values in speeds.items()}
    except FileNotFoundError:
        return {}
    except (OSError, CorruptFile, KeyError, TypeError, AttributeError):
        note = f"{file} was damaged, and speeds are measured anew"
        warnings.warn(DamagedCache(note), stacklevel=2)
        files.discard(file)
        return {}


def _keep(key: str, speed: Speed) -> None:
    file = cache_folder() / "speeds.json"
    with suppress(OSError):  # a cache that cannot be written: measured again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            written = {key: speed._asdict() for key, speed in {**_read(), key: speed}.items()}
            files.write_sealed(file, {"speeds": written})
