"""A hyperbolic tangent."""

from math import tanh
from typing import Self

from pydantic import Field, model_validator

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Warmup, share_after, warmed_up


class Tanh(Warmup):
    """From the full rate down to `final` of it along a tangent, from `lower` to `upper`."""

    lower: float = Field(-7.0, ge=-1e6, le=1e6)
    """Where on the tangent training begins, after the warm-up."""
    upper: float = Field(3.0, ge=-1e6, le=1e6)
    """Where on the tangent it ends."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate that it falls to, as a share of the optimizer's, in [0, 1]."""

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(f"lower, {self.lower:g}, is not below upper, {self.upper:g}")
        return self


@schedule(
    "tanh",
    paper="Hsueh et al. 2019, arXiv 1806.01593",
    tiny={"final": 0.1, "warmup_epochs": 0.5},
)
def tanh_decay(config: Tanh, step: int, steps: int, steps_per_epoch: int) -> float:
    """Decay of the learning rate along a hyperbolic tangent, after an optional linear warm-up."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    share = share_after(step, warmup, steps)
    at = config.lower + (config.upper - config.lower) * share
    return config.final + (1 - config.final) * (1 - tanh(at)) / 2
