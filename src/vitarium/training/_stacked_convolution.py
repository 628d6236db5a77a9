"""Convolutions as matrix products, so that a stack's bits do not depend on its company.

Under vmap, convolutions of k models become one of k groups. oneDNN chooses how to sum by the number
of groups, so on some processors a model's bits would depend on how many models are beside it. A
batched product of matrices is computed model by model, in an order that does not depend on k.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MatmulConv2d(nn.Conv2d):
    """A Conv2d that gathers the patches under its kernel and multiplies them with its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Images [batch, in_channels, height, width] to [batch, out_channels, ...], as Conv2d's."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=mode)
        kernel, dilation, stride = (
            cast(tuple[int, int], pair) for pair in (self.kernel_size, self.dilation, self.stride)
        )
        height, width = (
            (size - step * (extent - 1) - 1) // pace + 1
            for size, extent, step, pace in zip(
                padded.shape[-2:], kernel, dilation, stride, strict=True
            )
        )
        patches = F.unfold(padded, kernel, dilation, stride=stride)
        batch, groups = len(input), self.groups
        patches = patches.view(batch, groups, -1, height * width)
        weight = self.weight.reshape(groups, self.out_channels // groups, -1)
        outputs = torch.einsum("bgcl,goc->bgol", patches, weight).reshape(batch, -1, height, width)
        return outputs if self.bias is None else outputs + self.bias.view(-1, 1, 1)


def multiply_convolutions(model: nn.Module) -> None:
    """Make every Conv2d of a model, in place, a MatmulConv2d with the same weights."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = MatmulConv2d
