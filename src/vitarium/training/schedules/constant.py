"""A constant rate."""

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Warmup, warmed_up


@schedule("constant")
def constant(config: Warmup, step: int, steps: int, steps_per_epoch: int) -> float:
    """Constant learning rate, after an optional linear warm-up."""
    return warmed_up(step, config.steps(steps_per_epoch))
