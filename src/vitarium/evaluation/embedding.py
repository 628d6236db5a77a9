"""Models as points of a plane, by how far apart they are."""

from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from vitarium.core.errors import InvalidInput
from vitarium.core.seeds import derive

Numbers = NDArray[np.float64]
Method = Literal["pca", "tsne", "umap"]
TITLES: dict[Method, str] = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_MIN_MODELS: dict[Method, int] = {"pca": 3, "tsne": 6, "umap": 6}
_COMPONENTS = 50
"""Principal components of which neighbors are looked for (van der Maaten and Hinton 2008, Sec. 4.2:
30 of them)."""


class Plane(NamedTuple):
    """Where models lie in a plane."""

    coordinates: Numbers
    """[models, 2]"""
    explained: Numbers | None
    """Of the axes of a PCA, the share of the variance that each explains [2]; else None."""


def check_installed(method: Method) -> None:
    """Raises InvalidInput where the library of a method is not installed."""
    if method == "umap" and find_spec("umap") is None:
        raise InvalidInput("UMAP needs umap-learn: pip install 'vitarium[umap]'; or leave it out")


def embed(squared: Numbers, method: Method, *, seed: int = 0) -> Numbers | None:
    """Squared distances [models, models] -> coordinates in the plane [models, 2].

    None where there are too few models, or they do not differ.
    """
    if len(squared) < _MIN_MODELS[method]:
        return None
    principal = classical_scaling(squared)
    if not np.ptp(principal) > 0:
        return None
    if method == "pca":
        return principal
    distances = np.sqrt(np.clip(squared, 0, None))
    return _with_neighbors(distances, principal, method, seed, metric="precomputed")


def embed_features(features: Numbers, method: Method, *, seed: int = 0) -> Plane | None:
    """Features [models, features] -> the plane, by their Euclidean distances.

    In memory for the features, not for all pairs of models, t-SNE and UMAP of the first 50
    principal components. None where there are too few models, or they do not differ.
    """
    if len(features) < _MIN_MODELS[method]:
        return None
    count = 2 if method == "pca" else _COMPONENTS
    scores, explained = principal_components(features, count)
    if not np.ptp(scores) > 0:
        return None
    if method == "pca":
        return Plane(scores, explained)
    coordinates = _with_neighbors(scores, scores[:, :2], method, seed, metric="euclidean")
    return Plane(coordinates, None)


def principal_components(features: Numbers, count: int = 2) -> tuple[Numbers, Numbers]:
    """Scores [models, count] of a PCA of features [models, features], and the share of the variance
    that each component explains [count]; of both 0 where there are fewer components.

    Signs are as those of `classical_scaling`.
    """
    centered = features - features.mean(0)
    is_wide = centered.shape[1] > centered.shape[0]
    products = centered @ centered.T if is_wide else centered.T @ centered
    size = len(products)
    number = min(count, size)
    values, vectors = eigh(products, subset_by_index=[size - number, size - 1])
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    scores = np.zeros((len(features), count))
    scores[:, :number] = _signed(vectors * np.sqrt(values) if is_wide else centered @ vectors)
    explained = np.zeros(count)
    if (total := np.trace(products)) > 0:
        explained[:number] = values / total
    return scores, explained


def classical_scaling(squared: Numbers) -> Numbers:
    """The first two principal components [models, 2] of points of which the squared distances
    [models, models] are known (Gower 1966).

    For Euclidean distances these are the scores of a PCA of the points themselves, up to signs;
    the first of the largest entries of each is made positive.
    """
    centered = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-(centered + centered.T) / 4)
    order = np.argsort(values)[::-1][:2]
    return _signed(vectors[:, order] * np.sqrt(np.clip(values[order], 0, None)))


def standardized(features: Numbers) -> Numbers:
    """Features [models, features] with mean 0 and deviation 1; those that do not vary are 0."""
    deviation = features.std(0)
    varies = deviation > 1e-12 * np.maximum(np.abs(features).max(0, initial=0), 1e-300)
    scaled = (features - features.mean(0)) / np.where(varies, deviation, 1)
    return np.where(varies, scaled, 0.0)


def squared_distances(features: Numbers) -> Numbers:
    """[models, features] -> squared Euclidean distances [models, models]."""
    lengths = (features**2).sum(1)
    squared = lengths[:, None] + lengths[None, :] - 2 * features @ features.T
    squared = np.clip((squared + squared.T) / 2, 0, None)
    np.fill_diagonal(squared, 0)
    return squared


def _signed(coordinates: Numbers) -> Numbers:
    """Coordinates [models, axes], the first of the largest entries of each axis positive."""
    largest = np.abs(coordinates).argmax(0)
    signs = np.sign(coordinates[largest, np.arange(coordinates.shape[1])])
    return coordinates * np.where(signs == 0, 1, signs)


def _with_neighbors(
    data: Numbers, principal: Numbers, method: Method, seed: int, *, metric: str
) -> Numbers:
    """t-SNE or UMAP [models, 2] of distances [models, models] or of features [models, features],
    begun with the first two principal components [models, 2]."""
    start = (principal / principal[:, 0].std() * 1e-4).astype(np.float32)
    number = derive(seed, "embedding", method) % 2**31  # scikit-learn takes 32 bits
    settings: dict[str, Any] = {"metric": metric, "random_state": number}
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(data) - 1) / 3)
        mapping = TSNE(init=start, perplexity=perplexity, **settings)
    else:
        check_installed(method)
        from umap import UMAP

        neighbors = min(15, len(data) - 1)
        mapping = UMAP(init=start * 1e4, n_neighbors=neighbors, n_jobs=1, **settings)
    return np.asarray(mapping.fit_transform(data), dtype=np.float64)
