"""Families of models by hierarchical clustering of their distances, as MoTHer finds its trees."""

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from vitarium.core.errors import InvalidInput
from vitarium.lineage._canonical_order import first_appearance
from vitarium.lineage.model_set import Heap

RELATED = 0.5
"""Cosine from which weight matrices are of one family. Independently drawn ones are near 0, and a
child whose changes are as large as what it came from, and unrelated to it, is at 0.7."""
GAP = 1.5
"""How much higher the next merge is at a gap, at least."""
FLOOR = 0.2
"""Share of the highest merge below which heights are not told apart: the smallest learning rates
leave children a hundred times nearer to their parent than others, which makes no family of them."""


def ward(distances: np.ndarray, trees: int | None = None) -> np.ndarray:
    """Families by Ward's linkage: merged while that adds the least variance (Ward 1963).

    Where the number of trees is not known, merging stops at the largest gap: where the next merge
    is relatively highest compared with the one before it. Where no gap is larger than GAP there is
    one family, but a single tree with few models may have such a gap too (see `families`).

    Args:
        distances: float64 [K, K], symmetric.
        trees: how many families, or None.

    Returns: the family of every model, int64 [K], numbered from 0 in order of first appearance.

    Raises InvalidInput where there are more trees than models.
    """
    count = len(distances)
    if trees is not None and not 1 <= trees <= count:
        raise InvalidInput(
            f"{count} models cannot make {trees} trees; give a number from 1 to {count}, or none"
        )
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    # linkage takes a square matrix for points in space
    merges = linkage(squareform(distances, checks=False), "ward")
    labels = cut_tree(merges, n_clusters=trees or _at_largest_gap(merges[:, 2]))
    return first_appearance(labels[:, 0])


def families(heap: Heap, distances: np.ndarray, trees: int | None) -> np.ndarray:
    """Families by `ward`, where the number of trees is not known with a look at the angles.

    Distances alone do not tell a tree with a few far models from several trees. So where the
    weight matrices of all models are related, they are one family, and where no two are, each is
    its own.
    """
    if trees is None and len(heap) > 1:
        related = _cosines(heap) > RELATED
        if related.all():
            trees = 1
        elif not related[~np.eye(len(heap), dtype=bool)].any():
            trees = len(heap)
    return ward(distances, trees)


def _at_largest_gap(heights: np.ndarray) -> int:
    """The number of families before the first merge above the gap."""
    told_apart = np.maximum(heights, FLOOR * heights[-1])
    if len(heights) < 2 or heights[-1] == 0:
        return 1
    ratios = told_apart[1:] / told_apart[:-1]
    below = int(ratios.argmax())
    return len(heights) - below if ratios[below] > GAP else 1


def _cosines(heap: Heap) -> np.ndarray:
    """Of weight matrices, or of all tensors where there are none; biases and the scales of norms,
    which are alike in all models, are left out. Float64 [K, K]; 1 on the diagonal."""
    matrices = [name for name, shape in heap.shapes.items() if len(shape) > 1]
    gram = heap.evidence.gram(matrices or None)
    norms = np.sqrt(gram.diagonal())
    cosines = gram / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)
    np.fill_diagonal(cosines, 1)
    return cosines
