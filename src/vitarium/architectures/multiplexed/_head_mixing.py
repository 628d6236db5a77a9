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

    It is a product of [heads, heads] and [heads, n m] for each image: one product for all of them
    would take longer, since that of its gradient is not shared among threads.
    """

    def __init__(self, num_heads: int, *, bias: bool = False, start: Start = "identity") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(num_heads))
        self.bias = nn.Parameter(torch.zeros(num_heads)) if bias else None
        if start == "trunc_normal":
            trunc_normal_(self.weight, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        weight = self.weight.expand(len(maps), -1, -1)
        if self.bias is None:
            mixed = torch.bmm(weight, flat)
        else:
            mixed = torch.baddbmm(self.bias[:, None], weight, flat)
        return mixed.view(maps.shape)
