"""What schedules are composed of: a linear warm-up, shares of the steps, half a cosine."""

from math import cos, pi
from typing import Annotated

from pydantic import Field

from vitarium.blueprint.recipe import MAX_EPOCHS
from vitarium.core.config import Config

Epochs = Annotated[float, Field(ge=0, le=MAX_EPOCHS)]
"""A time in epochs, fractions allowed."""
SomeEpochs = Annotated[float, Field(gt=0, le=MAX_EPOCHS)]
"""A time in epochs that is not 0."""


class Warmup(Config):
    """A linear rise from 0 during the first `warmup_epochs` (may be a fraction of one)."""

    warmup_epochs: Epochs = 0.0
    """Epochs of linear warm-up from 0 to the full learning rate, fractions allowed; 0: none."""

    def steps(self, steps_per_epoch: int) -> int:
        return round(self.warmup_epochs * steps_per_epoch)


def warmed_up(step: int, warmup: int) -> float:
    """Factor of the rate at `step` (from 0) of a linear warm-up."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def share_after(step: int, warmup: int, steps: int) -> float:
    """Share of the steps after the warm-up that is done at `step` (from 0), in [0, 1)."""
    return max(step - warmup, 0) / max(steps - warmup, 1)


def along_cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine, of which `share` is done."""
    return end + (start - end) * (1 + cos(pi * share)) / 2
