"""timm's LAMB."""

from collections.abc import Iterable
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat
from timm.optim.lamb import Lamb as TimmLamb
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer
from vitarium.training.optimizers._decay import Decay


class Lamb(Config):
    """LAMB: Adam steps scaled per weight tensor to its norm, for large batches (timm's Lamb)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 1e-2
    """Added to the step as this times the weights, before the step is scaled."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the moving averages of the gradient and of its square, in [0, 1)."""
    eps: PositiveFloat = 1e-6
    """Number added to the denominator for numerical stability."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Largest l2 norm of the gradient of all weights, to which longer ones are cut; None: no cut.
    Beside the recipe's clipping."""
    trust_clip: bool = False
    """LAMBC (Fong et al. 2020, arXiv 2011.13584): steps are never scaled up."""
    always_adapt: bool = False
    """Scale steps of weights without weight decay, too."""


@optimizer("lamb", paper="You et al. 2020, arXiv 1904.00962")
def lamb(config: Lamb, parameters: Iterable[Any]) -> Optimizer:
    return TimmLamb(parameters, **dict(config))
