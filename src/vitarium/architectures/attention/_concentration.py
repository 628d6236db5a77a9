"""The blocks of L2ViT: attention in windows, and linear attention with local concentration.

Zheng 2025, arXiv 2501.16182. Maps are [batch, rows, columns, channels].
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.attention._heads import Heads
from vitarium.architectures.attention._kernelized import linear_attention


def convolved(maps: Tensor, convolution: Callable[[Tensor], Tensor]) -> Tensor:
    """By what takes and gives [batch, channels, rows, columns]."""
    return convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class WindowAttention(Heads):
    """Softmax attention inside of windows that are not shifted, without position bias.

    A map that the window does not divide is padded by zeros, which are attended to.
    """

    window: int
    fused_attn = True

    def mix(self, maps: Tensor) -> Tensor:
        """[batch, rows, columns, dim] -> the same."""
        rows, columns = maps.shape[1:3]
        side = self.window
        padded = F.pad(maps, (0, 0, 0, -columns % side, 0, -rows % side))
        down, across = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.unflatten(2, (across, side)).unflatten(1, (down, side)).transpose(2, 3)
        tokens = super().mix(windows.flatten(3, 4).flatten(0, 2))
        mixed = tokens.unflatten(0, (-1, down, across)).unflatten(3, (side, side)).transpose(2, 3)
        return mixed.flatten(3, 4).flatten(1, 2)[:, :rows, :columns]

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[windows, heads, n, head_dim] each -> the same."""
        if self.fused_attn:
            return F.scaled_dot_product_attention(query, key, value)
        logits = (query * self.scale) @ key.transpose(-2, -1)
        probabilities: Tensor = self.attn_drop(logits.softmax(-1))
        return probabilities @ value


class GlobalAttention(Heads):
    """Linear attention by relu over the whole map, times a learned `temperature` for each head."""

    min_denominator: float

    def __init__(self, dim: int, num_heads: int, **settings: Any) -> None:
        super().__init__(dim, num_heads, **settings)
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), self.scale))

    def mix(self, maps: Tensor) -> Tensor:
        """[batch, rows, columns, dim] -> the same."""
        return super().mix(maps.flatten(1, 2)).view_as(maps)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[batch, heads, n, head_dim] each -> the same."""
        attended = linear_attention(F.relu(query), F.relu(key), value, self.min_denominator)
        return self.temperature * attended


class Concentration(nn.Module):
    """LCM: two depth-wise convolutions of 7 by 7, with GELU and batch normalization between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = depthwise(channels, 7), depthwise(channels, 7)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return convolved(maps, lambda map_: self.conv2(self.bn(F.gelu(self.conv1(map_)))))


class _Block(nn.Module):
    """What the two kinds of blocks share: maps [batch, rows, columns, dim] -> the same."""

    def __init__(self, attention: Heads, mlp_ratio: float, proj_drop: float, rate: float) -> None:
        super().__init__()
        dim = attention.attn_dim
        self.position = depthwise(dim, 3)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = attention
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path = DropPath(rate) if rate else nn.Identity()

    def _attended(self, maps: Tensor) -> Tensor:
        maps = maps + convolved(maps, self.position)
        attended: Tensor = maps + self.drop_path(self.attn(self.norm1(maps)))
        return attended

    def _transformed(self, maps: Tensor) -> Tensor:
        transformed: Tensor = maps + self.drop_path(self.mlp(self.norm2(maps)))
        return transformed


class LocalBlock(_Block):
    """LWA: attention in windows and an MLP, with a 3 by 3 convolution for positions before each."""

    def __init__(self, attention: Heads, *settings: float) -> None:
        super().__init__(attention, *settings)
        self.position2 = depthwise(attention.attn_dim, 3)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self._attended(maps)
        return self._transformed(maps + convolved(maps, self.position2))


class GlobalBlock(_Block):
    """LGA: linear attention, local concentration, and an MLP."""

    def __init__(self, attention: Heads, *settings: float) -> None:
        super().__init__(attention, *settings)
        self.norm3 = nn.LayerNorm(attention.attn_dim)
        self.concentration = Concentration(attention.attn_dim)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self._attended(maps)
        maps = maps + self.drop_path(self.concentration(self.norm3(maps)))
        return self._transformed(maps)
