"""Move one model's units so that its weights lie close to another's: coordinate ascent."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms, composed, moved_piece
from vitarium.operators.alignment._assignment import best_transform, match_heads

Tensors = Mapping[str, Tensor]
Axes = list[tuple[int, tuple[int, ...]]]  # numbers of pieces, and of the axes of their units
Kind = Literal["permutation", "orthogonal"]
Kinds = Mapping[str, Kind]
"""By group, what may be done to its units; a group that is missing stays as it is."""
TOLERANCE = 1e-12
"""Of the product of the two models' norms: what rounding alone could gain."""


class Matching:
    """A model on its way to match another one.

    The objective is the inner product of the two, summed over all pieces. It never falls: every
    improvement moves one group, with what is inside of it, to its best place while all else stays.

    Args:
        fixed, moving: weights, by the names that the symmetries have.
        kinds: what may be moved, and how.
        start: moves to go on from.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        fixed: Tensors,
        moving: Tensors,
        kinds: Kinds,
        *,
        start: UnitTransforms | None = None,
    ) -> None:
        self.symmetries, self.kinds, self.pieces = symmetries, kinds, symmetries.pieces
        self.moves: UnitTransforms = dict(start or {})
        """All that was done to the moving model."""
        self._inner: dict[str, list[str]] = {}
        """Of each group that is inside no other, those inside of it."""
        for name, group in symmetries.groups.items():
            if group.inside is None:
                self._inner[name] = [n for n, g in symmetries.groups.items() if g.inside == name]
        self.groups = [n for n, inner in self._inner.items() if {n, *inner} & set(kinds)]
        self._fixed = [piece.of(fixed) for piece in self.pieces]
        self._now = [moved_piece(symmetries, p, p.of(moving), self.moves) for p in self.pieces]
        self._stale = set(self.groups)
        """Those that may be able to improve: all but where nothing that they touch was moved."""
        self._half = set[str]()
        self.scale = (norm(self._fixed) * norm(self._now)) or 1.0
        """No objective is greater than this, the product of the models' norms."""

    @property
    def objective(self) -> float:
        """<A, B'>, float64."""
        pairs = zip(self._fixed, self._now, strict=True)
        return sum(torch.dot(a.double().flatten(), b.double().flatten()).item() for a, b in pairs)

    def ascend(self, sweeps: int, tolerance: float, order: torch.Generator) -> int:
        """Move in random order what gains more than that share of `scale`; the number of sweeps."""
        for sweep in range(sweeps):
            shuffled = torch.randperm(len(self.groups), generator=order).tolist()
            names = [self.groups[n] for n in shuffled if self.groups[n] in self._stale]
            if not names:
                return sweep
            runs: list[list[str]] = []  # in that order, of groups that do not touch each other
            touched: set[str | None] = set()
            for name in names:
                if not runs or name in touched:
                    runs.append([])
                    touched = set()
                runs[-1].append(name)
                touched |= {a.group for n, _ in self._having(name) for a in self.pieces[n].axes}
            for run in runs:
                self._improve(run, tolerance)
            self._stale |= self._half
            self._half.clear()
        return sweeps

    def settle(self) -> None:
        """Start from what no move can change, such as the pixels and the classes.

        As long as no group can be matched by all that it touches, the one that can be by most of it
        is: by those pieces alone whose other units are settled. It finds a model's own copy,
        whose units were exchanged, whatever their order was.
        """
        unsettled = list(self.groups)
        while unsettled:
            settled, shares = {}, {}
            for name in unsettled:
                having, rest = self._having(name), set(unsettled) - {name}
                settled[name] = [
                    (n, at) for n, at in having if not rest & {a.group for a in self.pieces[n].axes}
                ]
                sizes = [sum(self._now[n].numel() for n, _ in p) for p in (settled[name], having)]
                shares[name] = sizes[0] / sizes[1]
            if all(share == 1 for share in shares.values()):
                return
            group = max(unsettled, key=lambda name: shares[name])
            moves, _ = self._find(group, settled[group])()
            self._do(moves, group)
            self._stale.discard(group)
            self._half.add(group)  # by all that it touches once that is settled, too
            unsettled.remove(group)

    def _improve(self, names: Sequence[str], tolerance: float) -> None:
        """Give each of these groups, which do not touch each other, its best place."""
        futures: list[Future[tuple[UnitTransforms, float]]] = []
        at_once = torch.get_num_threads()
        with ThreadPoolExecutor(at_once) as threads:  # scipy's assignment has one, and lets go
            for number, name in enumerate(names):
                if number >= 2 * at_once:  # so many tables of scores have to be in memory
                    futures[number - 2 * at_once].result()
                futures.append(threads.submit(self._find(name, self._having(name))))
        for name, best in zip(names, futures, strict=True):
            moves, gain = best.result()
            self._stale.discard(name)
            if gain > tolerance * self.scale:
                self._do(moves, name)

    def _find(
        self, group: str, having: Sequence[tuple[int, int]]
    ) -> Callable[[], tuple[UnitTransforms, float]]:
        """Score a group with what is inside, by those pieces: finds the best move, and its gain."""
        groups = self.symmetries.groups
        size = groups[group].size
        axes: Axes = []  # of what is in no inner group
        inner_axes: dict[str, Axes] = {name: [] for name in self._inner[group]}
        for n, at in having:
            inner = [(name, self.pieces[n].place(name)) for name in inner_axes]
            name, inner_at = next((pair for pair in inner if pair[1] is not None), ("", None))
            if inner_at is None:
                axes.append((n, (at,)))
            else:
                inner_axes[name].append((n, (at, inner_at)))
        scores = self._scores(size, axes)
        if not inner_axes:
            return partial(best_transform, group, scores, self.kinds[group])
        inner_scores = {}
        for name, at_axes in inner_axes.items():
            shape = (size, groups[name].size)
            inner_scores[name] = self._scores(size * shape[1], at_axes).reshape(shape + shape)
        return partial(match_heads, group, scores, inner_scores, self.kinds)

    def _scores(self, units: int, axes: Axes) -> Tensor:
        """[units, units]: at i, j the inner product of place i of A with unit j of B."""
        total = torch.zeros(units, units, dtype=torch.float64, device=self._now[0].device)
        for number, at in axes:
            total += products(self._fixed[number].double(), self._now[number].double(), at)
        return total

    def _having(self, group: str) -> list[tuple[int, int]]:
        """The pieces with an axis of that group, by number, and the axis's."""
        places = [(n, piece.place(group)) for n, piece in enumerate(self.pieces)]
        return [(n, at) for n, at in places if at is not None]

    def _do(self, moves: UnitTransforms, group: str) -> None:
        self.moves = composed(self.symmetries, self.moves, moves)
        touched = {group, *self._inner[group]}
        for number, piece in enumerate(self.pieces):
            on = {axis.group for axis in piece.axes}
            if on & touched:
                self._now[number] = moved_piece(self.symmetries, piece, self._now[number], moves)
                self._stale.update(name for name in self.groups if name in on - {group})


def products(a: Tensor, b: Tensor, axes: Sequence[int]) -> Tensor:
    """Inner products of a's units with b's, [units, units]; units are those of adjacent axes."""
    first, last = axes[0], axes[-1]
    units = a.shape[first : last + 1].numel()
    if last == a.ndim - 1:  # no copy is needed, which took as long as the product
        return a.reshape(-1, units).T @ b.reshape(-1, units)
    if first:
        a, b = (part.movedim(tuple(axes), tuple(range(len(axes)))) for part in (a, b))
    return a.reshape(units, -1) @ b.reshape(units, -1).T


def norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm of all entries of tensors [*shape] together."""
    return sum(tensor.double().square().sum().item() for tensor in tensors) ** 0.5
