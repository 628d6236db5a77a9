"""torch's AdamW."""

from collections.abc import Iterable

import torch
from pydantic import NonNegativeFloat, PositiveFloat
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


@optimizer("adamw", elementwise=True, paper="Loshchilov & Hutter 2019, arXiv 1711.05101")
def adamw(config: AdamW, parameters: Iterable[Tensor]) -> Optimizer:
    # fused: one pass over all weights, on CPUs as on GPUs
    return torch.optim.AdamW(parameters, **dict(config), fused=True)
