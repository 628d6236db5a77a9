"""Polynomial decay."""

from pydantic import Field, PositiveFloat

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Warmup, share_after, warmed_up


class Polynomial(Warmup):
    """A power of the share of steps that is left; with `power` 1 the rate falls linearly."""

    power: PositiveFloat = 1.0
    """Exponent of the share of steps that is left."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the optimizer's, in [0, 1]."""


@schedule(
    "polynomial",
    paper="Liu et al. 2015, ParseNet, arXiv 1506.04579",
    tiny={"power": 2, "final": 0.1, "warmup_epochs": 0.5},
)
def polynomial(config: Polynomial, step: int, steps: int, steps_per_epoch: int) -> float:
    """Polynomial or linear decay of the learning rate, after an optional linear warm-up."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    left = 1 - share_after(step, warmup, steps)
    return config.final + (1 - config.final) * float(left**config.power)
