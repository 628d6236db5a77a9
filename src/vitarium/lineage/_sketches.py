"""Random projections of weights, for sets of models that are too large for all pairs."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from vitarium.core.errors import InvalidInput
from vitarium.core.seeds import derive
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet

_FOLD_WIDTH = 16_381
"""Numbers to which a tensor is folded before they are drawn into the sketch: their sums stay near
the processor. A prime, so that a column of large weights is not folded onto itself. It adds 1.5 %
to the error of a sketch of 512 numbers."""
_CHUNK_MODELS = 1_024
"""Models whose distances to all others are held at a time."""


def sketch_weights(
    model_set: ModelSet, size: int = 512, tensors: Sequence[str] | None = None
) -> np.ndarray:
    """Random projections of all models, float64 [K, size], by default of all tensors of two
    dimensions or more; each file is read once. NaN of a model with a number that is not finite.

    Inner products of sketches estimate those of the weights without bias, and so do squared
    distances: of vectors a and b with a standard deviation of about
    sqrt((|a|^2 |b|^2 + (a b)^2) / size), which is sqrt(2 / size) of a squared length. Every number
    is added, with a random sign, to a random place (Charikar et al. 2002; Weinberger et al. 2009,
    arXiv 0902.2206). Raises InvalidInput for a size below 1, or if there is no tensor; CorruptFile.
    """
    tensors = model_set.matrices if tensors is None else tensors
    if size < 1 or not tensors:
        raise InvalidInput(f"a sketch of {size} numbers of {len(tensors)} tensors is nothing")
    counts = {name: int(np.prod(model_set.shapes[name])) for name in tensors}
    projections = [_TensorProjection(name, count, size) for name, count in counts.items()]

    def sketch(model: Weights) -> np.ndarray:
        total = np.zeros(size)
        with np.errstate(invalid="ignore"):
            for projection in projections:
                total += projection.project(model[projection.name].float().reshape(-1).numpy())
        return total if np.isfinite(total).all() else np.full(size, np.nan)

    sketches = np.empty((len(model_set), size))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, row in enumerate(pool.map(sketch, model_set.models)):
            model_set.progress.step("sketching weights", done, len(model_set))
            sketches[done] = row
    model_set.progress.step("sketching weights", len(model_set), len(model_set))
    return sketches


def spanning_tree(sketch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum spanning tree of sketches [K, size]: indices of models, int64 [K - 1, 2], and squared
    distances, float64 [K - 1], the shortest first.

    Cut where edges get long, it is single linkage of all pairs, where no matrix of them fits into
    memory. (Nearest neighbours are not: siblings whose steps were small have each other, and not
    their parent.) By Boruvka's rounds, each of which joins every tree so far with its nearest.
    Raises InvalidInput for a sketch that is not finite.
    """
    if not np.isfinite(sketch).all():
        raise InvalidInput("a sketch is not finite; set its model aside")
    models = len(sketch)
    edges, lengths = np.empty((0, 2), dtype=np.int64), np.empty(0)
    nearest, joined = np.empty(models, dtype=np.int64), np.arange(models)
    norms = np.einsum("ks,ks->k", sketch, sketch)
    while len(edges) < models - 1:
        for start in range(0, models, _CHUNK_MODELS):  # the nearest model of another tree
            chunk = slice(start, start + _CHUNK_MODELS)
            squared = norms - 2 * (sketch[chunk] @ sketch.T)
            squared[joined[chunk, None] == joined] = np.inf
            nearest[chunk] = squared.argmin(1)
        distances = np.square(sketch - sketch[nearest]).sum(1)
        order = np.lexsort((distances, joined))
        best = order[np.unique(joined[order], return_index=True)[1]]
        candidates = np.concatenate([edges, np.stack([best, nearest[best]], 1)])
        # two trees may have chosen each other, or by rounding three in a circle
        edges, lengths = _forest(candidates, np.concatenate([lengths, distances[best]]), models)
        joined = connected_components(_graph(edges, np.ones(len(edges)), models))[1]
    return edges, lengths


def _forest(edges: np.ndarray, lengths: np.ndarray, models: int) -> tuple[np.ndarray, np.ndarray]:
    """The shortest of edges [n, 2] with lengths [n] without a circle, sorted."""
    order = np.argsort(lengths, kind="stable")
    edges, lengths = edges[order], lengths[order]
    unique = np.sort(np.unique(np.sort(edges, 1), axis=0, return_index=True)[1])
    edges, lengths = edges[unique], lengths[unique]
    # ranks in the place of lengths: scipy takes an edge of length zero for none
    ranks = minimum_spanning_tree(_graph(edges, np.arange(1, len(edges) + 1), models)).data
    rank = np.sort(ranks).astype(np.int64) - 1
    return edges[rank], lengths[rank]


def _graph(edges: np.ndarray, values: np.ndarray, models: int) -> coo_matrix:
    """Sparse [models, models] of values [n] at edges [n, 2]."""
    return coo_matrix((values, edges.T), shape=(models, models))


@dataclass(frozen=True)
class _TensorProjection:
    """Signs and buckets of a tensor's numbers; they follow from its name and the sizes alone."""

    name: str
    count: int
    size: int

    @cached_property
    def signs(self) -> np.ndarray:
        """int8 [count]"""
        noise = np.random.default_rng(derive(0, "sketch", "signs", self.name))
        bits = noise.integers(0, 256, -(-self.count // 8), dtype=np.uint8)
        return np.unpackbits(bits)[: self.count].astype(np.int8) * 2 - 1

    @cached_property
    def buckets(self) -> np.ndarray:
        """int64 [_FOLD_WIDTH or count]"""
        noise = np.random.default_rng(derive(0, "sketch", "places", self.name, self.size))
        return noise.integers(0, self.size, min(self.count, _FOLD_WIDTH))

    def project(self, numbers: np.ndarray) -> np.ndarray:
        """Sketch of a tensor's numbers, float32 [count]; float64 [size]."""
        signed = numbers * self.signs
        rest = self.count % _FOLD_WIDTH
        folded = np.zeros(len(self.buckets))
        if self.count > rest:
            folded += signed[: self.count - rest].reshape(-1, _FOLD_WIDTH).sum(0, dtype=np.float64)
        folded[:rest] += signed[self.count - rest :]
        return np.bincount(self.buckets, folded, self.size)
