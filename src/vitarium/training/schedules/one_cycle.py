"""The one-cycle policy."""

from typing import Annotated

from pydantic import Field

from vitarium.core.config import Config
from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import along_cosine

_Divisor = Annotated[float, Field(ge=1e-9, le=1e12)]


class OneCycle(Config):
    """Up from 1/`div_factor` of the rate for `pct_start` of all steps, then down, by cosines.

    The momentum stays as it is.
    """

    pct_start: float = Field(0.3, gt=0, lt=1)
    """Share of all steps in which the learning rate rises, in (0, 1)."""
    div_factor: _Divisor = 25.0
    """Divisor of the optimizer's learning rate that gives the initial one."""
    final_div_factor: _Divisor = 1e4
    """Divisor of the initial learning rate that gives the final one."""


@schedule("one_cycle", paper="Smith & Topin 2018, arXiv 1708.07120")
def one_cycle(config: OneCycle, step: int, steps: int, steps_per_epoch: int) -> float:
    """One-cycle policy: the learning rate rises to its peak, then falls (torch's OneCycleLR)."""
    start = 1 / config.div_factor
    peak = config.pct_start * steps - 1
    if step <= peak:
        return along_cosine(start, 1.0, step / peak if peak > 0 else 1.0)
    return along_cosine(1.0, start / config.final_div_factor, (step - peak) / (steps - 1 - peak))
