"""Training runs: optimizers, schedules, the loop, stacks of models, and exact resumption."""

from vitarium.training._stack_key import stack_key
from vitarium.training.loop import Task, train, train_together
from vitarium.training.options import EpochDone, Precision, Report, Span, Step, TrainOptions

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
