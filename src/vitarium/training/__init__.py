"""One training run: optimisers, schedules, the loop, and its exact resumption."""

from vitarium.training.run import EpochDone, Report, Step, TrainOptions, train

__all__ = ["EpochDone", "Report", "Step", "TrainOptions", "train"]
