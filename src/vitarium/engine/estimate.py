"""What a plan will cost, before it is grown: `vitarium grow --dry-run`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from vitarium.blueprint import ModelSpec, Plan, Recipe
from vitarium.data.batch import Batch
from vitarium.data.dataset import expected, load, train_size
from vitarium.engine.machine import Machine
from vitarium.errors import DataNotFound, InvalidData

BYTES_PER_PARAMETER = 4
_CALIBRATION_SECONDS = 1.5
_CALIBRATION_IMAGES = {"cpu": 8, "cuda": 256}


@dataclass(frozen=True)
class StageEstimate:
    """The models of one stage. What depends on data that is not on this machine is None."""

    stage: str
    models: int
    start: str
    factors: dict[str, list[Any]]
    """The factors in which the models differ, with their values."""
    parameters: tuple[int, int] | None
    """Of the smallest and of the largest model."""
    epochs: int
    """Of all models together, as the rest."""
    steps: int | None
    bytes: int | None
    """Of all kept checkpoints, raw float32."""
    seconds: float | None
    """Training and scoring, shared out over the workers; None without calibration."""


def estimate(plan: Plan, machine: Machine, *, calibrate: bool = True) -> list[StageEstimate]:
    """One estimate per stage; no model is kept.

    With `calibrate` each kind of model is trained on random images for a moment. Data sets are read
    only where neither their plug-in nor the blueprint says how many images and classes they have.
    """
    speeds = _Speeds(machine) if calibrate else None
    return [_stage(plan, stage, machine, speeds) for stage in plan.stages]


def _stage(plan: Plan, stage: str, machine: Machine, speeds: "_Speeds | None") -> StageEstimate:
    models = plan.of_stage(stage)
    sizes = [_num_train(model.recipe) for model in models]
    outputs = [num_outputs(model.recipe) for model in models]
    counts = [
        parameters(model.recipe, width) if width else None
        for model, width in zip(models, outputs, strict=True)
    ]
    steps = [
        model.recipe.epochs * (size // model.recipe.batch_size) if size else None
        for model, size in zip(models, sizes, strict=True)
    ]
    weights = [
        count * BYTES_PER_PARAMETER * len(model.recipe.kept_epochs) if count else None
        for model, count in zip(models, counts, strict=True)
    ]
    seconds = None
    if speeds:
        work = [
            speeds.seconds_per_image(model.recipe, width) * size * model.recipe.epochs
            if width and size
            else None
            for model, width, size in zip(models, outputs, sizes, strict=True)
        ]
        total = _sum(work)
        parallel = min(max(machine.workers, 1), len(models))
        seconds = total / parallel if total is not None else None
    known = [count for count in counts if count]
    return StageEstimate(
        stage=stage,
        models=len(models),
        start=_start(plan, models[0]),
        factors=plan.varying(stage),
        parameters=(min(known), max(known)) if known else None,
        epochs=sum(model.recipe.epochs for model in models),
        steps=_sum(steps),
        bytes=_sum(weights),
        seconds=seconds,
    )


def num_outputs(recipe: Recipe) -> int | None:
    """Width of the model's output; None where it depends on data that is not here."""
    classes = expected(recipe.data).num_classes
    if classes is None:
        try:
            classes = load(recipe.data).num_classes
        except (DataNotFound, InvalidData):
            return None
    objective = recipe.objective
    width: int = objective.plugin.facts["outputs"](objective.config, classes)
    return width


def parameters(recipe: Recipe, num_outputs: int) -> int:
    """Number of a model's parameters, counted without allocating them."""
    key = (recipe.architecture, recipe.head, num_outputs)
    if key not in _counted:
        with torch.device("meta"):
            _counted[key] = sum(p.numel() for p in recipe.build(num_outputs).parameters())
    return _counted[key]


_counted: dict[Any, int] = {}


def _num_train(recipe: Recipe) -> int | None:
    images = expected(recipe.data).num_train
    if images is not None:
        return train_size(images, recipe.data.config)
    try:
        return len(load(recipe.data).train)
    except (DataNotFound, InvalidData):
        return None


class _Speeds:
    """Seconds per training image of each kind of model, measured once."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.measured: dict[Any, float] = {}

    def seconds_per_image(self, recipe: Recipe, num_outputs: int) -> float:
        key = (recipe.architecture, recipe.objective, recipe.trainable)
        if key not in self.measured:
            self.measured[key] = self._measure(recipe, num_outputs)
        return self.measured[key]

    def _measure(self, recipe: Recipe, num_outputs: int) -> float:
        """Train on random images for a moment, with a worker's threads."""
        device = torch.device(self.machine.devices[0])
        views = recipe.objective.plugin.facts["views"]
        images = min(recipe.batch_size, _CALIBRATION_IMAGES[device.type])
        model = recipe.build(num_outputs).to(device).train()
        optimizer = recipe.optimizer(model.parameters())
        labels = torch.arange(images, device=device) % num_outputs
        batch = Batch(
            torch.randn(images * views, *recipe.architecture.config.input_size, device=device),
            labels,
            F.one_hot(labels, num_outputs).float(),
        )

        def step() -> None:
            optimizer.zero_grad()
            recipe.objective(model, batch).value.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        threads = torch.get_num_threads()
        torch.set_num_threads(self.machine.threads)
        try:
            return _time_per_call(step) / images
        finally:
            torch.set_num_threads(threads)


def _time_per_call(call: Callable[[], None]) -> float:
    call()  # the first one also allocates and tunes
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < _CALIBRATION_SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls


def _start(plan: Plan, model: ModelSpec) -> str:
    return plan[model.parent].stage if model.parent else "scratch"


def _sum(values: list[Any]) -> Any:
    return None if None in values else sum(values)
