"""Which models have a common ancestor: trees of a heap, before anything is said of who is whose.

Models that were initialised independently are at right angles; descendants keep most of the
direction of what they come from, however far a training moved them.
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from vitarium.errors import InvalidInput
from vitarium.lineage.beginnings import weight_layers
from vitarium.lineage.heap import Heap


def grouped(heap: Heap, trees: int | None = None) -> np.ndarray:
    """The number of every model's family: int [K]. Raises InvalidInput for too many trees."""
    return families(heap.evidence.gram(weight_layers(heap)), trees)


def families(gram: np.ndarray, trees: int | None = None) -> np.ndarray:
    """The number of every model's family, from 0, in order of appearance: int [K].

    Single linkage, since every model is near its parent or a sibling, on 1 - cosine. Cut where two
    merges differ most; independent models (1) and copies (0) bound the heights, so that one family
    alone, and models that are all unrelated, are found, too.

    Args:
        gram: inner products of the weight matrices, float64 [K, K]. Biases and norms have no place
            in it: they begin alike in all models.
        trees: how many families there are; None: to be found.

    Raises InvalidInput for more trees than models.
    """
    count = len(gram)
    if trees is not None and not 1 <= trees <= count:
        raise InvalidInput(f"{count} models cannot be {trees} trees")
    if count == 1:
        return np.zeros(1, int)
    norms = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    heights = np.clip(1 - gram / norms[:, None] / norms, 0, 2)
    heights = (heights + heights.T) / 2
    np.fill_diagonal(heights, 0)
    merges = linkage(squareform(heights, checks=False), "single")
    if trees is not None:
        return in_order(fcluster(merges, trees, "maxclust"))
    return in_order(fcluster(merges, cut(merges[:, 2]), "distance"))


def cut(heights: np.ndarray) -> float:
    """Between the two heights of merges, 0 and 1 among them, that differ most."""
    steps = np.unique(np.clip([0, *heights, 1], 0, 1))
    widest = int(np.diff(steps).argmax())
    return float(steps[widest] + steps[widest + 1]) / 2


def in_order(labels: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 in order of appearance."""
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]
