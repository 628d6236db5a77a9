"""Relations of three models: does the third descend from the second, or is it its sibling?

Where `b` descends from `a`, and `a` from `p`, the step from `a` to `b` is nearly orthogonal to that
from `p` to `a`, in every layer alike; siblings' steps are alike in some layers and not in others.

The densities are mixtures: each kind of relation has its share, and 5 or 10 % are uniform on
[-1, 1], so that no single relation decides. Their scales were measured on ViTs of 3 to 6 blocks and
some 100,000 numbers, trained by AdamW and SGD (docs/lineage.md): along true edges the cosine is
-0.07 to 0.2, between siblings the correlation is 0 to 0.75.
"""

from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np

from vitarium.lineage._statistics import squared_distances

_EPSILON = 1e-30  # keeps quotients of equal models, whose steps have no length, finite
CONTINUE_PRIOR = 0.1
"""Share of descents that go on with the same training, at first; then it is counted."""


@dataclass(frozen=True)
class Relation:
    """Of a parent p, its child a, and n models b; float64 [n]."""

    cosine: np.ndarray  # of the steps p to a and a to b
    correlation: np.ndarray
    """Cosine of the steps p to a and p to b: how alike two siblings' steps are."""
    ratio: np.ndarray  # length of the step p to a over that of a to b
    spread: np.ndarray
    """Standard deviation of the layers' cosines, weighted by their steps' lengths."""

    @cached_property
    def continues(self) -> np.ndarray:
        """Whether a descent looks like more of the same training run, bool [n]: the step keeps to
        the direction (cosine), and is at most twice as long as the one before."""
        return (self.cosine > 0.15) & (self.ratio > 0.5)

    def child_log_density(self, continue_weight: float = CONTINUE_PRIOR) -> np.ndarray:
        """Log density [n] of cosine and spread where b descends from a. A new training starts at
        right angles, in all layers alike; one that goes on with the same data (a share of
        `continue_weight`) keeps to its direction, and its steps get shorter. A few do neither."""
        c, ratio, spread = self.cosine, self.ratio, self.spread + 0.01
        # a short step after a long one seldom goes back; twins do, by half the length between them,
        # and would otherwise pass for parent and child
        back = 0.06 / np.maximum(1, 0.5 + ratio / 2)
        log_cosine = -np.where(c < 0, -c / back, c / 0.06) - np.log(0.06 + back)
        new = log_cosine + _log_spread(spread, 0.075, 0.35) + np.log(0.95 - continue_weight)
        # uniform on (0, 0.95); a step longer than the one before (ratio < 1) is ever less likely
        same = np.where((c > 0) & (c < 0.95), -np.log(0.95), -10.0) + _log_spread(spread, 0.1, 0.6)
        same += np.log(continue_weight) - np.logaddexp(0, -np.log(ratio + _EPSILON) / 0.15)
        neither = np.log(0.05 / 2) + _log_spread(spread, 0.12, 0.7)
        return np.logaddexp(np.logaddexp(new, same), neither)

    @cached_property
    def sibling_log_density(self) -> np.ndarray:
        """Log density [n] of the same where b is a sibling of a: another way from p. Steps are at
        right angles, or alike, seldom opposed; layers differ, the more the less one step is longer
        than the other. Twins, which differ by their seeds alone, stand side by side."""
        rho, ratio = self.correlation, self.ratio
        # uniform on (0, 0.85), with exponential tails; at right angles normal
        similar = np.where(rho < 0, rho / 0.04, np.where(rho > 0.85, (0.85 - rho) / 0.03, 0))
        right = np.log(0.35 / (0.06 * np.sqrt(2 * np.pi))) - (rho / 0.06) ** 2 / 2
        neither = np.full_like(rho, np.log(0.05 / 2))
        log_density = np.logaddexp(np.logaddexp(similar + np.log(0.6), right), neither)
        # how many cosines there are to a correlation: a Jacobian
        log_density = log_density - 1.5 * np.log1p(np.minimum(ratio, 1e6) ** 2)
        # the nearer two siblings are, the more exactly they stand side by side
        beside = self.cosine + 0.5 / (ratio + _EPSILON)
        side = np.clip((ratio - 0.8) / 0.2, 0, 1) * np.clip((0.45 - self.cosine) / 0.1, 0, 1)
        log_density -= side * np.minimum((beside / 0.2) ** 2 / 2, 2)
        # twins: exactly side by side, and about as far from p
        twins = -((beside / 0.03) ** 2) / 2 - np.log(0.03 * np.sqrt(2 * np.pi)) + np.log(0.3)
        twins -= np.logaddexp(0, (1.2 - ratio) / 0.1)
        bounded = np.minimum(ratio, 1)
        medians, sigmas = 0.07 + 0.17 * bounded, 0.4 + 0.4 * bounded
        # nor is it held against siblings that layers agree, or only a little
        spread = np.maximum(self.spread + 0.01, medians * np.exp(-sigmas))
        return np.logaddexp(log_density, twins) + _log_normal(spread, medians, sigmas)

    @property
    def root_log_density(self) -> np.ndarray:
        """Log density [n] of cosine and spread where a is a root, p the origin and b descends.
        Weights begin around zero: what a root learned is at right angles to what follows, too."""
        # Laplace around 0, and 10 % uniform: 0.05 is half of that
        new = np.exp(-np.abs(self.cosine) / 0.06) / 0.12
        return np.log(0.9 * new + 0.05) + _log_spread(self.spread + 0.01, 0.08, 0.45)


class Geometry:
    """Squared distances [K, K] of K models, from inner products by layer, [layers, K, K]."""

    def __init__(self, grams: np.ndarray) -> None:
        self.layers = squared_distances(grams)
        self.squares = self.layers.sum(0)
        self.to_all = cache(partial(self.relation, models=np.arange(len(self.squares))))
        """Relation of a parent, its child and all K models; computed once."""

    def relation(self, parent: int, child: int, models: np.ndarray) -> Relation:
        """Relation of a parent, its child, and models [n] (indices)."""
        child_step = self.layers[:, parent, child][:, None]
        parent_step = self.layers[:, parent, models]
        step = self.layers[:, child, models]
        products = (parent_step - child_step - step) / 2
        lengths = np.sqrt(child_step * step)
        cosines = products / (lengths + _EPSILON)
        weights = (lengths + _EPSILON) / (lengths + _EPSILON).sum(0)
        spread = np.sqrt((weights * (cosines - (weights * cosines).sum(0)) ** 2).sum(0))
        a, v, w, x = child_step.sum(0), parent_step.sum(0), step.sum(0), products.sum(0)
        return Relation(
            x / np.sqrt(a * w + _EPSILON),
            (x + a) / np.sqrt(a * v + _EPSILON),
            np.sqrt(a / (w + _EPSILON)),
            spread,
        )


def _log_spread(spread: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Log density [n] of the layers' spread in a descent; they are never too alike for one. So
    large layers, whose cosines hardly vary, and steps that are nothing but random are descents,
    too: the density stays what it is at its mode."""
    return _log_normal(np.maximum(spread, median * np.exp(-(sigma**2))), median, sigma)


def _log_normal(
    values: np.ndarray, median: float | np.ndarray, sigma: float | np.ndarray
) -> np.ndarray:
    """Log density [n] of a log-normal distribution."""
    exponents = (((np.log(values) - np.log(median)) / sigma) ** 2) / 2
    return -exponents - np.log(sigma * values * np.sqrt(2 * np.pi))
