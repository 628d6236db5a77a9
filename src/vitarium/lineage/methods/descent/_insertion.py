"""A tree from its root down: every model is put where it most probably descends from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitarium.lineage.methods.descent._relations import Geometry, descends

_ROUNDS = 8
_PRIOR = 0.3
"""Children that a model counts as having beside those that it has: fans are more likely than that
every model has one child."""
_SELDOM = 0.05
"""How probable it is that what was rounded, pruned or mixed is trained on, against others."""


@dataclass(frozen=True)
class Tree:
    """Of K models.

    Args:
        parents: place of each model's parent, -1 of the root.
        probability: of each model's parent among all that it could have, in (0, 1].
    """

    root: int
    parents: np.ndarray
    probability: np.ndarray


def inserted(
    geometry: Geometry,
    root: int,
    forbidden: Callable[[int], np.ndarray] | None = None,
    made: np.ndarray | None = None,
) -> Tree:
    """The tree of a root, by iteration: how many children a model has tells where others belong.

    Distances add up along a line of descent, so models come in the order of their distance from
    the root. That `a` is the parent of `b` means that b descends from a and from every ancestor of
    a, and went another way than all others: against the root as the parent, its odds are the
    product of those along the line.

    Args:
        forbidden: of a model, who cannot be its ancestor: bool [K].
        made: models that were made of others without training, and seldom have children: bool [K].
    """
    count = len(geometry.squares)
    order = np.argsort(geometry.squares[root], kind="stable")
    prior = np.zeros(count) if made is None else np.where(made, np.log(_SELDOM), 0)
    insertion = _Insertion(geometry, order[order != root], root, forbidden, prior)
    degrees = np.zeros(count)
    degrees[root] = count - 1  # at first, the root has all
    tree = insertion.of_all(degrees, np.full(count, root))
    for _ in range(_ROUNDS):
        degrees = np.bincount(tree.parents[tree.parents >= 0], minlength=count).astype(float)
        insertion.count_runs(tree)
        again = insertion.of_all(degrees, tree.parents)
        if (again.parents == tree.parents).all():
            break
        tree = again
    return tree


class _Insertion:
    """What is known while models are put into a tree."""

    def __init__(
        self,
        geometry: Geometry,
        order: np.ndarray,
        root: int,
        forbidden: Callable[[int], np.ndarray] | None,
        prior: np.ndarray,
    ) -> None:
        self.geometry, self.order, self.root = geometry, order, root
        self.count = len(geometry.squares)
        self.forbidden, self.prior = forbidden, prior
        self._known: dict[tuple[int, int], np.ndarray] = {}
        self._run_weight = 0.1

    def of_all(self, degrees: np.ndarray, before: np.ndarray) -> Tree:
        """Args: how many children each model had, and each model's parent, a round before."""
        parents = np.full(self.count, -1)
        probability = np.ones(self.count)
        lines = np.full((self.count, self.count), -np.inf)
        """Log odds [a, b] of all descents along the line to a, as seen by b."""
        lines[self.root] = 0
        for model in map(int, self.order):
            # the model itself does not count among those that show where it belongs
            have = degrees.copy()
            have[before[model]] -= 1
            found = lines[:, model] + np.log(have + _PRIOR) + self.prior
            if self.forbidden:
                barred = self.forbidden(model).copy()
                barred[self.root] = False  # someone has to be the parent
                found[barred] = -np.inf
            parent = int(found.argmax())
            parents[model] = parent
            probability[model] = np.exp(found[parent] - np.logaddexp.reduce(found))
            lines[model] = lines[parent] + self._odds(parent, model)
        return Tree(self.root, parents, probability)

    def count_runs(self, tree: Tree) -> None:
        """How many descents go on with the same training is estimated from the tree."""
        found, of = 0.0, 0.0
        for model in self.order:
            parent = int(tree.parents[model])
            if parent != self.root:
                grand = int(tree.parents[parent])
                found += float(self.geometry.judged(grand, parent).goes_on[model])
                of += 1
        weight = (found + 0.2) / (of + 2)
        if abs(weight - self._run_weight) > 0.02:
            self._run_weight = min(weight, 0.8)
            self._known.clear()

    def _odds(self, parent: int, child: int) -> np.ndarray:
        """Log odds that models descend from a child rather than went another way."""
        if (parent, child) not in self._known:
            judged = self.geometry.judged(parent, child)
            log_density = descends(judged.relation, self._run_weight)
            self._known[parent, child] = log_density - judged.apart
        return self._known[parent, child]
