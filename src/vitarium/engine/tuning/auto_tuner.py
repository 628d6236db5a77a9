"""How to train each kind of model of a plan: what `auto` stands for.

Measured, not guessed: a precision is chosen where it makes steps clearly faster on this machine,
compilation where the plan is long enough to repay it, and stacking where several models as one
computation train more models per second than one after the other.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from vitarium.blueprint import ModelSpec, Plan
from vitarium.core.errors import InvalidInput
from vitarium.engine.tuning.calibration import PLAIN, Calibration, NotMeasured, Speed, TrainMode
from vitarium.engine.tuning.gain import Gain
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.tuning.model_size import num_outputs, steps_per_epoch
from vitarium.training import Precision, TrainOptions, stack_key
from vitarium.training._companions import runs_parts
from vitarium.training._compilable import samples_subnetworks
from vitarium.training._feature_cache import caches_features

MIN_SPEEDUP = 1.3
"""A precision or a stack has to be so many times faster to be chosen."""
SUSPICIOUS = 5.0
"""What claims to be so many times faster is measured twice."""
_MIN_COMPILED_SPEEDUP = 1.1
_MIN_PLAN_SECONDS = 15 * 60  # of one worker, from which on measuring a compilation pays
_STACK_SIZES = (4, 16, 64)
_MAX_STACKED_STEP_SECONDS = 0.25  # of a model's step; a longer one keeps the device busy: no stacks
_MIN_BUSY_RATIO = 1.4
_GPU_OVERHEAD = 600 * 2**20  # bytes that each process takes on a GPU beside its tensors


@dataclass(frozen=True)
class TrainRequest:
    """What the user asks for; auto: measure and choose."""

    precision: Precision | Literal["auto"] = "auto"
    compiled: bool | Literal["auto"] = "auto"
    stacked: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if (precision := self.precision) not in ("auto", "fp32", "tf32", "bf16"):
            raise InvalidInput(f"unknown precision '{precision}'; known: auto, fp32, tf32, bf16")
        if self.stacked != "auto" and self.stacked < 1:
            raise InvalidInput(f"a stack of {self.stacked} models: give 1 or more, or auto")


@dataclass(eq=False)
class AutoTuner:
    """Chooses how each model of a plan is trained; `notify` gets each choice, in a line of text."""

    plan: Plan
    machine: Machine
    request: TrainRequest
    calibration: Calibration
    notify: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self._chosen: dict[Hashable, TrainMode] = {}
        self._notified: set[str] = set()

    def choose(self, specs: Sequence[ModelSpec]) -> None:
        """Choose the modes of these models now, for `mode`."""
        first = {_kind(spec): spec for spec in reversed(specs)}  # with which each kind is measured
        self.calibration.num_kinds = self.unmeasured_kinds([*first.values()], self.mode)
        for spec in specs:
            self.mode(spec)

    def unmeasured_kinds(
        self, specs: Sequence[ModelSpec], need: Callable[[ModelSpec], object]
    ) -> int:
        """How many kinds of these models have to be measured for `need`, `mode` or `per_image`."""
        kinds = set()
        with self.calibration.known_only():
            for spec in specs:
                steps, outputs = steps_per_epoch(spec.recipe), num_outputs(spec.recipe)
                if steps is None or outputs is None:  # nothing is estimated without them
                    continue
                try:
                    need(spec)
                except NotMeasured:
                    kinds.add(self.calibration.kind(spec.recipe, outputs))
        return len(kinds)

    def epoch_seconds(self, spec: ModelSpec) -> float | None:
        """About how long an epoch of this model takes; None where that was not measured."""
        steps, outputs = steps_per_epoch(spec.recipe), num_outputs(spec.recipe)
        if steps is None or outputs is None:
            return None
        if not self.calibration.knows(spec.recipe, outputs, self.mode(spec)):
            return None
        return steps * spec.recipe.batch_size * self.per_image(spec)

    def mode(self, spec: ModelSpec) -> TrainMode:
        """How to train this model, and how many like it at most as one computation."""
        kind = _kind(spec)
        if kind not in self._chosen:
            try:
                self._chosen[kind] = self._choose(spec)
            # training will show whether it is fatal
            except (RuntimeError, MemoryError, InvalidInput) as error:
                self._chosen[kind] = self._unmeasured(spec)
                cause = str(error).partition("\n\n")[0]  # advice to developers follows
                self._notify(f"{spec.stage}: cannot be measured, so it is trained plainly: {cause}")
        return self._chosen[kind]

    def per_image(self, spec: ModelSpec) -> float:
        """Seconds that a worker takes for one image of one model, trained in its mode."""
        mode = self.mode(spec)
        return self._speed(spec, mode).per_image / mode.stacked

    def shared_gpus(self, specs: Sequence[ModelSpec]) -> Machine:
        """The machine with as many workers as its GPUs hold models of these kinds.

        More than one per GPU where a model leaves the GPU waiting and is not trained in a stack.
        """
        if self.machine.devices == ("cpu",) or not specs:
            return self.machine
        gpus = len(self.machine.devices)
        cores = max(1, self.machine.workers * self.machine.threads // gpus)
        per_gpu = min(self._per_gpu(spec, cores) for spec in {_kind(s): s for s in specs}.values())
        return replace(self.machine, workers=gpus * per_gpu, threads=max(1, cores // per_gpu))

    def _per_gpu(self, spec: ModelSpec, cores: int) -> int:
        mode, outputs, recipe = self.mode(spec), num_outputs(spec.recipe), spec.recipe
        if mode.stacked > 1 or outputs is None:
            return 1
        full_batch = self.calibration.speed(recipe, outputs, mode)
        half_batch = recipe.model_copy(update={"batch_size": max(recipe.batch_size // 2, 1)})
        half_speed = self.calibration.speed(half_batch, outputs, mode)
        total = torch.cuda.get_device_properties(self.machine.devices[0]).total_memory
        # a GPU that is busy takes clearly longer for twice the images
        busy = full_batch.seconds > _MIN_BUSY_RATIO * half_speed.seconds
        return models_per_gpu(total, full_batch.memory, cores, busy=busy)

    def _speed(self, spec: ModelSpec, mode: TrainMode) -> Speed:
        outputs = num_outputs(spec.recipe)
        assert outputs is not None  # nothing is measured, nor estimated, without it
        return self.calibration.speed(spec.recipe, outputs, mode)

    def _unmeasured(self, spec: ModelSpec) -> TrainMode:
        """What was asked for, and nothing that would have to be measured."""
        request = self.request
        return TrainMode(
            "fp32" if request.precision == "auto" else request.precision,
            request.compiled is True and self._may_compile(spec),
            1 if request.stacked == "auto" or stack_key(spec) is None else request.stacked,
        )

    def _choose(self, spec: ModelSpec) -> TrainMode:
        if num_outputs(spec.recipe) is None:  # the data may be where models are trained
            return self._unmeasured(spec)
        models = [model for model in self.plan.models if _kind(model) == _kind(spec)]
        mode = TrainMode(self._precision(spec))
        mode = mode._replace(compiled=self._compiled(spec, mode, models))
        mode = mode._replace(stacked=self._stacked(spec, mode, len(models)))
        if "auto" in (self.request.precision, self.request.compiled, self.request.stacked):
            parts = [mode.precision, "compiled" if mode.compiled else "not compiled"]
            parts.append(f"stacks of {mode.stacked}" if mode.stacked > 1 else "not stacked")
            self._notify(f"{spec.stage}: {', '.join(parts)}{self._in_words(spec, mode)}")
        return mode

    def _precision(self, spec: ModelSpec) -> Precision:
        if self.request.precision != "auto":
            return self.request.precision
        best: Precision = "fp32"
        for candidate in self.calibration.precisions():
            if self._is_faster(spec, TrainMode(best), TrainMode(candidate), MIN_SPEEDUP):
                best = candidate
        return best

    def _compiled(self, spec: ModelSpec, mode: TrainMode, models: Sequence[ModelSpec]) -> bool:
        if not self._may_compile(spec):
            return False
        if self.request.compiled != "auto":
            return self.request.compiled
        # what one worker's share of all models of this kind takes to train
        per_epoch = (steps_per_epoch(spec.recipe) or 0) * spec.recipe.batch_size
        images = per_epoch * sum(model.recipe.epochs for model in models)
        seconds = images * self._speed(spec, mode).per_image / max(self.machine.workers, 1)
        if seconds < _MIN_PLAN_SECONDS:
            return False
        compiled = mode._replace(compiled=True)
        gain, start = self._gain(spec, mode, compiled), self._speed(spec, compiled).start
        if seconds * (1 - 1 / gain) <= 2 * start:
            return False
        return self._is_faster(spec, mode, compiled, _MIN_COMPILED_SPEEDUP)

    def _may_compile(self, spec: ModelSpec) -> bool:
        reason = ""
        if spec.recipe.objective.plugin.facts.get("records_blocks"):
            reason = "its objective looks into the blocks"
        elif runs_parts(spec.recipe):
            reason = "its objective runs parts of the model by themselves"
        elif spec.recipe.drop_path_schedule != "constant":
            reason = "its stochastic depth changes in every step"
        elif samples_subnetworks(spec.recipe.architecture):
            reason = "other parts of the model learn in every step"
        if reason and self.request.compiled is True:
            self._notify(f"{spec.stage}: not compiled, since {reason}")
        return not reason

    def _stacked(self, spec: ModelSpec, mode: TrainMode, num_models: int) -> int:
        if self.request.stacked != "auto":
            return self.request.stacked if stack_key(spec) else 1
        best, per_model = 1, self._speed(spec, mode).per_image
        busy = per_model * spec.recipe.batch_size > _MAX_STACKED_STEP_SECONDS
        if busy or stack_key(spec) is None or self._computes_features_once(spec):
            return 1
        max_size = -(-num_models // max(self.machine.workers, 1))
        for size in (size for size in _STACK_SIZES if size <= max_size):
            smaller, larger = mode._replace(stacked=best), mode._replace(stacked=size)
            if not self._is_faster(spec, smaller, larger, MIN_SPEEDUP):
                break  # no gain any more
            best = size
        return best

    def _computes_features_once(self, spec: ModelSpec) -> bool:
        """A linear probe of images that stay the same is faster by itself, after an epoch."""
        options = TrainOptions(self.machine.devices[0])
        is_plain = spec.recipe.augmentation.factors(defaults=False) == {"name": "standard"}
        return is_plain and caches_features(spec.recipe, options)

    def _gain(self, spec: ModelSpec, mode: TrainMode, faster: TrainMode) -> float:
        """How many times faster the other mode is for one model, by steps at different times."""
        per_model = [self._speed(spec, each).per_image / each.stacked for each in (mode, faster)]
        return per_model[0] / per_model[1]

    def _is_faster(
        self, spec: ModelSpec, mode: TrainMode, faster: TrainMode, threshold: float
    ) -> bool:
        """Whether the other mode is so many times faster, and that is no noise.

        What seems so is confirmed by steps of both in turn; what would be more than `SUSPICIOUS`
        times faster, by a second series of them.
        """
        if self._gain(spec, mode, faster) < threshold:
            return False
        gain = self._measured_gain(spec, mode, faster)
        is_clear = gain.is_clear(threshold)
        if is_clear and gain.median > SUSPICIOUS:
            gain = self._measured_gain(spec, mode, faster, series=1)
            is_clear = gain.is_clear(threshold)
        if not is_clear:
            self._notify(f"{spec.stage}: {_change(mode, faster)} is not clearly faster ({gain})")
        return is_clear

    def _measured_gain(
        self, spec: ModelSpec, mode: TrainMode, faster: TrainMode, series: int = 0
    ) -> Gain:
        outputs = num_outputs(spec.recipe)
        assert outputs is not None
        return self.calibration.gain(spec.recipe, outputs, mode, faster, series=series)

    def _in_words(self, spec: ModelSpec, mode: TrainMode) -> str:
        """How much faster it is than plain fp32, where anything was measured for that."""
        if mode == PLAIN:
            return ""
        gain = self._measured_gain(spec, PLAIN, mode)
        return (
            f" ({gain.median:.1f} times as fast as plain fp32, {gain.low:.1f} to {gain.high:.1f})"
        )

    def _notify(self, text: str) -> None:
        if text not in self._notified:
            self._notified.add(text)
            self.notify(text)


def _change(mode: TrainMode, faster: TrainMode) -> str:
    if mode.precision != faster.precision:
        return faster.precision
    return "compiled" if faster.compiled > mode.compiled else f"a stack of {faster.stacked}"


def models_per_gpu(total: int, needed: int, cores: int, *, busy: bool) -> int:
    """How many models to train at a time on one GPU, each in a process of its own.

    `total` bytes of memory it has, `needed` are one model's at its peak; it has `cores` to itself.
    `busy`: one model keeps the GPU busy; then others beside it gain nothing.
    """
    if busy:
        return 1
    fitting = int(0.9 * total // (needed + _GPU_OVERHEAD))
    return max(1, min(fitting, cores))


def _kind(spec: ModelSpec) -> Hashable:
    recipe = spec.recipe
    parts = (recipe.architecture, recipe.objective, recipe.data, recipe.batch_size)
    return (*parts, recipe.adaptation, spec.stage)
