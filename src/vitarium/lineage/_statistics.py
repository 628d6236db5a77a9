"""Gram matrices and moments of a set of models, in one pass over their weights."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vitarium.core.progress import Progress
from vitarium.evaluation.inputs import Weights
from vitarium.measures.weights import _products as products

MOMENTS = ("mean", "variance", "kurtosis", "zeros")


class WeightStatistics(NamedTuple):
    """Gram matrices and moments of K models."""

    grams: Mapping[str, np.ndarray]  # by tensor, inner products of all pairs, float64 [K, K]
    moments: Mapping[str, Mapping[str, np.ndarray]]
    """By name, one of MOMENTS, then by tensor, float64 [K]: mean, variance (divided by n), excess
    kurtosis (Fisher's, as scipy's default; NaN of a constant) and share of zeros."""

    def gram(self, tensors: Sequence[str] | None = None) -> np.ndarray:
        """Inner products over some tensors, or all, float64 [K, K]."""
        names = self.grams if tensors is None else tensors
        return np.sum([self.grams[name] for name in names], axis=0)

    def squared_distances(self, tensors: Sequence[str] | None = None) -> np.ndarray:
        """Squared l2 distances over some tensors, or all, float64 [K, K]."""
        return squared_distances(self.gram(tensors))

    def subset(self, indices: np.ndarray) -> "WeightStatistics":
        """Of the models at these indices, int [n]."""
        grams = {name: gram[np.ix_(indices, indices)] for name, gram in self.grams.items()}
        moments = {k: {n: v[indices] for n, v in of.items()} for k, of in self.moments.items()}
        return WeightStatistics(grams, moments)


def squared_distances(gram: np.ndarray) -> np.ndarray:
    """Squared distances [..., K, K] of vectors with inner products [..., K, K]; never below 0."""
    norms = np.einsum("...ii->...i", gram)
    return np.maximum(norms[..., :, None] + norms[..., None, :] - 2 * gram, 0)


def read_statistics(
    models: Sequence[Weights], tensors: Sequence[str], progress: Progress
) -> WeightStatistics:
    """Gram matrices and moments of K models; every tensor is read once. Raises CorruptFile. Takes 8
    K^2 bytes for every tensor: 3.6 GB for 3,000 models of 50 tensors; of more, see `_clusters`."""
    grams, sums = products.gathered(models, tensors, PowerSums(), progress)
    by_tensor = {name: moments(sums[name]) for name in tensors}
    by_kind = {kind: {name: by_tensor[name][kind] for name in tensors} for kind in MOMENTS}
    return WeightStatistics(grams, by_kind)


class PowerSums:
    """Sums over n numbers x of a tensor: n, their mean m, the sums of (x - m)^2, (x - m)^3 and
    (x - m)^4, and how many are zero. Every part is centered on its own mean, so nothing is lost
    where that is large against the spread, as in gains of norms. Parts are joined as in Pebay 2008
    (SAND2008-6212), those of all models at once."""

    def of(self, numbers: np.ndarray) -> list[float]:
        """Of a part: numbers, float32 in float64, [n]."""
        count = len(numbers)
        # of equal numbers exact: float32 leaves room in float64 for the sum of millions
        mean = numbers.sum() / count if count else np.nan
        centered = numbers - mean
        squares = centered * centered
        second, third, fourth = centered @ centered, squares @ centered, squares @ squares
        zeros = int(np.count_nonzero(numbers == 0))
        return [count, float(mean), float(second), float(third), float(fourth), zeros]

    def joined(self, parts: np.ndarray) -> np.ndarray:
        """Of all numbers, from P parts of K models: [P, K, 6] -> [K, 6]."""
        counts, means, second, third, fourth, zeros = np.moveaxis(parts, -1, 0)
        count = counts.sum(0)
        mean = means[0] + (counts * (means - means[0])).sum(0) / count
        off = means - mean
        powers = (
            (second + counts * off**2).sum(0),
            (third + 3 * off * second + counts * off**3).sum(0),
            (fourth + 4 * off * third + 6 * off**2 * second + counts * off**4).sum(0),
        )
        return np.stack([count, mean, *powers, zeros.sum(0)], axis=-1)


def moments(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    """By name, one of MOMENTS, values [K] of sums [K, 6], as in `WeightStatistics`. All are NaN
    where a number is not finite, or there is none."""
    count, mean, second, _, fourth, zeros = sums.T
    bad = ~np.isfinite(fourth)
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = np.where(second > 0, count * fourth / second**2 - 3, np.nan)
        values = (mean, second / count, kurtosis, zeros / count)
    return {name: np.where(bad, np.nan, v) for name, v in zip(MOMENTS, values, strict=True)}
