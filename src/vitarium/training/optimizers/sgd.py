"""torch's SGD."""

from collections.abc import Iterable
from typing import Any, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer


class Sgd(Config):
    """Stochastic gradient descent (torch.optim.SGD), without momentum by default."""

    lr: PositiveFloat = 1e-2
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty: this times the weights is added to the gradient."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum factor, in [0, 1); 0: plain gradient descent."""
    nesterov: bool = False
    """Use Nesterov momentum; needs a momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


@optimizer(
    "sgd",
    elementwise=True,
    paper="Robbins & Monro 1951, A stochastic approximation method",
    tiny={"momentum": 0.9},
)
def sgd(config: Sgd, parameters: Iterable[Any]) -> Optimizer:
    return torch.optim.SGD(parameters, **dict(config), fused=True)
