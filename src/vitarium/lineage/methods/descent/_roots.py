"""Where a family begins: the model that all others can have come from.

Four things tell: weights grow from around zero, so that what follows a root is at right angles to
the root itself; so do biases from zero, and gains from one; siblings' steps from their parent are
alike or at right angles, and seldom opposed; and the whole tree of a root is short.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitarium.lineage.methods.descent._insertion import Tree, inserted
from vitarium.lineage.methods.descent._relations import Geometry, from_nothing

_CANDIDATES, _CENTRAL = 6, 2
"""Models that are tried as roots: those with most that is at right angles, and in the middle."""
_BACKWARDS = -0.12
"""Cosine of what a parent's biases and gains have learned and of a child's step, under which it is
no parent: between the worst pre-trained model's mean (-0.07) and that of the best of models that
began alike (-0.18), see docs/lineage.md."""


@dataclass(frozen=True)
class Rooted:
    """A family's tree.

    Args:
        probability: that the tree's root is the root, in (0, 1].
        began_alike: models that are no children of whom they hang from: both began with the same
            initial weights, which are not among the models; bool [K].
    """

    tree: Tree
    probability: float
    began_alike: np.ndarray


def rooted(
    grams: np.ndarray,
    learned: np.ndarray,
    forbidden: Callable[[int], np.ndarray] | None = None,
    made: np.ndarray | None = None,
) -> Rooted:
    """The most probable tree of a family.

    Args:
        grams: inner products of K models' weights, layer by layer, float64 [layers, K, K].
        learned: inner products of what biases and gains have learned, float64 [K, K].
        forbidden: of a model, who cannot be its ancestor: bool [K].
        made: models that were made of others without training: bool [K].
    """
    count = grams.shape[1]
    geometry = Geometry(grams)
    if count == 1:
        return Rooted(Tree(0, np.array([-1]), np.ones(1)), 1.0, np.zeros(1, bool))
    steps = _steps_from_start(learned)
    from_zero = _from_zero(grams) + _forwards(steps)
    central = -geometry.squares.sum(0)
    both = [*np.argsort(-from_zero)[:_CANDIDATES], *np.argsort(-central)[:_CENTRAL]]
    if forbidden is not None:
        barred = np.any([forbidden(model) for model in range(count)], axis=0)
        both = [one for one in both if not barred[one]] or both
    candidates = sorted(set(map(int, both)))
    trees = [inserted(geometry, root, forbidden, made) for root in candidates]
    scores = np.array(
        [
            from_zero[tree.root] + _opposed(grams, tree.root) + _shortness(geometry, tree)
            for tree in trees
        ]
    )
    best = int(scores.argmax())
    tree = trees[best]
    alike = _began_alike(tree, steps, np.zeros(count, bool) if made is None else made)
    return Rooted(tree, float(1 / np.exp(scores - scores[best]).sum()), alike)


def _began_alike(tree: Tree, steps: np.ndarray, made: np.ndarray) -> np.ndarray:
    """If most of the root's children have steps against what it has learned, it is no root.

    So must their mean be: one child may unlearn much, and many a little. Each counts for as much as
    it is sure to be a child; what was made of others repeats them.
    """
    sure = np.where((tree.parents == tree.root) & ~made, tree.probability, 0)
    cosines = steps[tree.root]
    most = sure[cosines < _BACKWARDS].sum() > sure.sum() / 2
    if not most or np.average(cosines, weights=sure) > _BACKWARDS:
        return np.zeros(len(steps), bool)
    from_parent = steps[tree.parents, np.arange(len(steps))]
    found = (from_parent < _BACKWARDS) | (tree.parents == tree.root)
    found[tree.root] = False
    return found


def _from_zero(grams: np.ndarray) -> np.ndarray:
    """Of every model: log density of all others, if it is their root and zero its parent."""
    layers, count, _ = grams.shape
    with_zero = np.zeros((layers, count + 1, count + 1))
    with_zero[:, 1:, 1:] = grams
    geometry = Geometry(with_zero)
    everyone = np.arange(1, count + 1)
    return np.array(
        [
            from_nothing(geometry.relation(0, root, everyone[everyone != root])).sum()
            for root in everyone
        ]
    )


def _steps_from_start(learned: np.ndarray) -> np.ndarray:
    """Cosine [a, b] of what a has learned since it began, and of the step from a to b."""
    norms = learned.diagonal()
    products = learned - norms[:, None]
    steps = np.maximum(norms[:, None] + norms - 2 * learned, 0)
    lengths = np.sqrt(norms[:, None] * steps)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    found: np.ndarray = cosines
    return found


def _forwards(cosines: np.ndarray) -> np.ndarray:
    """Of every model: log density of the cosines of its steps to all others, if it is the root."""
    scales = np.where(cosines < 0, 0.1, 0.3)
    densities = np.log(0.9 * np.exp(-np.abs(cosines) / scales) / 0.4 + 0.1 / 2)
    np.fill_diagonal(densities, 0)
    found: np.ndarray = densities.sum(1)
    return found


def _opposed(grams: np.ndarray, root: int) -> float:
    """How much the others' steps from a root are opposed to each other: 0, or less."""
    gram = grams.sum(0)
    others = np.delete(np.arange(len(gram)), root)
    products = (
        gram[np.ix_(others, others)]
        - gram[others, root][:, None]
        - gram[root, others]
        + gram[root, root]
    )
    lengths = np.sqrt(np.maximum(products.diagonal(), 1e-30))
    cosines = products / lengths[:, None] / lengths
    pairs = np.triu_indices(len(others), 1)
    return float(np.minimum(0, (cosines[pairs] + 0.05) / 0.1).sum())


def _shortness(geometry: Geometry, tree: Tree) -> float:
    """Log density of a tree's squared length, as of steps of unknown size."""
    models = np.flatnonzero(tree.parents >= 0)
    squares = geometry.squares[tree.parents[models], models]
    return float(-len(models) / 2 * np.log(squares.sum()))
