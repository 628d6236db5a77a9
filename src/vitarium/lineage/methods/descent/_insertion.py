"""A tree from its root down: every model is put where it most probably descends from."""

from dataclasses import dataclass

import numpy as np

from vitarium.lineage.methods.descent._relations import CONTINUE_PRIOR, Geometry

_MAX_ITERATIONS = 8
_CHILD_PSEUDOCOUNT = 0.3
"""Added to the number of a model's children, a Dirichlet prior: fans are more likely than that
every model has one child."""
_DERIVED_PARENT_PRIOR = 0.05
"""Prior odds that what was rounded, pruned or mixed is trained on, against other models."""


@dataclass(frozen=True)
class Tree:
    """Tree of K models.

    Args:
        parents: index of each model's parent, int [K]; -1 of the root.
        probability: of each model's parent among all that it could have, in (0, 1], [K].
    """

    root: int
    parents: np.ndarray
    probability: np.ndarray


def insert_models(
    geometry: Geometry,
    root: int,
    barred: np.ndarray | None = None,
    derived: np.ndarray | None = None,
) -> Tree:
    """Tree of a root by iteration: how many children a model has tells where others belong.

    Distances add up along a line of descent, so models come in the order of their distance from
    the root. That `a` is the parent of `b` means that b descends from a and from every ancestor of
    a, and went another way than all others: against the root as the parent, its odds are the
    product of those along the line.

    Args:
        barred: of every model, who cannot be its ancestor: bool [K, K].
        derived: models derived from others without training, which seldom have children: bool [K].
    """
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
    """State of inserting models into a tree, one after the other."""

    def __init__(
        self,
        geometry: Geometry,
        root: int,
        barred: np.ndarray | None,
        derived: np.ndarray | None,
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
        """Args: number of children [K] and parent [K] of each model, an iteration before."""
        parents, probability = np.full(len(degrees), -1), np.ones(len(degrees))
        lines = np.full(self.barred.shape, -np.inf)
        """Log odds [a, b] of all descents along the line to a, as seen by b."""
        lines[self.root] = 0
        for model in self.order:
            # the model itself does not count among those that show where it belongs
            num_children = degrees.copy()
            num_children[before[model]] -= 1
            scores = lines[:, model] + np.log(num_children + _CHILD_PSEUDOCOUNT) + self.prior
            scores[self.barred[model]] = -np.inf
            parent = int(scores.argmax())
            parents[model] = parent
            probability[model] = np.exp(scores[parent] - np.logaddexp.reduce(scores))
            if (parent, model) not in self._log_odds:  # [K], that models descend from this one
                relation = self.geometry.to_all(parent, model)
                log_density = relation.child_log_density(self._continue_weight)
                self._log_odds[parent, model] = log_density - relation.sibling_log_density
            lines[model] = lines[parent] + self._log_odds[parent, model]
        return Tree(self.root, parents, probability)

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
