"""Cosine annealing, without restarts."""

from pydantic import Field

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Warmup, along_cosine, share_after, warmed_up


class Cosine(Warmup):
    """Half a cosine from the full rate down to `final` of it, after the warm-up."""

    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the optimizer's, in [0, 1]."""


@schedule(
    "cosine",
    paper="Loshchilov & Hutter 2017, arXiv 1608.03983",
    tiny={"warmup_epochs": 0.5, "final": 0.1},
)
def cosine(config: Cosine, step: int, steps: int, steps_per_epoch: int) -> float:
    """Cosine annealing of the learning rate, after an optional linear warm-up."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    return along_cosine(1.0, config.final, share_after(step, warmup, steps))
