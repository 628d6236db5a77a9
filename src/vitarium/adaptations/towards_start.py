"""L2-SP: weight decay towards where fine-tuning started."""

from collections.abc import Mapping

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config


class TowardsStart(Config):
    strength: PositiveFloat = 0.1
    """alpha: half of this times the squared distance from the parent's weights is added to the
    loss."""
    head_strength: NonNegativeFloat = 0.01
    """beta: half of this times the squared norm of what is new (the head) is added to the loss."""


def _penalty(config: TowardsStart, model: nn.Module, start: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros((), device=next(model.parameters()).device)
    for name, parameter in model.named_parameters():
        if name in start:
            total = total + config.strength / 2 * (parameter - start[name]).square().sum()
        else:
            total = total + config.head_strength / 2 * parameter.square().sum()
    return total


@adaptation(
    "towards_start",
    title="L2-SP",
    paper="Li et al. 2018, arXiv 1802.01483, equation 2",
    penalty=_penalty,
)
def towards_start(config: TowardsStart, model: nn.Module) -> None:
    """L2-SP: all weights learn, drawn back towards the parent's.

    Choose an optimizer without weight decay of its own, which draws towards zero.
    """
