"""The projection head of self-distillation: what scores features against prototypes."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast


class ProjectionHead(nn.Module):
    """Linear layers with GELU in between, an L2 norm, and a layer of weight-normed prototypes
    (Caron et al. 2021, arXiv 2104.14294, App. C).

    features [..., width] -> logits [..., prototypes], cosines and their gains in float32
    """

    def __init__(
        self,
        width: int,
        *,
        prototypes: int,
        hidden_dim: int,
        bottleneck_dim: int,
        layers: int,
        trains_gain: bool,
    ) -> None:
        super().__init__()
        widths = [width, *[hidden_dim] * (layers - 1), bottleneck_dim]
        linear = [nn.Linear(before, after) for before, after in pairwise(widths)]
        for layer in linear:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        activated = [part for layer in linear[:-1] for part in (layer, nn.GELU())]
        self.mlp = nn.Sequential(*activated, linear[-1])
        self.prototypes = Prototypes(bottleneck_dim, prototypes, trains_gain=trains_gain)

    def forward(self, features: Tensor) -> Tensor:
        bottleneck = self.mlp(features).float()
        # autocast would round cosines to 8 bits, which the temperatures then magnify
        with without_autocast(bottleneck):
            logits: Tensor = self.prototypes(F.normalize(bottleneck, dim=-1))
        return logits


class Prototypes(nn.Module):
    """A linear layer without bias whose rows have a direction and a length of their own.

    Its gradients are zero while the buffer `learns` is False: then optimizers may change how long
    the vectors of directions are, by weight decay, but not where they point.

    [..., width] -> [..., count]
    """

    def __init__(self, width: int, count: int, *, trains_gain: bool) -> None:
        super().__init__()
        self.learns: Tensor
        self.direction = nn.Parameter(nn.Linear(width, count, bias=False).weight.detach())
        self.gain = nn.Parameter(torch.ones(count, 1), requires_grad=trains_gain)
        self.register_buffer("learns", torch.tensor(True), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.gain * F.normalize(self.direction, dim=1)
        return F.linear(features, torch.where(self.learns, rows, rows.detach()))
