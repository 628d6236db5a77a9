"""Generating factors as columns of numbers: contrasts of levels, and polynomials of numbers.

The columns of a factor are orthonormal over the models: their means are 0, their mean squares 1. So
the squares of their coefficients add up to the variance that the factor explains: in a balanced
grid that of the analysis of variance, for factors drawn at random that of a polynomial chaos
expansion (Sudret 2008, doi 10.1016/j.ress.2007.04.002).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vitarium.core.printable import distinct
from vitarium.formats.summary import text
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import MANY, MAX_LABEL

MIN_LOG_RATIO = 4.0
"""Largest number over smallest, from which on a factor may be on a logarithmic scale."""
MAX_DEGREE = 3
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Coded:
    """A factor, and each model's value of it; None where a model has none.

    Args:
        nested_in: names of coarser factors, which this one determines; what these explain is theirs
            and not counted here.
        outer: labels [models] of each of these.
        degree: largest of its polynomial, or of the contrasts of levels that are numbers; 0: 3,
            and as many as there are.
    """

    name: str
    values: Sequence[Any]
    equivalent: tuple[str, ...] = ()
    nested_in: tuple[str, ...] = ()
    outer: tuple[Sequence[int], ...] = ()
    degree: int = 0
    scale: Literal["", "log"] = ""

    @cached_property
    def levels(self) -> list[Any]:
        """The different values: numbers by size, then texts by letter, then None."""
        unique = {text(value): value for value in self.values}

        def order(value: Any) -> tuple[int, float, str]:
            if _is_number(value):
                return 0, float(value), ""
            return (2 if value is None else 1), 0.0, text(value)

        return sorted(unique.values(), key=order)

    @cached_property
    def labels(self) -> list[str]:
        """Of the levels, printable."""
        texts = ["none" if level is None else text(level) for level in self.levels]
        names = distinct(texts, empty="", max_length=MAX_LABEL)
        return [names[label] for label in texts]

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """[models]: which level."""
        index = {text(level): number for number, level in enumerate(self.levels)}
        return np.array([index[text(value)] for value in self.values])

    @cached_property
    def numbers(self) -> Numbers:
        """[models], NaN where a model has no number."""
        return np.array([float(v) if _is_number(v) else math.nan for v in self.values])

    @cached_property
    def is_numeric(self) -> bool:
        """Whether all values that there are are numbers, of which there are at least two."""
        given = [level for level in self.levels if level is not None]
        return len(given) > 1 and all(map(_is_number, given))

    @cached_property
    def is_continuous(self) -> bool:
        """Whether it has so many different numbers that they are no levels."""
        return self.is_numeric and len(self.levels) > min(MANY, len(self.values) / 2)

    @cached_property
    def is_conditional(self) -> bool:
        """Whether it is a setting that only some of the models have, such as SGD's momentum."""
        return None in self.levels

    @cached_property
    def is_individual(self) -> bool:
        """Whether so many models have a value of their own that levels explain nothing."""
        return not self.is_continuous and len(self.levels) > len(self.values) / 2

    @cached_property
    def is_log(self) -> bool:
        """Whether its numbers are even on a logarithmic scale rather than on a linear one."""
        if self.scale == "log":
            return True
        unique = np.unique(self.numbers[np.isfinite(self.numbers)])
        if len(unique) < 2 or unique[0] <= 0 or unique[-1] < MIN_LOG_RATIO * unique[0]:
            return False
        if not self.is_continuous:
            if len(unique) == 2:
                return bool(unique[-1] >= 10 * unique[0])
            spread = [np.std(np.diff(v)) / np.mean(np.diff(v)) for v in (unique, np.log(unique))]
            return bool(spread[1] < spread[0])
        present = self.numbers[np.isfinite(self.numbers)]
        return bool(abs(stats.skew(np.log(present))) < abs(stats.skew(present)))

    def scaled(self, numbers: Any) -> Numbers:
        """[...] -> [...]: logarithms where the scale is logarithmic."""
        values = np.asarray(numbers, dtype=float)
        return np.log(values) if self.is_log else values

    @cached_property
    def basis(self) -> Numbers:
        """[models, columns]"""
        if not self.is_continuous:
            return self._contrasts[self.codes]
        return self._polynomials(self.numbers)

    @property
    def degrees(self) -> NDArray[np.int64]:
        """[columns]: of each polynomial; 1 of each contrast of levels without an order."""
        columns = self.basis.shape[1]
        if self.is_continuous:
            absent = columns - self._top_degree
            return np.array([*range(1, self._top_degree + 1), *[1] * absent])
        if self.is_numeric and None not in self.levels and not self.nested_in:
            return np.arange(1, columns + 1)
        return np.ones(columns, dtype=np.int64)

    def at(self, points: Sequence[Any]) -> Numbers:
        """[points, columns]: at these values, of a numeric factor also between its levels."""
        if self.is_continuous:
            return self._polynomials(np.asarray(points, dtype=float))
        index = {text(level): number for number, level in enumerate(self.levels)}
        if all(text(point) in index for point in points):
            return self._contrasts[[index[text(point)] for point in points]]
        given = [number for number, level in enumerate(self.levels) if level is not None]
        known = self.scaled([self.levels[number] for number in given])
        rows = self._contrasts[given]
        wanted = self.scaled(points)
        return np.stack([np.interp(wanted, known, column) for column in rows.T], axis=1)

    @cached_property
    def _contrasts(self) -> Numbers:
        """[levels, columns], orthonormal by how many models have each level."""
        weights = np.bincount(self.codes, minlength=len(self.levels)) / len(self.codes)
        numeric = self.is_numeric and None not in self.levels
        if numeric:  # polynomials: those of low degree come first
            position = self.scaled(self.levels)
            position = (position - position.mean()) / np.ptp(position)
            raw = np.stack([position**power for power in range(1, len(self.levels))], axis=1)
        else:
            raw = np.eye(len(self.levels))[:, 1:]
        coarse = [np.ones((len(self.levels), 1))]
        for labels in self.outer:
            outer = np.zeros(len(self.levels), dtype=np.int64)
            outer[self.codes] = labels
            coarse.append(np.eye(int(outer.max()) + 1)[outer])
        contrasts = _orthonormal(raw, np.concatenate(coarse, axis=1), weights)
        return contrasts[:, : self.degree] if numeric and self.degree > 0 else contrasts

    @property
    def _top_degree(self) -> int:
        different = sum(level is not None for level in self.levels)
        return max(1, min(self.degree or MAX_DEGREE, MAX_DEGREE, different - 1))

    def _polynomials(self, numbers: Numbers) -> Numbers:
        """[n] -> [n, columns]; 0 where there is no number."""
        present = self.scaled(self.numbers[np.isfinite(self.numbers)])
        share = len(present) / len(self.numbers)
        center, spread = present.mean(), present.std()
        powers = np.arange(self._top_degree + 1)
        design = ((present - center) / spread)[:, None] ** powers
        triangle = np.linalg.qr(design / math.sqrt(len(present)))[1]
        triangle *= np.sign(np.diag(triangle))[:, None]
        inside = np.isfinite(numbers)
        scaled = self.scaled(np.where(inside, numbers, float(self.levels[0])))
        rows = ((scaled - center) / spread)[:, None] ** powers
        rows = np.linalg.solve(triangle.T, rows.T).T[:, 1:] / math.sqrt(share)
        rows = np.where(inside[:, None], rows, 0.0)
        if share == 1:
            return rows
        deviation = math.sqrt(share * (1 - share))
        return np.column_stack([rows, (inside - share) / deviation])


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _orthonormal(raw: Numbers, coarse: Numbers, weights: Numbers) -> Numbers:
    """What columns [levels, n] add to coarser ones, orthonormal by weights [levels]."""
    root = np.sqrt(weights)[:, None]
    left, singular, _ = np.linalg.svd(root * coarse, full_matrices=False)
    left = left[:, singular > _TOLERANCE * singular[0]]
    columns: list[Numbers] = []
    for column in (root * raw).T:
        size = np.linalg.norm(column)
        for _ in range(2):  # twice is enough (Kahan)
            for earlier in (*left.T, *columns):
                column = column - earlier * (earlier @ column)
        if (length := np.linalg.norm(column)) > 1e-7 * size:
            columns.append(column / length)
    return (np.stack(columns, axis=1) if columns else np.empty((len(weights), 0))) / root
