"""Task vectors, what models added to their base, in float64, a tensor of all models at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.core.seeds import derive
from vitarium.operators.base import Ingredients, NamedTensors
from vitarium.operators.weighting import Weighted

Vectors = Callable[[], Iterator[tuple[str, Tensor, Tensor]]]
"""One more pass over task vectors at every call: a tensor's name, the base's tensor, and what the
models added, float64 [models, *shape], which belongs to whoever asked for it."""

CombinationType = Literal["sum", "mean", "ties"]
"""Task arithmetic's sum, the mean, or the mean of the entries that have the elected sign."""

Rescale = Literal["exact", "l1"]
"""By 1 / (1 - p), as the papers do, or to the L1 norm that the tensor had, as mergekit does."""

_LOW_BITS = 15
_BINS = 1 << 16


def thresholds(parts: Callable[[], Iterator[Tensor]], density: float) -> Tensor:
    """The magnitudes that the largest `density` of entries have, row by row: float32 [rows].

    Args:
        parts: one more pass over the entries at every call: tensors [rows, *any].
        density: share in (0, 1]; of n entries int(density n), and at least one.

    Exact, for magnitudes in float32, and in constant memory: the first pass counts the upper half
    of their bits, which sort as the numbers do, the second the lower half where it matters.
    """
    upper = _counted(parts, lambda bits, row: bits >> _LOW_BITS)
    ranks = (upper.sum(1).double() * density).long().clamp(min=1)
    high, ranks = _bin_of(upper, ranks)
    mask = (1 << _LOW_BITS) - 1
    lower = _counted(parts, lambda bits, row: bits[bits >> _LOW_BITS == high[row]] & mask)
    low, _ = _bin_of(lower, ranks)
    return ((high << _LOW_BITS) | low).int().view(torch.float32)


def trimmed(
    vectors: Vectors, density: float, over: Literal["vector", "tensor"] = "vector"
) -> Vectors:
    """The largest `density` of every model's entries, of its whole vector or of each tensor.

    Of entries that are as large as the last one kept, all are kept.
    """
    if density >= 1:
        return vectors

    @cache
    def vector_limits() -> Tensor:
        return thresholds(lambda: (deltas for _, _, deltas in vectors()), density)

    def passes() -> Iterator[tuple[str, Tensor, Tensor]]:
        if over == "vector":
            vector_limits()  # before the pass that it is for
        for name, base, deltas in vectors():
            single = partial(iter, [deltas])
            limits = vector_limits() if over == "vector" else thresholds(single, density)
            for delta, limit in zip(deltas, limits, strict=True):
                delta.mul_(delta.abs().float() >= limit)
            yield name, base, deltas

    return passes


def draws(ingredients: Ingredients, seed: int, name: str) -> Iterator[Tensor]:
    """For each model, uniform numbers in [0, 1) for the entries of a tensor.

    A model's stream is named by the model and the tensor, and the how-manyth of its copies it is:
    what is drawn does not depend on the order of the models, nor on which others there are.
    """
    copies: Counter[str] = Counter()
    for model in ingredients:
        stream = derive(seed, "drop", model.name, copies[model.name], name)
        copies[model.name] += 1
        generator = torch.Generator().manual_seed(stream)
        yield torch.rand(ingredients.shapes[name], generator=generator, dtype=torch.float64)


def randomly_dropped(
    ingredients: Ingredients,
    seed: int,
    keep: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float]],
    rescale: Rescale,
) -> Vectors:
    """Task vectors with entries dropped at random, and the others made larger: for DARE and DELLA.

    Args:
        keep: which entries of a task vector [*shape] are kept, by uniform numbers [*shape], and the
            probability [] or [*shape] of that.
    """

    def passes() -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, base, deltas in ingredients.deltas():
            for delta, drawn in zip(deltas, draws(ingredients, seed, name), strict=True):
                mask, share = keep(delta, drawn.to(delta.device))
                if rescale == "exact":
                    delta.copy_((delta / share).where(mask, 0))
                    continue
                left = delta.where(mask, 0)
                before, after = delta.abs().sum(), left.abs().sum()
                delta.copy_(left * (before / after) if after > 0 else left)
            yield name, base, deltas

    return passes


class Election:
    """The signs that entries of the merged vector have: of the sum over models.

    Where they cancel out, it is the sign that more of the whole vector's entries have (Yadav et al.
    2023, App. C.4 of arXiv 2306.01708, as in its code); if neither has more, the entry is 0.
    """

    def __init__(self, vectors: Vectors, weights: Sequence[float]) -> None:
        self._vectors, self._weights = vectors, weights

    def signs(self, deltas: Tensor) -> Tensor:
        """-1, 0 or 1 for each entry, [models, *shape] -> [*shape]; 0 where all models have 0."""
        signs = weighted_sum(deltas, self._weights).sign()
        nonzero = deltas[0] != 0
        for delta in deltas[1:]:  # one after the other takes little memory
            nonzero |= delta != 0
        undecided = (signs == 0) & nonzero
        if undecided.any():
            signs[undecided] = self._majority
        return signs

    @cached_property
    def _majority(self) -> float:
        votes = 0.0
        for _, _, deltas in self._vectors():
            votes += float(weighted_sum(deltas, self._weights).sign().sum())
        return float((votes > 0) - (votes < 0))


def weighted_sum(deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Of models' vectors [models, *shape]; one after the other, so that it takes little memory."""
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total.add_(delta, alpha=weight)
    return total


def disjoint(deltas: Tensor, weights: Sequence[float], signs: Tensor, mean: bool = True) -> Tensor:
    """Disjoint mean (or sum) of deltas [models, *shape]: over the models with the elected sign.

    signs: [*shape]; 0 where no model has that sign.
    """
    total, share = torch.zeros_like(signs), torch.zeros_like(signs)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = (weight * delta * signs > 0).to(delta.dtype)
        total.addcmul_(delta, agrees, value=weight)
        share.add_(agrees, alpha=weight)
    return total / share.where(share != 0, 1) if mean else total


def combined(
    vectors: Vectors, weights: Sequence[float], combination_type: CombinationType, mean: bool = True
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """By name, the base's tensor [*shape] and all task vectors as one, of that shape.

    mean: with "ties", whether it is the mean of the entries with the elected sign, or their sum.
    """
    election = Election(vectors, weights)
    for name, base, deltas in vectors():
        if combination_type == "ties":
            merged = disjoint(deltas, weights, election.signs(deltas), mean)
        else:
            merged = weighted_sum(deltas, weights)
        yield name, base, merged / sum(weights) if combination_type == "mean" else merged


class Scaled(Weighted):
    """Base of the settings: how much of the merged task vector is added to the base."""

    scaling_factor: float = 1.0
    """Factor of the merged task vector."""

    def merge(
        self, ingredients: Ingredients, vectors: Vectors, combination_type: CombinationType
    ) -> NamedTensors:
        """Tensor by tensor, the base plus a multiple of the combined task vectors [*shape].

        Raises InvalidInput for weights that add up to 0, where a mean is asked for.
        """
        weights = self.of(ingredients)
        if combination_type == "mean" and sum(weights) == 0:
            raise InvalidInput("the models' weights add up to 0: there is no mean")
        for name, base, merged in combined(vectors, weights, combination_type):
            yield name, base + self.scaling_factor * merged


def _counted(
    parts: Callable[[], Iterator[Tensor]], bins: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """How many entries of each row lie in each bin: [rows, bins]."""
    counts: Tensor | None = None
    for part in parts():
        if counts is None:
            counts = part.new_zeros(len(part), _BINS, dtype=torch.long)
        for number, row in enumerate(part):
            bits = row.abs().float().flatten().view(torch.int32)
            counts[number] += torch.bincount(bins(bits, number), minlength=_BINS)
    assert counts is not None, "models have tensors"
    return counts


def _bin_of(counts: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """In which bin each rank from the top lies, and the how-manyth of that bin it is."""
    from_top = counts.flip(1).cumsum(1)
    bins = torch.searchsorted(from_top, ranks[:, None])
    inside = from_top.gather(1, bins) - counts.flip(1).gather(1, bins)
    return counts.shape[1] - 1 - bins[:, 0], ranks - inside[:, 0]
