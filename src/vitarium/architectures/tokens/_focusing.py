"""SparseFormer's focusing: latent tokens look at boxes of the image, and move them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.bilinear import read_bilinear

NORM_EPS = 1e-6


class _ClampedGradient(torch.autograd.Function):
    """The identity; gradients are clamped to [-limit, limit]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(points: Tensor, limit: float) -> Tensor:
        """[...] -> [...]"""
        return points.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Remembers the limit."""
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """[...] -> [...]"""
        return gradient.clamp(-ctx.limit, ctx.limit), None

    @staticmethod
    def jvp(ctx: Any, direction: Any, _: Any) -> Any:
        """[...] -> [...]"""
        return direction.clone()


def moved_boxes(boxes: Tensor, changes: Tensor) -> Tensor:
    """Boxes (x1, y1, x2, y2) [..., 4] by (dx, dy, log w, log h) [..., 4] -> [..., 4]: the center
    moves by shares of the size, the size is multiplied."""
    low, high = boxes[..., :2], boxes[..., 2:]
    size = (high - low).abs()
    center = (low + high) / 2 + changes[..., :2] * size
    half = size * changes[..., 2:].exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def points_in_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes [..., 4] and offsets [..., p, 2] -> points (x, y) [..., p, 2]: offsets, their mean
    taken off and divided by three standard deviations, times the box's size, from its center."""
    mean = offsets.mean(-2, keepdim=True)
    offsets = (offsets - mean) / (3 * offsets.std(-2, keepdim=True) + 1e-7)
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    return (low + high) / 2 + offsets * (high - low)


def centered_grid(count: int) -> Tensor:
    """Points of a square grid of cells in [-1/2, 1/2]^2: [count, 2] as (x, y), row by row; what is
    left of a count that is no square is drawn at random."""
    root = math.isqrt(count)
    steps = (torch.arange(root) + 0.5) / root - 0.5
    grid = torch.cartesian_prod(steps, steps).flip(-1).view(-1, 2)
    return torch.cat([grid, torch.rand(count - root**2, 2) - 0.5])


class AdaptiveMixing(nn.Module):
    """What a token read, mixed over channels and then points by matrices that it generates.

    S [points, c] -> GELU(S Mc + b) -> GELU(Ms . + b), at least 32 rows -> Linear -> width
    """

    def __init__(self, width: int, channels: int, points: int) -> None:
        super().__init__()
        rows = max(points, 32)
        self.channels, self.points, self.rows = channels, points, rows
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.squeeze = nn.Linear(width, width // 4)
        self.generate = nn.Linear(width // 4, channels**2 + rows * points)
        self.channel_bias = nn.Parameter(torch.zeros(channels))
        self.row_bias = nn.Parameter(torch.zeros(rows))
        self.output = nn.Linear(channels * rows, width)

    @torch.no_grad()
    def reset(self) -> None:
        """At first all tokens mix alike."""
        nn.init.constant_(self.norm.weight, self.norm.normalized_shape[0] ** -0.5)
        nn.init.zeros_(self.generate.weight)
        of_channels, of_points = self._split(self.generate.bias)
        nn.init.xavier_uniform_(of_channels)
        nn.init.xavier_uniform_(of_points)

    def forward(self, read: Tensor, tokens: Tensor) -> Tensor:
        """read [batch, n, points, c] of tokens [batch, n, width] -> [batch, n, width]"""
        generated = self.generate(self.squeeze(self.norm(tokens)))
        of_channels, of_points = self._split(generated)
        mixed = F.gelu(read.to(generated.dtype) @ of_channels + self.channel_bias)
        mixed = F.gelu(of_points @ mixed + self.row_bias.unsqueeze(-1))
        outputs: Tensor = self.output(mixed.flatten(2))
        return outputs

    def _split(self, generated: Tensor) -> tuple[Tensor, Tensor]:
        """[..., c * c + rows * points] -> [..., c, c], [..., rows, points]"""
        channels, points, rows = self.channels, self.points, self.rows
        of_channels, of_points = generated.split([channels**2, rows * points], dim=-1)
        square = of_channels.unflatten(-1, (channels, channels))
        return square, of_points.unflatten(-1, (rows, points))


class FocusingBlock(nn.Module):
    """A transformer block whose tokens move their boxes and read the image in them, between
    attention and MLP; it is run several times with the same weights.

    tokens [batch, n, width], boxes [batch, n, 4], map [batch, c, h, w] -> tokens, boxes
    """

    def __init__(
        self,
        width: int,
        heads: int,
        read: tuple[int, int],
        drop_path: Sequence[float],
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        channels, points = read  # of the map, and in a box
        self.norm1, self.norm2, self.box_norm, self.offset_norm = (
            nn.LayerNorm(width, eps=NORM_EPS) for _ in range(4)
        )
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.move = nn.Linear(width, 4, bias=False)
        self.offsets = nn.Linear(width, 2 * points, bias=False)
        self.grid = nn.Parameter(torch.empty(points, 2))
        self.mixing = AdaptiveMixing(width, channels, points)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drops = nn.ModuleList(DropPath(rate) if rate else nn.Identity() for rate in drop_path)

    @torch.no_grad()
    def reset(self) -> None:
        """Boxes stay where they are at first, and points are a grid in them."""
        for norm in (self.box_norm, self.offset_norm):
            nn.init.constant_(norm.weight, norm.normalized_shape[0] ** -0.5)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.offsets.weight)
        self.grid.copy_(centered_grid(len(self.grid)))
        self.mixing.reset()

    def forward(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        for drop in self.drops:
            tokens = tokens + drop(self.attn(self.norm1(tokens)))
            boxes = moved_boxes(boxes, self.move(self.box_norm(tokens)).to(boxes.dtype))
            tokens = tokens + drop(self.mixing(self.read(tokens, boxes, maps), tokens))
            tokens = tokens + drop(self.mlp(self.norm2(tokens)))
        return tokens, boxes

    def read(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> Tensor:
        """-> [batch, n, points, c]"""
        offsets = self.offsets(self.offset_norm(tokens)).unflatten(-1, (-1, 2))
        points = points_in_boxes(boxes, (offsets + self.grid).to(boxes.dtype))
        if self.training:  # so that a step is local
            points = _ClampedGradient.apply(points, 1 / maps.shape[2])
        size = (maps.shape[2], maps.shape[3])
        read = read_bilinear(maps.flatten(2).transpose(1, 2), size, points.flatten(1, 2))
        return read.unflatten(1, points.shape[1:3])
