"""What a stack is computed with: one module for all of its models, rows of weights, shared outputs.

Under vmap, convolutions of k models become one of k groups. oneDNN chooses how to sum by the number
of groups, so on some processors a model's bits would depend on how many models are beside it. A
batched product of matrices is computed model by model, in an order that does not depend on k.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.data.batch import Batch
from vitarium.training.resume import COMPANIONS
from vitarium.training.train_state import TrainState

_ALIGNED = 16
"""Every weight starts at a multiple of 64 bytes: else how a row is aligned in memory, and with it
which of its numbers go through which instructions, would depend on its place among others."""


class MatmulConv2d(nn.Conv2d):
    """A Conv2d that gathers the patches under its kernel and multiplies them with its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Images [batch, in_channels, height, width] to [batch, out_channels, ...], as Conv2d's."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=mode)
        kernel, dilation, stride = self.kernel_size, self.dilation, self.stride
        patches = F.unfold(padded, kernel, dilation, stride=stride).unflatten(1, (self.groups, -1))
        weight = self.weight.unflatten(0, (self.groups, -1)).flatten(2)
        outputs = torch.einsum("bgcl,goc->bgol", patches, weight).flatten(1, 2)
        height = (padded.shape[-2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
        outputs = outputs.unflatten(2, (height, -1))
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


def stacked_companions(members: Sequence[TrainState]) -> nn.Module | None:
    """A module like what the objective brings beside each model; None: it brings nothing."""
    companions = deepcopy(members[0].companions)
    if companions is not None:
        multiply_convolutions(companions)
    return companions


def with_companions(model: nn.Module, companions: nn.Module | None) -> dict[str, nn.Parameter]:
    """Parameters by name, first the model's; those of the companions have a prefix."""
    weights = dict(model.named_parameters())
    if companions is not None:
        weights |= {COMPANIONS + name: weight for name, weight in companions.named_parameters()}
    return weights


class FlatLayout:
    """Places of the weights in a row; those that are trained come first, as one piece.

    trained: their names, in the order in which they lie.
    trained_size, size: how many numbers they, and all weights, take.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.trained = [name for name, p in parameters.items() if p.requires_grad]
        frozen = [name for name, p in parameters.items() if not p.requires_grad]
        self.shapes = {name: tuple(parameters[name].shape) for name in (*self.trained, *frozen)}
        self._starts: dict[str, int] = {}
        self.size = self.trained_size = 0
        for name, shape in self.shapes.items():
            self._starts[name] = self.size
            self.size += -(-prod(shape) // _ALIGNED) * _ALIGNED
            if name in self.trained:
                self.trained_size = self.size

    def view(self, rows: Tensor, name: str) -> Tensor:
        """A weight's part of a row, in its shape: [..., size] -> [..., *shape], no copy."""
        start, shape = self._starts[name], self.shapes[name]
        return rows[..., start : start + prod(shape)].view(*rows.shape[:-1], *shape)


class SharedOutputs:
    """Outputs of all models for the batches of a split, computed when the first model is scored.

    outputs: images [batch, c, h, w] -> outputs of the k models, [k, batch, outputs].
    """

    def __init__(self, members: Sequence[TrainState], outputs: Callable[[Tensor], Tensor]) -> None:
        self.members, self.outputs = members, outputs
        self._by_batch: dict[Any, Tensor] = {}
        self._current: tuple[Any, Tensor | None] = (None, None)

    def score(self, member: TrainState) -> Any:
        """The member's `score`, remembering which batch is out."""

        def score(split: Any, limit: int | None = None) -> Iterator[Batch]:
            for number, batch in enumerate(member.score_batches(split, limit)):
                self._current = ((split, number), batch.images)
                yield batch

        return score

    @contextmanager
    def used_by(self, k: int) -> Iterator[None]:
        """Inside, the k-th model takes its outputs for such a batch from here."""
        model = self.members[k].model
        forward = model.forward

        def forward_shared(images: Tensor, *more: Any, **named: Any) -> Any:
            key, current = self._current
            if images is not current or more or named:
                return forward(images, *more, **named)
            if key not in self._by_batch:
                self._by_batch[key] = self.outputs(images)
            return self._by_batch[key][k]

        model.forward = forward_shared
        try:
            yield
        finally:
            model.forward = forward
