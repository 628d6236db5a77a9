"""A pyramid of convolutional maps beside a ViT, and what its maps' tokens go through."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.bilinear import cell_centers
from vitarium.architectures.injected._deformable_attention import DeformableAttention, Sizes

NORM_EPS = 1e-6


class Maps(NamedTuple):
    """Tokens of maps one after the other, [batch, n, width], and each map's rows and columns."""

    tokens: Tensor
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, maps: list[Tensor]) -> "Maps":
        """Of maps [batch, width, rows, columns]."""
        sizes = tuple((each.shape[2], each.shape[3]) for each in maps)
        return cls(torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1), sizes)

    def apart(self) -> list[Tensor]:
        """The maps, [batch, width, rows, columns] each."""
        parts = self.tokens.split([rows * columns for rows, columns in self.sizes], dim=1)
        return [to_map(part, size) for part, size in zip(parts, self.sizes, strict=True)]

    @property
    def centers(self) -> Tensor:
        """Of all cells, [n, 2]"""
        return torch.cat([cell_centers(size, self.tokens) for size in self.sizes])


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """[batch, rows * columns, width] -> [batch, width, rows, columns]"""
    return tokens.transpose(1, 2).unflatten(2, size)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[batch, width, h, w] -> [batch, width, *size], bilinear"""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def convolved(incoming: int, outgoing: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution, batch normalization and ReLU."""
    convolution = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing), nn.ReLU())


def stem(channels: int, width: int, stride: int) -> nn.Sequential:
    """Three convolutions and a maximum: images [batch, channels, h, w] -> [batch, width, h /
    stride, w / stride], rounded up, for a stride of 1, 2 or 4."""
    return nn.Sequential(
        convolved(channels, width, 2 if stride == 4 else 1),
        convolved(width, width, 1),
        convolved(width, width, 1),
        nn.MaxPool2d(3, 2 if stride > 1 else 1, 1),
    )


class Pyramid(nn.Module):
    """Three maps of one width, the first as fine as half of the stem's: `steps` are 3x3
    convolutions with stride 2, `outputs` 1x1 convolutions to the width."""

    def __init__(self, stem_width: int, width: int) -> None:
        super().__init__()
        w = stem_width
        self.steps = nn.ModuleList(convolved(*each, 2) for each in ((w, 2 * w), (2 * w, 4 * w)))
        self.steps.append(convolved(4 * w, 4 * w, 2))
        self.outputs = nn.ModuleList(nn.Conv2d(each * w, width, 1) for each in (2, 4, 4))
        self.level_embed = nn.Parameter(torch.empty(3, width))

    def forward(self, finest: Tensor) -> Maps:
        """[batch, stem_width, h, w] -> Maps of h/2, h/4 and h/8 rows, rounded up"""
        maps = []
        for step, output, level in zip(self.steps, self.outputs, self.level_embed, strict=True):
            finest = step(finest)
            maps.append(output(finest) + level[:, None, None])
        return Maps.of(maps)


class ConvMlp(nn.Module):
    """An MLP with a depthwise 3x3 convolution of its hidden units, the same one for all maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        self.fc1 = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, sizes: Sizes) -> Tensor:
        """[batch, n, width] of maps of these sizes -> the same"""
        hidden = Maps(self.fc1(tokens), tuple(sizes)).apart()
        mixed = Maps.of([self.depthwise(each) for each in hidden])
        outputs: Tensor = self.fc2(F.gelu(mixed.tokens))
        return outputs


class Reading(nn.Module):
    """Normalized queries read normalized maps by deformable attention."""

    def __init__(self, width: int, maps: int, heads: int, points: int, ratio: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.map_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = DeformableAttention(width, maps, heads, points, ratio)

    def forward(self, queries: Tensor, places: Tensor, maps: Maps) -> Tensor:
        """queries [batch, q, width] at places [q, 2] -> [batch, q, width]"""
        normalized = self.query_norm(queries), places, self.map_norm(maps.tokens), maps.sizes
        read: Tensor = self.attention(*normalized)
        return read


@torch.no_grad()
def initialize(side: nn.Module) -> None:
    """Draw a side network's weights: linear layers truncated normal, convolutions by their fan-out,
    level embeddings normal, deformable attention as its own."""
    for module in side.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Pyramid):
            nn.init.normal_(module.level_embed)
    for module in side.modules():
        if isinstance(module, DeformableAttention):
            module.reset()
