"""Queries, keys and values as three layers, in the place of the one that timm fuses them in."""

import torch
from torch import Tensor, nn


class QueryKeyValue(nn.Module):
    """Inputs [..., width] to queries, keys and values side by side [..., 3 * attention width]."""

    def __init__(self, q: nn.Module, k: nn.Module, v: nn.Module) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] -> [..., 3 * width]"""
        return torch.cat([self.q(inputs), self.k(inputs), self.v(inputs)], dim=-1)
