"""The reciprocal square root of the step."""

from math import sqrt

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Epochs, SomeEpochs, Warmup, warmed_up


class InverseSqrt(Warmup):
    """The rate falls with the square root of time, whose unit is `timescale_epochs`.

    It depends on the length of training by the cool-down alone, so one run can be cut anywhere.
    """

    timescale_epochs: SomeEpochs = 1.0
    """After three times so many epochs since the warm-up, the rate has halved."""
    cooldown_epochs: Epochs = 0.0
    """Epochs at the end in which the rate also falls linearly to 0; 0: none."""


@schedule(
    "inverse_sqrt",
    paper="Zhai et al. 2022, arXiv 2106.04560",
    tiny={"timescale_epochs": 0.5, "warmup_epochs": 0.5, "cooldown_epochs": 0.5},
)
def inverse_sqrt(config: InverseSqrt, step: int, steps: int, steps_per_epoch: int) -> float:
    """Reciprocal square root of the step, after an optional linear warm-up, with a cool-down."""
    warmup = config.steps(steps_per_epoch)
    timescale = config.timescale_epochs * steps_per_epoch
    cooldown = config.cooldown_epochs * steps_per_epoch
    factor = warmed_up(step, warmup) / sqrt(1 + max(step - warmup, 0) / timescale)
    return factor * min(1.0, (steps - step) / cooldown) if cooldown else factor
