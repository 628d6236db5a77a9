"""Training runs: optimizers, schedules, the loop, stacks of models, and exact resumption."""

from vitarium.training._stack_key import stack_key
from vitarium.training.loop import Task, train, train_together
from vitarium.training.options import EpochEnded, Precision, Report, Spent, Stepped, TrainOptions

__all__ = [
    "EpochEnded",
    "Precision",
    "Report",
    "Spent",
    "Stepped",
    "Task",
    "TrainOptions",
    "stack_key",
    "train",
    "train_together",
]
