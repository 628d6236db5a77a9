"""Mixtures among models: soups, interpolations, averages of epochs, learned soups, Model Stock:
x = sum_i w_i x_i with w >= 0 and sum 1, as one vector (`mixtures`) or tensor by tensor, each with
its own w (`tensor_mixtures`), seen from inner products of all pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve
from scipy.sparse.csgraph import connected_components

from vitarium.lineage._statistics import squared_distances

TOLERANCE = 0.05
"""Of `Mixture.ratio`. Soups have about 0; of the models of two zoos of small ViTs, none that was
trained had less than 0.74, and none of all their epochs less than 0.22 (the third of four, at a
small learning rate, between the second and the last)."""
TENSOR_TOLERANCE = 0.1
"""Of the ratio over all tensors. There, Model Stock had less than 0.002, and SLERP of each tensor,
which lies a little outside, 0.11 to 0.26; no model that was trained was near 0.7, and no epoch of a
run below 0.22. Without epochs, 0.3 finds SLERP, too."""
MIN_SHARE = 0.01  # what has less than this part of the greatest share is no ingredient
_SQUARED_ERROR = 1e-14
"""Squared error, as a share of the squared norm: numbers are rounded to float32 (2^-24 each, and
several times where a soup is summed up in it), and products are right to about 1e-15."""
_MIN_SQUARED_DISTANCE = 100
"""Models whose squared distance is below so many squared errors are not told apart."""
_MAX_ERROR_RATIO = 1.1  # a model's squared rounding error is at most so many times the expected one
_CHANCE_FIT = 0.005
"""Of the squared rounding error: what another ingredient may fit of it by chance. It is 1 / n for n
numbers, times the square of five standard deviations; so from some 5,000 numbers on."""
_MIN_SCALE = 4
"""What a residual is compared with is at least so many squared errors, or it says nothing."""
_NUM_TENSORS = 6  # tensors that ingredients are looked for in: small ones may fit by chance
_MAX_WHOLE_RATIO = 0.6
"""Ratio as one vector, above which a model is not looked at tensor by tensor, to save time."""


@dataclass(frozen=True)
class Mixture:
    """The point nearest to a model of all mixtures of others; lengths are l2 distances."""

    shares: Mapping[int, float]  # by model, MIN_SHARE of the greatest or more, with sum 1
    residual: float  # from the model to that mixture, less what rounding alone makes of it
    nearest: float  # to the nearest other model of the set
    independent: float
    """The residual if the ingredients lay around the model in unrelated directions, as a parent's
    children do: sqrt(sum_i w_i^2 d_i^2), with d_i the distance to ingredient i."""
    error: float = 0.0  # what rounding alone can make

    @property
    def ratio(self) -> float:
        """The residual by the smaller scale, about 1 of a model that is no mixture, and 0 of one
        that is; infinite where that scale is not above rounding."""
        return np.inf if self.is_hidden else self.residual / min(self.nearest, self.independent)

    @property
    def is_hidden(self) -> bool:
        """Whether what it is compared with is no more than rounding."""
        return min(self.nearest, self.independent) <= _MIN_SCALE**0.5 * self.error

    def is_mixture(self, tolerance: float = TOLERANCE) -> bool:
        return len(self.shares) > 1 and self.ratio <= tolerance


def mixtures(
    gram: np.ndarray, *, tolerance: float = TOLERANCE, rounding: np.ndarray | None = None
) -> dict[int, Mixture]:
    """All models that are convex combinations of others, by index, from inner products [K, K].

    Each is expressed by what is no mixture itself (the corners of the convex hull of all), so a
    soup of soups is one of their ingredients: weights do not tell in how many steps it was made.
    Nor do they tell a mixture m = (a + b) / 2 from an a = 2 m - b that was made of the other two:
    it is always the one in the middle. Copies (to rounding) are never mixtures of each other; as
    ingredients they have equal parts of their share.

    Args:
        tolerance: of `Mixture.ratio`; a greater one finds soups that were trained on a little, too.
        rounding: `StorageArtifacts.rounding` [K]; None: 0 of all.
    """
    norms = gram.diagonal()
    errors = _MIN_SQUARED_DISTANCE * _SQUARED_ERROR * np.maximum(norms, norms[:, None])
    _, numbers = connected_components(squared_distances(gram) <= errors, directed=False)
    groups = [np.flatnonzero(numbers == number).tolist() for number in dict.fromkeys(numbers)]
    first = [group[0] for group in groups]
    rounded = np.zeros(len(gram)) if rounding is None else rounding
    by_index = _distinct_mixtures(gram[np.ix_(first, first)], tolerance, rounded[first])
    by_model: dict[int, Mixture] = {}
    for index, mixture in sorted(by_index.items()):
        shares = {
            copy: share / len(groups[ingredient])
            for ingredient, share in mixture.shares.items()
            for copy in groups[ingredient]
        }
        by_model |= dict.fromkeys(groups[index], replace(mixture, shares=shares))
    return by_model


def tensor_mixtures(
    grams: Mapping[str, np.ndarray],
    *,
    tolerance: float = TENSOR_TOLERANCE,
    whole_mixtures: Sequence[int] = (),
) -> dict[int, Mixture]:
    """Models whose tensors are convex combinations, each in its own shares, of the same models,
    from inner products by tensor, [K, K]; those that are mixtures as one vector are no ingredients.
    Ingredients are looked for in the few tensors in which models differ most. A share is the mean
    over tensors, by how far from the model the ingredients are in each; what has a share below
    MIN_SHARE of the greatest is left out, and the others are fitted again. The ratio is of the
    residuals of all tensors together."""
    total = np.sum(list(grams.values()), axis=0)
    candidates = sorted(set(range(len(total))) - set(whole_mixtures))
    if len(candidates) < 3:
        return {}
    spread = {name: np.trace(gram) - gram.mean() * len(gram) for name, gram in grams.items()}
    largest = sorted(grams, key=lambda name: -spread[name])[:_NUM_TENSORS]
    by_model = {}
    for model in candidates:
        near = best_mixture(total, model, candidates, beyond=_MAX_WHOLE_RATIO)
        if near.is_mixture(_MAX_WHOLE_RATIO):
            shares = (best_mixture(grams[name], model, candidates).shares for name in largest)
            mixture = _by_tensor(grams, model, sorted(set[int]().union(*shares)), near)
            if mixture.is_mixture(tolerance):
                by_model[model] = mixture
    return by_model


def best_mixture(
    gram: np.ndarray, model: int, among: Iterable[int], rounding: float = 0, beyond: float = np.inf
) -> Mixture:
    """The mixture of some other models (at least one) that is nearest to one, from inner products
    [K, K]. To save time, it stops at some mixture where the ratio is sure to be beyond."""
    candidates = np.array(sorted(set(among) - {model}))
    from_model = gram[model]
    differences = gram - from_model - from_model[:, None] + from_model[model]
    exact = _SQUARED_ERROR * float(from_model[model])
    error = exact + _MAX_ERROR_RATIO * rounding
    nearest = np.delete(differences.diagonal(), model).min(initial=np.inf).clip(0)
    inner = differences[np.ix_(candidates, candidates)]
    start = _nearest_point(inner, exact, beyond**2 * max(nearest, error) + error)
    shares = _sparse(inner, start, exact, exact + _CHANCE_FIT * rounding)
    return Mixture(
        {int(candidates[index]): float(shares[index]) for index in np.flatnonzero(shares)},
        residual=float(max(shares @ inner @ shares - error, 0)) ** 0.5,
        nearest=float(nearest) ** 0.5,
        independent=float(shares**2 @ inner.diagonal().clip(0)) ** 0.5,
        error=float(error) ** 0.5,
    )


def _distinct_mixtures(
    gram: np.ndarray, tolerance: float, rounding: np.ndarray
) -> dict[int, Mixture]:
    """Mixtures among models of which no two are copies; gram [K, K], rounding [K]."""
    everyone = set(range(len(gram)))
    if len(everyone) < 3:
        return {}

    def best(model: int, among: set[int]) -> Mixture:
        return best_mixture(gram, model, among, rounding[model], tolerance)

    by_all = {model: best(model, everyone) for model in everyone}
    left = {model for model, mixture in by_all.items() if mixture.is_mixture(tolerance)}
    # What rounding hides may be a mixture or a copy: what it stands between is the ingredient
    corners = everyone - left - {model for model in everyone if by_all[model].is_hidden}
    by_corners: dict[int, Mixture] = {}
    while left and len(corners) > 1:
        tried = {model: best(model, corners) for model in left}
        by_corners |= {model: m for model, m in tried.items() if m.is_mixture(tolerance)}
        left -= by_corners.keys()
        if left:  # errors add up along soups of soups: the worst of them is a corner to the others
            worst = max(left, key=lambda model: tried[model].residual)
            left.remove(worst)
            corners.add(worst)
    return by_corners


def _by_tensor(
    grams: Mapping[str, np.ndarray], model: int, among: Sequence[int], near: Mixture
) -> Mixture:
    per_tensor = [
        best_mixture(gram, model, among)
        for gram in grams.values()
        if np.ptp(gram[np.ix_(among, among)]) > 0  # else it is the same in all these models
    ]
    weights = np.array([mixture.independent**2 for mixture in per_tensor])
    shares = {}
    for candidate in among:
        of_tensors = [mixture.shares.get(candidate, 0.0) for mixture in per_tensor]
        shares[candidate] = float(weights @ of_tensors / weights.sum())
    least = MIN_SHARE * max(shares.values())
    remaining = [candidate for candidate, share in shares.items() if share >= least]
    if len(remaining) < len(among):
        return _by_tensor(grams, model, remaining, near)
    lengths = zip(*((m.residual, m.independent, m.error) for m in per_tensor), strict=True)
    residual, independent, error = (float(np.square(of).sum()) ** 0.5 for of in lengths)
    return Mixture(shares, residual, near.nearest, independent, error)


def _sparse(inner: np.ndarray, shares: np.ndarray, exact: float, little: float) -> np.ndarray:
    """Shares [n] without what is too small, or brings no more than a little nearer."""
    nonzero = np.flatnonzero(shares >= MIN_SHARE * shares.max())
    sparse = shares
    if len(nonzero) < np.count_nonzero(shares):
        sparse = _restricted(inner, nonzero, exact)
    at_most = sparse @ inner @ sparse + little
    while np.count_nonzero(sparse) > 2:
        nonzero = np.flatnonzero(sparse)
        sparser = _restricted(inner, np.delete(nonzero, sparse[nonzero].argmin()), exact)
        if sparser @ inner @ sparser > at_most:
            break
        sparse = sparser
    return sparse


def _restricted(inner: np.ndarray, indices: np.ndarray, error: float) -> np.ndarray:
    """Shares [n] of the nearest point that has them at these indices only."""
    shares = np.zeros(len(inner))
    shares[indices] = _nearest_point(inner[np.ix_(indices, indices)], error)
    return shares


def _nearest_point(inner: np.ndarray, error: float, beyond: float = np.inf) -> np.ndarray:
    """Weights [n] >= 0 with sum 1 of the point nearest to the origin, from inner products [n, n].
    Least squares with weights >= 0 (Lawson and Hanson 1974, chapter 23; on products as in Bro and
    de Jong 1997) of sum_i u_i (y_i, 1) to (0, 1): its u, divided by its sum, is the solution. It
    stops where the point's squared distance is sure to be beyond; `error` is of such distances."""
    scale = max(float(inner.diagonal().min()), _MIN_SQUARED_DISTANCE * error) or 1.0
    # Squared error on the diagonal: models that are dependent to rounding can be solved for
    matrix = inner / scale + 1 + np.eye(len(inner)) * (error / scale)
    weights, used = np.zeros(len(inner)), np.zeros(len(inner), dtype=bool)
    for _ in range(10 * len(inner)):
        gains = np.where(used, -np.inf, 1 - matrix @ weights)
        best = int(gains.argmax())
        if gains[best] <= 1e-12 + error / scale:
            break
        used[best] = True
        while True:
            indices = np.flatnonzero(used)
            solved = solve(matrix[np.ix_(indices, indices)], np.ones(len(indices)), assume_a="sym")
            if (solved > 0).all():
                weights[:] = 0
                weights[indices] = solved
                break
            before = weights[indices]
            falling = solved <= 0
            step = (before[falling] / (before[falling] - solved[falling])).min()
            weights[indices] = before + step * (solved - before)
            used &= weights > 1e-14
            weights[~used] = 0
        if not used[best]:  # adding it was worth nothing but rounding
            break
        if np.isfinite(beyond):
            # No point of the hull is nearer than where the plane through the nearest corner, at
            # right angles to the way to this point, is
            total = weights.sum()
            towards = (matrix @ weights - total) * scale / total
            square = weights @ towards / total
            if towards.min() > 0 and towards.min() ** 2 > 2 * beyond * square:
                break
    return weights / weights.sum()
