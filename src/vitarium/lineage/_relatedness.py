"""Whether two models are related at all, from the cosines of their weights, layer by layer.

Models that were initialized independently are at right angles: of some 1,500 such pairs of small
ViTs, the cosine over the standard error that its layers give it has a standard deviation of 0.7 to
1.3. Of models with relatives, the nearest was at 0.18 at least, however far they had moved.
"""

import numpy as np
from scipy.stats import norm

MIN_RELATED_COSINE = 0.1
"""Below it no two models are joined: one would have grown ten times as long as the other."""
_MIN_STANDARD_ERROR = 0.005
_MIN_Z = 2.5  # cosine over its standard error; with small errors, the least cosine asks for more


def cosines(grams: np.ndarray, numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [K, K] of models of so many numbers, and their standard errors [K, K] by the spread
    over layers, from inner products by layer, [layers, K, K]."""
    by_layer = np.sqrt(np.maximum(np.einsum("lii->li", grams), 1e-300))
    lengths = by_layer[:, :, None] * by_layer[:, None, :]
    norms = np.sqrt(np.maximum(np.einsum("lii->i", grams), 1e-300))
    products = norms[:, None] * norms
    cosine = grams.sum(0) / products
    layers = len(grams)
    squares = ((grams / lengths - cosine) * lengths / products) ** 2
    errors = np.sqrt(squares.sum(0) * layers / max(layers - 1, 1))
    return cosine, np.maximum(errors, max(_MIN_STANDARD_ERROR, numbers**-0.5))


def related(cosine: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Pairs of models, bool [K, K], with a cosine that independent models do not have."""
    return (cosine > MIN_RELATED_COSINE) & (cosine > _MIN_Z * errors)


def unrelated_probability(cosine: np.ndarray, errors: np.ndarray) -> float:
    """Posterior probability, at even odds before, that models are independent of others, from all
    cosines between them and their errors [n]. The largest is either that of normal numbers, or of a
    relative: then any, the large ones more often (a density of 2 c). Cosines of siblings are alike,
    so they count for as many normal numbers, up to n, as fit best."""
    if not cosine.size:
        return 1.0
    nearest = int((cosine / errors).argmax())
    largest, error = cosine[nearest], errors[nearest]
    z = largest / error
    # where the density is largest
    count = np.clip(1 / max(-norm.logcdf(z), 1e-300), 1, len(cosine))
    chance = np.log(count / error) + norm.logpdf(z) + (count - 1) * norm.logcdf(z)
    relative = np.log(2 * np.clip(largest, 1e-6, 1))
    return float(1 / (1 + np.exp(np.clip(relative - chance, -700, 700))))
