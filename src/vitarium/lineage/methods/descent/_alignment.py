"""Bring copies whose units stand in another order into one order, before anything is compared.

Exchanged units change nothing of what a model computes, but its weights are then as far from its
parent's as those of a model that has nothing to do with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms, composed, moved
from vitarium.architectures.symmetries.vit import STREAM
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.seeds import derive
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.methods.descent._arrangement import permute_units, symmetries_of
from vitarium.lineage.model_set import ModelSet
from vitarium.operators.alignment._matching import TOLERANCE, Kinds, Matching

MAX_RELATED_DISTANCE = 0.6
"""Models are related as they stand where no matrix is as far from the other's as this: squared
distance by the sum of both variances, which is 1 of matrices that have nothing in common. In two
zoos of small ViTs it was at most 0.46 to a model's nearest relative, at least 1.0 between trees."""
MAX_CANDIDATE_DISTANCE = 0.6
"""Groups are matched where units of the residual stream, in the best order, are nearer than this,
by what each reads of pixels and positions. There: at most 0.42 in a tree, 0.61 between trees, but
for those that began from the same initial weights."""
MAX_MATCHED_RATIO = 0.6
"""Models are the same in another order where this much of what lay between them is left, at most:
of the mean over matrices, or of the farthest one (and of 1, which chance alone can exceed)."""
_CANDIDATES_PER_GROUP = 8
"""Groups that each is compared with: those that are most alike in any order."""
_NUM_PROJECTIONS = 32
"""Random projections of a unit's numbers that order invariants are made of."""
_MAX_SWEEPS = 100
"""Sweeps of coordinate ascent over the groups of units; it ends earlier where nothing changes."""


class AlignedModels(NamedTuple):
    """Models in one order of units.

    Args:
        model_set: the same models and names; the same object where nothing was permuted.
        permuted: by name of every model that was permuted, the model that it was matched to.
        notes: what a user should know, as sentences.
    """

    model_set: ModelSet
    permuted: dict[str, str]
    notes: tuple[str, ...]


def align_units(
    model_set: ModelSet, groups: Sequence[Sequence[int]] | None = None
) -> AlignedModels:
    """Permute units of relatives of other models into those models' order.

    Units of the residual stream, heads, their channels and hidden units of MLPs may be in another
    order, each where the architecture allows it. Models that are far from all others are compared
    by what no order changes; only those that are alike in it are matched (Ainsworth et al. 2023,
    arXiv 2209.04836), and stay as they are where that does not bring them near. Of two groups the
    one with fewer models is moved, all in the same way.

    Args:
        groups: indices of models that are related as they stand; None: found from all distances.
    """
    related = _related(model_set) if groups is None else [sorted(group) for group in groups]
    if len(related) < 2:
        return AlignedModels(model_set, {}, ())
    try:
        symmetries = symmetries_of(model_set)
    except IncompatibleWeights as error:
        note = f"Copies with their units in another order were not looked for: {error}."
        return AlignedModels(model_set, {}, (note,))
    work = _Alignment(model_set, symmetries, related)
    for first, second in work.candidates():
        work.join(first, second)
    if not work.matched:
        return AlignedModels(model_set, {}, ())
    models = [
        permute_units(model, symmetries, work.moves[index]) if index in work.moves else model
        for index, model in enumerate(model_set.models)
    ]
    names = {
        model_set.names[index]: model_set.names[to] for index, to in sorted(work.matched.items())
    }
    return AlignedModels(replace(model_set, models=models), names, ())


class _Alignment:
    """Groups of models that are joined as their units are matched."""

    def __init__(
        self, model_set: ModelSet, symmetries: Symmetries, groups: Sequence[Sequence[int]]
    ) -> None:
        self.model_set, self.symmetries = model_set, symmetries
        self.centers = [_center(model_set, group) for group in groups]
        self.members = {number: list(group) for number, group in enumerate(groups)}
        """Models of each group that is not part of another by now."""
        self.group_of = list(range(len(groups)))
        self.moves: dict[int, UnitTransforms] = {}
        self.matched: dict[int, int] = {}

    def candidates(self) -> list[tuple[int, int]]:
        """Pairs of groups whose units could be the same in another order, the likeliest first."""
        units = [_units(self.model_set.models[center], self.symmetries) for center in self.centers]
        if not units[0].size:
            return []
        distances = squareform(pdist([_order_invariants(group_units) for group_units in units]))
        np.fill_diagonal(distances, np.inf)
        nearest = distances.argsort(axis=1, kind="stable")[:, :_CANDIDATES_PER_GROUP]
        pairs = {
            (min(first, int(second)), max(first, int(second)))
            for first, neighbors in enumerate(nearest)
            for second in neighbors
            if second != first
        }
        far = {pair: _best_order_distance(units[pair[0]], units[pair[1]]) for pair in sorted(pairs)}
        return sorted(
            (pair for pair in far if far[pair] < MAX_CANDIDATE_DISTANCE), key=far.__getitem__
        )

    def join(self, first: int, second: int) -> None:
        """Match the smaller of two groups to the other, if that brings it near."""
        first_part, second_part = self.group_of[first], self.group_of[second]
        if first_part == second_part:
            return
        fixed, moving = sorted((first, second), key=lambda group: self._precedence(group))
        self.model_set.report("matching units", 0, 1)
        moves = self._match(self._now(self.centers[fixed]), self._now(self.centers[moving]))
        if moves is None:
            return
        absorbed, kept_group = self.group_of[moving], self.group_of[fixed]
        for index in self.members[absorbed]:
            self.moves[index] = composed(self.symmetries, self.moves.get(index, {}), moves)
            self.matched[index] = self.centers[kept_group]
        self.members[kept_group] += self.members.pop(absorbed)
        self.group_of = [kept_group if part == absorbed else part for part in self.group_of]

    def _precedence(self, group: int) -> tuple[int, str]:
        """Larger groups stay; of equal ones, the first by the name of its center."""
        part = self.group_of[group]
        return -len(self.members[part]), self.model_set.names[self.centers[part]]

    def _now(self, index: int) -> dict[str, Tensor]:
        model = self.model_set.models[index]
        weights = {name: model[name] for name in self.model_set.tensors}
        return moved(self.symmetries, weights, self.moves.get(index, {}))

    def _match(self, fixed: dict[str, Tensor], moving: dict[str, Tensor]) -> UnitTransforms | None:
        """The moves, or None where they do not bring it near."""
        kinds: Kinds = dict.fromkeys(self.symmetries.groups, "permutation")
        matching = Matching(self.symmetries, fixed, moving, kinds)
        matching.settle()
        order = torch.Generator().manual_seed(derive(0, "lineage alignment"))
        matching.ascend(_MAX_SWEEPS, TOLERANCE, order)
        before = _distances(fixed, moving)
        after = _distances(fixed, moved(self.symmetries, moving, matching.moves))
        nearer = (w(after) < MAX_MATCHED_RATIO * min(w(before), 1) for w in (np.mean, np.max))
        return matching.moves if any(nearer) else None


def _related(model_set: ModelSet) -> list[list[int]]:
    """Models in groups that are related as they stand; a group is as near as a chain of them."""
    statistics = model_set.statistics
    farthest = np.zeros((len(model_set), len(model_set)))
    for name in _matrices(model_set.shapes):
        gram, size = statistics.grams[name], int(np.prod(model_set.shapes[name]))
        mean, spread = statistics.moments["mean"][name], size * statistics.moments["variance"][name]
        inner = gram - size * np.outer(mean, mean)
        of_both = spread[:, None] + spread
        distances = np.divide(of_both - 2 * inner, of_both, where=of_both > 0, out=0 * of_both)
        farthest = np.maximum(farthest, distances)
    _, numbers = connected_components(farthest < MAX_RELATED_DISTANCE, directed=False)
    return [list(map(int, np.flatnonzero(numbers == n))) for n in dict.fromkeys(numbers)]


def _matrices(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Not position embeddings, which differ little between models that began from the same."""
    return [name for name, shape in shapes.items() if len(shape) > 1 and shape[0] > 1]


def _center(model_set: ModelSet, group: Sequence[int]) -> int:
    """The model nearest to all of its group; of equally near ones the first by name."""
    if len(group) == 1:
        return group[0]
    sums = model_set.subset(group).statistics.squared_distances().sum(0)
    return min(zip(sums, (model_set.names[index] for index in group), group, strict=True))[2]


def _units(model: Weights, symmetries: Symmetries) -> np.ndarray:
    """Of each unit of the residual stream all numbers that stand at its place, whatever the order
    of other units: what it reads of pixels, its positions, norms and biases, float64 [units, n].

    Every tensor has a mean of zero over the units, and counts by how many numbers it has of one.
    """
    blocks = []
    for piece, axis_index in symmetries.having(STREAM):
        if sum(axis.group is not None for axis in piece.axes) == 1:
            part = piece.of({piece.tensor: model[piece.tensor]}).double().movedim(axis_index, 0)
            numbers = part.flatten(1).numpy() if part.ndim > 1 else part[:, None].numpy()
            numbers = numbers - numbers.mean(0)
            length = np.linalg.norm(numbers)
            blocks.append(numbers * (numbers.shape[1] ** 0.5 / length if length > 0 else 0))
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((0, 0))


def _order_invariants(units: np.ndarray) -> np.ndarray:
    """Invariants [d] of the order of units [units, n]: products of random projections."""
    chance = np.random.default_rng(derive(0, "lineage alignment"))
    projected = units @ chance.normal(size=(units.shape[1], _NUM_PROJECTIONS))
    products = (projected.T @ projected).ravel()
    return products / max(float(np.linalg.norm(products)), 1e-30)


def _best_order_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared distance of two models' units [units, n] where each has its best partner, by the sum
    of both squares: 1 where they have nothing in common."""
    scores = first @ second.T
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    squared_norms = np.square(first).sum() + np.square(second).sum()
    return float(1 - 2 * best / squared_norms) if squared_norms > 0 else 1.0


def _distances(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> np.ndarray:
    """Squared distance of every matrix by the sum of variances, float64 [matrices]."""
    distances = []
    for name in _matrices({name: tuple(tensor.shape) for name, tensor in first.items()}):
        a, b = (
            (weights[name].double() - weights[name].double().mean()) for weights in (first, second)
        )
        of_both = float(a.square().sum() + b.square().sum())
        distances.append(float((a - b).square().sum()) / of_both if of_both > 0 else 0.0)
    return np.array(distances)
