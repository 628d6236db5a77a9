"""How a recipe averages weights over the steps of training."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from vitarium.core.config import Config


class Ema(Config):
    """An exponential moving average: after each step, decay * average + (1 - decay) * weights."""

    decay: float = Field(0.999, ge=0, lt=1)
    """Share of the average that stays in a step, in [0, 1)."""
    warmup: bool = False
    """The decay of step t, from 0, is (1 + t) / (10 + t) at most, so that short runs forget their
    initial weights."""

    @model_validator(mode="before")
    @classmethod
    def _settings(cls, values: Any) -> Any:
        if not isinstance(values, Mapping | Ema):
            raise ValueError("give its settings: `ema: {decay: 0.99}`, or `ema: {}` for 0.999")
        return values

    def decay_at(self, step: int) -> float:
        """The decay of a step, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
