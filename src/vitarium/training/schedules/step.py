"""Steps down, at equal distances."""

from pydantic import Field

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import SomeEpochs, Warmup, warmed_up


class Step(Warmup):
    """The rate is multiplied by `decay_rate` every `decay_epochs`, counted from the first step."""

    decay_epochs: SomeEpochs = 30.0
    """Epochs between two steps down, fractions allowed."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """What each multiplies the rate by, in (0, 1]."""


@schedule("step", tiny={"decay_epochs": 1.5, "warmup_epochs": 0.5})
def step(config: Step, step: int, steps: int, steps_per_epoch: int) -> float:
    """Steps of the learning rate down, at equal distances, after an optional linear warm-up."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    interval = max(round(config.decay_epochs * steps_per_epoch), 1)
    return config.decay_rate ** (step // interval)
