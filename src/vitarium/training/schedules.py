"""Learning-rate schedules as functions of the step: no state to save, none to restore."""

from math import cos, pi

from pydantic import Field, NonNegativeFloat, PositiveFloat

from vitarium.core.config import Config
from vitarium.training.base import schedule


class Warmup(Config):
    """A linear rise from 0 during the first `warmup_epochs` (may be a fraction of one)."""

    warmup_epochs: NonNegativeFloat = 0.0

    def steps(self, steps_per_epoch: int) -> int:
        return round(self.warmup_epochs * steps_per_epoch)


class Cosine(Warmup):
    """Half a cosine from the full rate down to `final` of it, after the warm-up."""

    final: float = Field(0.0, ge=0, le=1)


class OneCycle(Config):
    """Up from 1/`div_factor` of the rate for `pct_start` of all steps, then down, by cosines.

    The momentum stays as it is.
    """

    pct_start: float = Field(0.3, gt=0, lt=1)
    div_factor: PositiveFloat = 25.0
    final_div_factor: PositiveFloat = 1e4


@schedule("constant", config=Warmup)
def constant(config: Warmup, step: int, steps: int, steps_per_epoch: int) -> float:
    """The same rate throughout, after an optional warm-up."""
    return _warm(step, config.steps(steps_per_epoch))


@schedule("cosine", config=Cosine, paper="Loshchilov & Hutter 2017, arXiv 1608.03983")
def cosine(config: Cosine, step: int, steps: int, steps_per_epoch: int) -> float:
    """Share of the optimiser's rate at `step` (from 0) of `steps`."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return _warm(step, warmup)
    return _along_cosine(1.0, config.final, (step - warmup) / max(steps - warmup, 1))


@schedule("one_cycle", config=OneCycle, paper="Smith & Topin 2018, arXiv 1708.07120")
def one_cycle(config: OneCycle, step: int, steps: int, steps_per_epoch: int) -> float:
    """Share of the optimiser's rate at `step`; as torch's OneCycleLR with that rate as `max_lr`."""
    start = 1 / config.div_factor
    peak = config.pct_start * steps - 1
    if step <= peak:
        return _along_cosine(start, 1.0, step / peak if peak > 0 else 1.0)
    return _along_cosine(1.0, start / config.final_div_factor, (step - peak) / (steps - 1 - peak))


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * share)) / 2
