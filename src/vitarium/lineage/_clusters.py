"""Which models have a common ancestor: trees of a heap, before anything is said of who is whose.

Models that were initialised independently are at right angles; descendants keep most of the
direction of what they come from, however far a training moved them.
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from vitarium.core.errors import InvalidInput
from vitarium.lineage._canonical_order import first_appearance
from vitarium.lineage._initialization_statistics import weight_layers
from vitarium.lineage._sketches import sketched, spanning_tree
from vitarium.lineage.model_set import Heap

AT_ONCE = 600
"""Models of which all pairs are compared; of more, sketches tell which are worth comparing."""


def grouped(heap: Heap, trees: int | None = None) -> np.ndarray:
    """The number of every model's family: int [K]; of many models, by sketches of their weights.

    Raises InvalidInput for more trees than models.
    """
    layers = weight_layers(heap)
    if len(heap) <= AT_ONCE or heap.is_gathered:
        return families(heap.evidence.gram(layers), trees)
    sketch = sketched(heap, tensors=layers)
    sketch /= np.linalg.norm(sketch, axis=1, keepdims=True)
    edges, squares = spanning_tree(sketch)
    kept = len(heap) - _checked(trees, len(heap)) if trees is not None else None
    short = np.arange(len(squares)) < kept if kept is not None else squares < 2 * cut(squares / 2)
    joined = coo_matrix((np.ones(short.sum()), edges[short].T), shape=(len(heap),) * 2)
    return first_appearance(connected_components(joined, directed=False)[1])


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
    if trees is not None:
        _checked(trees, count)
    if count == 1:
        return np.zeros(1, int)
    norms = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    heights = np.clip(1 - gram / norms[:, None] / norms, 0, 2)
    heights = (heights + heights.T) / 2
    np.fill_diagonal(heights, 0)
    merges = linkage(squareform(heights, checks=False), "single")
    if trees is not None:
        return first_appearance(fcluster(merges, trees, "maxclust"))
    return first_appearance(fcluster(merges, cut(merges[:, 2]), "distance"))


def cut(heights: np.ndarray) -> float:
    """Between the two heights of merges, 0 and 1 among them, that differ most."""
    steps = np.unique(np.clip([0, *heights, 1], 0, 1))
    widest = int(np.diff(steps).argmax())
    return float(steps[widest] + steps[widest + 1]) / 2


def _checked(trees: int, models: int) -> int:
    if not 1 <= trees <= models:
        raise InvalidInput(f"{models} models cannot be {trees} trees")
    return trees
