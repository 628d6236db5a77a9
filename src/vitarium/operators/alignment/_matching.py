"""Move one model's units so that its weights lie close to another's: coordinate ascent.

What can be moved is what the architecture declares (`architectures.symmetries`); operators that
match by weights share this.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import (
    Symmetries,
    UnitTransforms,
    composed,
    moved,
    moved_piece,
)
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.alignment._assignment import best_transform
from vitarium.operators.alignment._heads import match_heads
from vitarium.operators.base import Ingredients, checked

Kind = Literal["permutation", "orthogonal"]
Kinds = Mapping[str, Kind]
"""By group, what may be done to its units; a group that is missing stays as it is."""
TOLERANCE = 1e-12
"""Of the product of the two models' norms: what rounding alone could gain."""


class Matching:
    """A model on its way to match another one.

    The objective is the inner product of the two, summed over all pieces. Every improvement moves
    one group, with what is inside of it, to its best place while all else stays: the objective
    never falls.

    Args:
        fixed, moving: weights, by the names that the symmetries have.
        kinds: what may be moved, and how.
        start: moves to go on from.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        fixed: Mapping[str, Tensor],
        moving: Mapping[str, Tensor],
        kinds: Kinds,
        *,
        start: UnitTransforms | None = None,
    ) -> None:
        self.symmetries, self.kinds = symmetries, kinds
        self.moves: UnitTransforms = dict(start or {})
        """All that was done to the moving model."""
        self.groups = [name for name, group in symmetries.groups.items() if not group.inside]
        self._inner = {
            name: [inner for inner, group in symmetries.groups.items() if group.inside == name]
            for name in self.groups
        }
        self.groups = [n for n in self.groups if n in kinds or set(self._inner[n]) & set(kinds)]
        self.pieces = symmetries.pieces
        now = moved(symmetries, moving, self.moves)
        self._fixed = [piece.of(fixed) for piece in self.pieces]
        self._now = [piece.of(now) for piece in self.pieces]
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
        """Move what can be improved, in random order, until nothing can; the number of sweeps.

        Args:
            tolerance: share of `scale` that an improvement has to exceed.
        """
        for sweep in range(sweeps):
            shuffled = torch.randperm(len(self.groups), generator=order).tolist()
            names = [self.groups[n] for n in shuffled if self.groups[n] in self._stale]
            if not names:
                return sweep
            for run in self._independent_runs(names):
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
            settled = {name: self._settled_pieces(name, unsettled) for name in unsettled}
            if all(share == 1 for _, share in settled.values()):
                return
            group = max(unsettled, key=lambda name: settled[name][1])
            moves, _ = self._find(group, settled[group][0])()
            self._do(moves, group)
            self._stale.discard(group)
            self._half.add(group)  # by all that it touches once that is settled, too
            unsettled.remove(group)

    def _settled_pieces(self, group: str, unsettled: Sequence[str]) -> tuple[list[int], float]:
        """The pieces of a group that have no unit of other unsettled groups; their share of all."""
        having = self._having(group)
        remaining = set(unsettled) - {group}
        settled = [
            n for n in having if not remaining & {axis.group for axis in self.pieces[n].axes}
        ]
        entries = [sum(self._now[n].numel() for n in numbers) for numbers in (settled, having)]
        return settled, entries[0] / entries[1]

    def _independent_runs(self, names: Sequence[str]) -> list[list[str]]:
        """The names in that order, in runs of groups that do not touch each other."""
        runs: list[list[str]] = []
        touched: set[str | None] = set()
        for name in names:
            if not runs or name in touched:
                runs.append([])
                touched = set()
            runs[-1].append(name)
            touched |= {a.group for n in self._having(name) for a in self.pieces[n].axes}
        return runs

    def _improve(self, names: Sequence[str], tolerance: float) -> None:
        """Give each of these groups, which do not touch each other, its best place."""
        futures: list[Future[tuple[UnitTransforms, float]]] = []
        at_once = torch.get_num_threads()
        with ThreadPoolExecutor(at_once) as threads:  # scipy's assignment has one, and lets go
            for number, name in enumerate(names):
                if number >= 2 * at_once:  # so many tables of scores have to be in memory
                    futures[number - 2 * at_once].result()
                futures.append(threads.submit(self._find(name)))
        for name, best in zip(names, futures, strict=True):
            moves, gain = best.result()
            self._stale.discard(name)
            if gain > tolerance * self.scale:
                self._do(moves, name)

    def _find(
        self, group: str, counted: Sequence[int] | None = None
    ) -> Callable[[], tuple[UnitTransforms, float]]:
        """Score a group with what is inside of it, by some pieces (None: by all).

        What is given back finds the best move, and what it gains.
        """
        having = self._having(group) if counted is None else counted
        if self._inner[group]:
            return partial(match_heads, group, *self._head_scores(group, having), self.kinds)
        size = self.symmetries.groups[group].size
        scores = self._scores((size,), [(n, (self._axis(n, group),)) for n in having])
        return partial(best_transform, group, scores, self.kinds[group])

    def _having(self, group: str) -> list[int]:
        return [n for n, piece in enumerate(self.pieces) if piece.place(group) is not None]

    def _do(self, moves: UnitTransforms, group: str) -> None:
        self.moves = composed(self.symmetries, self.moves, moves)
        touched = {group, *self._inner[group]}
        for number, piece in enumerate(self.pieces):
            on = {axis.group for axis in piece.axes}
            if on & touched:
                self._now[number] = moved_piece(self.symmetries, piece, self._now[number], moves)
                self._stale.update(name for name in self.groups if name in on - {group})

    # Scores: what each unit of the moving model is worth in each place

    def _head_scores(self, group: str, having: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of what is in no inner group [heads, heads]; of inner ones [heads, n, heads, n]."""
        heads, sizes = self.symmetries.groups[group].size, self.symmetries.groups
        inner_axes: dict[str, list[tuple[int, tuple[int, ...]]]] = {
            n: [] for n in self._inner[group]
        }
        head_axes = []
        for n in having:
            at = self._axis(n, group)
            inner = [name for name in inner_axes if self.pieces[n].place(name) is not None]
            if inner:
                inner_axes[inner[0]].append((n, (at, self._axis(n, inner[0]))))
            else:
                head_axes.append((n, (at,)))
        scores = {
            name: self._scores((heads, sizes[name].size), at) for name, at in inner_axes.items()
        }
        shapes = {name: (heads, sizes[name].size) * 2 for name in inner_axes}
        inner_scores = {name: table.reshape(shapes[name]) for name, table in scores.items()}
        return self._scores((heads,), head_axes), inner_scores

    def _scores(
        self, sizes: tuple[int, ...], axes: Sequence[tuple[int, tuple[int, ...]]]
    ) -> Tensor:
        """[units, units]: at i, j the inner product of place i of A with unit j of B."""
        units = torch.Size(sizes).numel()
        total = torch.zeros(units, units, dtype=torch.float64, device=self._now[0].device)
        for number, at in axes:
            total += products(self._fixed[number].double(), self._now[number].double(), at)
        return total

    def _axis(self, number: int, group: str) -> int:
        axis = self.pieces[number].place(group)
        assert axis is not None
        return axis


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


def kind_of(symmetries: Symmetries, group: str) -> str:
    """What its units are: "stream", "heads", "channels" (inside of heads), or hidden "units"."""
    if symmetries.groups[group].inside:
        return "channels"
    if any(inner.inside == group for inner in symmetries.groups.values()):
        return "heads"
    return group if group == "stream" else "units"


def permuted(config: Config, symmetries: Symmetries) -> Kinds:
    """The groups that the settings `stream`, `heads`, `channels` and `units` have permuted."""
    names = [name for name in symmetries.groups if getattr(config, kind_of(symmetries, name))]
    return dict.fromkeys(names, "permutation")


def model_weights(ingredients: Ingredients) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the two models, tensors [*shape] by name.

    Raises IncompatibleWeights where the head is left out.
    """
    missing = {piece.tensor for piece in ingredients.symmetries.pieces} - set(ingredients.shapes)
    if missing:
        raise IncompatibleWeights(
            f"{ingredients[0].name}: models are aligned with their heads, and {min(missing)} is "
            "left out; leave --heads at merge"
        )
    first, second = (
        {name: checked(model, name) for name in ingredients.shapes} for model in ingredients
    )
    return first, second


def log_cosines(
    ingredients: Ingredients,
    symmetries: Symmetries,
    fixed: Mapping[str, Tensor],
    moving: Mapping[str, Tensor],
    matching: Matching,
) -> None:
    """Log the cosine of the two models' weights [*shape] before and after the alignment."""
    before = Matching(symmetries, fixed, moving, matching.kinds)
    cosines = {
        "cosine_before": before.objective / before.scale,
        "cosine_after": matching.objective / matching.scale,
    }
    ingredients.log.metrics |= cosines
    described = ", ".join(
        f"{name.partition('_')[2]} {value:.4f}" for name, value in cosines.items()
    )
    ingredients.log.lines.append(f"cosine with {ingredients[0].name}: {described}")
