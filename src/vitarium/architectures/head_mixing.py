"""Head mixing: what lets blocks with equal matrices attend differently.

Talking heads (Shazeer et al. 2020, arXiv 2003.02436).
"""

from typing import Literal

import torch
from timm.layers.weight_init import trunc_normal_
from torch import Tensor, nn

Start = Literal["trunc_normal", "identity"]


class HeadMixing(nn.Module):
    """A linear map over the heads: [batch, heads, n, m] -> the same.

    What comes out lies in memory with the heads first, and maps that come in so are not copied:
    the map is one product of [heads, heads] and [heads, batch n m], where torch.matmul with the
    maps of several images would copy them.
    """

    def __init__(self, num_heads: int, *, bias: bool = False, start: Start = "identity") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(num_heads))
        self.bias = nn.Parameter(torch.zeros(num_heads)) if bias else None
        if start == "trunc_normal":
            trunc_normal_(self.weight, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        heads_first = maps.transpose(0, 1)
        flat = heads_first.flatten(1)
        if self.bias is None:
            mixed = self.weight @ flat
        else:
            mixed = torch.addmm(self.bias[:, None], self.weight, flat)
        return mixed.view(heads_first.shape).transpose(0, 1)
