"""Training runs: optimisers, schedules, the loop, stacks of models, and exact resumption."""

from vitarium.training.loop import Task, train, train_together
from vitarium.training.options import EpochDone, Precision, Report, Span, Step, TrainOptions
from vitarium.training.stacked_trainer import stack_key

__all__ = [
    "EpochDone",
    "Precision",
    "Report",
    "Span",
    "Step",
    "Task",
    "TrainOptions",
    "stack_key",
    "train",
    "train_together",
]
