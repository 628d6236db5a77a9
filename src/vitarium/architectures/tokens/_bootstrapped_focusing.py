"""SparseFormer's focusing as bootstrapped models have it: tokens read, are given the encoding of
their boxes, and attend; boxes move last."""

import math
from collections.abc import Sequence

import torch
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from vitarium.architectures.tokens._focusing import (
    NORM_EPS,
    AdaptiveMixing,
    BoxReader,
    moved_boxes,
)

_HIGHEST = 128.0
_SQUEEZED = 128
"""Width between the two layers that generate matrices."""


def encoded_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes [..., 4] -> [..., width], without gradient: of each coordinate, times pi and width / 4
    frequencies from 1 to 128, evenly spaced in the logarithm, the sines of the 1st, 3rd, ... and
    then the cosines of the 2nd, 4th, ..."""
    steps = torch.linspace(
        0, math.log(_HIGHEST), width // 4, dtype=boxes.dtype, device=boxes.device
    )
    angles = math.pi * boxes.detach().unsqueeze(-1) * steps.exp()
    return torch.cat([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


class ReadingBlock(BoxReader):
    """Tokens read the image in their boxes, and are given the boxes' encoding.

    tokens [batch, n, width], boxes [batch, n, 4], map [batch, c, h, w] -> tokens, boxes
    """

    reads_edges, clamps_gradients = True, False

    def __init__(self, width: int, read: tuple[int, int], drop_path: Sequence[float]) -> None:
        super().__init__()
        channels, points = read  # of the map, and in a box
        self.offset_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.offsets = nn.Linear(width, 2 * points, bias=False)
        self.grid = nn.Parameter(torch.empty(points, 2))
        self.mixing = AdaptiveMixing(width, channels, points, squeezed=_SQUEEZED, bias=False)
        self.encoding = nn.Sequential(nn.LayerNorm(width, eps=NORM_EPS), nn.Linear(width, width))
        self.drops = nn.ModuleList(DropPath(rate) if rate else nn.Identity() for rate in drop_path)

    def forward(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        for drop in self.drops:
            tokens = self.look(tokens, boxes, maps, drop)
        return tokens, boxes

    def look(self, tokens: Tensor, boxes: Tensor, maps: Tensor, drop: nn.Module) -> Tensor:
        """Tokens with what they read and where: [batch, n, width]"""
        tokens = tokens + drop(self.mixing(self.read(tokens, boxes, maps), tokens))
        encoded: Tensor = self.encoding(encoded_boxes(boxes, tokens.shape[-1]).to(tokens.dtype))
        return tokens + encoded


class BootstrappedBlock(ReadingBlock):
    """A transformer block after reading, and then boxes move; it is run several times with the same
    weights, and each time begins with a learned vector of its own."""

    def __init__(
        self,
        width: int,
        heads: int,
        read: tuple[int, int],
        drop_path: Sequence[float],
        mlp_ratio: float,
    ) -> None:
        super().__init__(width, read, drop_path)
        self.repeat_embed = nn.Parameter(torch.empty(len(drop_path), width))
        self.norm1, self.norm2, self.box_norm = (
            nn.LayerNorm(width, eps=NORM_EPS) for _ in range(3)
        )
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        last = nn.Linear(width, 4, bias=False)
        self.move = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)

    @torch.no_grad()
    def reset(self) -> None:
        """See the base; boxes stay where they are at first."""
        super().reset()
        nn.init.normal_(self.repeat_embed)
        nn.init.constant_(self.box_norm.weight, self.box_norm.normalized_shape[0] ** -0.5)
        for parameter in self.move[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, boxes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        for vector, drop in zip(self.repeat_embed, self.drops, strict=True):
            tokens = self.look(tokens + vector, boxes, maps, drop)
            tokens = tokens + drop(self.attn(self.norm1(tokens)))
            tokens = tokens + drop(self.mlp(self.norm2(tokens)))
            boxes = moved_boxes(boxes, self.move(self.box_norm(tokens)).to(boxes.dtype))
        return tokens, boxes
