"""torch's SGD."""

from collections.abc import Iterable
from typing import Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer


class Sgd(Config):
    """Stochastic gradient descent; no momentum unless it is asked for."""

    lr: PositiveFloat = 1e-2
    weight_decay: NonNegativeFloat = 0.0
    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


@optimizer("sgd", elementwise=True, tiny={"momentum": 0.9})
def sgd(config: Sgd, parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.SGD(parameters, **dict(config), fused=True)
