"""Symmetries: transforms of a model's weights that leave its function unchanged.

An architecture declares it as data, `@architecture(..., symmetries=declare)`, a function of the
built model: its tensors as pieces whose axes belong to groups, and the norms whose affine part can
be folded into what reads them. All alignment reads this declaration, and nothing else of the model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Maps = Literal["permutation", "orthogonal", "invertible"]
UnitTransforms = Mapping[str, Tensor]
"""By group: a permutation, int64 [n], whose entry i is the old place of what comes to place i; or a
matrix [n, n] by which the units are multiplied from the left. Of a group inside another, one for
each of that group's places (after they were permuted): [places, n] or [places, n, n]. A group that
is missing stays as it is."""


@dataclass(frozen=True)
class UnitGroup:
    """Units that can be exchanged, or mixed, together wherever they appear."""

    size: int
    maps: Maps = "permutation"
    """They may be exchanged; or also be mixed by an orthogonal or by any invertible map."""
    inside: str | None = None
    """Each place of that group has units of its own, such as the channels of a head."""


@dataclass(frozen=True)
class Axis:
    """An axis of a piece: of a group's units, or of what stays where it is."""

    group: str | None = None
    reads: bool = False
    """Whether it takes in what the group's units hold, and so is moved by the inverse."""


@dataclass(frozen=True)
class Piece:
    """A tensor, or a part of it, seen in a shape whose every axis belongs to a group or to none."""

    tensor: str
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    start: int = 0
    stop: int | None = None
    """Rows of the tensor that it takes; None: to the last."""
    elementwise: bool = False
    """Scales or shifts units one by one (a norm, a layer scale): they can be exchanged, but not be
    mixed before it is folded into its neighbors."""
    ranges: tuple[tuple[int, int] | None, ...] = ()
    """Of each axis of that shape, from where to where it takes it; None, or left out: all of it."""

    def of(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Its part of its tensor, as [*self.shape], or as long as its ranges on the axes."""
        return self._cut(weights[self.tensor][self.start : self.stop].reshape(self.shape))

    def put(self, part: Tensor, tensor: Tensor) -> None:
        """Write what `of` gives into its tensor, which has to be contiguous, in place."""
        self._cut(tensor[self.start : self.stop].view(self.shape)).copy_(part)

    def _cut(self, rows: Tensor) -> Tensor:
        return rows[tuple(slice(*ends) if ends else slice(None) for ends in self.ranges)]

    def place(self, group: str) -> int | None:
        """Number of the axis of that group."""
        return next((n for n, axis in enumerate(self.axes) if axis.group == group), None)


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over a group: (x - mean) / sqrt(variance + eps) * weight + bias."""

    group: str
    weight: str
    bias: str | None
    readers: tuple[tuple[str, str | None], ...]
    """Weight and bias of every linear layer that reads it; nothing else does. The columns of the
    weight may repeat the group."""


@dataclass(frozen=True)
class Scale:
    """A factor for each unit of what a linear layer writes (LayerScale)."""

    weight: str
    writer: tuple[str, str | None]
    """Weight and bias of that layer."""


@dataclass(frozen=True)
class Symmetries:
    """Of one model: which units there are, and where each tensor has them."""

    groups: Mapping[str, UnitGroup]
    pieces: tuple[Piece, ...]
    """Together, all tensors of real numbers."""
    norms: tuple[Norm, ...] = ()
    scales: tuple[Scale, ...] = ()

    def having(self, group: str) -> Iterator[tuple[Piece, int]]:
        """Every piece with an axis of that group, and the axis's number."""
        for piece in self.pieces:
            axis = piece.place(group)
            if axis is not None:
                yield piece, axis


def moved(
    symmetries: Symmetries, weights: Mapping[str, Tensor], moves: UnitTransforms
) -> dict[str, Tensor]:
    """The weights after moves, tensors [*shape] by name in the dtypes they have; all are copies.

    Raises ValueError where units are to be mixed that a norm scales one by one (`_folding.folded`).
    """
    tensors = dict(weights)
    for piece in symmetries.pieces:
        if any(axis.group in moves for axis in piece.axes):
            if tensors[piece.tensor] is weights[piece.tensor]:
                copied = weights[piece.tensor].clone(memory_format=torch.contiguous_format)
                tensors[piece.tensor] = copied
            part = moved_piece(symmetries, piece, piece.of(weights), moves)
            piece.put(part, tensors[piece.tensor])
    return tensors


def composed(
    symmetries: Symmetries, first: UnitTransforms, then: UnitTransforms
) -> dict[str, Tensor]:
    """The moves that do what one after the other does."""
    transforms = dict(first)
    for name, group in symmetries.groups.items():
        if group.inside is None:
            if name in then:
                transforms[name] = _after(first.get(name), then[name])
            continue
        old, outer = first.get(name), then.get(group.inside)
        if old is not None and outer is not None:
            transforms[name] = old = old[outer]  # they go where their heads go
        if name in then:
            by_head = [None] * len(then[name]) if old is None else list(old)
            transforms[name] = torch.stack(list(map(_after, by_head, then[name])))
    return transforms


def moved_piece(
    symmetries: Symmetries, piece: Piece, part: Tensor, moves: UnitTransforms
) -> Tensor:
    """What a piece is `of` weights, after moves, in the same shape; see `moved`."""
    # Groups first, then what is inside of them, whose maps are for where the units are now.
    transformed = [(n, axis) for n, axis in enumerate(piece.axes) if axis.group in moves]
    for inside in (False, True):
        for dim, axis in transformed:
            assert axis.group is not None  # for mypy
            outer, move = symmetries.groups[axis.group].inside, moves[axis.group]
            if bool(outer) != inside:
                continue
            if piece.elementwise and move.is_floating_point():
                if part.min() != part.max():
                    raise ValueError(f"{piece.tensor} scales what is to be mixed; fold it first")
                continue
            if outer is None:
                part = _along(part, dim, axis, move)
                continue
            heads = piece.place(outer)
            assert heads is not None  # what is inside a group stands beside it
            pairs, inner_dim = zip(part.unbind(heads), move, strict=True), dim - (dim > heads)
            by_head = [_along(inner, inner_dim, axis, of_head) for inner, of_head in pairs]
            part = torch.stack(by_head, heads)
    return part


def _after(first: Tensor | None, then: Tensor) -> Tensor:
    if first is None:
        return then
    if not first.is_floating_point() and not then.is_floating_point():
        return first[then]
    return _matrix(then, first.dtype) @ _matrix(first, then.dtype)


def _matrix(move: Tensor, dtype: torch.dtype) -> Tensor:
    """A permutation as a matrix."""
    if move.is_floating_point():
        return move
    return torch.eye(len(move), dtype=dtype, device=move.device)[move]


def _along(part: Tensor, dim: int, axis: Axis, move: Tensor) -> Tensor:
    if not move.is_floating_point():
        return part.index_select(dim, move)
    matrix = torch.linalg.inv(move).T if axis.reads else move
    wide = torch.promote_types(part.dtype, matrix.dtype)
    mixed = torch.tensordot(matrix.to(wide), part.to(wide), dims=([1], [dim]))
    return mixed.movedim(0, dim).to(part.dtype)
