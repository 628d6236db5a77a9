"""Changes of plain weights in factors: linear layers that compute with them, and their merging.

An adapted linear layer keeps its own weight, frozen, under its own name, and has the factors of
its change at `NAME.adaptation`. So the state_dict of an adapted model is the plain one's with more
tensors, of which `.adaptation.` in the name tells; an adaptation's `merge` gives plain weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.adaptations._selection import chosen_blocks
from vitarium.core.errors import InvalidInput

QUERY_KEY_VALUE = ("q", "k", "v")
MATRICES = (*QUERY_KEY_VALUE, "proj", "fc1", "fc2")
"""Of a transformer block: queries, keys and values, the output projection of attention, and both
layers of the MLP."""


class Part(NamedTuple):
    """A matrix [out, in] of a transformer block, as rows [start, stop) of a linear layer's."""

    matrix: str
    start: int
    stop: int


class Factors(nn.Module, ABC):
    """The factors of a linear layer's change; a subclass computes with them."""

    @abstractmethod
    def change(self) -> Tensor:
        """The change of the layer's weight, [out, in]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [..., in] to the change of the outputs, [..., out]"""
        return F.linear(inputs, self.change())


class AdaptedLinear(nn.Linear):
    """A linear layer with a change in factors at `adaptation`."""

    adaptation: Factors

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        # in place: no third tensor of the outputs' size, and nothing has saved this one
        return super().forward(input).add_(self.adaptation(input))


def adapt_linear(layer: nn.Module, factors: Factors) -> None:
    """Let a linear layer compute with factors, in place."""
    layer.__class__ = AdaptedLinear
    layer.adaptation = factors


def matrices_of(
    model: nn.Module, adaptation: str, matrices: Collection[str], blocks: Collection[int] | None
) -> Iterator[tuple[str, nn.Linear, list[Part]]]:
    """Names and linear layers in which these matrices of these blocks lie, with their rows.

    Raises InvalidInput for a matrix that the model does not have, and what it has.
    """
    missing, seen = set(matrices), set()
    for block in chosen_blocks(model, adaptation, blocks):
        for name, layer in model.get_submodule(block).named_modules():
            if type(layer) is not nn.Linear:
                continue
            parts = parts_of(name, layer.out_features)
            chosen = [part for part in parts if part.matrix in matrices]
            if chosen and layer not in seen:
                seen.add(layer)
                missing -= {part.matrix for part in chosen}
                yield f"{block}.{name}", layer, chosen
    if missing:
        raise InvalidInput(
            f"adaptation '{adaptation}': the model's blocks have no matrix "
            f"{', '.join(sorted(missing))} as a linear layer"
        )


def parts_of(layer: str, rows: int) -> list[Part]:
    """Matrices in a linear layer, by its dotted name and number of outputs; none in others."""
    kind = layer.rpartition(".")[2].removesuffix("_proj")
    if kind == "qkv" and rows % 3 == 0:
        third = rows // 3
        return [Part(m, i * third, (i + 1) * third) for i, m in enumerate(QUERY_KEY_VALUE)]
    return [Part(kind, 0, rows)] if kind in MATRICES else []


def check_rank(adaptation: str, rank: int, name: str, layer: nn.Linear, parts: list[Part]) -> None:
    """Raises InvalidInput for factors of a rank that no change of these matrices can have."""
    smallest = min(layer.in_features, *(part.stop - part.start for part in parts))
    if rank > smallest:
        raise InvalidInput(
            f"adaptation '{adaptation}': rank is {rank}, more than the {smallest} rows or columns "
            f"of a matrix in {name}"
        )


def changed(
    name: str,
    weight: Tensor,
    factors: Mapping[str, Tensor],
    change: Callable[[Mapping[str, Tensor]], Tensor],
) -> Tensor:
    """A layer's weight [out, in] with the changes of its matrices, computed in float64.

    Args:
        name: of the weight.
        factors: of the whole model, by name.
        change: of the factors of one matrix [rows, in] its change; they are named as its module
            names them, without the matrix: `A` for `blocks.0.attn.qkv.adaptation.q_A`.
    """
    layer, result = name.removesuffix(".weight"), weight.double()
    for part in parts_of(layer, len(weight)):
        prefix = f"{layer}.adaptation.{part.matrix}_"
        own = {n.removeprefix(prefix): t for n, t in factors.items() if n.startswith(prefix)}
        if own:
            result[part.start : part.stop] += change({n: t.double() for n, t in own.items()})
    return result.to(weight.dtype)


def in_rows(changes: Mapping[Part, Tensor], rows: int) -> Tensor:
    """Changes of matrices, each [stop - start, n], as one [rows, n] that is zero elsewhere."""
    pieces, end = [], 0
    example = next(iter(changes.values()))
    for part, change in changes.items():
        pieces += [example.new_zeros(part.start - end, example.shape[1]), change]
        end = part.stop
    return torch.cat([*pieces, example.new_zeros(rows - end, example.shape[1])])
