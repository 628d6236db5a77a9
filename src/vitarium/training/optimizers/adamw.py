"""torch's AdamW."""

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer
from vitarium.training.optimizers._decay import Decay


class AdamW(Config):
    """AdamW: Adam with decoupled weight decay, applied to all weights (torch.optim.AdamW)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 1e-2
    """Decoupled weight decay: each step shrinks weights by lr times this."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the moving averages of the gradient and of its square, in [0, 1)."""
    eps: PositiveFloat = 1e-8
    """Number added to the denominator for numerical stability."""


@optimizer("adamw", elementwise=True, paper="Loshchilov & Hutter 2019, arXiv 1711.05101")
def adamw(config: AdamW, parameters: Iterable[Any]) -> Optimizer:
    # fused: one pass over all weights, on CPUs as on GPUs
    return torch.optim.AdamW(parameters, **dict(config), fused=True)
