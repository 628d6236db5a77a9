"""Optimisers: torch's own, with their settings as generating factors."""

from collections.abc import Iterable
from typing import Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer


class AdamW(Config):
    """Adam with decoupled weight decay, on every weight alike, as torch has it."""

    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8


@optimizer(
    "adamw", config=AdamW, elementwise=True, paper="Loshchilov & Hutter 2019, arXiv 1711.05101"
)
def adamw(config: AdamW, parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        weight_decay=config.weight_decay,
        betas=config.betas,
        eps=config.eps,
        fused=True,  # one pass over all weights, on CPUs as on GPUs
    )


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


@optimizer("sgd", config=Sgd, elementwise=True)
def sgd(config: Sgd, parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True,
    )
