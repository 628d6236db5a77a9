"""Maps of a model's units that can be trained: free numbers in, a map that its group allows out.

Every kind begins as the identity. Called, it gives matrices to differentiate through; its `exact`
is what `symmetries.moved` takes, in float64. Steps of them turn few units as far as many.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Piece, Symmetries

Matrices = Mapping[str, tuple[Tensor, Tensor]]
"""By group: what is applied to axes that write its units, and to those that read them; [n, n], or
[heads, n, n] of a group inside another."""

HOLD = 0.25
"""How much a free matrix has to gain in entries of a permutation before another one is nearest."""


class UnitMap(nn.Module, ABC):
    """A map of the units of one group, of free numbers [n, n] or [heads, n, n]."""

    diagonal = 0.0
    """Of the free numbers, where the map is the identity."""

    def __init__(self, size: int, heads: int | None = None) -> None:
        super().__init__()
        start = self.diagonal * torch.eye(size)
        self.free = nn.Parameter(start.repeat(heads, 1, 1) if heads else start)

    @abstractmethod
    def forward(self) -> tuple[Tensor, Tensor]:
        """Matrices [n, n] or [heads, n, n], to be differentiated through: see `Matrices`."""

    def exact(self) -> Tensor:
        """The transform: float64 [n, n] or [heads, n, n], or int64 [n] or [heads, n]."""
        return self.double()()[0].detach()


class Rotation(UnitMap):
    """Orthogonal maps with determinant 1, by Cayley's transform of skew-symmetric matrices.

    With `keeps_mean` the all-ones direction stays what it is, as LayerNorm wants it.
    """

    basis: Tensor | None

    def __init__(self, size: int, heads: int | None = None, *, keeps_mean: bool = False) -> None:
        super().__init__(size - keeps_mean, heads)
        self.register_buffer("basis", mean_free(size) if keeps_mean else None)

    def forward(self) -> tuple[Tensor, Tensor]:
        skew = (self.free - self.free.mT) / (2 * self.free.shape[-1] ** 0.5)
        identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        rotation = torch.linalg.solve(identity + skew, identity - skew)
        if self.basis is not None:
            basis = self.basis.to(rotation.dtype)
            rotation = basis @ rotation @ basis.T + 1 / len(basis)
        return rotation, rotation


class Invertible(UnitMap):
    """Any invertible maps: free matrices."""

    def forward(self) -> tuple[Tensor, Tensor]:
        size = self.free.shape[-1]
        identity = torch.eye(size, dtype=self.free.dtype, device=self.free.device)
        matrix = identity + self.free / size**0.5
        return matrix, torch.linalg.inv(matrix).mT


class Exchange(UnitMap):
    """Permutations: the one nearest to a free matrix, whose gradient goes straight through."""

    diagonal = HOLD

    def forward(self) -> tuple[Tensor, Tensor]:
        hard = nn.functional.one_hot(self.exact(), self.free.shape[-1]).to(self.free)
        permutation = hard + self.free - self.free.detach()
        return permutation, permutation

    def exact(self) -> Tensor:
        return nearest_permutation(self.free.detach())


def rearranged(
    symmetries: Symmetries, weights: Mapping[str, Tensor], maps: Matrices
) -> dict[str, Tensor]:
    """Weights [*shape] with units transformed as by `symmetries.moved`, differentiable by the maps.

    Weights of norms must have been folded, unless all maps are permutations.
    """
    transformed, parts = dict(weights), dict[str, list[Piece]]()
    for piece in symmetries.pieces:
        if piece.tensor in transformed:
            parts.setdefault(piece.tensor, []).append(piece)
    for name, pieces in parts.items():
        if any(axis.group in maps for piece in pieces for axis in piece.axes):
            joined = torch.zeros_like(weights[name], memory_format=torch.contiguous_format)
            for piece in pieces:
                piece.put(moved_by(symmetries, piece, piece.of(weights), maps), joined)
            transformed[name] = joined
    return transformed


def moved_by(symmetries: Symmetries, piece: Piece, part: Tensor, maps: Matrices) -> Tensor:
    """A piece [*shape] with its units mapped; groups first, then those inside of them."""
    mapped = [
        (symmetries.groups[axis.group].inside, position, maps[axis.group][axis.reads])
        for position, axis in enumerate(piece.axes)
        if axis.group in maps and axis.group is not None
    ]
    for outer, position, matrix in sorted(mapped, key=lambda mapping: bool(mapping[0])):
        if piece.elementwise and part.min() == part.max():
            continue  # a folded norm, which may be passed by what is mixed
        if outer is None:
            part = torch.tensordot(matrix, part, dims=([1], [position])).movedim(0, position)
        else:
            heads = piece.place(outer)
            assert heads is not None  # what is inside a group stands beside it
            by_head = part.movedim((heads, position), (0, 1))
            mixed = torch.einsum("hij,hj...->hi...", matrix, by_head)
            part = mixed.movedim((0, 1), (heads, position))
    return part


def nearest_permutation(matrices: Tensor) -> Tensor:
    """Of each matrix [..., n, n], that for which trace(P' M) is largest; int64 [..., n].

    Entry i is the column in which row i has its one.
    """
    flat = matrices.detach().cpu().double().reshape(-1, *matrices.shape[-2:])
    columns = [torch.as_tensor(linear_sum_assignment(matrix, maximize=True)[1]) for matrix in flat]
    return torch.stack(columns).view(matrices.shape[:-1]).to(matrices.device)


def mean_free(size: int) -> Tensor:
    """An orthonormal basis of what has mean zero, float64 [size, size - 1] (Helmert's)."""
    rows = torch.arange(1, size, dtype=torch.float64)
    basis = torch.ones(size, size - 1, dtype=torch.float64).triu()
    basis[1:].diagonal().copy_(-rows)
    return basis / (rows * (rows + 1)).sqrt()
