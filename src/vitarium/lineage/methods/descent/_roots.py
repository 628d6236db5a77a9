"""The root of a family: the model that all others can have come from.

Four things tell: weights grow from around zero, so that what follows a root is at right angles to
the root itself; so do biases from zero, and gains from one; siblings' steps from their parent are
alike or at right angles, and seldom opposed; and the whole tree of a root is short.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitarium.lineage.methods.descent._insertion import Tree, insert_models
from vitarium.lineage.methods.descent._relations import Geometry, root_log_density

_NUM_ORTHOGONAL, _NUM_CENTRAL = 6, 2
"""Models that are tried as roots: those with most that is at right angles, and the most central."""
_MAX_OPPOSED_COSINE = -0.12
"""Cosine of what a parent's biases and gains have learned and of a child's step, under which it is
no parent: between the worst pre-trained model's mean (-0.07) and that of the best of models that
began alike (-0.18), see docs/lineage.md."""


@dataclass(frozen=True)
class RootedFamily:
    """Tree of a family with its root.

    Args:
        probability: that the tree's root is the root, in (0, 1].
        shared_init: models that are no children of their parent in the tree: both began with the
            same initial weights, which are not among the models; bool [K].
    """

    tree: Tree
    probability: float
    shared_init: np.ndarray


def root_family(
    grams: np.ndarray,
    learned: np.ndarray,
    forbidden: Callable[[int], np.ndarray] | None = None,
    derived: np.ndarray | None = None,
) -> RootedFamily:
    """Most probable tree of a family of K models.

    Args:
        grams: inner products of K models' weights, layer by layer, float64 [layers, K, K].
        learned: inner products of what biases and gains have learned, float64 [K, K].
        forbidden: of a model, who cannot be its ancestor: bool [K].
        derived: models derived from others without training: bool [K].
    """
    count = grams.shape[1]
    geometry = Geometry(grams)
    if count == 1:
        return RootedFamily(Tree(0, np.array([-1]), np.ones(1)), 1.0, np.zeros(1, bool))
    steps = _steps_from_start(learned)
    from_zero = _from_zero(grams) + _log_density_of_steps(steps)
    central = -geometry.squares.sum(0)
    proposals = [*np.argsort(-from_zero)[:_NUM_ORTHOGONAL], *np.argsort(-central)[:_NUM_CENTRAL]]
    if forbidden is not None:
        barred = np.any([forbidden(model) for model in range(count)], axis=0)
        proposals = [model for model in proposals if not barred[model]] or proposals
    candidates = sorted(set(map(int, proposals)))
    trees = [insert_models(geometry, root, forbidden, derived) for root in candidates]
    scores = np.array(
        [
            from_zero[tree.root] + _opposed(grams, tree.root) + _shortness(geometry, tree)
            for tree in trees
        ]
    )
    best = int(scores.argmax())
    tree = trees[best]
    shared_init = _shares_initialization(
        tree, steps, np.zeros(count, bool) if derived is None else derived
    )
    return RootedFamily(tree, float(1 / np.exp(scores - scores[best]).sum()), shared_init)


def _shares_initialization(tree: Tree, steps: np.ndarray, derived: np.ndarray) -> np.ndarray:
    """Which models share their parent's initial weights instead of descending from it: bool [K].

    If most of the root's children have steps against what it has learned, it is no root.

    So must their mean be: one child may unlearn much, and many a little. Each counts for as much as
    it is sure to be a child; what was made of others repeats them.
    """
    weights = np.where((tree.parents == tree.root) & ~derived, tree.probability, 0)
    cosines = steps[tree.root]
    majority = weights[cosines < _MAX_OPPOSED_COSINE].sum() > weights.sum() / 2
    if not majority or np.average(cosines, weights=weights) > _MAX_OPPOSED_COSINE:
        return np.zeros(len(steps), bool)
    from_parent = steps[tree.parents, np.arange(len(steps))]
    shared = (from_parent < _MAX_OPPOSED_COSINE) | (tree.parents == tree.root)
    shared[tree.root] = False
    return shared


def _from_zero(grams: np.ndarray) -> np.ndarray:
    """Log density [K] of all other models, if a model is their root and zero its parent.

    Args: grams: inner products, float64 [layers, K, K].
    """
    layers, count, _ = grams.shape
    with_zero = np.zeros((layers, count + 1, count + 1))
    with_zero[:, 1:, 1:] = grams
    geometry = Geometry(with_zero)
    everyone = np.arange(1, count + 1)
    return np.array(
        [
            root_log_density(geometry.relation(0, root, everyone[everyone != root])).sum()
            for root in everyone
        ]
    )


def _steps_from_start(learned: np.ndarray) -> np.ndarray:
    """Cosine [a, b] of what a has learned since it began, and of the step from a to b."""
    norms = learned.diagonal()
    products = learned - norms[:, None]
    steps = np.maximum(norms[:, None] + norms - 2 * learned, 0)
    lengths = np.sqrt(norms[:, None] * steps)
    return np.asarray(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))


def _log_density_of_steps(cosines: np.ndarray) -> np.ndarray:
    """Log density [K] of cosines [K, K] of a model's steps to all others, if it is the root."""
    scales = np.where(cosines < 0, 0.1, 0.3)
    densities = np.log(0.9 * np.exp(-np.abs(cosines) / scales) / 0.4 + 0.1 / 2)
    np.fill_diagonal(densities, 0)
    total: np.ndarray = densities.sum(1)
    return total


def _opposed(grams: np.ndarray, root: int) -> float:
    """Log penalty for steps from a root that are opposed to each other: 0, or less.

    Args: grams: inner products, float64 [layers, K, K].
    """
    gram = grams.sum(0)
    rest = np.delete(np.arange(len(gram)), root)
    products = (
        gram[np.ix_(rest, rest)] - gram[rest, root][:, None] - gram[root, rest] + gram[root, root]
    )
    lengths = np.sqrt(np.maximum(products.diagonal(), 1e-30))
    cosines = products / lengths[:, None] / lengths
    pairs = np.triu_indices(len(rest), 1)
    return float(np.minimum(0, (cosines[pairs] + 0.05) / 0.1).sum())


def _shortness(geometry: Geometry, tree: Tree) -> float:
    """Log density of a tree's squared length, as of steps of unknown size."""
    models = np.flatnonzero(tree.parents >= 0)
    squares = geometry.squares[tree.parents[models], models]
    return float(-len(models) / 2 * np.log(squares.sum()))
