"""AdaRound: each weight learns whether it is rounded up or down.

Nagel et al. 2020, arXiv 2004.10568, Sec. 3.3:
W~ = s * (clamp(floor(W/s) + h(V) + z, 0, 2^b - 1) - z)
with the rectified sigmoid h(V) = clamp(sigmoid(V) * (zeta - gamma) + gamma, 0, 1).
"""

import torch
from torch import Tensor, nn

from vitarium.architectures.quantized._quantizers import Quantizer, UniformQuantizer

ZETA, GAMMA = 1.1, -0.1
"""How far the sigmoid is stretched beyond 1 and 0, so that it reaches both."""


class LearnedRounding(Quantizer):
    """A fitted quantizer of a weight [out, ...] whose entries learn to be rounded up or down.

    It starts at the weight itself, where that is in range: h(V) is what rounding down cuts off.
    While `soft` is set it gives values between two neighbors on the grid, else one of the two.
    """

    floor: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, fitted: UniformQuantizer, weight: Tensor) -> None:
        super().__init__(fitted.bits)
        self.soft = True
        ratio = weight.detach() / fitted.scale
        self.register_buffer("floor", ratio.floor())
        self.register_buffer("scale", fitted.scale)
        self.register_buffer("zero_point", fitted.zero_point)
        rest = (ratio - self.floor).clamp(1e-4, 1 - 1e-4)
        self.raw = nn.Parameter(-torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1))

    @property
    def shares(self) -> Tensor:
        """h(V), how far each weight is rounded up: [out, ...] in [0, 1]."""
        return (self.raw.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def codes(self, x: Tensor) -> Tensor:
        """Of the weight that it was made of, whatever x; integers unless it is `soft`."""
        up = self.shares if self.soft else (self.raw.detach() >= 0).to(self.floor)
        return (self.floor + up + self.zero_point).clamp(0, self.levels - 1)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero_point) * self.scale

    def penalty(self, beta: float) -> Tensor:
        """sum(1 - |2 h(V) - 1|^beta): 0 where all weights are on the grid (Eq. 24)."""
        return (1 - (2 * self.shares - 1).abs().pow(beta)).sum()


def annealed_beta(
    step: int, steps: int, *, warmup: float = 0.2, start: float = 20.0, end: float = 2.0
) -> float | None:
    """The penalty's exponent in a step, from `start` to `end` in a line; None while warming up.

    step: from 0 to steps - 1; the first `warmup` of them are without a penalty.
    """
    first = warmup * steps
    if step < first:
        return None
    progress = (step - first) / (steps - first)
    return end + (start - end) * (1 - progress)
