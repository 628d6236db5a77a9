"""Power-law exponents of the tails of the weight matrices' spectra."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from pydantic import NonNegativeFloat
from torch import Tensor

from vitarium.measures.base import Values, Weights, measure
from vitarium.measures.weights.spectra import Spectrum, per_layer

_CHUNK_NUMBERS = 2_000_000  # numbers that the search for xmin holds at a time


class PowerLawTail(Spectrum):
    smallest: NonNegativeFloat = 1e-5
    """Eigenvalues up to this count as zero and are left out, as in WeightWatcher."""


@measure(
    "alpha",
    unit="exponent",
    title="power-law exponent (alpha)",
    paper="Martin, Peng and Mahoney 2021, Nat. Commun. 12, 4122, arXiv 2002.06716",
)
def alpha(config: PowerLawTail, weights: Weights) -> Values:
    """Power-law exponent of the eigenvalues of W^T W, of each matrix W, and the mean over layers.

    As in WeightWatcher (but for spectra of less than 20 values, and kernels): maximum likelihood
    above the xmin of the smallest Kolmogorov-Smirnov distance. A matrix with less than 8
    eigenvalues that count is left out.
    """
    return per_layer(config, weights, partial(_exponent, config))


@measure(
    "alpha_hat",
    unit="exponent",
    title="weighted power-law exponent (alpha-hat)",
    paper="Martin, Peng and Mahoney 2021, Nat. Commun. 12, 4122, arXiv 2002.06716",
)
def alpha_hat(config: PowerLawTail, weights: Weights) -> Values:
    """alpha times log10 of the largest eigenvalue of each weight matrix, and the mean over layers.

    WeightWatcher's `alpha_weighted`; smaller goes with better test accuracy.
    """

    def value(singular: Tensor) -> float | None:
        exponent = _exponent(config, singular)
        return exponent and exponent * 2 * float(singular[0].log10())

    return per_layer(config, weights, value)


@dataclass(frozen=True)
class PowerLaw:
    """p(x) ~ x^-alpha from xmin on; `distance` is the Kolmogorov-Smirnov distance to the data."""

    alpha: float
    xmin: float
    distance: float


def fit(values: np.ndarray) -> PowerLaw:
    """Power law of the tail of positive numbers [n], by maximum likelihood.

    Clauset, Shalizi, Newman 2009, arXiv 0706.1062: every number but the largest is tried as xmin:
    alpha = 1 + n / sum(log(x / xmin)) over the n numbers from xmin on (Eq. 3.1), and the xmin is
    chosen where the tail's distribution is nearest to that (Sec. 3.3). Needs two different numbers.
    """
    numbers = np.sort(values.astype(np.float64))
    logs = np.log(numbers)
    distinct, tries = np.unique(numbers, return_index=True)
    tries = tries[:-1]
    tails = len(numbers) - tries
    sums = np.cumsum(logs[::-1])[::-1][tries] - tails * logs[tries]
    alphas = 1 + tails / sums
    rows = max(1, _CHUNK_NUMBERS // len(numbers))
    starts = range(0, len(tries), rows)
    chunks = [(tries[start : start + rows], alphas[start : start + rows]) for start in starts]
    distances = np.concatenate([_distances(logs, *chunk) for chunk in chunks])
    best = int(distances.argmin())
    return PowerLaw(float(alphas[best]), float(distinct[best]), float(distances[best]))


def _distances(logs: np.ndarray, tries: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance for every tried xmin, the tails as rows of one matrix."""
    ranks = np.arange(len(logs)) - tries[:, None]
    above = np.maximum(logs - logs[tries][:, None], 0)
    expected = -np.expm1((1 - alphas)[:, None] * above)
    empirical = ranks / (len(logs) - tries)[:, None]
    return np.where(ranks >= 0, np.abs(expected - empirical), 0).max(1)


def _exponent(config: PowerLawTail, singular: Tensor) -> float | None:
    eigenvalues = singular.square().numpy()
    counted = eigenvalues[eigenvalues > config.smallest]
    # WeightWatcher's default: a power law is fitted to 8 eigenvalues at least
    if len(counted) < 8 or counted.min() == counted.max():
        return None
    return fit(counted).alpha
