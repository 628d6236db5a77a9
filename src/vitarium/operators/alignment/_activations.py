"""How alike units of two models react to the same images."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vitarium.architectures.features import at_full_depth
from vitarium.architectures.symmetries.base import Piece, Symmetries
from vitarium.core.errors import IncompatibleWeights
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.scoring import load
from vitarium.operators.base import Ingredients

Key = tuple[str, int]
"""A group, and the number of a place where it is seen."""
By = Literal["correlation", "covariance", "product"]


class Probe(NamedTuple):
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
    ranges: tuple[tuple[int, int] | None, ...]
    """Of each axis of the shape, from where to where; None, or left out: all of it."""

    def units(self, features: Tensor) -> Tensor:
        """[..., features] -> [samples, units]; whatever else is on the axes counts as samples."""
        samples = features[..., self.start : self.stop].reshape(-1, *self.shape)
        for axis, ends in enumerate(self.ranges, start=1):
            if ends is not None:
                samples = samples.narrow(axis, ends[0], ends[1] - ends[0])
        last = tuple(range(samples.ndim - len(self.axes), samples.ndim))
        samples = samples.movedim(tuple(axis + 1 for axis in self.axes), last)
        return samples.flatten(-len(self.axes)).flatten(0, -2)


def running_models(ingredients: Ingredients, *weights: Mapping[str, Tensor]) -> list[nn.Module]:
    """Running models with those weights [*shape] by name."""
    models = [ingredients.model() for _ in weights]
    for model, state in zip(models, weights, strict=True):
        load(model, state)
    return models


def images_of_both(ingredients: Ingredients, count: int) -> tuple[EvalData, EvalData]:
    """At most `count` images, the same ones, as either of two models sees them."""
    first, second = (ingredients.examples(number) for number in range(2))
    chosen = first.first(count)
    return chosen, chosen if second is first else second.first(count)


def unit_scores(
    ingredients: Ingredients,
    models: list[nn.Module],
    examples: tuple[EvalData, EvalData],
    by: By,
    batch_size: int,
) -> dict[str, Tensor]:
    """How alike unit i of the first model and unit j of the second are, summed over the places.

    `examples` are the same images, as either model sees them. By group, float64 on the CPU:
    [n, n], or of units inside a group [places, n, places, n]. A unit that never changes is like no
    other by correlation.
    """
    groups = ingredients.symmetries.groups
    where = probes(ingredients.symmetries, models[0])
    sums: dict[Key, _Sums] = defaultdict(_Sums)
    first: dict[Key, Tensor] = {}
    for number, images in enumerate(_batches(*examples, batch_size)):
        ingredients.report(number, -(-len(examples[0]) // batch_size))
        _record(models[0], where, images[0], first.__setitem__)
        _record(models[1], where, images[1], lambda key, it: sums[key].add(first.pop(key), it))
    scores: dict[str, Tensor] = {}
    for (name, _), group_sums in sums.items():
        group_scores = group_sums.scores(by).cpu()
        if outer := groups[name].inside:
            shape = (groups[outer].size, groups[name].size)
            group_scores = group_scores.reshape(shape + shape)
        scores[name] = scores[name] + group_scores if name in scores else group_scores
    return scores


def _batches(first: EvalData, second: EvalData, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of both, [b, c, h, w] each; what is the same is decoded once."""
    if first is second:
        yield from ((batch.images, batch.images) for batch in first.batches(size))
        return
    for batch, other_batch in zip(first.batches(size), second.batches(size), strict=True):
        yield batch.images, other_batch.images


def probes(symmetries: Symmetries, model: nn.Module) -> dict[str, list[Probe]]:
    """Where units can be seen: at what reads them, after the activation function.

    Those that no layer reads, the channels of queries and keys, where they are written. Raises
    IncompatibleWeights for units that no linear layer reads or writes.
    """
    by_group: dict[str, list[Probe]] = {}
    for name, group in symmetries.groups.items():
        names = [group.inside, name] if group.inside else [name]
        candidates = [_probe(piece, names, model) for piece, _ in symmetries.having(name)]
        written = [probe for probe in candidates if probe is not None]
        read = [probe for probe in written if probe.end == "input"]
        # queries, keys and values read the same
        by_group[name] = list(dict.fromkeys(read or written))
        if not written:
            raise IncompatibleWeights(
                f"{name}: activations are seen at linear layers, and none reads or writes these "
                "units; align by weights, e.g. by weight_matching"
            )
    return by_group


def _probe(piece: Piece, groups: Sequence[str], model: nn.Module) -> Probe | None:
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
        ranges = piece.ranges[:written]
        return Probe(layer, "output", piece.start, piece.stop, piece.shape[:written], axes, ranges)
    inner = tuple(axis - written for axis in axes)
    return Probe(layer, "input", 0, None, piece.shape[written:], inner, piece.ranges[written:])


def _record(
    model: nn.Module,
    where: Mapping[str, Sequence[Probe]],
    images: Tensor,
    note: Callable[[Key, Tensor], None],
) -> None:
    """Give what every place holds, [samples, units], as soon as it is there."""

    def look(key: Key, probe: Probe, _: nn.Module, inputs: Any, output: Tensor) -> None:
        note(key, probe.units(inputs[0] if probe.end == "input" else output))

    with ExitStack() as hooks, torch.no_grad(), at_full_depth(model):
        for group, group_probes in where.items():
            for number, probe in enumerate(group_probes):
                layer = model.get_submodule(probe.layer)
                see = partial(look, (group, number), probe)
                hooks.enter_context(layer.register_forward_hook(see))
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

    def add(self, first: Tensor, second: Tensor) -> None:
        """[samples, units] of each."""
        self.count += len(first)
        self.shifts = self.shifts or [first.mean(0), second.mean(0)]
        first, second = first - self.shifts[0], second - self.shifts[1]
        self.products = self.products + (first.T @ second).double()
        for number, centered in enumerate((first, second)):
            self.totals[number] = self.totals[number] + centered.sum(0, dtype=torch.float64)
            self.squares[number] = self.squares[number] + centered.double().square().sum(0)

    def scores(self, by: By) -> Tensor:
        """[units, units]"""
        left = [torch.as_tensor(total) / self.count for total in self.totals]
        means = [shift + mean for shift, mean in zip(self.shifts, left, strict=True)]
        scores = torch.as_tensor(self.products) / self.count - torch.outer(*left)
        if by == "product":
            return scores + torch.outer(*means)
        if by == "correlation":
            shares = []
            for square, mean, full_mean in zip(self.squares, left, means, strict=True):
                variance = torch.as_tensor(square) / self.count - mean.square()
                still = variance <= 1e-12 * full_mean.square()  # what rounding leaves of no change
                shares.append(variance.clamp(min=1e-300).rsqrt().masked_fill(still, 0))
            scores = scores * torch.outer(*shares)
        return scores
