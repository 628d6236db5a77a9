"""The twin uniform quantizer of PTQ4ViT."""

import torch
from torch import Tensor

from vitarium.architectures.quantized._quantizers import Quantizer, clipped, rounded

_SPLITS = 20
"""Powers of 2 that are tried, from 1 down."""


class TwinQuantizer(Quantizer):
    """Two uniform grids of 2^(b - 1) values: a fine one up to a split point, a coarse one to 1.

    x̂ is the nearest of k split / (2^(b - 1) - 1) and k / (2^(b - 1) - 1), k = 0, 1, ...: the twin
    uniform quantizer of PTQ4ViT for softmax (Yuan et al. 2022, arXiv 2111.12293, Sec. 3.2). The
    released code adds a value clipped to each grid's range, so that what lies on the coarse one
    is off by the split. The split is the power of 2 with the least squared error, where
    the authors weight errors by gradients. For 0 <= x <= 1.
    """

    split: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("split", torch.full((), 2**-4.0))

    @property
    def _half(self) -> int:
        return self.levels // 2

    def _steps(self) -> tuple[Tensor, float]:
        return self.split / (self._half - 1), 1 / (self._half - 1)

    def codes(self, x: Tensor) -> Tensor:
        fine, coarse = (clipped(rounded(x / step), self._half) for step in self._steps())
        steps = self._steps()
        is_coarse = (coarse * steps[1] - x).abs() < (fine * steps[0] - x).abs()
        return torch.where(is_coarse, coarse + self._half, fine)

    def values(self, codes: Tensor) -> Tensor:
        fine, coarse = self._steps()
        return torch.where(codes < self._half, codes * fine, (codes - self._half) * coarse)

    def fit(self, samples: Tensor) -> None:
        splits = [2.0**-power for power in range(_SPLITS)]
        fitted = [(self._error_with(split, samples), split) for split in splits]
        self._error_with(min(fitted)[1], samples)

    def _error_with(self, split: float, samples: Tensor) -> float:
        self.split.fill_(split)
        return float(self.error(samples))
