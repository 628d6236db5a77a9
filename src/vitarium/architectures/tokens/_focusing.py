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

    S [points, c] -> GELU(S Mc + b) -> GELU(Ms . + b), at least 32 rows -> Linear -> width; without
    biases GELU(Ms S Mc), as released
    """

    def __init__(
        self,
        width: int,
        channels: int,
        points: int,
        squeezed: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        rows, squeezed = max(points, 32), squeezed or width // 4
        self.channels, self.points, self.rows = channels, points, rows
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.squeeze = nn.Linear(width, squeezed)
        self.generate = nn.Linear(squeezed, channels**2 + rows * points)
        self.channel_bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.row_bias = nn.Parameter(torch.zeros(rows)) if bias else None
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
        mixed = read.to(generated.dtype) @ of_channels
        if self.channel_bias is None or self.row_bias is None:
            mixed = of_points @ mixed
        else:
            mixed = of_points @ F.gelu(mixed + self.channel_bias) + self.row_bias.unsqueeze(-1)
        outputs: Tensor = self.output(F.gelu(mixed).flatten(2))
        return outputs

    def _split(self, generated: Tensor) -> tuple[Tensor, Tensor]:
        """[..., c * c + rows * points] -> [..., c, c], [..., rows, points]"""
        channels, points, rows = self.channels, self.points, self.rows
        of_channels, of_points = generated.split([channels**2, rows * points], dim=-1)
        square = of_channels.unflatten(-1, (channels, channels))
        return square, of_points.unflatten(-1, (rows, points))


class BoxReader(nn.Module):
    """Base of a block whose tokens read the image in their boxes."""

    offset_norm: nn.LayerNorm
    offsets: nn.Linear
    grid: nn.Parameter
    mixing: AdaptiveMixing
    reads_edges = False
    """Whether points beyond the map read its nearest edge, and not zero."""
    clamps_gradients = True
    """Whether gradients of points are clamped in training, so that a step is local."""

    @torch.no_grad()
    def reset(self) -> None:
        """Points are a grid in boxes at first."""
        nn.init.constant_(self.offset_norm.weight, self.offset_norm.normalized_shape[0] ** -0.5)
        nn.init.zeros_(self.offsets.weight)
        self.grid.copy_(centered_grid(len(self.grid)))
        self.mixing.reset()

    def read(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> Tensor:
        """-> [batch, n, points, c]"""
        offsets = self.offsets(self.offset_norm(tokens)).unflatten(-1, (-1, 2))
        points = points_in_boxes(boxes, (offsets + self.grid).to(boxes.dtype))
        rows, columns = maps.shape[2:]
        if self.training and self.clamps_gradients:
            points = _ClampedGradient.apply(points, 1 / rows)
        if self.reads_edges:  # up to the outermost cells' centers
            x, y = points.unbind(-1)
            inside = [
                x.clamp(0.5 / columns, 1 - 0.5 / columns),
                y.clamp(0.5 / rows, 1 - 0.5 / rows),
            ]
            points = torch.stack(inside, dim=-1)
        cells = maps.flatten(2).transpose(1, 2)
        read = read_bilinear(cells, (rows, columns), points.flatten(1, 2))
        return read.unflatten(1, points.shape[1:3])


class FocusingBlock(BoxReader):
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
        """See the base; boxes stay where they are at first."""
        super().reset()
        nn.init.constant_(self.box_norm.weight, self.box_norm.normalized_shape[0] ** -0.5)
        nn.init.zeros_(self.move.weight)

    def forward(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        for drop in self.drops:
            tokens = tokens + drop(self.attn(self.norm1(tokens)))
            boxes = moved_boxes(boxes, self.move(self.box_norm(tokens)).to(boxes.dtype))
            tokens = tokens + drop(self.mixing(self.read(tokens, boxes, maps), tokens))
            tokens = tokens + drop(self.mlp(self.norm2(tokens)))
        return tokens, boxes
