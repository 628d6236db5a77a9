"""timm's Muon, with AdamW for what is no matrix."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from timm.optim.muon import Muon as TimmMuon
from torch.optim import Optimizer

from vitarium.core.config import Config
from vitarium.training.base import optimizer
from vitarium.training.optimizers._decay import Decay

MAX_NS_STEPS = 100
"""Every iteration multiplies matrices; five make them orthogonal enough, and ten to rounding."""


class Muon(Config):
    """Muon: matrices move along orthogonalized momentum, other weights by AdamW (timm's Muon).

    A matrix is what has two dimensions or more, none of the first two of size 1, and 4 rows and
    columns at least: the weights of linear layers, heads included, and of convolutions, whose
    inputs and kernel are its columns. Norms, biases, positions and tokens get AdamW's steps.
    """

    lr: PositiveFloat = 1e-3
    """Peak learning rate, of both kinds of steps; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 1e-2
    """Decoupled weight decay: each step shrinks weights by lr times this."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum factor of matrices' gradients, in [0, 1)."""
    nesterov: bool = True
    """Nesterov momentum; other weights then get NAdamW's steps, not AdamW's."""
    ns_steps: int = Field(5, ge=1, le=MAX_NS_STEPS)
    """Newton-Schulz iterations that orthogonalize the momentum."""
    ns_coefficients: Literal["original", "quintic", "polar_express"] = "original"
    """Of these iterations' polynomials: those first published; five that were fitted later, one per
    iteration; or those of Polar Express (Amsel et al. 2025, arXiv 2505.16932)."""
    adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How a matrix's step is scaled by its shape [rows, columns]: to the root mean square of
    AdamW's steps, 0.2 * sqrt(max(rows, columns)), so that rates of AdamW can be used; or as first
    published, sqrt(max(1, rows / columns))."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay rates of AdamW's moving averages, for what is no matrix."""
    fallback_lr_scale: PositiveFloat = 1.0
    """Learning rate of what is no matrix, as a share of `lr`."""


@optimizer("muon", paper="Jordan et al. 2024, https://kellerjordan.github.io/posts/muon")
def muon(config: Muon, parameters: Iterable[Any]) -> Optimizer:
    settings = dict(config)
    return TimmMuon(parameters, adjust_lr_fn=settings.pop("adjust_lr"), **settings)
