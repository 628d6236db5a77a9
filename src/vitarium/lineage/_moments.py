"""Mean, variance, kurtosis and share of zeros of tensors whose numbers come in parts.

Every part is centered on its own mean, so nothing is lost where that is large against the spread,
as it is of the scales of layer norms.
"""

from collections.abc import Mapping

import numpy as np

MOMENTS = ("mean", "variance", "kurtosis", "zeros")


class PowerSums:
    """What `measures.weights._products.gathered` sums up of every tensor.

    Of n numbers x: n, their mean m, the sums of (x - m)^2, (x - m)^3 and (x - m)^4, and how many
    are zero. Parts are joined as in Pebay 2008 (SAND2008-6212), those of all models at once.
    """

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
        return np.stack(
            [
                count,
                mean,
                (second + counts * off**2).sum(0),
                (third + 3 * off * second + counts * off**3).sum(0),
                (fourth + 4 * off * third + 6 * off**2 * second + counts * off**4).sum(0),
                zeros.sum(0),
            ],
            axis=-1,
        )


def moments(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    """By name, one of MOMENTS, values [K] of sums [K, 6].

    The variance is divided by n; the kurtosis is the excess (Fisher's), NaN of a constant. All are
    NaN where a number is not finite, or there is none.
    """
    count, mean, second, _, fourth, zeros = sums.T
    bad = ~np.isfinite(fourth)
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = np.where(second > 0, count * fourth / second**2 - 3, np.nan)
        values = (mean, second / count, kurtosis, zeros / count)
    return {name: np.where(bad, np.nan, of) for name, of in zip(MOMENTS, values, strict=True)}
