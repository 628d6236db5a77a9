"""The tree of a family: its root, and from there down every model's most probable parent.

Four things tell a root: weights grow from around zero, so that what follows a root is at right
angles to the root itself; so do biases from zero, and gains from one; siblings' steps from their
parent are alike or at right angles, and seldom opposed; and the whole tree of a root is short.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods.descent._relations import CONTINUE_PRIOR, Geometry

_NUM_ORTHOGONAL, _NUM_CENTRAL = 6, 2
"""Models that are tried as roots: those with most that is at right angles, and the most central."""
_MAX_OPPOSED_COSINE = -0.12
"""Cosine of what a parent's biases and gains have learned and of a child's step, under which it is
no parent: between the worst pre-trained model's mean (-0.07) and that of the best of models that
began alike (-0.18), see docs/lineage.md."""
_OPPOSED_COSINE_SCALE = 0.04
"""By how much that mean has to change for the odds to change by e. Near the limit both are as
probable: children that unlearn a little were at -0.14, models that began alike at -0.12."""
_MAX_ITERATIONS = 8
_CHILD_PSEUDOCOUNT = 0.3
"""Added to the number of a model's children, a Dirichlet prior: fans are more likely than that
every model has one child."""
_DERIVED_PARENT_PRIOR = 0.05
"""Prior odds that what was rounded, pruned or mixed is trained on, against other models."""


class Tree(NamedTuple):
    root: int
    parents: np.ndarray  # index of each model's parent, int [K]; -1 of the root
    posterior: np.ndarray
    """Probability [child, parent] of each parent, with this root; rows add up to 1, the root's to
    0. float64 [K, K]."""


class RootedFamily(NamedTuple):
    tree: Tree
    posterior: np.ndarray
    """Probability [child, parent] of each parent, averaged over the roots; float64 [K, K]."""
    root_posterior: np.ndarray  # that a model is the root, float64 [K]; 1 in all
    shared_init: np.ndarray
    """Models that are no children of their parent in the tree: both began with the same initial
    weights, which are not among the models; bool [K]."""
    shared_init_probability: float
    """That the root's children are none, but share its initial weights."""

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each parent, [child, parent], and of being a root, [K]."""
        tree, probability = self.tree, self.shared_init_probability
        doubted = np.flatnonzero((tree.parents == tree.root) | self.shared_init)
        parents, is_root = self.posterior.copy(), self.root_posterior.copy()
        is_root[doubted] += parents[doubted, tree.parents[doubted]] * probability
        parents[doubted, tree.parents[doubted]] *= 1 - probability
        if self.shared_init.any():  # then it is a root like its siblings
            is_root[tree.root] += (1 - is_root[tree.root]) * probability
        return parents, is_root


def root_family(
    model_set: ModelSet, barred: np.ndarray | None = None, derived: np.ndarray | None = None
) -> RootedFamily:
    """Most probable tree of a family of K models, two or more; `barred` [K, K] says who cannot be a
    model's ancestor, `derived` [K] what was derived from others without training."""
    grams = np.stack([model_set.statistics.grams[name] for name in model_set.weight_layers])
    geometry, gram = Geometry(grams), grams.sum(0)
    steps = _steps_from_start(centered_at_init(model_set))
    from_zero = _from_zero(grams, steps)
    central = -geometry.squares.sum(0)
    proposals = [*np.argsort(-from_zero)[:_NUM_ORTHOGONAL], *np.argsort(-central)[:_NUM_CENTRAL]]
    if barred is not None:
        proposals = [model for model in proposals if not barred[:, model].any()] or proposals
    candidates = sorted(set(map(int, proposals)))
    trees = [insert_models(geometry, root, barred, derived) for root in candidates]
    scores = []
    for tree in trees:
        models = np.flatnonzero(tree.parents >= 0)
        squares = geometry.squares[tree.parents[models], models]
        # log density of the tree's squared length, as of steps of unknown size
        shortness = float(-len(models) / 2 * np.log(squares.sum()))
        scores.append(from_zero[tree.root] + _opposed(gram, tree.root) + shortness)
    best = int(np.argmax(scores))
    tree = trees[best]
    weights = root_probabilities(np.array(scores), len(model_set))
    root_posterior = np.zeros(len(model_set))
    root_posterior[candidates] = weights
    posterior = np.einsum("r,rcp->cp", weights, [of_root.posterior for of_root in trees])
    trained = np.ones(len(model_set), bool) if derived is None else ~derived
    shared_init = _shares_initialization(tree, steps, trained)
    return RootedFamily(tree, posterior, root_posterior, *shared_init)


def root_probabilities(scores: np.ndarray, models: int) -> np.ndarray:
    """Posterior of each candidate [R] for the root of so many models, from log scores [R]. A score
    is a sum over all models, as if each spoke for itself; but siblings' steps are alike, and what
    misleads one misleads all. So they count as sqrt(models) independent ones."""
    tempered = scores / models**0.5
    return np.exp(tempered - np.logaddexp.reduce(tempered))


def centered_at_init(model_set: ModelSet) -> np.ndarray:
    """Gram matrix of biases minus 0 and gains minus 1, float64 [K, K]; 0 without any. Weights begin
    at random around zero; biases at zero, and the gains of norms at one. Models that begin alike
    and have no common parent give themselves away: what each has learned of its biases and gains is
    its own. A vector whose entries are nearer 1 than 0 in most models is a gain."""
    total = np.zeros((len(model_set), len(model_set)))
    for name, shape in model_set.shapes.items():
        if len(shape) != 1:
            continue
        mean, size = model_set.statistics.moments["mean"][name], shape[0]
        total += model_set.statistics.grams[name]
        if np.median(mean) > 0.5:
            total += size * (1 - mean[:, None] - mean)
    return total


def _shares_initialization(
    tree: Tree, steps: np.ndarray, trained: np.ndarray
) -> tuple[np.ndarray, float]:
    """Which models share their parent's initial weights instead of descending from it: bool [K],
    and how probable it is that these do. If most of the root's children have steps against what it
    has learned, it is no root. So must their mean be: one child may unlearn much, and many a
    little. Each counts for as much as it is sure to be a child; what was made of others, and not
    `trained` [K], repeats them."""
    is_child = (tree.parents == tree.root) & trained
    weights = np.where(is_child, tree.posterior[:, tree.root], 0)
    cosines = steps[tree.root]
    if not weights.any():
        return np.zeros(len(steps), bool), 0.0
    majority = weights[cosines < _MAX_OPPOSED_COSINE].sum() > weights.sum() / 2
    mean = float(np.average(cosines, weights=weights))
    probability = float(expit((_MAX_OPPOSED_COSINE - mean) / _OPPOSED_COSINE_SCALE))
    if not majority or mean > _MAX_OPPOSED_COSINE:
        return np.zeros(len(steps), bool), min(probability, 0.5)
    from_parent = steps[tree.parents, np.arange(len(steps))]
    shared = (from_parent < _MAX_OPPOSED_COSINE) | (tree.parents == tree.root)
    shared[tree.root] = False
    return shared, probability


def _from_zero(grams: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Log density [K] of all other models, if a model is their root and zero its parent, of inner
    products [layers, K, K] and `_steps_from_start` [K, K]."""
    geometry = Geometry(np.pad(grams, ((0, 0), (1, 0), (1, 0))))
    everyone = np.arange(1, len(steps) + 1)
    relations = (geometry.relation(0, m, everyone[everyone != m]) for m in everyone.tolist())
    weights = np.array([relation.root_log_density.sum() for relation in relations])
    scales = np.where(steps < 0, 0.1, 0.3)
    densities = np.log(0.9 * np.exp(-np.abs(steps) / scales) / 0.4 + 0.1 / 2)
    np.fill_diagonal(densities, 0)
    return weights + densities.sum(1)


def _steps_from_start(learned: np.ndarray) -> np.ndarray:
    """Cosine [a, b] of what a has learned since it began, and of the step from a to b, of inner
    products of what biases and gains have learned, [K, K]."""
    norms = learned.diagonal()
    products = learned - norms[:, None]
    steps = np.maximum(norms[:, None] + norms - 2 * learned, 0)
    lengths = np.sqrt(norms[:, None] * steps)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _opposed(gram: np.ndarray, root: int) -> float:
    """Log penalty for steps from a root that are opposed to each other: 0, or less; gram [K, K]."""
    rest = np.delete(np.arange(len(gram)), root)
    products = (
        gram[np.ix_(rest, rest)] - gram[rest, root][:, None] - gram[root, rest] + gram[root, root]
    )
    lengths = np.sqrt(np.maximum(products.diagonal(), 1e-30))
    cosines = products / lengths[:, None] / lengths
    pairs = np.triu_indices(len(rest), 1)
    return float(np.minimum(0, (cosines[pairs] + 0.05) / 0.1).sum())


def insert_models(
    geometry: Geometry,
    root: int,
    barred: np.ndarray | None = None,
    derived: np.ndarray | None = None,
) -> Tree:
    """Tree of a root by iteration: how many children a model has tells where others belong.
    Distances add up along a line of descent, so models come in the order of their distance from the
    root. That `a` is the parent of `b` means that b descends from a and from every ancestor of a,
    and went another way than all others: against the root as the parent, its odds are the product
    of those along the line. See `root_family`; what was derived seldom has children."""
    count = len(geometry.squares)
    insertion = _Insertion(geometry, root, barred, derived)
    degrees = np.zeros(count)
    degrees[root] = count - 1  # at first, the root has all
    tree = insertion.build(degrees, np.full(count, root))
    for _ in range(_MAX_ITERATIONS):
        degrees = np.bincount(tree.parents[tree.parents >= 0], minlength=count).astype(float)
        insertion.update_continue_weight(tree)
        again = insertion.build(degrees, tree.parents)
        if (again.parents == tree.parents).all():
            break
        tree = again
    return tree


class _Insertion:
    def __init__(
        self, geometry: Geometry, root: int, barred: np.ndarray | None, derived: np.ndarray | None
    ) -> None:
        order = np.argsort(geometry.squares[root], kind="stable")
        self.geometry, self.root = geometry, root
        self.order = order[order != root].tolist()
        self.barred = np.zeros_like(geometry.squares, bool) if barred is None else barred.copy()
        self.barred[:, root] = False  # someone has to be the parent
        is_derived = np.zeros(len(order), bool) if derived is None else derived
        self.prior = np.where(is_derived, np.log(_DERIVED_PARENT_PRIOR), 0)
        self._log_odds: dict[tuple[int, int], np.ndarray] = {}
        self._continue_weight = CONTINUE_PRIOR

    def build(self, degrees: np.ndarray, before: np.ndarray) -> Tree:
        """From the number of children [K] and parent [K] of each model an iteration before."""
        parents, posterior = np.full(len(degrees), -1), np.zeros(self.barred.shape)
        # log odds [a, b] of all descents along the line to a, as seen by b
        lines = np.full(self.barred.shape, -np.inf)
        lines[self.root] = 0
        for model in self.order:
            # the model itself does not count among those that show where it belongs
            num_children = degrees.copy()
            num_children[before[model]] -= 1
            scores = lines[:, model] + np.log(num_children + _CHILD_PSEUDOCOUNT) + self.prior
            scores[self.barred[model]] = -np.inf
            parent = int(scores.argmax())
            parents[model] = parent
            posterior[model] = np.exp(scores - np.logaddexp.reduce(scores))
            if (parent, model) not in self._log_odds:  # [K], that models descend from this one
                relation = self.geometry.to_all(parent, model)
                log_density = relation.child_log_density(self._continue_weight)
                self._log_odds[parent, model] = log_density - relation.sibling_log_density
            lines[model] = lines[parent] + self._log_odds[parent, model]
        return Tree(self.root, parents, posterior)

    def update_continue_weight(self, tree: Tree) -> None:
        """Estimate from the tree what share of descents continue the same training run."""
        continued, total = 0.0, 0.0
        for model in self.order:
            parent = int(tree.parents[model])
            if parent != self.root:
                relation = self.geometry.to_all(int(tree.parents[parent]), parent)
                continued += float(relation.continues[model])
                total += 1
        weight = (continued + 0.2) / (total + 2)
        if abs(weight - self._continue_weight) > 0.02:
            self._continue_weight = min(weight, 0.8)
            self._log_odds.clear()
