"""timm's Lion."""

from collections.abc import Iterable
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat
from timm.optim.lion import Lion as TimmLion
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer
from vitarium.training.optimizers._decay import Decay


class Lion(Config):
    """Lion: the sign of an averaged gradient, with decoupled weight decay (timm's Lion).

    All weights move by the same amount, so rates are 3 to 10 times smaller than AdamW's.
    """

    lr: PositiveFloat = 1e-4
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay: each step shrinks weights by lr times this."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Decay rates of the gradient's average in the step, and of what is remembered of it."""


@optimizer("lion", elementwise=True, paper="Chen et al. 2023, arXiv 2302.06675")
def lion(config: Lion, parameters: Iterable[Any]) -> Optimizer:
    return TimmLion(parameters, **dict(config))
