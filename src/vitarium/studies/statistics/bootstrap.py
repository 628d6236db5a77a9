"""Confidence intervals by drawing models again, with replacement.

The models of a stage are the sample. Pairs are not independent of each other, so that a pair counts
in a draw as often as both of its models were drawn, and a model is never paired with its own copy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from scipy import stats

from vitarium.core.config import Config
from vitarium.core.seeds import derive

Numbers = NDArray[np.float64]
MIN_MODELS = 4  # models that a stage has to have for an interval to say anything
Limits = tuple[float, float]
UNLIMITED: Limits = (-math.inf, math.inf)
FRACTION: Limits = (0, 1)


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its confidence interval; None: too few models for one."""

    value: float
    low: float | None
    high: float | None
    level: float = 0.95  # of confidence

    @property
    def is_positive(self) -> bool:
        """The whole interval lies above zero."""
        return self.low is not None and self.low > 0

    @property
    def is_negative(self) -> bool:
        return self.high is not None and self.high < 0


@dataclass(frozen=True)
class Bootstrap:
    """Draws of models; of one seed for all numbers of a study, so that they can be compared."""

    n_resamples: int = 1000
    confidence_level: float = 0.95
    seed: int = 0

    def counts(self, models: int, families: Sequence[str] | None = None) -> Numbers:
        """float64 [n_resamples, models]; every row adds up to `models`.

        With the families of the models, whole families are drawn, as many as there are.
        """
        if families is not None:
            _, member = np.unique(np.asarray(families), return_inverse=True)
            return self.counts(int(member.max()) + 1)[:, member]
        return _counts(self.n_resamples, models, self.seed)

    def estimate(
        self, value: float, drawn: Numbers, models: int, limits: Limits = UNLIMITED
    ) -> Estimate:
        """A value with the interval of its resamples [n_resamples]; NaN: no value.

        The percentiles of resamples of n models are too close together: their variance is (n - 1)/n
        of that of the value, and they know nothing of how uncertain it is itself. They are moved
        away from the value by as much as Student's interval of a mean is wider (Hesterberg 2015,
        What teachers should know about the bootstrap, arXiv 1411.5279, section 5.2).

        Args:
            models: that are drawn independently of each other; families, where those are drawn.
            limits: between which the value can lie, e.g. (0, 1) of an accuracy.
        """
        drawn = drawn[np.isfinite(drawn)]
        if models < MIN_MODELS or len(drawn) < self.n_resamples / 2:
            return Estimate(value, None, None)
        tail = (1 - self.confidence_level) / 2
        percentiles = np.quantile(drawn, [tail, 1 - tail])
        low, high = np.clip(value + self._widening(models) * (percentiles - value), *limits)
        return Estimate(value, float(low), float(high), self.confidence_level)

    def _widening(self, models: int) -> float:
        upper = (1 + self.confidence_level) / 2
        normal, student = stats.norm.ppf(upper), stats.t.ppf(upper, models - 1)
        return float(student / normal * math.sqrt(models / (models - 1)))

    def mean(self, values: Numbers, limits: Limits = UNLIMITED) -> Estimate:
        """The mean of `values` [models]; models without one (NaN) are left out."""
        values = values[np.isfinite(values)]
        if not len(values):
            return Estimate(math.nan, None, None)
        drawn = self.counts(len(values)) @ values / len(values)
        return self.estimate(float(values.mean()), drawn, len(values), limits)

    def correlation(self, x: Numbers, y: Numbers) -> Estimate:
        """Spearman's rank correlation of `x` and `y`, [models] each."""
        finite = np.isfinite(x) & np.isfinite(y)
        x, y = x[finite], y[finite]

        def rank_correlation(a: Numbers, b: Numbers) -> float:
            if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
                return math.nan
            return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])

        samples = [np.repeat(np.arange(len(x)), c.astype(int)) for c in self.counts(len(x))]
        drawn = np.array([rank_correlation(x[sample], y[sample]) for sample in samples])
        return self.estimate(rank_correlation(x, y), drawn, len(x), (-1, 1))

    def pairs(
        self, values: Numbers, mask: NDArray[np.bool_], limits: Limits = UNLIMITED
    ) -> Estimate:
        """Mean over a symmetric mask's pairs, [models, models] both; no NaN, no diagonal."""
        mean, once = _pair_means(values, mask), np.ones((1, len(values)))
        models = int((mask & np.isfinite(values)).any(1).sum())
        drawn = mean(self.counts(len(values)))
        return self.estimate(float(mean(once)[0]), drawn, models, limits)

    def contrast(
        self,
        values: Numbers,
        first: NDArray[np.bool_],
        second: NDArray[np.bool_],
        families: Sequence[str] | None = None,
    ) -> Estimate:
        """Mean of `values` [models, models] over the first pairs less that over the second.

        With `families`, of pairs across them, the interval is about other families, too.
        """
        mean_first, mean_second = _pair_means(values, first), _pair_means(values, second)
        counts, once = self.counts(len(values), families), np.ones((1, len(values)))
        value = float((mean_first(once) - mean_second(once))[0])
        compared = ((first | second) & np.isfinite(values)).any(1)
        names = np.arange(len(values)) if families is None else np.asarray(families)
        drawn = mean_first(counts) - mean_second(counts)
        return self.estimate(value, drawn, len(set(names[compared].tolist())))


class Resampled(Config):
    """Settings of a study with intervals."""

    n_resamples: PositiveInt = 1000
    """Number of bootstrap resamples for the confidence intervals."""
    confidence_level: float = Field(0.95, gt=0, lt=1)
    """Confidence level of the intervals, in (0, 1)."""
    seed: int = 0
    """Random seed of the bootstrap and of all else that the study draws at random."""

    @property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(self.n_resamples, self.confidence_level, self.seed)


@lru_cache(maxsize=64)
def _counts(n_resamples: int, models: int, seed: int) -> Numbers:
    generator = np.random.default_rng(derive(seed, "bootstrap", models))
    drawn = generator.multinomial(models, np.full(models, 1 / models), size=n_resamples)
    counts = drawn.astype(np.float64)
    counts.setflags(write=False)  # it is given out again
    return counts


def _pair_means(values: Numbers, mask: NDArray[np.bool_]) -> Callable[[Numbers], Numbers]:
    """The mean over the pairs of a mask as a function of counts [n_resamples, models], else NaN."""
    valid = mask & np.isfinite(values) & ~np.eye(len(values), dtype=bool)
    weights, sums = valid.astype(np.float64), np.where(valid, values, 0.0)

    def mean(counts: Numbers) -> Numbers:
        total = ((counts @ sums) * counts).sum(1)
        pairs = ((counts @ weights) * counts).sum(1)
        return np.divide(total, pairs, out=np.full(len(counts), math.nan), where=pairs > 0)

    return mean
