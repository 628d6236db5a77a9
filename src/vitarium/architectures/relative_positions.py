"""Image relative position encoding: where two patches stand to each other (Wu et al. 2021)."""

import math

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from vitarium.config import Config


class RelativePositionConfig(Config):
    """Contextual, product method, on keys, shared by all heads: as MiniViT has it."""

    ratio: PositiveFloat = 1.9


class RelativePositions(nn.Module):
    """Terms that depend on where two tokens of a grid stand to each other.

    Args:
        grid: rows and columns of the patches.
        prefix_tokens: tokens before the patches, which have one more bucket of their own.
    """

    def __init__(
        self,
        config: RelativePositionConfig,
        *,
        num_heads: int,
        head_dim: int,
        grid: tuple[int, int],
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        half = int(2 * config.ratio)
        self.key = nn.Parameter(torch.zeros(1, head_dim, (2 * half + 1) ** 2))
        self.register_buffer("buckets", _buckets(grid, config.ratio), persistent=False)

    def logits(self, logits: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Attention logits [batch, heads, n, n] with the terms of queries and keys added.

        query, key [batch, heads, n, head_dim], both scaled by 1 / sqrt(head_dim) once together:
        the query is.
        """
        looked_up = query @ self.key
        buckets = self.buckets.expand(logits.shape)  # type: ignore[operator]
        return logits + looked_up.gather(-1, buckets)

    def values(self, values: Tensor, probabilities: Tensor) -> Tensor:
        """Attended values [batch, heads, n, head_dim] with the terms of values added."""
        return values


def _buckets(grid: tuple[int, int], ratio: float) -> Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    half = int(2 * ratio)
    places = [
        _piecewise(own.flatten()[:, None] - own.flatten()[None], ratio) + half
        for own in (rows, columns)
    ]
    return places[0] * (2 * half + 1) + places[1]


def _piecewise(offsets: Tensor, ratio: float) -> Tensor:
    alpha, beta, gamma = ratio, 2 * ratio, 8 * ratio
    far = offsets.abs().clamp(min=1) / alpha
    bent = (alpha + far.log() / math.log(gamma / alpha) * (beta - alpha)).round().clamp(max=beta)
    return torch.where(offsets.abs() <= alpha, offsets, (offsets.sign() * bent).long())
