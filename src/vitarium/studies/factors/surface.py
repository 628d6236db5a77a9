"""The response surface: a target as a sum of main effects, interactions, parents and noise.

Fitted by least squares. Intervals are of a wild bootstrap (Wu 1986, doi 10.1214/aos/1176350142):
the design stays, and to every model's prediction a random normal number is added, as wide as its
own residual and the noise of all models are together; with parents, each parent's deviation times
another one as well, so that what does not vary among the children of any parent is judged by the
parents. All draws are a few matrix products.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from vitarium.core.seeds import derive
from vitarium.studies.factors.design import Design, Indices, Term
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Limits, Numbers

SHARE: Limits = (0.0, 1.0)
_MAX_LEVERAGE = 0.98


@dataclass(frozen=True, eq=False)
class Surface:
    """A design fitted to a target [models].

    Args:
        replicates: [models], equal for models that differ in their seeds alone; None: no two do.
    """

    design: Design
    target: Numbers
    bootstrap: Bootstrap
    replicates: Indices | None = None

    @cached_property
    def _gram(self) -> Numbers:
        """[p, p]"""
        return self.design.matrix.T @ self.design.matrix

    @cached_property
    def _inverse(self) -> Numbers:
        return np.asarray(np.linalg.inv(self._gram), dtype=np.float64)

    @cached_property
    def coefficients(self) -> Numbers:
        """[p]"""
        solution = np.linalg.lstsq(self.design.matrix, self.target, rcond=None)[0]
        return np.asarray(solution, dtype=np.float64)

    @cached_property
    def residuals(self) -> Numbers:
        """[models]"""
        return self.target - self.design.matrix @ self.coefficients

    @property
    def freedom(self) -> int:
        """Residual degrees of freedom, of what varies within parents."""
        return int(np.subtract(*self.design.matrix.shape))

    @property
    def parents_freedom(self) -> int:
        """Those of the parents beyond what the factors explain."""
        return len(self.design.parent_columns)

    @cached_property
    def noise(self) -> float:
        """Variance of a model about the surface."""
        return float(self.residuals @ self.residuals) / self.freedom if self.freedom else math.nan

    @cached_property
    def _of_parents(self) -> Numbers:
        """[p, parents]: what a deviation of each parent does to the coefficients."""
        matrix, parents = self.design.matrix, self.design.parents
        indicators = np.eye(int(parents.max()) + 1)[parents]
        solution = np.linalg.lstsq(matrix, indicators, rcond=None)[0]
        return np.asarray(solution, dtype=np.float64)

    @cached_property
    def parents_variance(self) -> float:
        """Of parents beyond what their factors explain (may come out below 0); 0 without."""
        return float(self._parents_variances(self.coefficients[None], np.array([self.noise]))[0])

    def _parents_variances(self, coefficients: Numbers, noise: Numbers) -> Numbers:
        """[draws, p], [draws] -> [draws]"""
        at = self.design.parent_columns
        if not len(at):
            return np.zeros(len(coefficients))
        raw = (coefficients[:, at] ** 2).sum(1)
        by_noise = float(np.trace(self._inverse[np.ix_(at, at)]))
        return (raw - noise * by_noise) / float((self._of_parents[at] ** 2).sum())

    def _variances(self, coefficients: Numbers, noise: Numbers, of_parents: Numbers) -> Numbers:
        """Of each term, less what noise gives: [draws, p], [draws], [draws] -> [draws, terms]."""
        columns = []
        for term in self.design.terms:
            raw = (coefficients[:, term.columns] ** 2).sum(1)
            raw = raw - noise * float(np.diag(self._inverse)[term.columns].sum())
            if len(self.design.parent_columns):
                raw = raw - of_parents * float((self._of_parents[term.columns] ** 2).sum())
            columns.append(raw)
        return np.stack(columns, axis=1)

    @cached_property
    def variances(self) -> Numbers:
        """[terms]: of the target if all factors varied independently; noise is taken off."""
        once = self.coefficients[None], np.array([self.noise]), np.array([self.parents_variance])
        return self._variances(*once)[0]

    @cached_property
    def total(self) -> float:
        """Variance of all terms, of parents and of noise."""
        return float(self.variances.sum() + self.parents_variance + self.noise)

    @cached_property
    def raw_shares(self) -> Numbers:
        """[terms]: with what noise gives; in a balanced grid eta squared."""
        squares = [float((self.coefficients[t.columns] ** 2).sum()) for t in self.design.terms]
        parents = float((self.coefficients[self.design.parent_columns] ** 2).sum())
        rest = float(self.residuals @ self.residuals) / len(self.target)
        return np.array(squares) / (sum(squares) + parents + rest)

    # -- draws ---------------------------------------------------------------------------------

    @cached_property
    def _errors(self) -> Numbers:
        """[draws, models]: normal numbers, as wide as a model's residual and the noise of all are.

        The mean of both variances: a residual alone says little of a model's noise (Smyth 2004,
        doi 10.2202/1544-6115.1027, moderates variances so), and that of all is wrong where some
        models are noisier.
        """
        leverage = np.einsum("ip,pq,iq->i", self.design.matrix, self._inverse, self.design.matrix)
        variances = self.residuals**2 / (1 - np.minimum(leverage, _MAX_LEVERAGE))
        width = np.sqrt((variances + variances.mean()) / 2)
        return self._normal("noise", len(width)) * width

    def _normal(self, stream: str, count: int) -> Numbers:
        seed = derive(self.bootstrap.seed, "factors", stream, count)
        shape = self.bootstrap.n_resamples, count
        return np.random.default_rng(seed).standard_normal(shape)

    @cached_property
    def _draws(self) -> tuple[Numbers, Numbers]:
        """Errors of the coefficients [draws, p], and the noise [draws] of each draw."""
        errors = self._errors
        shift = errors @ (self.design.matrix @ self._inverse)
        squares = (errors**2).sum(1) - np.einsum("bp,pq,bq->b", shift, self._gram, shift)
        noise = squares / self.freedom if self.freedom else np.full(len(errors), math.nan)
        if self.parents_freedom and self.parents_variance > 0:
            at = self.design.parent_columns
            deviations = self.design.matrix[:, at] @ self.coefficients[at]
            first = np.unique(self.design.parents, return_index=True)[1]
            of_parent = deviations[first]
            # as wide as the variance of parents, without what noise adds to it
            width = math.sqrt(self.parents_variance / max(float(np.mean(of_parent**2)), 1e-300))
            drawn = self._normal("parents", len(first)) * (width * of_parent)
            shift = shift + drawn @ self._of_parents.T
        return shift, noise

    @cached_property
    def _share_draws(self) -> tuple[Numbers, Numbers, Numbers]:
        """Variances of the terms [draws, terms], of parents and of noise [draws], in a world whose
        effects are as large as the estimates are, without noise."""
        shift, noise = self._draws
        world = self.coefficients.copy()
        for term, variance in zip(self.design.terms, self.variances, strict=True):
            raw = float((world[term.columns] ** 2).sum())
            world[term.columns] *= math.sqrt(max(variance, 0) / raw) if raw else 0
        world[self.design.parent_columns] = 0
        drawn = world + shift
        of_parents = self._parents_variances(drawn, noise)
        return self._variances(drawn, noise, of_parents), of_parents, noise

    def share(self, *terms: int) -> Estimate:
        """Of these terms, of the variance of all; 0 is expected of chance."""
        drawn, of_parents, noise = self._share_draws
        total = drawn.sum(1) + of_parents + noise
        chosen = list(terms)
        value = float(self.variances[chosen].sum()) / self.total
        is_between = any(self.design.is_between[chosen])
        return self._estimate(value, drawn[:, chosen].sum(1) / total, is_between, SHARE)

    @property
    def parents_share(self) -> Estimate:
        """Of parents beyond their factors."""
        drawn, of_parents, noise = self._share_draws
        value = self.parents_variance / self.total
        return self._estimate(value, of_parents / (drawn.sum(1) + of_parents + noise), True, SHARE)

    @property
    def rest_share(self) -> Estimate:
        """Of what neither the terms nor parents explain."""
        drawn, of_parents, noise = self._share_draws
        total = drawn.sum(1) + of_parents + noise
        return self._estimate(self.noise / self.total, noise / total, False, SHARE)

    @cached_property
    def seeds_share(self) -> Estimate | None:
        """Of models that differ in their seeds alone; None where no two models do."""
        if self.replicates is None:
            return None
        _, groups = np.unique(self.replicates, return_inverse=True)
        sizes = np.bincount(groups)
        freedom = len(groups) - len(sizes)

        def within(values: Numbers) -> Numbers:
            """[draws, models] -> [draws]: variance among replicates."""
            sums = np.zeros((len(values), len(sizes)))
            np.add.at(sums.T, groups, values.T)
            return ((values**2).sum(1) - (sums**2 / sizes).sum(1)) / freedom

        value = float(within((self.target - self.target.mean())[None])[0])
        variances, of_parents, noise = self._share_draws
        total = variances.sum(1) + of_parents + noise
        # of the same models, so that its errors are part of the noise's
        drawn = within(self._errors) / total
        own = float(within(self.residuals[None])[0]) or 1.0
        return self._estimate(value / self.total, drawn * (value / own), False, SHARE, freedom)

    def difference(self, contrast: Numbers, terms: list[Term]) -> Estimate:
        """Of the target along a contrast of coefficients [p]."""
        numbers = [number for number, term in enumerate(self.design.terms) if term in terms]
        is_between = any(self.design.is_between[numbers])
        value = float(contrast @ self.coefficients)
        return self._estimate(value, value + self._draws[0] @ contrast, is_between)

    def drawn_coefficients(self) -> Numbers:
        """[draws, p]: the coefficients with their errors, as wide as Student's interval."""
        widening = self._widening(self.freedom)
        return self.coefficients + widening * self._draws[0]

    def _estimate(
        self,
        value: float,
        drawn: Numbers,
        is_between: bool,
        limits: Limits = (-math.inf, math.inf),
        freedom: int | None = None,
    ) -> Estimate:
        """Percentiles of the draws, moved away from the value as far as Student's t asks for."""
        freedom = self.freedom if freedom is None else freedom
        if is_between and len(self.design.parents):
            freedom = min(freedom, self.parents_freedom)
        value = float(np.clip(value, *limits))
        drawn = drawn[np.isfinite(drawn)]
        if freedom < 3 or not len(drawn):
            return Estimate(value, None, None)
        tail = (1 - self.bootstrap.confidence_level) / 2
        bounds = np.quantile(drawn, [tail, 1 - tail])
        low, high = np.clip(value + self._widening(freedom) * (bounds - value), *limits)
        low, high = min(low, value), max(high, value)
        return Estimate(value, float(low), float(high), self.bootstrap.confidence_level)

    def _widening(self, freedom: int) -> float:
        upper = (1 + self.bootstrap.confidence_level) / 2
        if freedom < 1:
            return math.inf
        return float(stats.t.ppf(upper, freedom) / stats.norm.ppf(upper))

    # -- tests ---------------------------------------------------------------------------------

    @cached_property
    def p_values(self) -> list[float]:
        """[terms]: of F tests of type II, of parents' factors against what parents leave."""
        return [self._p(number) for number in range(len(self.design.terms))]

    def _p(self, number: int) -> float:
        term, between = self.design.terms[number], self.design.is_between[number]
        if not len(term.columns):
            return math.nan
        others = [t for t in self.design.terms if not set(term.factors) <= set(t.factors)]
        columns = np.concatenate([[0], *(t.columns for t in others)]).astype(int)
        if not between:
            columns = np.concatenate([columns, self.design.parent_columns])
        gained = self._explained(np.concatenate([columns, term.columns])) - self._explained(columns)
        mean_square, freedom = self.noise, self.freedom
        if between:
            freedom = self.parents_freedom
            squares = float((self.coefficients[self.design.parent_columns] ** 2).sum())
            mean_square = squares * len(self.target) / freedom if freedom else math.nan
        if not freedom or not mean_square > 0:
            return math.nan
        statistic = gained / len(term.columns) / mean_square
        return float(stats.f.sf(statistic, len(term.columns), freedom))

    def _explained(self, columns: Indices) -> float:
        """Sum of squares that these columns explain, about 0."""
        moments = self.design.matrix[:, columns].T @ self.target
        return float(moments @ np.linalg.solve(self._gram[np.ix_(columns, columns)], moments))
