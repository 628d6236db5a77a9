"""A constant rate with a decay at the end."""

from math import sqrt
from typing import Literal

from pydantic import Field

from vitarium.training.base import schedule
from vitarium.training.schedules._shapes import Warmup, along_cosine, warmed_up


class WarmupStableDecay(Warmup):
    """The full rate until the last part of training, in which it falls to `final` of it."""

    decay: float = Field(0.2, gt=0, le=1)
    """Share of all steps in which the learning rate falls, in (0, 1]."""
    shape: Literal["linear", "cosine", "sqrt"] = "sqrt"
    """How it falls; `sqrt` by 1 - sqrt(share done) (Hägele et al. 2024, arXiv 2405.18392)."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the optimizer's, in [0, 1]."""


@schedule(
    "warmup_stable_decay",
    paper="Hu et al. 2024, arXiv 2404.06395",
    tiny={"decay": 0.5, "warmup_epochs": 0.5},
)
def warmup_stable_decay(
    config: WarmupStableDecay, step: int, steps: int, steps_per_epoch: int
) -> float:
    """Warm-up, a constant learning rate, and a decay at the end of training (WSD)."""
    warmup = config.steps(steps_per_epoch)
    if step < warmup:
        return warmed_up(step, warmup)
    length = config.decay * steps
    share = max(step - (steps - length), 0.0) / length
    if config.shape == "cosine":
        return along_cosine(1.0, config.final, share)
    done = sqrt(share) if config.shape == "sqrt" else share
    return 1.0 - (1.0 - config.final) * done
