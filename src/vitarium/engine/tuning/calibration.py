"""How fast this machine trains a kind of model: measured for a moment, once, and kept.

In the cache folder's `speeds.json` and `gains.json`, by device, software and kind of model; they
can be deleted.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, Self, TypeVar

import torch
from filelock import FileLock

from vitarium.blueprint import Recipe
from vitarium.core import files
from vitarium.core.cache import cache_folder
from vitarium.core.errors import CorruptFile, DamagedCache, VitariumError
from vitarium.engine.tuning._bench import Bench, threads
from vitarium.engine.tuning.gain import Gain
from vitarium.objectives.distillation.base import Distillation
from vitarium.training import Precision, TrainOptions
from vitarium.training.options import software

_MAX_SECONDS = 0.5
_MAX_STEPS = 5
_MIN_PAIRS, _MAX_PAIRS, _MAX_PAIR_SECONDS = 5, 15, 2.0
_SMALL_BATCH = 4
_DECIDING_SOFTWARE = ("vitarium", "torch", "timm", "device", "linear_kernel")


class TrainMode(NamedTuple):
    """How to train: with which precision, compiled or not, how many models as one."""

    precision: Precision = "fp32"
    compiled: bool = False
    stacked: int = 1

    def options(self, options: TrainOptions) -> TrainOptions:
        return replace(options, precision=self.precision, compiled=self.compiled)


PLAIN = TrainMode()
_Measured = TypeVar("_Measured", "Speed", Gain)


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


class NotMeasured(VitariumError):
    """A speed that is not known yet, where nothing is to be measured."""

    def __init__(self) -> None:
        super().__init__("this speed was not measured on this machine yet")


class Calibration:
    """Speeds on one device with so many threads; `notify` gets what is going to be measured.

    num_kinds: how many kinds of models are to be measured, where that is known; to count them.
    """

    def __init__(
        self, device: str, threads: int, notify: Callable[[str], None] = lambda text: None
    ):
        self.device, self.threads, self.notify = device, threads, notify
        self.num_kinds = 0
        self._announced: set[str] = set()
        self._measures = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        """End what was begun to measure with; here nothing is."""

    @contextmanager
    def known_only(self) -> Iterator[None]:
        """Inside, nothing is measured: what is not known raises NotMeasured."""
        self._measures = False
        try:
            yield
        finally:
            self._measures = True

    def speed(self, recipe: Recipe, num_outputs: int, mode: TrainMode = PLAIN) -> Speed:
        """Of training a model of this kind in that mode; cached, or measured now.

        Of one that has a teacher: as if that were another model of its own kind. Raises NotMeasured
        inside `known_only`.
        """
        recipe = _with_own_kind(recipe)
        key = self._key(recipe, num_outputs, mode)
        if key not in self._cached:
            self._check_measures()
            self._announce(recipe, num_outputs)
            self._cached[key] = self._measured(recipe, num_outputs, mode)
            _keep("speeds", key, self._cached[key])
        return self._cached[key]

    def gain(
        self,
        recipe: Recipe,
        num_outputs: int,
        mode: TrainMode,
        faster: TrainMode,
        *,
        series: int = 0,
    ) -> Gain:
        """How many times faster the other mode trains, by steps of both in turn; cached.

        `series` numbers independent measurements of the same. See `speed` for the rest.
        """
        recipe = _with_own_kind(recipe)
        keys = [self._key(recipe, num_outputs, each) for each in (mode, faster)]
        key = json.dumps([*keys, series])
        if key not in self._gains:
            self._check_measures()
            images = self.speed(recipe, num_outputs, mode).images
            ratios = self._ratios(recipe, num_outputs, mode, faster, images)
            self._gains[key] = Gain.of(ratios)
            _keep("gains", key, self._gains[key])
        return self._gains[key]

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
        return _read("speeds", Speed)

    @cached_property
    def _gains(self) -> dict[str, Gain]:
        return _read("gains", Gain)

    @cached_property
    def _software(self) -> dict[str, str]:
        return software(TrainOptions(device=self.device))

    def kind(self, recipe: Recipe, num_outputs: int) -> str:
        """What models have in common that train equally fast, as text."""
        return json.dumps(_kind(_with_own_kind(recipe), num_outputs), sort_keys=True)

    def _check_measures(self) -> None:
        if not self._measures:
            raise NotMeasured

    def _announce(self, recipe: Recipe, num_outputs: int) -> None:
        """Say that a kind of model is measured, when that begins."""
        if (kind := self.kind(recipe, num_outputs)) in self._announced:
            return
        self._announced.add(kind)
        name = getattr(recipe.architecture.config, "model", recipe.architecture.name)
        parts = (recipe.objective.name, f"{recipe.head.name} head", recipe.optimizer.name)
        number = len(self._announced)
        count = f", kind {number} of {max(number, self.num_kinds)}" if self.num_kinds else ""
        self.notify(
            f"measuring how fast {name} trains here ({', '.join(parts)}){count}; once per machine"
        )

    def _key(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> str:
        kind = {
            **_kind(recipe, num_outputs),
            "way": [mode.precision, mode.compiled, mode.stacked],
            "threads": self.threads,
            **{name: self._software[name] for name in _DECIDING_SOFTWARE},
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
        bench = self._bench(recipe, num_outputs, mode, images)
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats(self.device)
        with threads(self.threads):
            first, times = bench.step(), [bench.step()]
            while len(times) < _MAX_STEPS and sum(times) < _MAX_SECONDS:
                times.append(bench.step())
        seconds = min(times)  # others may use the machine now and then
        return seconds, max(first - seconds, 0.0)

    def _ratios(
        self, recipe: Recipe, num_outputs: int, mode: TrainMode, faster: TrainMode, images: int
    ) -> list[float]:
        """Of pairs of steps, by turns in this order and in the other, per image of one model."""
        slow, fast = (self._bench(recipe, num_outputs, m, images) for m in (mode, faster))
        ratios: list[float] = []
        with threads(self.threads):
            started, _ = time.perf_counter(), (slow.step(), fast.step())  # which warm up
            while len(ratios) < _MIN_PAIRS or (
                len(ratios) < _MAX_PAIRS and time.perf_counter() - started < _MAX_PAIR_SECONDS
            ):
                order = (slow, fast) if len(ratios) % 2 else (fast, slow)
                seconds = {bench: bench.step() for bench in order}
                ratios.append(seconds[slow] / mode.stacked * faster.stacked / seconds[fast])
        return ratios

    def _bench(self, recipe: Recipe, num_outputs: int, mode: TrainMode, images: int) -> Bench:
        options = mode.options(TrainOptions(self.device, deterministic=False))
        return Bench(recipe, num_outputs, options, stacked=mode.stacked, images=images)


def _kind(recipe: Recipe, num_outputs: int) -> dict[str, Any]:
    sections = ("architecture", "head", "objective")
    return {
        "recipe": {name: getattr(recipe, name).factors() for name in sections},
        "optimizer": " ".join(_names(recipe.optimizer.factors())),
        "adaptation": recipe.adaptation.factors(),
        "batch_size": recipe.batch_size,
        **({"accumulation": recipe.accumulation} if recipe.accumulation > 1 else {}),
        "outputs": num_outputs,
    }


def _names(settings: Mapping[str, Any]) -> Iterator[str]:
    """Names among the settings of an optimizer, and of one inside it: what decides its speed."""
    for value in settings.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _names(value)


def _with_own_kind(recipe: Recipe) -> Recipe:
    """With the student's own kind as teacher, where there is one."""
    objective = recipe.objective
    if not isinstance(objective.config, Distillation):
        return recipe
    own_kind = replace(objective, config=objective.config.with_teacher_like_student())
    return recipe.changed({"objective": own_kind})


def _read(name: str, kind: type[_Measured]) -> dict[str, _Measured]:
    """What is kept; nothing of a file that is damaged, since all can be measured again."""
    file = cache_folder() / f"{name}.json"
    try:
        measured = files.read_sealed(file)[name]
        return {key: kind(**values) for key, values in measured.items()}
    except FileNotFoundError:
        return {}
    except (OSError, CorruptFile, KeyError, TypeError, AttributeError):
        note = f"{file} was damaged, and speeds are measured anew"
        warnings.warn(DamagedCache(note), stacklevel=2)
        files.discard(file)
        return {}


def _keep(name: str, key: str, measured: _Measured) -> None:
    file = cache_folder() / f"{name}.json"
    with suppress(OSError):  # a cache that cannot be written: measured again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            written = {**_read(name, type(measured)), key: measured}
            values = {key: each._asdict() for key, each in written.items()}
            files.write_sealed(file, {name: values})
