"""Task vectors, what models added to their base: trimmed, their signs elected, put together again.

The steps that several operators share. All in float64, a tensor of all models at a time; what needs
the whole vectors goes over them more than once.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.operators.base import NamedTensors

Vectors = Callable[[], Iterator[tuple[str, Tensor, Tensor]]]
"""One more pass over task vectors at every call: a tensor's name, the base's tensor, and what the
models added, float64 [models, *shape], which belongs to whoever asked for it."""

CombinationType = Literal["sum", "mean", "ties"]
"""Task arithmetic's sum, the mean, or the mean of the entries that have the elected sign."""

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
    vector_limits: list[Tensor] = []

    def passes() -> Iterator[tuple[str, Tensor, Tensor]]:
        if over == "vector" and not vector_limits:
            vector_limits.append(
                thresholds(lambda: (deltas for _, _, deltas in vectors()), density)
            )
        for name, base, deltas in vectors():
            limits = vector_limits[0] if vector_limits else _limits(deltas, density)
            for delta, limit in zip(deltas, limits, strict=True):
                delta.mul_(delta.abs().float() >= limit)
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
        undecided = (signs == 0) & _any(deltas)
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


def combine(
    deltas: Tensor,
    weights: Sequence[float],
    combination_type: CombinationType,
    election: Election | None = None,
) -> Tensor:
    """One vector of the models' [models, *shape]. Raises InvalidInput for weights that add up to 0,
    where a mean is asked for."""
    if combination_type == "ties":
        assert election
        return disjoint(deltas, weights, election.signs(deltas))
    total = weighted_sum(deltas, weights)
    if combination_type == "sum":
        return total
    if sum(weights) == 0:
        raise InvalidInput("the models' weights add up to 0: there is no mean")
    return total / sum(weights)


def add_to_base(
    vectors: Vectors,
    weights: Sequence[float],
    combination_type: CombinationType,
    scaling_factor: float,
) -> NamedTensors:
    """Tensor by tensor, the base plus `scaling_factor` times the combined task vectors [*shape]."""
    election = Election(vectors, weights)
    for name, base, deltas in vectors():
        yield name, base + scaling_factor * combine(deltas, weights, combination_type, election)


def _limits(deltas: Tensor, density: float) -> Tensor:
    return thresholds(lambda: iter([deltas]), density)


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
    """In which bin the `wanted`-th from the top lies, and the how-manyth of that bin it is."""
    from_top = counts.flip(1).cumsum(1)
    bins = torch.searchsorted(from_top, ranks[:, None])
    inside = from_top.gather(1, bins) - counts.flip(1).gather(1, bins)
    return counts.shape[1] - 1 - bins[:, 0], ranks - inside[:, 0]


def _any(deltas: Tensor) -> Tensor:
    """Where any of the models has an entry that is not 0."""
    nonzero = deltas[0] != 0
    for delta in deltas[1:]:
        nonzero |= delta != 0
    return nonzero
