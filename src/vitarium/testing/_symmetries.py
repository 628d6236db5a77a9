"""The symmetries that an architecture declares, verified: moves by them change no output."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import (
    Symmetries,
    UnitGroup,
    UnitTransforms,
    moved,
)
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.alignment._matching import Matching
from vitarium.testing._rules import Contract

_CLOSE = 1e-8
"""Largest change of the outputs in float64, relative to the largest of them."""
Weights = Mapping[str, Tensor]


def check_symmetries(rule: Contract, model: nn.Module, images: Tensor) -> None:
    """Every tensor is declared; and with weights drawn anew, random moves of all groups (exchanged
    units; and mixed ones, of the folded model) leave the outputs for images [batch, c, h, w] the
    same in float64, and weight matching takes exchanged units back."""
    symmetries: Symmetries = rule.facts["symmetries"](model)
    _check_pieces(rule, symmetries, model)
    noise = torch.Generator().manual_seed(0)
    weights, outputs_of = _redrawn(symmetries, model, noise), _outputs(model, images)
    permuted = _check_moves(rule, symmetries, weights, outputs_of, noise, mix=False)
    _check_moves(rule, symmetries, weights, outputs_of, noise, mix=True)
    kinds = dict.fromkeys(symmetries.groups, "permutation")
    matching = Matching(symmetries, weights, permuted, kinds)  # type: ignore[arg-type]
    matching.settle()
    matching.ascend(100, 1e-12, noise)
    similarity = matching.objective / matching.scale
    rule(similarity > 1 - 1e-9, f"units exchanged are matched again with a cosine of {similarity}")


def _check_pieces(rule: Contract, symmetries: Symmetries, model: nn.Module) -> None:
    tensors = model.state_dict()
    covered = {n: torch.zeros_like(t) for n, t in tensors.items() if t.is_floating_point()}
    declared = {piece.tensor for piece in symmetries.pieces}
    rule(
        declared == covered.keys(),
        f"symmetries of {sorted(declared ^ covered.keys())[:3]} are not declared",
    )
    for piece in symmetries.pieces:
        part = piece.of(covered)
        part.add_(1)
        for axis, size in zip(piece.axes, part.shape, strict=True):
            holds = axis.group is None or symmetries.groups[axis.group].size == size
            rule(holds, f"symmetries: {piece.tensor} has {size} units on the axis of {axis.group}")
    partial = [name for name, count in covered.items() if not (count == 1).all()]
    rule(not partial, f"symmetries: not every number of {partial[:3]} is of one piece")


def _redrawn(symmetries: Symmetries, model: nn.Module, noise: torch.Generator) -> Weights:
    """Float64, none of its units like another: initial scales and shifts are all alike."""
    has_units = {p.tensor for p in symmetries.pieces if any(axis.group for axis in p.axes)}
    parameters = dict(model.named_parameters())
    weights = {}
    for name, tensor in model.state_dict().items():
        weights[name] = tensor
        if tensor.is_floating_point():
            weights[name] = tensor.double()
            drawn = torch.randn(tensor.shape, generator=noise, dtype=torch.float64)
            if name in parameters:
                weights[name] = weights[name] + 0.1 * drawn
            elif name in has_units:  # statistics, such as variances, stay above zero
                weights[name] = weights[name] * (1 + 0.1 * drawn.abs()) + 0.1 * drawn.abs()
    return weights


def _outputs(model: nn.Module, images: Tensor) -> Callable[[Weights], Tensor]:
    wide, wide_images = deepcopy(model).double().eval(), images.double()

    @torch.no_grad()
    def outputs_of(weights: Weights) -> Tensor:
        outputs: Tensor = functional_call(wide, dict(weights), (wide_images,))
        return outputs

    return outputs_of


def _check_moves(
    rule: Contract,
    symmetries: Symmetries,
    weights: Weights,
    outputs_of: Callable[[Weights], Tensor],
    noise: torch.Generator,
    *,
    mix: bool,
) -> Weights:
    """The moved weights."""
    groups, start = dict(symmetries.groups), weights
    if mix:
        try:
            start = folded(symmetries, weights)
        except IncompatibleWeights:  # a shift that no bias takes: the stream is not mixed
            groups = {n: group for n, group in groups.items() if group.maps != "orthogonal"}
    moves = {name: _random_move(groups[name], symmetries, noise, mix) for name in groups}
    expected = outputs_of(weights)
    rule(bool(expected.isfinite().all()), "with 0.1 * noise in its weights, outputs are not finite")

    def change(by: UnitTransforms) -> float:
        outputs = outputs_of(moved(symmetries, start, by))
        return float((outputs - expected).abs().max() / expected.abs().max())

    verb = "mixing" if mix else "exchanging"
    if (error := change({})) > _CLOSE:
        rule(False, f"symmetries: folding its norms changes outputs by {error:.0e}")
    if (error := change(moves)) > _CLOSE:
        wrong = [name for name, move in moves.items() if change({name: move}) > _CLOSE]
        at_fault = ", ".join(wrong[:3]) or "several groups at once"
        rule(False, f"symmetries: {verb} units of {at_fault} changes outputs by {error:.0e}")
    return moved(symmetries, start, moves)


def _random_move(
    group: UnitGroup, symmetries: Symmetries, noise: torch.Generator, mix: bool
) -> Tensor:
    """A permutation [n] or matrix [n, n]; of a group inside another, one for each of its units."""
    if group.inside is None:
        return _drawn(group, noise, mix)
    count = symmetries.groups[group.inside].size
    return torch.stack([_drawn(group, noise, mix) for _ in range(count)])


def _drawn(group: UnitGroup, noise: torch.Generator, mix: bool) -> Tensor:
    size = group.size
    if not mix or group.maps == "permutation" or size == 1:
        cycle = torch.randperm(size, generator=noise)
        order = torch.empty_like(cycle)
        order[cycle] = cycle.roll(1)  # one cycle of all units: none stays, not even of two
        return order
    drawn = torch.randn(size, size, generator=noise, dtype=torch.float64)
    turn: Tensor = torch.linalg.qr(drawn)[0]
    if group.maps == "invertible":
        return turn * (1 + torch.rand(size, generator=noise, dtype=torch.float64))
    # a rotation of the units' differences: the all-ones direction stays, for the LayerNorms
    ones = torch.full((size, 1), size**-0.5, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, drawn[:, 1:]], 1))[0][:, 1:]
    turn = torch.linalg.qr(drawn[1:, 1:])[0]
    return ones @ ones.T + basis @ turn @ basis.T
