"""Steps down, after chosen epochs."""

from typing import Annotated

from pydantic import Field

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import SomeEpochs, Warmup, warmed_up


class Multistep(Warmup):
    """The rate is multiplied by `decay_rate` after each of the milestones."""

    milestones: Annotated[tuple[SomeEpochs, ...], Field(min_length=1)]
    """Epochs after which the rate steps down, fractions allowed."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """What each multiplies the rate by, in (0, 1]."""


@schedule("multistep", tiny={"milestones": [0.5, 3], "warmup_epochs": 0.5})
def multistep(config: Multistep, step: int, steps: int, steps_per_epoch: int) -> float:
    """Steps of the learning rate down after chosen epochs, after an optional linear warm-up."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    passed = [step >= round(epoch * steps_per_epoch) for epoch in config.milestones]
    return config.decay_rate ** sum(passed)
