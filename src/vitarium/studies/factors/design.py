"""The design of a stage: main effects and interactions of pairs of factors, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vitarium.studies.factors.coding import Coded
from vitarium.studies.statistics.bootstrap import Numbers

MAX_COLUMNS = 160
MAX_SHARE = 0.65
"""Of coefficients, of the number of models: with more, noise would be taken for effects."""
_TOLERANCE = 1e-6
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Term:
    """The main effect of a factor, or the interaction of two."""

    factors: tuple[int, ...]
    columns: Indices
    """Of the design."""
    raw: Indices
    """Which of the products of the factors' columns these are; the others depend on earlier
    terms."""
    num_raw: int  # products that there are


@dataclass(frozen=True, eq=False)
class Design:
    """Columns [models, p]: the mean, then the terms', then those of the parents beyond them."""

    factors: Sequence[Coded]
    matrix: Numbers
    terms: Sequence[Term]
    parents: Indices
    """[models]: which parent each model has; empty where parents make no difference."""
    parent_columns: Indices

    @property
    def is_between(self) -> NDArray[np.bool_]:
        """[terms]: whether a term is the same for all children of each parent."""
        if not len(self.parents):
            return np.zeros(len(self.terms), dtype=bool)
        first = np.unique(self.parents, return_index=True)[1][self.parents]
        same = [
            np.allclose(self.matrix[:, t.columns], self.matrix[first][:, t.columns])
            for t in self.terms
        ]
        return np.array(same, dtype=bool)

    def products(self, term: Term, points: Sequence[Sequence[object]]) -> Numbers:
        """A term's columns [points, columns] where its factors have these values [factors][points],
        in the order of `term.factors`."""
        first, *others = (
            self.factors[index].at(values)
            for index, values in zip(term.factors, points, strict=True)
        )
        for other in others:
            first = _products(first, other)
        return first[:, term.raw]


def design_of(
    factors: Sequence[Coded],
    parents: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    is_low: bool = False,
) -> Design:
    """All main effects, and the interactions of these pairs of factors; None: of all.

    Args:
        parents: [models], of whom the children are alike; None: models are independent.
        is_low: interactions of the lowest degree alone.
    """
    pairs = list(combinations(range(len(factors)), 2)) if pairs is None else pairs
    keys: list[tuple[int, ...]] = [(index,) for index in range(len(factors))]
    builder = _Columns(len(factors[0].values))
    terms = []
    for key in (*keys, *pairs):
        raw, allowed = _raw(factors, key, is_low=is_low)
        chosen = [number for number in allowed if builder.add(raw[:, number])]
        at = np.arange(builder.count - len(chosen), builder.count)
        terms.append(Term(key, at, np.array(chosen, dtype=np.int64), len(allowed)))
    count = builder.count
    codes = np.empty(0, dtype=np.int64)
    if parents is not None:
        names, codes = np.unique(np.asarray(parents), return_inverse=True)
        first = np.unique(codes, return_index=True)[1][codes]
        matrix = builder.matrix
        between = [c for c in range(count) if np.allclose(matrix[:, c], matrix[first, c])]
        rest = np.eye(len(names))[codes]
        rest = rest - matrix[:, between] @ np.linalg.lstsq(matrix[:, between], rest, rcond=None)[0]
        left, singular, _ = np.linalg.svd(rest, full_matrices=False)
        for column in left[:, singular > _TOLERANCE].T:
            builder.add(column * np.sqrt(len(codes)))
    columns = np.arange(count, builder.count)
    return Design(factors, builder.matrix, terms, codes, columns)


def _raw(
    factors: Sequence[Coded], key: tuple[int, ...], *, is_low: bool
) -> tuple[Numbers, list[int]]:
    """Products of the factors' columns [models, n], and which of them may be in the design."""
    first = factors[key[0]]
    if len(key) == 1:
        return first.basis, list(range(first.basis.shape[1]))
    second = factors[key[1]]
    raw = _products(first.basis, second.basis)
    degrees = first.degrees[:, None] + second.degrees[None, :]
    if is_low:
        limit = 2
    elif first.is_continuous or second.is_continuous:
        limit = 3
    else:
        limit = int(degrees.max(initial=0))
    return raw, [int(number) for number in np.flatnonzero(degrees.ravel() <= limit)]


def _products(first: Numbers, second: Numbers) -> Numbers:
    """[n, a], [n, b] -> [n, a * b]"""
    return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)


class _Columns:
    """Columns that do not depend on each other, the mean first."""

    def __init__(self, models: int) -> None:
        self._columns = [np.ones(models)]
        self._orthonormal = np.full((models, 1), models**-0.5)

    @property
    def count(self) -> int:
        return len(self._columns)

    @property
    def matrix(self) -> Numbers:
        """[models, columns]"""
        return np.stack(self._columns, axis=1)

    def add(self, column: Numbers) -> bool:
        """Take a column [models] in, unless those before give it."""
        rest = column
        for _ in range(2):
            rest = rest - self._orthonormal @ (self._orthonormal.T @ rest)
        length = np.linalg.norm(rest)
        if self.count >= len(column) or not length > _TOLERANCE * np.linalg.norm(column) > 0:
            return False
        self._columns.append(column)
        self._orthonormal = np.column_stack([self._orthonormal, rest / length])
        return True


def num_products(factors: Sequence[Coded], *, is_low: bool = False) -> int:
    """Columns of all main effects and interactions, as if none depended on others."""
    pairs = combinations(range(len(factors)), 2)
    counts = [len(_raw(factors, pair, is_low=is_low)[1]) for pair in pairs]
    return sum(factor.basis.shape[1] for factor in factors) + sum(counts)


def fits(design: Design) -> bool:
    """Whether there are models enough for so many coefficients."""
    models, columns = design.matrix.shape
    return columns <= min(MAX_SHARE * models, MAX_COLUMNS)
