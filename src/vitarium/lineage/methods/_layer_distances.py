"""Distances of weights, as MoTHer takes them. A layer is a matrix; timm's fused qkv are three."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import pdist, squareform

from vitarium.core.errors import InvalidInput
from vitarium.lineage._statistics import squared_distances
from vitarium.lineage.base import ModelSet

CHUNK_BYTES = 256_000_000  # bytes of weights of all models that are compared at a time
_FUSED_NAMES = ("qkv", "in_proj")


class Layer(NamedTuple):
    """Rows of a tensor that are a matrix [rows, columns] of their own."""

    tensor: str
    start: int
    stop: int
    columns: int


def layers(model_set: ModelSet) -> list[Layer]:
    """The square matrices, as MoTHer compares them; all matrices where none is square. Raises
    InvalidInput where there is no matrix."""
    matrices = []
    for name, shape in model_set.shapes.items():
        if len(shape) == 2:
            rows, columns = shape
            fused = rows == 3 * columns and any(word in name for word in _FUSED_NAMES)
            height = columns if fused else rows
            matrices += [Layer(name, s, s + height, columns) for s in range(0, rows, height)]
    if not matrices:
        what = "the models have no weight matrix in common, which this distance is of"
        raise InvalidInput(f"{what}; choose the distance l2, which takes any tensor")
    return [layer for layer in matrices if layer.stop - layer.start == layer.columns] or matrices


def l2(model_set: ModelSet) -> np.ndarray:
    """Mean over tensors of the l2 distance, float64 [K, K]; nothing is read for it."""
    grams = model_set.statistics.grams
    return np.mean([np.sqrt(squared_distances(grams[name])) for name in model_set.tensors], axis=0)


def mean_absolute(model_set: ModelSet) -> np.ndarray:
    """Sum over layers of the mean absolute difference of entries, float64 [K, K]."""
    total = np.zeros(len(model_set) * (len(model_set) - 1) // 2)
    for layer, entries in _entries(model_set, "reading layers for mean differences"):
        total += pdist(entries, "cityblock") / ((layer.stop - layer.start) * layer.columns)
    return squareform(total)


def largest(model_set: ModelSet) -> np.ndarray:
    """The largest difference of an entry, normalized by layer, over all layers, float64 [K, K]. A
    layer's absolute differences are moved and scaled so that the smallest of all pairs is 0 and the
    largest is 1; so the distance of two models depends on which others there are."""
    maxima: dict[Layer, np.ndarray] = {}
    minima: dict[Layer, float] = {}
    for layer, entries in _entries(model_set, "reading layers for largest differences"):
        chebyshev = pdist(entries, "chebyshev")
        maxima[layer] = np.maximum(maxima.get(layer, 0), chebyshev)
        # of sorted numbers the nearest are neighbors
        gaps = np.diff(np.sort(entries, axis=0), axis=0)
        minima[layer] = min(minima.get(layer, np.inf), gaps.min(initial=np.inf))
    distances = np.zeros(len(model_set) * (len(model_set) - 1) // 2)
    for layer, values in maxima.items():
        span = values.max(initial=0) - minima[layer]
        if span > 0:
            distances = np.maximum(distances, (values - minima[layer]) / span)
    return squareform(distances)


def rank(model_set: ModelSet, tolerance: float | None = None) -> np.ndarray:
    """Sum over layers of the numerical rank of the difference, float64 [K, K]. Singular values up
    to `tolerance` of the largest count as 0; None: what rounding leaves, of the singular values and
    of the weights as they are stored."""
    total = np.zeros((len(model_set), len(model_set)))
    compared_layers = layers(model_set)
    for done, layer in enumerate(compared_layers):
        model_set.progress.step("reading layers for ranks", done, len(compared_layers))
        tensors = [model.rows(layer.tensor, layer.start, layer.stop) for model in model_set.models]
        noise = np.array([_rounding_norm(tensor) for tensor in tensors])
        weights = torch.stack([tensor.double() for tensor in tensors])
        for index in range(len(model_set) - 1):
            values = torch.linalg.svdvals(weights[index + 1 :] - weights[index]).numpy()
            if tolerance is None:
                exact = values[:, 0] * max(weights.shape[1:]) * np.finfo(float).eps
                zero = np.maximum(exact, noise[index] + noise[index + 1 :])
            else:
                zero = values[:, 0] * tolerance
            total[index, index + 1 :] += (values > zero[:, None]).sum(1)
    return total + total.T


def _entries(model_set: ModelSet, task: str) -> Iterator[tuple[Layer, np.ndarray]]:
    """Entries of all models, float32 [K, entries], some rows of a layer at a time."""
    compared_layers = layers(model_set)
    for done, layer in enumerate(compared_layers):
        model_set.progress.step(task, done, len(compared_layers))
        rows = max(1, CHUNK_BYTES // (8 * len(model_set) * layer.columns))
        for start in range(layer.start, layer.stop, rows):
            stop = min(start + rows, layer.stop)
            chunks = [model.rows(layer.tensor, start, stop) for model in model_set.models]
            yield layer, torch.stack([tensor.float().flatten() for tensor in chunks]).numpy()


def _rounding_norm(tensor: torch.Tensor) -> float:
    """About the largest singular value of the rounding error of a stored matrix [rows, columns]:
    that of independent errors is (sqrt(rows) + sqrt(columns)) times theirs."""
    size = tensor.double().square().mean().sqrt().item()
    return torch.finfo(tensor.dtype).eps * size * sum(side**0.5 for side in tensor.shape)
