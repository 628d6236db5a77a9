"""A tangent-shaped quantizer: fine steps near 0 and near the largest value."""

import math

import torch
from torch import Tensor

from vitarium.architectures.quantized._quantizers import (
    ACTIVATION_PERCENTILES,
    Quantizer,
    rounded,
)

_CURVATURES = tuple(step / 10 for step in range(1, 16))
"""Of which the fit takes the best; below pi / 2."""
_MOST_SAMPLES = 2**19
"""Evenly spaced ones that the fit looks at."""


class TangentQuantizer(Quantizer):
    """Equal steps of a tangent of x, so that values near 0 and near delta lie closer.

    u = x / delta in [0, 1]; y = (1 + tan(a (2u - 1)) / tan a) / 2 on 2^b equal steps;
    û = (1 + atan((2y - 1) tan a) / a) / 2. 0 and delta are exact; a -> 0 gives equal steps. Our
    reading of TanQ in DopQ-ViT (Yang et al. 2024, arXiv 2408.03291), whose abstract describes the
    quantizer without a formula. delta, the largest value or a percentile, and the curvature a are
    taken by the least squared error. For x >= 0.
    """

    delta: Tensor
    tangent: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("delta", torch.ones(()))
        self.register_buffer("tangent", torch.tensor(math.tan(1.0)))  # of a, until it is fitted

    @property
    def curvature(self) -> Tensor:
        """a, a scalar in (0, pi / 2)"""
        return self.tangent.atan()

    def codes(self, x: Tensor) -> Tensor:
        angles = self.curvature * (2 * (x / self.delta).clamp(0, 1) - 1)
        return rounded((1 + angles.tan() / self.tangent) / 2 * (self.levels - 1))

    def values(self, codes: Tensor) -> Tensor:
        y = codes / (self.levels - 1)
        return self.delta * (1 + ((2 * y - 1) * self.tangent).atan() / self.curvature) / 2

    def fit(self, samples: Tensor) -> None:
        flat = samples.flatten()
        flat = flat[:: -(-len(flat) // _MOST_SAMPLES)]
        ranks = {round(percentile * (len(flat) - 1)) + 1 for percentile in ACTIVATION_PERCENTILES}
        deltas = [samples.amax(), *(flat.kthvalue(rank).values for rank in sorted(ranks))]
        settings = [(delta, math.tan(a)) for delta in deltas for a in _CURVATURES]
        fitted = [(self._error_with(*setting, flat), setting) for setting in settings]
        self._error_with(*min(fitted, key=lambda pair: pair[0])[1], flat)

    def _error_with(self, delta: Tensor, tangent: float, samples: Tensor) -> float:
        self.delta.copy_(delta.clamp(min=torch.finfo(delta.dtype).tiny))
        self.tangent.fill_(tangent)
        return float(self.error(samples))
