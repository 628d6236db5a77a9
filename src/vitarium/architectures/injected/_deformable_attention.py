"""Multi-scale deformable attention in plain PyTorch (Zhu et al. 2021, arXiv 2010.04159)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitarium.architectures.bilinear import read_bilinear

Sizes = Sequence[tuple[int, int]]
"""Rows and columns of maps whose tokens lie one after the other."""


class DeformableAttention(nn.Module):
    """Each query reads few points of every map around its own place, and weighs them.

    Offsets are in cells of the map that is read, their bias a ring: head k of h looks in direction
    2 pi k / h, point i at distance i + 1 by the maximum norm. Weights are a softmax over the points
    of all maps, equal at the start. 3 h l p (c + 1) + 2 r c^2 + r c + c parameters for h heads, l
    maps, p points, width c and ratio r.
    """

    def __init__(self, width: int, maps: int, heads: int, points: int, ratio: float) -> None:
        super().__init__()
        inner = int(width * ratio)
        self.maps, self.heads, self.points = maps, heads, points
        self.offsets = nn.Linear(width, heads * maps * points * 2)
        self.weights = nn.Linear(width, heads * maps * points)
        self.value = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)

    @torch.no_grad()
    def reset(self) -> None:
        """Draw the weights anew."""
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for tensor in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(tensor)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        ring = direction[:, None, None] * distance[None, None, :, None]  # [heads, 1, points, 2]
        ring = ring.expand(-1, self.maps, -1, -1).flatten()
        self.offsets.bias.copy_(ring)

    def forward(self, queries: Tensor, places: Tensor, tokens: Tensor, sizes: Sizes) -> Tensor:
        """queries [batch, q, width] at places [q, 2], (x, y) in [0, 1]; tokens [batch, n, width] of
        maps of these sizes -> [batch, q, width]"""
        batch, count, _ = queries.shape
        shape = (batch, count, self.heads, self.maps, self.points)
        offsets = self.offsets(queries).view(*shape, 2)
        weights = self.weights(queries).view(*shape[:3], -1).softmax(-1).view(shape)
        values = self.value(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        maps = values.split([rows * columns for rows, columns in sizes], dim=2)
        total: Tensor | None = None
        for number, ((rows, columns), cells) in enumerate(zip(sizes, maps, strict=True)):
            scale = places.new_tensor([columns, rows])
            points = places[:, None, None] + offsets[:, :, :, number] / scale
            points = points.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [batch * heads, q * p, 2]
            read = read_bilinear(cells.flatten(0, 1), (rows, columns), points)
            read = read.unflatten(0, (batch, self.heads)).unflatten(2, (count, self.points))
            weight = weights[:, :, :, number].transpose(1, 2)
            part = (read * weight.unsqueeze(-1)).sum(3)  # [batch, heads, q, inner / heads]
            total = part if total is None else total + part
        assert total is not None  # for mypy
        outputs: Tensor = self.output(total.transpose(1, 2).flatten(2))
        return outputs
