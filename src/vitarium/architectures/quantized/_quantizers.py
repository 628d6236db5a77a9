"""Quantizers: what rounds a tensor to at most 2^bits values.

In a forward pass gradients go straight through the rounding, and stop where values are clipped
(straight-through estimator, Bengio et al. 2013, arXiv 1308.3432).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MIN_BITS, MAX_BITS = 3, 8
WEIGHT_PERCENTILES = (0.97, 0.98, 0.99, 0.995, 0.9995, 0.9997, 0.9999, 0.99995, 0.99999)
ACTIVATION_PERCENTILES = (0.999, 0.9999, 0.99999)
"""At which the released code of RepQ-ViT (Li et al. 2023, arXiv 2212.08254) tries to clip."""
_SHIFTS = (0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.5, 1.0)


def rounded(x: Tensor) -> Tensor:
    """The nearest integers [*shape], of halves the even one; its gradient is that of x."""
    # the difference is exact in floating point, and so is the sum
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def clipped(codes: Tensor, levels: int) -> Tensor:
    """Codes [*shape] within 0 to levels - 1; those outside have no gradient."""
    if not codes.requires_grad:
        return codes.clamp(0, levels - 1)
    inside = (codes >= 0) & (codes < levels)  # torch gives the bounds no gradient, either
    return torch.where(inside, codes, codes.detach().clamp(0, levels - 1))


class Quantizer(nn.Module):
    """x [*shape] -> x̂ [*shape] with at most 2^bits values: `values(codes(x))`.

    While `fitting` is set it is fitted to whatever passes through it first, and then quantizes it.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.fitting = bits, False

    @property
    def levels(self) -> int:
        """2^bits"""
        return int(2**self.bits)

    @property
    def packed_counts(self) -> dict[str, int]:
        """See `PacksNumbers`; what a quantizer has are no parameters."""
        return {name: 0 for name, _ in self.named_buffers(recurse=False)}

    def codes(self, x: Tensor) -> Tensor:
        """Integers from 0 to 2^bits - 1 in the dtype of x: [*shape]"""
        raise NotImplementedError

    def values(self, codes: Tensor) -> Tensor:
        """What codes [*shape] stand for: [*shape]"""
        raise NotImplementedError

    def fit(self, samples: Tensor) -> None:
        """Choose the scales for samples [*shape]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.fitting:
            self.fit(x.detach())
        return self.values(self.codes(x))

    def error(self, x: Tensor) -> Tensor:
        """Mean squared error of quantizing x [*shape]: a scalar."""
        return (self.values(self.codes(x)) - x).square().mean()

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class UniformQuantizer(Quantizer):
    """q = clamp(round(x / s) + z, 0, 2^b - 1), x̂ = (q - z) s, with an integer z.

    Args:
        bits: b.
        shape: of s and z, which are broadcast over x: () for all of x, (channels,) for each of its
            last axis, (rows, 1) for each row of a matrix.
        percentiles: shares of the values at which the range may be cut on either side, of which the
            one with the least squared error is taken; none: the range is that of the values.
        holds_zero: widen ranges to hold 0, so that 0 <= z < 2^b and 0 is exact.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bits: int,
        shape: Sequence[int] = (),
        *,
        percentiles: Sequence[float] = (),
        holds_zero: bool = True,
    ) -> None:
        super().__init__(bits)
        self.percentiles, self.holds_zero = tuple(percentiles), holds_zero
        # until it is fitted: a range of -4 to 4, about that of what a LayerNorm gives
        self.register_buffer("scale", torch.full(tuple(shape), 8 / (self.levels - 1)))
        self.register_buffer("zero_point", torch.full(tuple(shape), self.levels // 2.0))

    def codes(self, x: Tensor) -> Tensor:
        return clipped(rounded(x / self.scale) + self.zero_point, self.levels)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero_point) * self.scale

    def fit(self, samples: Tensor) -> None:
        groups = self._groups(samples)
        ranges = [(groups.amin(1), groups.amax(1)), *_percentile_ranges(groups, self.percentiles)]
        grids = torch.stack([torch.stack(self._grid(*bounds)) for bounds in ranges], dim=-1)
        scale, zero_point = grids[..., 0]
        if len(ranges) > 1:
            errors = [_errors(groups, grid[0], grid[1], self.levels) for grid in grids.unbind(-1)]
            best = torch.stack(errors, dim=-1).argmin(-1, keepdim=True)
            scale, zero_point = (side.gather(-1, best).squeeze(-1) for side in grids)
        self.scale.copy_(scale.view(self.scale.shape))
        self.zero_point.copy_(zero_point.view(self.scale.shape))

    def _groups(self, samples: Tensor) -> Tensor:
        """Samples [*shape] by their scale: [scales, n]"""
        shape = self.scale.shape
        own = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
        count = self.scale.numel()
        return samples.movedim(own, tuple(range(len(own)))).reshape(count, -1)

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of ranges, [n] each."""
        is_point = high <= low
        if self.holds_zero:
            is_point = torch.ones_like(is_point)
        low = torch.where(is_point, low.clamp(max=0), low)
        high = torch.where(is_point, high.clamp(min=0), high)
        scale = (high - low) / (self.levels - 1)
        # subnormal scales have no inverse; what is that small is zero
        scale = torch.where(scale < torch.finfo(scale.dtype).tiny, 1, scale)
        return scale, (-low / scale).round()


def _percentile_ranges(groups: Tensor, percentiles: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """By percentile the lower and the upper bound of each row of [n, m]: order statistics [n]."""
    last = groups.shape[1] - 1
    ranks = {percentile: round(percentile * last) for percentile in percentiles}
    return [
        (
            groups.kthvalue(last - rank + 1, dim=1).values,
            groups.kthvalue(rank + 1, dim=1).values,
        )
        for rank in dict.fromkeys(ranks.values())
    ]


def _errors(groups: Tensor, scale: Tensor, zero_point: Tensor, levels: int) -> Tensor:
    """Mean squared error of each row of [n, m] on a uniform grid: [n]"""
    scale, zero_point = scale[:, None], zero_point[:, None]
    codes = (groups / scale).round_().add_(zero_point).clamp_(0, levels - 1)
    return codes.sub_(zero_point).mul_(scale).sub_(groups).square_().mean(1)


class LogQuantizer(Quantizer):
    """Powers of 2 (`steps` 1) or of sqrt(2) (`steps` 2) of a largest value delta, and 0.

    q = clamp(round(-steps log2(x / delta)), 0, 2^b - 1), x̂ = delta 2^(-q / steps), and 0 for the
    last code (log2: Lin et al. 2022, arXiv 2111.13824; log sqrt(2): Li et al. 2023, arXiv
    2212.08254, Eq. 14). The released codes give 0 to all beyond the last code, which makes 2^b + 1
    values; here it takes the last one. For x >= 0; the relative error of what is neither 0 nor
    above delta is at most 2^(1 / (2 steps)) - 1: 18.9 % with 2 steps.
    """

    delta: Tensor

    def __init__(self, bits: int, steps: int = 2) -> None:
        super().__init__(bits)
        self.steps = steps
        self.register_buffer("delta", torch.ones(()))

    def codes(self, x: Tensor) -> Tensor:
        # the smallest number stands for 0, whose logarithm has no gradient
        x = (x / self.delta).clamp(min=torch.finfo(x.dtype).tiny)
        return clipped(rounded(-self.steps * x.log2()), self.levels)

    def values(self, codes: Tensor) -> Tensor:
        powers = self.delta * torch.exp2(-codes / self.steps)
        return powers * (codes < self.levels - 1)

    def fit(self, samples: Tensor) -> None:
        """delta: the largest value, or a percentile, by the least squared error."""
        groups = samples.reshape(1, -1)
        ranges = _percentile_ranges(groups, ACTIVATION_PERCENTILES)
        candidates = [groups.amax(1), *(high for _, high in ranges)]
        fitted = [(self._error_with(candidate, samples), candidate) for candidate in candidates]
        self._error_with(min(fitted, key=lambda pair: pair[0])[1], samples)

    def _error_with(self, delta: Tensor, samples: Tensor) -> float:
        self.delta.copy_(delta.view(()).clamp(min=torch.finfo(delta.dtype).tiny))
        return float(self.error(samples))


class ShiftLog2Quantizer(Quantizer):
    """Uniform codes of log2(x + eta), each of which stands for a power of 2 less eta.

    x̂ = 2^round(û) - eta, where û is u = log2(x + eta) on 2^b equal steps of its range: the
    shift-uniform-log2 quantizer of I&S-ViT (Zhong et al. 2023, arXiv 2311.10126, Eq. 8 and 9).
    eta is taken from a grid by the least squared error. For x >= 0.
    """

    shift: Tensor
    lowest: Tensor
    step: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        lowest = math.log2(0.01)  # until it is fitted: of probabilities
        self.register_buffer("shift", torch.full((), 0.01))
        self.register_buffer("lowest", torch.full((), lowest))
        self.register_buffer("step", torch.full((), -lowest / (self.levels - 1)))

    def codes(self, x: Tensor) -> Tensor:
        u = (x + self.shift).clamp(min=torch.finfo(x.dtype).tiny).log2()
        return clipped(rounded((u - self.lowest) / self.step), self.levels)

    def values(self, codes: Tensor) -> Tensor:
        return torch.exp2(rounded(codes * self.step + self.lowest)) - self.shift

    def fit(self, samples: Tensor) -> None:
        low, high = samples.amin(), samples.amax()
        fitted = [(self._error_with(shift, low, high, samples), shift) for shift in _SHIFTS]
        self._error_with(min(fitted)[1], low, high, samples)

    def _error_with(self, shift: float, low: Tensor, high: Tensor, samples: Tensor) -> float:
        ends = (low + shift).log2(), (high + shift).log2()
        step = (ends[1] - ends[0]) / (self.levels - 1)
        self.shift.fill_(shift)
        self.lowest.copy_(ends[0])
        self.step.copy_(torch.where(step > 0, step, 1))
        return float(self.error(samples))
