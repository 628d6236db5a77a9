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
from vitarium.lineage.methods.descent._arrangement import rearranged, symmetries_of
from vitarium.lineage.model_set import Heap
from vitarium.operators.alignment._matching import TOLERANCE, Kinds, Matching

FAR = 0.6
"""Models are related as they stand where no matrix is as far from the other's as this: squared
distance by the sum of both variances, which is 1 of matrices that have nothing in common. In two
zoos of small ViTs it was at most 0.46 to a model's nearest relative, at least 1.0 between trees."""
SUSPECT = 0.6
"""Groups are matched where units of the residual stream, in the best order, are nearer than this,
by what each reads of pixels and positions. There: at most 0.42 in a tree, 0.61 between trees, but
for those that began from the same initial weights."""
MATCHED = 0.6
"""Models are the same in another order where this much of what lay between them is left, at most:
of the mean over matrices, or of the farthest one (and of 1, which chance alone can exceed)."""
_TRIED = 8
"""Each group is compared with so many others, those that are most alike in any order."""
_MIXED = 32
"""Numbers of a unit that are left for that, mixtures of all."""
_SWEEPS = 100


class Aligned(NamedTuple):
    """What `aligned` gives back.

    Args:
        heap: the same models and names; the same object where nothing was moved.
        moved: by name of every model that was moved, which model it was moved to match.
        notes: what a user should know, as sentences.
    """

    heap: Heap
    moved: dict[str, str]
    notes: tuple[str, ...]


def aligned(heap: Heap, groups: Sequence[Sequence[int]] | None = None) -> Aligned:
    """Move rearranged relatives of other models into those models' arrangement.

    Units of the residual stream, heads, their channels and hidden units of MLPs may be in another
    order, each where the architecture allows it. Models that are far from all others are compared
    by what no order changes; only those that are alike in it are matched (Ainsworth et al. 2023,
    arXiv 2209.04836), and stay as they are where that does not bring them near. Of two groups the
    one with fewer models is moved, all in the same way.

    Args:
        groups: places of models that are related as they stand; None: found from all distances.
    """
    found = _related(heap) if groups is None else [sorted(group) for group in groups]
    if len(found) < 2:
        return Aligned(heap, {}, ())
    try:
        symmetries = symmetries_of(heap)
    except IncompatibleWeights as error:
        note = f"Copies with their units in another order were not looked for: {error}."
        return Aligned(heap, {}, (note,))
    work = _Alignment(heap, symmetries, found)
    for one, other in work.suspects():
        work.join(one, other)
    if not work.matched:
        return Aligned(heap, {}, ())
    models = [
        rearranged(model, symmetries, work.moves[place]) if place in work.moves else model
        for place, model in enumerate(heap.models)
    ]
    names = {heap.names[place]: heap.names[to] for place, to in sorted(work.matched.items())}
    return Aligned(replace(heap, models=models), names, ())


class _Alignment:
    """Groups of models on their way into one order."""

    def __init__(self, heap: Heap, symmetries: Symmetries, groups: Sequence[Sequence[int]]) -> None:
        self.heap, self.symmetries = heap, symmetries
        self.centres = [_centre(heap, group) for group in groups]
        self.members = {number: list(group) for number, group in enumerate(groups)}
        """Of each group that is not part of another by now."""
        self.part_of = list(range(len(groups)))
        self.moves: dict[int, UnitTransforms] = {}
        self.matched: dict[int, int] = {}

    def suspects(self) -> list[tuple[int, int]]:
        """Pairs of groups whose units could be the same in another order, the likeliest first."""
        units = [_units(self.heap.models[centre], self.symmetries) for centre in self.centres]
        if not units[0].size:
            return []
        alike = squareform(pdist([_without_order(each) for each in units]))
        np.fill_diagonal(alike, np.inf)
        nearest = alike.argsort(axis=1, kind="stable")[:, :_TRIED]
        pairs = {
            (min(one, int(other)), max(one, int(other)))
            for one, others in enumerate(nearest)
            for other in others
            if other != one
        }
        far = {pair: _in_best_order(units[pair[0]], units[pair[1]]) for pair in sorted(pairs)}
        return sorted((pair for pair in far if far[pair] < SUSPECT), key=far.__getitem__)

    def join(self, one: int, other: int) -> None:
        """Match the smaller of two groups to the other, if that brings it near."""
        first, second = self.part_of[one], self.part_of[other]
        if first == second:
            return
        fixed, moving = sorted((one, other), key=lambda group: self._precedence(group))
        self.heap.report("matching units", 0, 1)
        moves = self._match(self._now(self.centres[fixed]), self._now(self.centres[moving]))
        if moves is None:
            return
        gone, stays = self.part_of[moving], self.part_of[fixed]
        for place in self.members[gone]:
            self.moves[place] = composed(self.symmetries, self.moves.get(place, {}), moves)
            self.matched[place] = self.centres[stays]
        self.members[stays] += self.members.pop(gone)
        self.part_of = [stays if part == gone else part for part in self.part_of]

    def _precedence(self, group: int) -> tuple[int, str]:
        """Larger groups stay; of equal ones, the first by the name of its centre."""
        part = self.part_of[group]
        return -len(self.members[part]), self.heap.names[self.centres[part]]

    def _now(self, place: int) -> dict[str, Tensor]:
        model = self.heap.models[place]
        weights = {name: model[name] for name in self.heap.tensors}
        return moved(self.symmetries, weights, self.moves.get(place, {}))

    def _match(self, fixed: dict[str, Tensor], moving: dict[str, Tensor]) -> UnitTransforms | None:
        """The moves, or None where they do not bring it near."""
        kinds: Kinds = dict.fromkeys(self.symmetries.groups, "permutation")
        matching = Matching(self.symmetries, fixed, moving, kinds)
        matching.settle()
        order = torch.Generator().manual_seed(derive(0, "lineage alignment"))
        matching.ascend(_SWEEPS, TOLERANCE, order)
        before = _distances(fixed, moving)
        after = _distances(fixed, moved(self.symmetries, moving, matching.moves))
        nearer = (w(after) < MATCHED * min(w(before), 1) for w in (np.mean, np.max))
        return matching.moves if any(nearer) else None


def _related(heap: Heap) -> list[list[int]]:
    """Models in groups that are related as they stand; a group is as near as a chain of them."""
    evidence = heap.evidence
    farthest = np.zeros((len(heap), len(heap)))
    for name in _matrices(heap.shapes):
        gram, size = evidence.grams[name], int(np.prod(heap.shapes[name]))
        mean, spread = evidence.moments["mean"][name], size * evidence.moments["variance"][name]
        inner = gram - size * np.outer(mean, mean)
        of_both = spread[:, None] + spread
        distances = np.divide(of_both - 2 * inner, of_both, where=of_both > 0, out=0 * of_both)
        farthest = np.maximum(farthest, distances)
    _, numbers = connected_components(farthest < FAR, directed=False)
    return [list(map(int, np.flatnonzero(numbers == n))) for n in dict.fromkeys(numbers)]


def _matrices(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Not position embeddings, which differ little between models that began from the same."""
    return [name for name, shape in shapes.items() if len(shape) > 1 and shape[0] > 1]


def _centre(heap: Heap, group: Sequence[int]) -> int:
    """The model nearest to all of its group; of equally near ones the first by name."""
    if len(group) == 1:
        return group[0]
    sums = heap.part(group).evidence.squared_distances().sum(0)
    return min(zip(sums, (heap.names[place] for place in group), group, strict=True))[2]


def _units(model: Weights, symmetries: Symmetries) -> np.ndarray:
    """Of each unit of the residual stream all numbers that stand at its place, whatever the order
    of other units: what it reads of pixels, its positions, norms and biases, float64 [units, n].

    Every tensor has a mean of zero over the units, and counts by how many numbers it has of one.
    """
    found = []
    for piece, place in symmetries.having(STREAM):
        if sum(axis.group is not None for axis in piece.axes) == 1:
            part = piece.of({piece.tensor: model[piece.tensor]}).double().movedim(place, 0)
            numbers = part.flatten(1).numpy() if part.ndim > 1 else part[:, None].numpy()
            numbers = numbers - numbers.mean(0)
            length = np.linalg.norm(numbers)
            found.append(numbers * (numbers.shape[1] ** 0.5 / length if length > 0 else 0))
    return np.concatenate(found, axis=1) if found else np.zeros((0, 0))


def _without_order(units: np.ndarray) -> np.ndarray:
    """What no order of units [units, n] changes: products of a few mixtures of their numbers."""
    chance = np.random.default_rng(derive(0, "lineage alignment"))
    few = units @ chance.normal(size=(units.shape[1], _MIXED))
    products = (few.T @ few).ravel()
    return products / max(float(np.linalg.norm(products)), 1e-30)


def _in_best_order(one: np.ndarray, other: np.ndarray) -> float:
    """Squared distance of two models' units [units, n] where each has its best partner, by the sum
    of both squares: 1 where they have nothing in common."""
    scores = one @ other.T
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    of_both = np.square(one).sum() + np.square(other).sum()
    return float(1 - 2 * best / of_both) if of_both > 0 else 1.0


def _distances(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> np.ndarray:
    """Of every matrix the squared distance by the sum of variances; see FAR."""
    found = []
    for name in _matrices({name: tuple(tensor.shape) for name, tensor in one.items()}):
        a, b = ((each[name].double() - each[name].double().mean()) for each in (one, other))
        of_both = float(a.square().sum() + b.square().sum())
        found.append(float((a - b).square().sum()) / of_both if of_both > 0 else 0.0)
    return np.array(found)
