"""What a plan will cost, before it is grown: `vitarium grow --dry-run`."""

from dataclasses import dataclass
from typing import Any

from vitarium.blueprint import ModelSpec, Plan
from vitarium.engine.tuning.auto_tuner import AutoTuner
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.tuning.model_size import num_outputs, num_train, parameters

BYTES = {"exact": 4, "bf16": 2}
"""Of a parameter, by `checkpoint_precision`."""


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
    """Of all kept checkpoints, unpacked; packed they take about two thirds."""
    seconds: float | None
    """Training and scoring, shared out over the workers; None without calibration."""


def estimate(plan: Plan, machine: Machine, tuner: AutoTuner | None = None) -> list[StageEstimate]:
    """One estimate per stage; no model is kept.

    With a tuner each kind of model is trained on random images for a moment, in the modes that
    come into question. Data sets are read only where neither their plug-in nor the blueprint says
    how many images and classes they have.
    """
    return [_stage(plan, stage, machine, tuner) for stage in plan.stages]


def _stage(plan: Plan, stage: str, machine: Machine, tuner: AutoTuner | None) -> StageEstimate:
    models = plan.of_stage(stage)
    sizes = [num_train(model.recipe) for model in models]
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
        count * _bytes_per_parameter(model) if count else None
        for model, count in zip(models, counts, strict=True)
    ]
    seconds = None
    if tuner:
        work = [
            tuner.per_image(model) * size * model.recipe.epochs if width and size else None
            for model, width, size in zip(models, outputs, sizes, strict=True)
        ]
        total = _sum(work)
        parallel = min(max(machine.workers, 1), len(models))
        seconds = total / parallel if total is not None else None
    counted = [count for count in counts if count]
    return StageEstimate(
        stage=stage,
        models=len(models),
        start=_start(plan, models[0]),
        factors=plan.swept(stage),
        parameters=(min(counted), max(counted)) if counted else None,
        epochs=sum(model.recipe.epochs for model in models),
        steps=_sum(steps),
        bytes=_sum(weights),
        seconds=seconds,
    )


def _bytes_per_parameter(model: ModelSpec) -> int:
    return BYTES[model.recipe.checkpoint_precision] * len(model.recipe.kept_epochs)


def _start(plan: Plan, model: ModelSpec) -> str:
    if model.parent is None:
        return "scratch"
    return plan[model.parent].stage if model.parent in plan else model.parent


def _sum(values: list[Any]) -> Any:
    return None if None in values else sum(values)
