"""Move one model's units onto another's by optimal transport, layer by layer."""

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core.config import Config
from vitarium.operators.alignment._activations import (
    images_of_both,
    probes,
    running_models,
    unit_scores,
)
from vitarium.operators.alignment._assignment import transport_plan
from vitarium.operators.alignment._matching import Tensors
from vitarium.operators.alignment._search import model_weights
from vitarium.operators.alignment._trained_maps import moved_by, rearranged
from vitarium.operators.base import Ingredients, NamedTensors, in_float64, operator


class Transport(Config):
    by: Literal["weights", "activations"] = "weights"
    """Cost of moving one unit onto another: the squared distance of all their weights, or of their
    standardized activations over training images and tokens."""
    regularization: float = Field(default=0.0, ge=0)
    """Weight of the transport plan's entropy, in units of the mean cost: 0 maps each unit to one
    other; larger values mix similar units."""
    rounds: PositiveInt = 2
    """Passes over the layers, with costs by weights. The first uses only layers that are already
    aligned; later ones use everything that reads or writes the residual stream."""
    iterations: PositiveInt = 1000
    """Largest number of iterations of Sinkhorn's algorithm."""
    num_images: PositiveInt = 1024
    """Largest number of training images on which activations are compared."""
    batch_size: PositiveInt = 32
    """Images per forward pass; affects memory and speed only."""


@operator(
    "transport",
    title="Optimal transport",
    paper="Imfeld et al. 2024, arXiv 2310.05719",
    aligns=True,
    split="train",
    tiny={"num_images": 32, "batch_size": 16},
)
def transport(config: Transport, ingredients: Ingredients) -> NamedTensors:
    """Align the second model's units with the first's by optimal transport.

    Yields (name, tensor [*shape]) of the second model. Incoming plans are applied to columns,
    outgoing ones to rows. The residual stream has one plan: the costs of all layers at it are added
    up, in the place of the paper's mean of their plans, with which no model would compute what it
    did. Heads are moved whole, and their channels inside them. Without regularization a plan is a
    permutation, and the model computes what it did; soft plans mix units, and it does not: it is to
    be averaged with the first model. Raises IncompatibleWeights where no symmetries are declared.
    """
    first, second = (in_float64(weights) for weights in model_weights(ingredients))
    if config.by == "weights":
        plans = plans_between(config, ingredients.symmetries, first, second)
    else:
        plans = plans_by_activations(config, ingredients, first, second)
    matrices = {group: (plan, plan) for group, plan in plans.items()}
    yield from rearranged(ingredients.symmetries, second, matrices).items()


def plans_between(
    config: Transport, symmetries: Symmetries, fixed: Tensors, moving: Tensors
) -> dict[str, Tensor]:
    """By group, what is applied to its units: rows that sum to 1, [n, n] or [heads, n, n]."""
    plans: dict[str, Tensor] = {}
    groups = [name for name, group in symmetries.groups.items() if group.inside is None]
    for number in range(config.rounds):
        for name in groups:
            inner = [member for member, group in symmetries.groups.items() if group.inside == name]
            matrices = {n: (plan, plan) for n, plan in plans.items() if n not in (name, *inner)}
            settled = {None, name, *inner, *matrices}
            pairs = [
                (piece, at)
                for piece, at in symmetries.having(name)
                if number or settled.issuperset(axis.group for axis in piece.axes)
            ]
            zero, costs = torch.zeros((), dtype=torch.float64), dict[str, Tensor]()
            cost = zero  # of what is in no inner group
            for piece, at in pairs:
                a = piece.of(fixed)
                b = moved_by(symmetries, piece, piece.of(moving), matrices)
                inside = [(member, piece.place(member)) for member in inner]
                member, channels = next((m for m in inside if m[1] is not None), ("", None))
                if channels is None:
                    cost = cost + distances(a, b, [at])
                else:
                    shape = (a.shape[at], a.shape[channels])
                    pair_costs = distances(a, b, [at, channels]).view(*shape, *shape)
                    costs[member] = costs.get(member, zero) + pair_costs.transpose(1, 2)
            if inner:
                size = symmetries.groups[name].size
                plans |= _head_plans(config, name, cost.expand(size, size), costs)
            elif pairs:
                plans[name] = _soft(config, cost)
    return plans


def plans_by_activations(
    config: Transport, ingredients: Ingredients, first: Tensors, second: Tensors
) -> dict[str, Tensor]:
    """As `plans_between`, from activations: rows that sum to 1, [n, n] or [heads, n, n]."""
    groups, models = ingredients.symmetries.groups, running_models(ingredients, first, second)
    examples = images_of_both(ingredients, config.num_images)
    where = probes(ingredients.symmetries, models[0])
    scores = unit_scores(ingredients, models, examples, "correlation", config.batch_size)
    # Of two standardized variables with correlation c, the mean squared distance is 2 - 2 c.
    costs = {name: 2 * (len(where[name]) - correlation) for name, correlation in scores.items()}
    plans: dict[str, Tensor] = {}
    for name, group in groups.items():
        inner = [member for member in costs if groups[member].inside == name]
        if inner:
            head_costs = torch.zeros(group.size, group.size, dtype=torch.float64)
            pair_costs = {member: costs[member].transpose(1, 2) for member in inner}
            plans |= _head_plans(config, name, head_costs, pair_costs)
        elif name in costs and not group.inside:
            plans[name] = _soft(config, costs[name])
    return plans


def _head_plans(
    config: Transport, group: str, head_costs: Tensor, costs: Tensors
) -> dict[str, Tensor]:
    """Heads cost what it takes to move their channels, at best; they are not mixed.

    That of channels is `costs` [heads, heads, n, n]; besides, heads cost `head_costs`.
    """
    for cost in costs.values():
        best = [
            [(transport_plan(pair_cost) * pair_cost).sum() * len(pair_cost) for pair_cost in row]
            for row in cost
        ]
        head_costs = head_costs + torch.tensor(best, dtype=torch.float64)
    plan = transport_plan(head_costs) * len(head_costs)
    every, chosen = torch.arange(len(plan)), plan.argmax(1)
    channel_plans = {
        name: torch.stack([_soft(config, pair_cost) for pair_cost in cost[every, chosen]])
        for name, cost in costs.items()
    }
    return {group: plan, **channel_plans}


def _soft(config: Transport, cost: Tensor) -> Tensor:
    return transport_plan(cost, config.regularization, config.iterations) * len(cost)


def distances(reference: Tensor, source: Tensor, axes: list[int]) -> Tensor:
    """Squared distances of the units that lie along some axes, float64 [units, units]."""
    first, second = (
        tensor.double().movedim(axes, list(range(len(axes)))).flatten(0, len(axes) - 1)
        for tensor in (reference, source)
    )
    first, second = first.reshape(len(first), -1), second.reshape(len(second), -1)
    lengths = first.square().sum(1)[:, None] + second.square().sum(1)
    return (lengths - 2 * first @ second.T).clamp(min=0)
