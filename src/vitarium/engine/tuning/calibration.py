"""How fast this machine trains a kind of model: measured for a moment, once, and kept.

The answers lie in `speeds.json` in the cache folder, by device, software and kind of model.
Deleting the file makes them be measured again.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

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
from vitarium.training.environment import software
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.teacher import Teacher
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer

_MAX_SECONDS = 0.5
_MAX_STEPS = 5
_SMALL_BATCH = 4


@dataclass(frozen=True)
class TrainMode:
    """How to train: with which precision, compiled or not, how many models as one."""

    precision: Precision = "fp32"
    compiled: bool = False
    stacked: int = 1

    def options(self, options: TrainOptions) -> TrainOptions:
        return replace(options, precision=self.precision, compiled=self.compiled)


PLAIN = TrainMode()


@dataclass(frozen=True)
class Speed:
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
    """Speeds on one device with so many threads.

    Args:
        notify: is called with what is going to be measured.
    """

    def __init__(
        self, device: str, threads: int, notify: Callable[[str], None] = lambda text: None
    ):
        self.device, self.threads, self.notify = device, threads, notify
        self._announced: set[Any] = set()

    def speed(self, recipe: Recipe, num_outputs: int, mode: TrainMode = PLAIN) -> Speed:
        """Of training a model of this kind in that mode; cached, or measured now.

        Of one that has a teacher: as if that were another model of its own kind.
        """
        recipe = _with_own_kind(recipe)
        key = self._key(recipe, num_outputs, mode)
        if key not in self._cached:
            self._announce(recipe)
            speed = self._measured(recipe, num_outputs, mode)
            self._cached[key] = speed
            _keep(key, speed)
        return self._cached[key]

    def knows(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> bool:
        """Whether `speed` has nothing to measure."""
        return self._key(_with_own_kind(recipe), num_outputs, mode) in self._cached

    def precisions(self) -> list[Precision]:
        """Those that the device computes in by itself, beside fp32."""
        if self.device != "cpu":
            return ["tf32", "bf16"] if torch.cuda.is_bf16_supported() else []
        return ["bf16"] if torch.cpu._is_avx512_bf16_supported() else []

    def _announce(self, recipe: Recipe) -> None:
        kind = (recipe.architecture, recipe.objective)
        if kind not in self._announced:
            self._announced.add(kind)
            name = getattr(recipe.architecture.config, "model", recipe.architecture.name)
            self.notify(f"measuring how fast {name} trains here, {recipe.objective.name} (once)")

    @cached_property
    def _cached(self) -> dict[str, Speed]:
        return _read()

    @cached_property
    def _machine(self) -> dict[str, str]:
        now = software(TrainOptions(device=self.device))
        return {name: now[name] for name in ("vitarium", "torch", "timm", "device")}

    def _key(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> str:
        kind = {
            "recipe": {
                name: getattr(recipe, name).factors()
                for name in ("architecture", "head", "objective")
            },
            "optimizer": recipe.optimizer.name,
            "trainable": recipe.trainable,
            "batch_size": recipe.batch_size,
            "outputs": num_outputs,
            "way": [mode.precision, mode.compiled, mode.stacked],
            "threads": self.threads,
            **self._machine,
        }
        return json.dumps(kind, sort_keys=True)

    def _measured(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> Speed:
        images = recipe.batch_size
        if self.device == "cpu":
            # a step of a fraction of a second is enough to compare modes
            small_batch = min(images, _SMALL_BATCH)
            seconds, _ = self._timed(recipe, num_outputs, TrainMode(), small_batch)
            images = max(
                small_batch, min(images, int(small_batch * _MAX_SECONDS / _MAX_STEPS / seconds))
            )
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
        options = TrainOptions(
            self.device, precision=mode.precision, compiled=mode.compiled, deterministic=False
        )
        trials = [_Trial(recipe, num_outputs, options) for _ in range(mode.stacked)]
        trainer = (Trainer if mode.stacked == 1 else StackedTrainer)(trials, options)
        trainer.training_mode()
        batch = _noise(recipe, num_outputs, images, mode.stacked, self.device)
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats(self.device)

        def step() -> float:
            started = time.perf_counter()
            trainer.step(batch, 1, 0)
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - started

        with _threads(self.threads):
            first, times = step(), [step()]
            while len(times) < _MAX_STEPS and sum(times) < _MAX_SECONDS:
                times.append(step())
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


def _noise(recipe: Recipe, num_outputs: int, images: int, models: int, device: str) -> Batch:
    views = recipe.objective.plugin.facts["views"]
    size = recipe.architecture.config.input_size
    labels = torch.arange(images, device=device).expand(models, -1) % num_outputs
    pixels = torch.randn(models, images * views, *size, device=device)
    return Batch(pixels, labels, F.one_hot(labels, num_outputs).float())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _file() -> Path:
    return cache_folder() / "speeds.json"


def _read() -> dict[str, Speed]:
    """What is kept; nothing of a file that is damaged, since all can be measured again."""
    try:
        speeds = files.read_sealed(_file())["speeds"]
        return {key: Speed(**values) for key, values in speeds.items()}
    except FileNotFoundError:
        return {}
    except (OSError, CorruptFile, KeyError, TypeError, AttributeError):
        note = f"{_file()} was damaged, and speeds are measured anew"
        warnings.warn(DamagedCache(note), stacklevel=2)
        files.discard(_file())
        return {}


def _keep(key: str, speed: Speed) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_file().with_suffix(".lock")):
            speeds = {**_read(), key: speed}
            written = {key: vars(speed) for key, speed in speeds.items()}
            files.write_sealed(_file(), {"speeds": written})
    except OSError:
        return  # a cache that cannot be written: measured again next time
