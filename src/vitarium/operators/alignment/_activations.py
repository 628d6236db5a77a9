"""How alike units of two models react to the same images."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Piece, Symmetries
from vitarium.evaluation.data import EvalData
from vitarium.operators.base import Ingredients

Key = tuple[str, int]
"""A group, and the number of a place where it is seen."""
By = Literal["correlation", "covariance", "product"]


@dataclass(frozen=True)
class Place:
    """Where a group's units can be seen: at the input or the output of a linear layer."""

    layer: str
    end: Literal["input", "output"]
    start: int
    stop: int | None
    """Which of the features."""
    shape: tuple[int, ...]
    """What the features are seen as."""
    axes: tuple[int, ...]
    """Of the shape: the units'; of units inside a group, that group's and theirs."""

    def units(self, features: Tensor) -> Tensor:
        """[..., features] -> [samples, units]; whatever else is on the axes counts as samples."""
        seen = features[..., self.start : self.stop].reshape(-1, *self.shape)
        last = tuple(range(seen.ndim - len(self.axes), seen.ndim))
        seen = seen.movedim(tuple(axis + 1 for axis in self.axes), last)
        return seen.flatten(-len(self.axes)).flatten(0, -2)


def unit_scores(
    symmetries: Symmetries,
    models: Sequence[nn.Module],
    examples: EvalData,
    by: By,
    batch_size: int,
    ingredients: Ingredients,
) -> dict[str, Tensor]:
    """How alike unit i of the first model and unit j of the second are, summed over the places.

    By group, float64 on the CPU: [n, n], or of units inside a group [places, n, places, n].
    A unit that never changes is like no other by correlation.
    """
    where = places(symmetries, models[0])
    sums: dict[Key, _Sums] = defaultdict(_Sums)
    batches = -(-len(examples) // batch_size)
    first: dict[Key, Tensor] = {}
    for number, batch in enumerate(examples.batches(batch_size)):
        ingredients.report(number, batches)
        _see(models[0], where, batch.images, first.__setitem__)
        _see(models[1], where, batch.images, lambda key, it: sums[key].add(first.pop(key), it))
    scores: dict[str, Tensor] = {}
    for (name, _), each in sums.items():
        found = each.scores(by).cpu()
        group = symmetries.groups[name]
        if group.inside:
            shape = (symmetries.groups[group.inside].size, group.size)
            found = found.reshape(shape + shape)
        scores[name] = scores[name] + found if name in scores else found
    return scores


def places(symmetries: Symmetries, model: nn.Module) -> dict[str, list[Place]]:
    """Where units can be seen: at what reads them, after the activation function.

    Those that no layer reads, the channels of queries and keys, where they are written.
    """
    found: dict[str, list[Place]] = {}
    for name, group in symmetries.groups.items():
        outer = [group.inside] if group.inside else []
        each = [
            place
            for piece, _ in symmetries.having(name)
            if (place := _place(piece, [*outer, name], model)) is not None
        ]
        read = [place for place in each if place.end == "input"]
        found[name] = list(dict.fromkeys(read or each))  # queries, keys and values read the same
    return found


def _place(piece: Piece, groups: Sequence[str], model: nn.Module) -> Place | None:
    layer, _, kind = piece.tensor.rpartition(".")
    module = model.get_submodule(layer) if layer else model
    if kind != "weight" or not isinstance(module, nn.Linear):
        return None
    written, size = 0, 1  # how many axes are the output's
    while size < len(module.weight[piece.start : piece.stop]):
        size *= piece.shape[written]
        written += 1
    axes = tuple(n for n in map(piece.place, groups) if n is not None)
    if min(axes) < written:
        return Place(layer, "output", piece.start, piece.stop, piece.shape[:written], axes)
    inner = tuple(axis - written for axis in axes)
    return Place(layer, "input", 0, None, piece.shape[written:], inner)


def _see(
    model: nn.Module,
    where: Mapping[str, Sequence[Place]],
    images: Tensor,
    note: Callable[[Key, Tensor], None],
) -> None:
    """Give what every place holds, [samples, units], as soon as it is there."""

    def look(key: Key, place: Place, _: nn.Module, inputs: Any, output: Tensor) -> None:
        note(key, place.units(inputs[0] if place.end == "input" else output))

    with ExitStack() as hooks, torch.no_grad():
        for group, each in where.items():
            for number, place in enumerate(each):
                layer, hook = (
                    model.get_submodule(place.layer),
                    partial(look, (group, number), place),
                )
                hooks.callback(layer.register_forward_hook(hook).remove)
        model(images)


class _Sums:
    """Of two models' units over samples, float64.

    From each unit its mean in the first batch is taken away, so that products in float32 lose
    nothing where a unit's mean is far greater than its changes.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shifts: list[Tensor] = []
        self.products: Tensor | float = 0.0
        self.totals: list[Tensor | float] = [0.0, 0.0]
        self.squares: list[Tensor | float] = [0.0, 0.0]

    def add(self, one: Tensor, other: Tensor) -> None:
        """[samples, units] of each."""
        self.count += len(one)
        self.shifts = self.shifts or [one.mean(0), other.mean(0)]
        one, other = one - self.shifts[0], other - self.shifts[1]
        self.products = self.products + (one.T @ other).double()
        for number, seen in enumerate((one, other)):
            self.totals[number] = self.totals[number] + seen.sum(0, dtype=torch.float64)
            self.squares[number] = self.squares[number] + seen.double().square().sum(0)

    def scores(self, by: By) -> Tensor:
        """[units, units]"""
        left = [torch.as_tensor(total) / self.count for total in self.totals]
        means = [shift + mean for shift, mean in zip(self.shifts, left, strict=True)]
        found = torch.as_tensor(self.products) / self.count - torch.outer(*left)
        if by == "product":
            return found + torch.outer(*means)
        if by == "correlation":
            shares = []
            for square, mean, whole in zip(self.squares, left, means, strict=True):
                variance = torch.as_tensor(square) / self.count - mean.square()
                still = variance <= 1e-12 * whole.square()  # what rounding leaves of no change
                shares.append(variance.clamp(min=1e-300).rsqrt().masked_fill(still, 0))
            found = found * torch.outer(*shares)
        return found
