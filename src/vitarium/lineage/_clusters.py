"""Families: which models have a common ancestor. Models that were initialized independently are at
right angles; descendants keep most of the direction of what they come from, however far they moved.
"""

import numpy as np
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from vitarium.core.errors import InvalidInput
from vitarium.lineage._sketches import sketch_weights, spanning_tree
from vitarium.lineage.base import ModelSet, first_appearance

MAX_ALL_PAIRS = 600
"""Models of which all pairs are compared; of more, sketches tell which are worth comparing."""
MIN_RELATED_COSINE = 0.5
"""Weight matrices are of one family from here on. Independently drawn ones are near 0; a child
whose changes are as large as what it came from, and unrelated to it, is at 0.7."""
MIN_GAP_RATIO = 1.5
"""How many times as high as the merge before a gap is the one after it, at least."""
MIN_RELATIVE_HEIGHT = 0.2
"""Share of the highest merge below which heights are not told apart: the smallest learning rates
leave children a hundred times nearer to their parent than others, which makes no family of them."""


def families_by_angle(model_set: ModelSet, trees: int | None = None) -> np.ndarray:
    """Family of every model by single linkage on 1 - cosine, int64 [K]; from 0, as they appear. Of
    more than MAX_ALL_PAIRS models by sketches of their weights, unless statistics are there. Raises
    InvalidInput for more trees than models."""
    layers, count = model_set.weight_layers, len(model_set)
    if count <= MAX_ALL_PAIRS or model_set.has_statistics:
        return single_linkage(model_set.statistics.gram(layers), trees)
    _check_trees(trees, count)
    sketch = sketch_weights(model_set, tensors=layers)
    sketch /= np.linalg.norm(sketch, axis=1, keepdims=True)
    edges, squares = spanning_tree(sketch)
    if trees is not None:
        short = np.arange(len(squares)) < count - trees
    else:
        short = squares < 2 * cut_height(squares / 2)
    joined = coo_matrix((np.ones(short.sum()), edges[short].T), shape=(count, count))
    return first_appearance(connected_components(joined, directed=False)[1])


def single_linkage(gram: np.ndarray, trees: int | None = None) -> np.ndarray:
    """The same from inner products of weight matrices, float64 [K, K]: int64 [K]. Every model is
    near its parent or a sibling. Cut where two merges differ most; independent models (1) and
    copies (0) bound the heights, so that one family alone, and models that are all unrelated, are
    found, too. Biases and norms, which begin alike in all models, have no place in the products."""
    _check_trees(trees, len(gram))
    if len(gram) == 1:
        return np.zeros(1, int)
    norms = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    heights = np.clip(1 - gram / norms[:, None] / norms, 0, 2)
    heights = (heights + heights.T) / 2
    np.fill_diagonal(heights, 0)
    merges = linkage(squareform(heights, checks=False), "single")
    if trees is not None:
        return first_appearance(fcluster(merges, trees, "maxclust"))
    return first_appearance(fcluster(merges, cut_height(merges[:, 2]), "distance"))


def cut_height(heights: np.ndarray) -> float:
    """Middle of the widest step between merge heights [merges], 0 and 1 among them."""
    steps = np.unique(np.clip([0, *heights, 1], 0, 1))
    widest = int(np.diff(steps).argmax())
    return float(steps[widest] + steps[widest + 1]) / 2


def families_by_distance(
    model_set: ModelSet, distances: np.ndarray, trees: int | None
) -> np.ndarray:
    """Family of every model by `ward` on distances [K, K], int64 [K]; from 0, as they appear.
    Distances alone do not tell a tree with a few far models from several trees. So where `trees` is
    None, models whose weight matrices are all related are one family, and where no two are, each is
    its own. Biases and gains, which are alike in all models, count only where there is no matrix.
    Raises InvalidInput for more trees than models."""
    if trees is None and len(model_set) > 1:
        gram = model_set.statistics.gram(model_set.matrices or None)
        norms = np.sqrt(gram.diagonal())
        cosines = gram / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)
        related = (cosines > MIN_RELATED_COSINE)[~np.eye(len(model_set), dtype=bool)]
        if related.all():
            trees = 1
        elif not related.any():
            trees = len(model_set)
    return ward(distances, trees)


def ward(distances: np.ndarray, trees: int | None = None) -> np.ndarray:
    """Family of every model by Ward's linkage, int64 [K]; from 0, as they appear (Ward 1963).
    Families are merged while that adds the least variance. Where the number of trees is not known,
    merging stops at the largest gap: where the next merge is relatively highest compared with the
    one before it. Where no gap is larger than MIN_GAP_RATIO there is one family, but a single tree
    with few models may have such a gap too (see `families_by_distance`). Distances [K, K]."""
    _check_trees(trees, len(distances))
    if len(distances) == 1:
        return np.zeros(1, dtype=np.int64)
    # linkage takes a square matrix for points in space
    merges = linkage(squareform(distances, checks=False), "ward")
    heights = np.maximum(merges[:, 2], MIN_RELATIVE_HEIGHT * merges[-1, 2])
    if trees is None:
        trees = 1
        if len(heights) > 1 and heights[-1] > 0:
            ratios = heights[1:] / heights[:-1]
            if ratios.max() > MIN_GAP_RATIO:
                trees = len(heights) - int(ratios.argmax())
    return first_appearance(cut_tree(merges, n_clusters=trees)[:, 0])


def _check_trees(trees: int | None, models: int) -> None:
    if trees is not None and not 1 <= trees <= models:
        hint = f"give a number from 1 to {models}, or none"
        raise InvalidInput(f"{models} models cannot be {trees} trees; {hint}")
