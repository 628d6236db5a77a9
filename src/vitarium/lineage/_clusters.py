"""Families: which models have a common ancestor. Models that were initialized independently are at
right angles; descendants keep most of the direction of what they come from, however far they moved.
Of large sets, they are told by random projections of the weights."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import squareform

from vitarium.core.errors import InvalidInput
from vitarium.core.seeds import derive
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._relatedness import related
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
_FOLD_WIDTH = 16_381
"""Numbers to which a tensor is folded before they are drawn into the sketch: their sums stay near
the processor. A prime, so that a column of large weights is not folded onto itself. It adds 1.5 %
to the error of a sketch of 512 numbers."""
_CHUNK_MODELS = 1_024  # models whose distances to all others are held at a time


def families_by_angle(model_set: ModelSet, trees: int | None = None) -> np.ndarray:
    """Family of every model by single linkage on 1 - cosine, int64 [K]; from 0, as they appear.
    Families that are related beyond chance are joined (`_relatedness`), unless the number of trees
    is given. Of more than MAX_ALL_PAIRS models by sketches of their weights, unless statistics are
    there; these do not show such relatives. Raises InvalidInput for more trees than models."""
    layers, count = model_set.weight_layers, len(model_set)
    if count <= MAX_ALL_PAIRS or model_set.has_statistics:
        families = single_linkage(model_set.statistics.gram(layers), trees)
        if trees is not None or count == 1:
            return families
        joined = related(*model_set.cosines) | (families[:, None] == families)
        return first_appearance(connected_components(joined, directed=False)[1])
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
    projections = {name: _projection(name, count, size) for name, count in counts.items()}

    def sketch(model: Weights) -> np.ndarray:
        total = np.zeros(size)
        with np.errstate(invalid="ignore"):
            for name, (signs, buckets) in projections.items():
                numbers = model[name].float().reshape(-1).numpy()
                total += _project(numbers, signs, buckets, size)
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
    distances, float64 [K - 1], the shortest first. Cut where edges get long, it is single linkage
    of all pairs, where no matrix of them fits into memory. (Nearest neighbors are not: siblings
    whose steps were small have each other, and not their parent.) Boruvka's rounds join
    every tree so far with its nearest. Raises InvalidInput for a sketch that is not finite."""
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


def _projection(name: str, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs, int8 [count], and buckets, int64 [_FOLD_WIDTH or count], of a tensor's numbers; they
    follow from its name and the sizes alone."""
    noise = np.random.default_rng(derive(0, "sketch", "signs", name))
    bits = noise.integers(0, 256, -(-count // 8), dtype=np.uint8)
    signs = np.unpackbits(bits)[:count].astype(np.int8) * 2 - 1
    noise = np.random.default_rng(derive(0, "sketch", "places", name, size))
    return signs, noise.integers(0, size, min(count, _FOLD_WIDTH))


def _project(numbers: np.ndarray, signs: np.ndarray, buckets: np.ndarray, size: int) -> np.ndarray:
    """Sketch of a tensor's numbers, float32 [count]; float64 [size]."""
    signed = numbers * signs
    folded_length = len(signed) - len(signed) % _FOLD_WIDTH
    folded = np.zeros(len(buckets))
    if folded_length:
        folded += signed[:folded_length].reshape(-1, _FOLD_WIDTH).sum(0, dtype=np.float64)
    folded[: len(signed) - folded_length] += signed[folded_length:]
    return np.bincount(buckets, folded, size)
