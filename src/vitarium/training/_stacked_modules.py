"""The module that a stack is computed with: a place for every kind of head, and convolutions as
matrix products, so that a model's bits do not depend on its company.

Under vmap, convolutions of k models become one of k groups. oneDNN chooses how to sum by the number
of groups, so on some processors a model's bits would depend on how many models are beside it. A
batched product of matrices is computed model by model, in an order that does not depend on k.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.training.train_state import TrainState


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


class AnyHead(nn.Module):
    """Heads of several kinds; the buffer `which` says whose outputs count.

    features [batch, num_features] -> outputs [batch, num_outputs]
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.which: Tensor
        self.kinds = list(heads)
        self.heads = nn.ModuleList(heads.values())
        self.register_buffer("which", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.heads[0](features)
        for number, head in enumerate(self.heads[1:], 1):
            outputs = torch.where(self.which == number, head(features), outputs)
        return outputs


def head_of(model: nn.Module) -> nn.Module:
    """The module at the model's `head_prefix`."""
    return model.get_submodule(head_prefix(model))


def stacked_template(members: Sequence[TrainState]) -> tuple[nn.Module, list[dict[str, str]]]:
    """A module with a place for every kind of head, and each model's weight names in it.

    The second is a mapping per model: its own name of a head's weight -> the template's.
    """
    model = deepcopy(members[0].model)
    multiply_convolutions(model)
    kinds = {str(head_of(member.model)): head_of(member.model) for member in members}
    if len(kinds) == 1:
        return model, [{} for _ in members]
    prefix, order = head_prefix(model), list(kinds)
    model.set_submodule(prefix, AnyHead({kind: deepcopy(head) for kind, head in kinds.items()}))
    names = []
    for member in members:
        inside = f"{prefix}.heads.{order.index(str(head_of(member.model)))}"
        head_names = (n for n, _ in member.model.named_parameters() if is_head(member.model, n))
        names.append({name: inside + name.removeprefix(prefix) for name in head_names})
    return model.to(next(members[0].model.parameters()).device), names
