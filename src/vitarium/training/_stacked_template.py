"""The module that a stack is computed with: it has a place for every kind of head in the stack."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.training._stacked_convolution import multiply_convolutions
from vitarium.training.train_state import TrainState


def stacked_template(members: Sequence[TrainState]) -> tuple[nn.Module, list[dict[str, str]]]:
    """A module with a place for every kind of head, and each model's weight names in it.

    The second is a mapping per model: its own name of a head's weight -> the template's.
    """
    model = deepcopy(members[0].model)
    multiply_convolutions(model)
    kinds = {str(head_of(member.model)): head_of(member.model) for member in members}
    if len(kinds) == 1:
        return model, [{} for _ in members]
    prefix = head_prefix(model)
    model.set_submodule(prefix, AnyHead({kind: deepcopy(head) for kind, head in kinds.items()}))
    order = list(kinds)
    names = []
    for member in members:
        number = order.index(str(head_of(member.model)))
        head_names = [
            name for name, _ in member.model.named_parameters() if is_head(member.model, name)
        ]
        inside = f"{prefix}.heads.{number}"
        names.append({name: inside + name.removeprefix(prefix) for name in head_names})
    return model.to(next(members[0].model.parameters()).device), names


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
