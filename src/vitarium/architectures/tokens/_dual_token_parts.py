"""Parts of DualToken-ViT: LightViT's stem, merging and gates, ConvNeXt's block, the broadcast."""

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F


class Gate(nn.Module):
    """LightViT's bi-dimensional gate: tokens times a factor of each channel and of each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(width // 4, 1)
        self.norm = nn.LayerNorm(width)
        self.of_mean, self.of_token = nn.Linear(width, inner), nn.Linear(width, inner)
        self.channels, self.tokens = nn.Linear(inner, width), nn.Linear(2 * inner, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, n, width] -> the same"""
        normed = self.norm(tokens)
        mean = F.gelu(self.of_mean(normed.mean(1, keepdim=True)))
        each = F.gelu(self.of_token(normed))
        channel = self.channels(mean).sigmoid()
        token = self.tokens(torch.cat([each, mean.expand_as(each)], dim=-1)).sigmoid()
        return tokens * channel * token


class GatedMlp(nn.Module):
    """Two linear layers with GELU, and a gate: [batch, n, width] -> the same"""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = (
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
            Gate(width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        gated: Tensor = self.gate(self.fc2(F.gelu(self.fc1(tokens))))
        return gated


class Local(nn.Module):
    """ConvNeXt's block: depthwise 7x7, LayerNorm, an MLP, residual.

    [batch, width, h, w] -> the same
    """

    def __init__(self, width: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width, hidden)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        mixed = self.mlp(self.norm(self.depthwise(maps).movedim(1, -1)))
        return maps + self.drop_path(mixed.movedim(-1, 1))


class Broadcast(nn.Module):
    """Tokens attend to the global tokens: linear in their number."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.global_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, global_tokens: Tensor) -> Tensor:
        """[batch, n, width], [batch, g, width] -> [batch, n, width]"""
        q = self.q(self.norm(tokens)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.kv(self.global_norm(global_tokens)).chunk(2, dim=-1)
        )
        read = F.scaled_dot_product_attention(q, k, v)
        outputs: Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return outputs


class Merge(nn.Module):
    """Between stages: 2x2 cells to one, beside their maximum; global tokens to the new width."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, wider, bias=False)
        self.residual = nn.Linear(width, wider, bias=False)
        self.global_norm, self.proj = nn.LayerNorm(width), nn.Linear(width, wider, bias=False)

    def forward(self, maps: Tensor, global_tokens: Tensor) -> tuple[Tensor, Tensor]:
        cells = F.pixel_unshuffle(maps, 2).movedim(1, -1)
        largest = F.max_pool2d(maps, 2).movedim(1, -1)
        merged = self.reduction(self.norm(cells)) + self.residual(largest)
        return merged.movedim(-1, 1), self.proj(self.global_norm(global_tokens))


def reduction_step(width: int) -> nn.Sequential:
    """One step of the reduction: local convolution, then half the size."""
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(width), nn.GELU(), nn.AvgPool2d(2))


def stem(channels: int, width: int, stride: int) -> nn.Sequential:
    """LightViT's stem: a convolution to half the width, three depthwise, one to the width; of the
    three with stride 2 the last ones lose it where the stride is smaller than 8."""
    half = width // 2
    strides = [2 if stride >= least else 1 for least in (2, 4, 8)]
    layers: list[nn.Module] = []
    for number, step in enumerate((strides[0], 1, 1, strides[1])):
        incoming, groups = (channels, 1) if number == 0 else (half, half)
        layers += [nn.Conv2d(incoming, half, 3, step, 1, groups=groups, bias=False)]
        layers += [nn.BatchNorm2d(half), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(half, width, 3, strides[2], 1))
