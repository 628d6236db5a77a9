"""What a fit says of each factor, and of each pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from vitarium.studies.factors.coding import Coded
from vitarium.studies.factors.design import Design, Term
from vitarium.studies.factors.observed import Observed
from vitarium.studies.factors.surface import Surface
from vitarium.studies.statistics.bootstrap import Estimate, Numbers

SIGNIFICANT = 0.05
TIMES = "\u00d7"
POWER = 0.8
NEGLIGIBLE = 0.02
"""Share of the variance below which an effect does not matter."""
_GRID = 25  # points of a curve over a continuous factor


def product_name(factors: Sequence[str]) -> str:
    """What an interaction is called."""
    return f" {TIMES} ".join(factors)


class Effect(NamedTuple):
    """What a factor does by itself."""

    factor: Coded
    share: Estimate  # of the variance, the factor alone
    total: Estimate  # with all its interactions
    raw_share: float  # with what noise gives: eta squared in a balanced grid
    p: float  # of the F test, times the number of factors
    lowest: Any  # the value with the lowest prediction
    highest: Any
    difference: Estimate  # of the target between these two
    is_between: bool  # the same for all children of each parent

    @property
    def is_clear(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def is_negligible(self) -> bool:
        """Not clear, though the interval is narrow enough to see an effect that matters."""
        return not self.is_clear and (self.total.high or 1) < NEGLIGIBLE


class Interaction(NamedTuple):
    """What two factors do beyond the sum of what each does."""

    factors: tuple[Coded, Coded]
    share: Estimate | None  # None: it is not in the fitted model
    p: float  # times the number of pairs

    @property
    def is_clear(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def name(self) -> str:
        return product_name([factor.name for factor in self.factors])


class Curve(NamedTuple):
    """The predicted target over a factor's values, the others averaged over."""

    factor: Coded
    points: list[Any]
    predicted: list[Estimate]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A stage's models, and the response surface that is fitted to them.

    Args:
        interactions_fitted: "all"; "low": of the lowest degree; "clear": those that are clear when
            each is tried alone beside the main effects.
        tried: p of each pair that was tried alone, times their number.
    """

    observed: Observed
    surface: Surface
    interactions_fitted: str
    tried: dict[tuple[int, int], float]

    @property
    def design(self) -> Design:
        return self.surface.design

    @property
    def factors(self) -> Sequence[Coded]:
        return self.design.factors

    def term(self, *factors: int) -> tuple[int, Term] | None:
        """The number of a term, and the term."""
        for number, term in enumerate(self.design.terms):
            if term.factors == factors:
                return number, term
        return None

    @cached_property
    def effects(self) -> list[Effect]:
        """Of every factor that something is left for, the largest share first."""
        terms = list(enumerate(self.design.terms))
        main = [(number, t) for number, t in terms if len(t.factors) == 1 and len(t.columns)]
        effects = []
        for number, term in main:
            index = term.factors[0]
            curve = self.curve(index)
            values = [estimate.value for estimate in curve.predicted]
            low, high = int(np.argmin(values)), int(np.argmax(values))
            contrast = self._main(index, [curve.points[high], curve.points[low]])
            involved = [n for n, t in terms if index in t.factors]
            effects.append(
                Effect(
                    self.factors[index],
                    self.surface.share(number),
                    self.surface.share(*involved),
                    float(self.surface.raw_shares[number]),
                    corrected(self.surface.p_values[number], len(main)),
                    curve.points[low],
                    curve.points[high],
                    self.surface.difference(contrast[0] - contrast[1], [term]),
                    bool(self.design.is_between[number]),
                )
            )
        return sorted(effects, key=lambda e: (-e.share.value, e.p))

    @cached_property
    def interactions(self) -> list[Interaction]:
        """The strongest first; those that are not in the fitted model last."""
        count = len(self.tried) or sum(len(t.factors) == 2 for t in self.design.terms)
        pairs = dict[tuple[int, ...], Interaction]()
        for number, term in enumerate(self.design.terms):
            if len(term.factors) == 2 and len(term.columns):
                first, second = (self.factors[index] for index in term.factors)
                p = corrected(self.surface.p_values[number], count)
                share = self.surface.share(number)
                pairs[term.factors] = Interaction((first, second), share, p)
        for key, p in self.tried.items():
            if key not in pairs:
                first, second = (self.factors[index] for index in key)
                pairs[key] = Interaction((first, second), None, p)
        return sorted(
            pairs.values(),
            key=lambda i: (i.share is None, -(i.share.value if i.share else 0), i.p),
        )

    def _main(self, index: int, points: Sequence[Any]) -> Numbers:
        """[points, p]: the mean and a factor's main effect, as coefficients' weights."""
        rows = np.zeros((len(points), self.design.matrix.shape[1]))
        rows[:, 0] = 1
        if (entry := self.term(index)) is not None:
            rows[:, entry[1].columns] = self.design.products(entry[1], [points])
        return rows

    def joint(self, first: int, second: int, points: Sequence[tuple[Any, Any]]) -> Numbers:
        """[points, p]: the mean, two main effects and their interaction."""
        columns = [[a for a, _ in points], [b for _, b in points]]
        rows = self._main(first, columns[0]) + self._main(second, columns[1])
        rows[:, 0] = 1
        if (entry := self.term(first, second)) is not None:
            rows[:, entry[1].columns] = self.design.products(entry[1], columns)
        elif (entry := self.term(second, first)) is not None:
            rows[:, entry[1].columns] = self.design.products(entry[1], columns[::-1])
        return rows

    def curve(self, index: int) -> Curve:
        factor, entry = self.factors[index], self.term(index)
        points = points_of(factor)
        terms = [entry[1]] if entry else []
        rows = self._main(index, points)
        return Curve(factor, points, [self.surface.difference(row, terms) for row in rows])

    def models_needed(self, effect: Effect) -> int | None:
        """To see a difference as large as the estimate clearly, in 80 % of repetitions.

        Of models designed like these, of parents for what varies between parents alone; None where
        the difference is clear, or no interval is known.
        """
        difference = effect.difference
        is_known = effect.is_clear or effect.is_negligible
        if is_known or difference.high is None:
            return None
        assert difference.low is not None
        sample = len(self.observed.ids)
        if effect.is_between and self.observed.parents:
            sample = len(set(self.observed.parents))
        half = (difference.high - difference.low) / 2
        upper = stats.norm.ppf((1 + difference.level) / 2)
        ratio = half / max(abs(difference.value), 1e-300) * (1 + stats.norm.ppf(POWER) / upper)
        needed = sample * ratio**2
        return None if needed > 1e9 else max(sample + 1, math.ceil(needed))


def corrected(p: float, tests: int) -> float:
    """Bonferroni's; NaN where there is no test."""
    return p if math.isnan(p) else min(1.0, p * tests)


def points_of(factor: Coded, count: int = _GRID) -> list[Any]:
    """The values of a factor's levels; of a continuous one even points over its range."""
    if not factor.is_continuous:
        return list(factor.levels)
    scaled = factor.scaled(factor.numbers[np.isfinite(factor.numbers)])
    points = np.linspace(scaled.min(), scaled.max(), count)
    return list(map(float, np.exp(points) if factor.is_log else points))
