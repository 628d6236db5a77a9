"""timm's Adan."""

from collections.abc import Iterable
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat
from timm.optim.adan import Adan as TimmAdan
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer
from vitarium.training.optimizers._decay import Decay


class Adan(Config):
    """Adan: adaptive Nesterov momentum, with averages of gradients' differences (timm's Adan)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay: weights are divided by 1 + lr times this after a step."""
    betas: tuple[Decay, Decay, Decay] = (0.98, 0.92, 0.99)
    """Decay rates of the moving averages of the gradient, of its differences, and of the square of
    both; as timm has them, which are 1 minus the paper's."""
    eps: PositiveFloat = 1e-8
    """Number added to the denominator for numerical stability."""
    no_prox: bool = False
    """Multiply weights by 1 - lr times the weight decay before a step, as AdamW does."""


@optimizer("adan", elementwise=True, paper="Xie et al. 2022, arXiv 2208.06677")
def adan(config: Adan, parameters: Iterable[Any]) -> Optimizer:
    return TimmAdan(parameters, **dict(config))
