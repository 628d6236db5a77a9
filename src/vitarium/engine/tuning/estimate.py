"""What a plan will cost, before it is grown: `vitarium grow --dry-run`."""

from dataclasses import dataclass
from typing import Any

from vitarium.blueprint import ModelSpec, Plan
from vitarium.engine.tuning.auto_tuner import AutoTuner
from vitarium.engine.tuning.calibration import NotMeasured
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.tuning.model_size import (
    ParameterCounts,
    companion_parameters,
    num_classes,
    num_outputs,
    parameters,
    steps_per_epoch,
)

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
    trained: tuple[int, int] | None
    """Of these, and of factors of adaptations, those that learn: fewest and most in a model."""
    companions: tuple[int, int] | None
    """What objectives bring beside a model while it is trained (a decoder, a momentum teacher):
    fewest and most parameters."""
    epochs: int
    """Of all models together, as the rest."""
    steps: int | None
    bytes: int | None
    """Of all kept checkpoints and companions, unpacked; packed they take about two thirds."""
    seconds: float | None
    """Training, shared out over the workers; None where a speed was not measured."""


def estimate(plan: Plan, machine: Machine, tuner: AutoTuner | None = None) -> list[StageEstimate]:
    """One estimate per stage; no model is kept.

    With a tuner each kind of model is trained on random images for a moment, in the modes that
    come into question; inside its calibration's `known_only`, there is a time for those alone whose
    speeds are known. Data sets are read only where neither their plug-in nor the blueprint says
    how many images and classes they have.
    """
    return [_stage(plan, stage, machine, tuner) for stage in plan.stages]


def _stage(plan: Plan, stage: str, machine: Machine, tuner: AutoTuner | None) -> StageEstimate:
    models = plan.of_stage(stage)
    counts: list[ParameterCounts] = []
    beside: list[int] = []
    steps: list[int | None] = []
    weights: list[int | None] = []
    seconds: list[float | None] = []
    for model in models:
        recipe = model.recipe
        per_epoch, outputs = steps_per_epoch(recipe), num_outputs(recipe)
        steps.append(None if per_epoch is None else recipe.epochs * per_epoch)
        if outputs:
            counts.append(parameters(recipe, outputs))
            beside.append(companion_parameters(recipe, outputs, num_classes(recipe) or 1))
            size = counts[-1].total * BYTES[recipe.checkpoint_precision] * len(recipe.kept_epochs)
            weights.append(size + (beside[-1] * BYTES["exact"] if recipe.keep_companions else 0))
        else:
            weights.append(None)
        measured = _per_image(model, tuner) if tuner and outputs and per_epoch else None
        images = (steps[-1] or 0) * recipe.batch_size
        seconds.append(measured * images if measured else None)
    parent = models[0].parent
    start = "scratch" if parent is None else plan[parent].stage if parent in plan else parent
    total, parallel = _sum(seconds), min(max(machine.workers, 1), len(models))
    return StageEstimate(
        stage=stage,
        models=len(models),
        start=start,
        factors=plan.swept(stage),
        parameters=_range([count.total for count in counts]),
        trained=_range([count.trained for count in counts]),
        companions=_range(beside),
        epochs=sum(model.recipe.epochs for model in models),
        steps=_sum(steps),
        bytes=_sum(weights),
        seconds=None if total is None else total / parallel,
    )


def _range(counts: list[int]) -> tuple[int, int] | None:
    return (min(counts), max(counts)) if counts else None


def _per_image(model: ModelSpec, tuner: AutoTuner) -> float | None:
    try:
        return tuner.per_image(model)
    except NotMeasured:
        return None


def _sum(values: list[Any]) -> Any:
    return None if None in values else sum(values)
