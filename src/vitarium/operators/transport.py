"""Move one model's units onto another's by optimal transport, layer by layer."""

from collections.abc import Collection, Mapping

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from vitarium.architectures.symmetries import Piece, Symmetries
from vitarium.config import Config
from vitarium.operators.ingredients import Ingredients, Made
from vitarium.operators.matching import both
from vitarium.operators.sinkhorn import transport_plan
from vitarium.operators.trained_maps import moved_by, rearranged
from vitarium.registry import operator


class Transport(Config):
    """How softly units are moved."""

    regularization: float = Field(default=0.0, ge=0)
    """Weight of the plans' entropy, in units of the mean cost: 0 moves every unit to one place,
    more mixes those that are alike."""
    rounds: PositiveInt = 2
    """Passes over the layers. The first goes by what is settled before it; in the next ones all
    that writes to the residual stream, or reads it, has its say."""
    iterations: PositiveInt = 1000
    """Of Sinkhorn's algorithm, at most."""


@operator(
    "transport",
    config=Transport,
    paper="Imfeld et al. 2024, arXiv 2310.05719",
    aligns=True,
    ordered=True,
    count=(2, 2),
    origin=-1,
)
def transport(config: Transport, ingredients: Ingredients) -> Made:
    """The second model with its units transported onto the first's, by what their weights cost.

    The cost of two units is the squared distance of all their weights; incoming plans are applied
    to columns, outgoing ones to rows (Sec. 4). The residual stream has one plan: the costs of all
    layers at it are added up, which is the average of Sec. 4.2.1 taken before the plan. Heads are
    transported whole, and their channels inside them. Without regularization a plan is a
    permutation, and the model computes what it did; soft plans mix units, and it does not: of use
    to average with the first model alone. Raises IncompatibleWeights where no symmetries are
    declared.
    """
    first, second = (_doubles(weights) for weights in both(ingredients))
    plans = plans_between(config, ingredients.symmetries, first, second)
    matrices = {group: (plan, plan) for group, plan in plans.items()}
    yield from rearranged(ingredients.symmetries, second, matrices).items()


def plans_between(
    config: Transport,
    symmetries: Symmetries,
    fixed: Mapping[str, Tensor],
    moving: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """By group, what is applied to its units: rows that sum to 1, [n, n] or [places, n, n]."""
    plans: dict[str, Tensor] = {}
    groups = [name for name, group in symmetries.groups.items() if group.inside is None]
    for number in range(config.rounds):
        for name in groups:
            inner = [one for one, group in symmetries.groups.items() if group.inside == name]
            others = {one: (plan, plan) for one, plan in plans.items() if one not in (name, *inner)}
            pairs = [
                (piece, piece.of(fixed), moved_by(symmetries, piece, piece.of(moving), others))
                for piece, _ in symmetries.having(name)
                if number or _settled(piece, {name, *inner, *others})
            ]
            plans |= _heads(config, name, inner, pairs) if inner else _units(config, name, pairs)
    return plans


Pairs = list[tuple[Piece, Tensor, Tensor]]
"""A piece of the first model, and of the second with all other units moved."""


def _units(config: Transport, group: str, pairs: Pairs) -> dict[str, Tensor]:
    if not pairs:
        return {}
    cost = sum(distances(a, b, [_place(piece, group)]) for piece, a, b in pairs)
    assert isinstance(cost, Tensor)  # for mypy
    return {group: _soft(config, cost)}


def _heads(config: Transport, group: str, inner: list[str], pairs: Pairs) -> dict[str, Tensor]:
    """Heads cost what it takes to move their channels, at best; they are not mixed."""
    heads = torch.zeros(())
    costs: dict[str, Tensor] = {}
    for piece, a, b in pairs:
        places = [_place(piece, group)]
        name = next((one for one in inner if piece.place(one) is not None), None)
        if name is None:
            heads = heads + distances(a, b, places)
            continue
        channels = _place(piece, name)
        size = (a.shape[places[0]], a.shape[channels])
        cost = distances(a, b, [*places, channels]).view(*size, *size).transpose(1, 2)
        costs[name] = costs.get(name, torch.zeros(())) + cost
    for cost in costs.values():
        best = [[(transport_plan(one) * one).sum() * len(one) for one in row] for row in cost]
        heads = heads + torch.tensor(best, dtype=torch.float64)
    plan = transport_plan(heads) * len(heads)
    chosen = plan.argmax(1)
    every = torch.arange(len(chosen))
    found = {
        name: torch.stack([_soft(config, one) for one in cost[every, chosen]])
        for name, cost in costs.items()
    }
    return {group: plan, **found}


def _soft(config: Transport, cost: Tensor) -> Tensor:
    return transport_plan(cost, config.regularization, config.iterations) * len(cost)


def distances(one: Tensor, other: Tensor, places: list[int]) -> Tensor:
    """Squared distances of the units that lie along some axes, float64 [units, units]."""
    first, second = (
        tensor.double().movedim(places, list(range(len(places)))).flatten(0, len(places) - 1)
        for tensor in (one, other)
    )
    first, second = first.reshape(len(first), -1), second.reshape(len(second), -1)
    lengths = first.square().sum(1)[:, None] + second.square().sum(1)
    return (lengths - 2 * first @ second.T).clamp(min=0)


def _settled(piece: Piece, known: Collection[str]) -> bool:
    return all(axis.group is None or axis.group in known for axis in piece.axes)


def _place(piece: Piece, group: str) -> int:
    place = piece.place(group)
    assert place is not None  # only pieces that have it are asked
    return place


def _doubles(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in weights.items()}
