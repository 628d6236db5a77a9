"""Quantizers of activations whose scales are learned, and which let entries pass now and then."""

from typing import Any

import torch
from torch import Tensor, nn

from vitarium.architectures.quantized._layers import FloatWeight
from vitarium.architectures.quantized._quantizers import UniformQuantizer

_LEAST = 0.01
"""To which share of itself a scale can shrink, so that none becomes negative."""


class LearnedScale(UniformQuantizer):
    """A fitted uniform quantizer whose scale is a parameter, with gradients as in LSQ.

    An entry passes as it is with probability `drop` (QDrop, Wei et al. 2022, arXiv 2203.05740).
    """

    def __init__(self, fitted: UniformQuantizer, drop: float = 0.0) -> None:
        super().__init__(fitted.bits, fitted.scale.shape)
        self.drop = drop
        self._least = _LEAST * fitted.scale
        self.zero_point.copy_(fitted.zero_point)
        del self.scale
        self.scale = nn.Parameter(fitted.scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        quantized = super().forward(x)
        if not self.drop:
            return quantized
        return torch.where(torch.rand_like(x) < self.drop, x, quantized)

    @torch.no_grad()
    def bound(self) -> None:
        """Keep the scale positive."""
        self.scale.clamp_(min=self._least)


def learn_scales(part: nn.Module, drop: float) -> list[LearnedScale]:
    """Replace all uniform quantizers of activations in a part of a model by those that learn."""
    of_weights = {m.quantizer for m in part.modules() if isinstance(m, FloatWeight)}
    learned: list[LearnedScale] = []
    for name, module in list(part.named_modules()):
        if isinstance(module, UniformQuantizer) and module not in of_weights:
            learned.append(LearnedScale(module, drop).to(module.scale.device))
            part.set_submodule(name, learned[-1])
    return learned


def fixed_scales(part: nn.Module) -> None:
    """Replace all that learned by quantizers that do not, in place."""
    for name, module in list(part.named_modules()):
        if isinstance(module, LearnedScale):
            fixed: Any = UniformQuantizer(module.bits, module.scale.shape).to(module.scale.device)
            fixed.scale.copy_(module.scale.detach())
            fixed.zero_point.copy_(module.zero_point)
            part.set_submodule(name, fixed)
