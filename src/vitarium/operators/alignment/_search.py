"""How two models are matched by their weights: what is moved, from where, and for how long."""

from collections.abc import Callable

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.parameters import parameter
from vitarium.core.seeds import derive
from vitarium.operators.alignment._matching import TOLERANCE, Kind, Kinds, Matching, Tensors
from vitarium.operators.base import Ingredients, checked


class Search(Config):
    """Base of the settings: how long the best place is looked for."""

    restarts: PositiveInt = 2
    """Number of starting points, of which the best result is kept: the models as they are; the
    order that the model's ends imply (pixels, positions, classes); then random ones."""
    sweeps: PositiveInt = 100
    """Largest number of passes over all units from one starting point."""
    tolerance: PositiveFloat = TOLERANCE
    """Smallest gain in the two models' cosine for which a move is made."""
    seed: NonNegativeInt = 0
    """Random seed of the order in which units are visited, and of random starting points."""


def matched(
    symmetries: Symmetries,
    fixed: Tensors,
    moving: Tensors,
    kinds: Kinds,
    search: Search,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Matching:
    """Match two models by their weights [*shape]; the result's `moves` transform the second.

    A matching depends on where it starts: the best of several is kept. See `Matching`.
    """
    best: Matching | None = None
    for number in range(search.restarts):
        report(number, search.restarts)
        order = torch.Generator().manual_seed(derive(search.seed, "matching", number))
        start: dict[str, Tensor] = {}
        for name in kinds if number > 1 else ():
            group = symmetries.groups[name]
            heads = symmetries.groups[group.inside].size if group.inside else 1
            drawn = [torch.randperm(group.size, generator=order) for _ in range(heads)]
            start[name] = torch.stack(drawn) if group.inside else drawn[0]
        matching = Matching(symmetries, fixed, moving, kinds, start=start)
        if number == 1:
            matching.settle()
        matching.ascend(search.sweeps, search.tolerance, order)
        if best is None or matching.objective > best.objective + TOLERANCE * matching.scale:
            best = matching
        if best.objective >= (1 - TOLERANCE) * best.scale:
            break
    assert best
    return best


class PermutedUnits(Config):
    """Base of the settings: which units are permuted."""

    stream: bool = True
    """Permute the units of the residual stream, through the whole model."""
    attention_heads: bool = True
    """Permute whole attention heads, with their queries, keys, values and projections."""
    channels: bool = True
    """Permute the channels inside each attention head: of queries and keys, and of values and
    projection."""
    units: bool = True
    """Permute the hidden units of the MLPs, and of an MLP head."""


def kind_of(symmetries: Symmetries, group: str) -> str:
    """What its units are: "stream", "attention_heads", "channels" inside of these, or "units"."""
    if symmetries.groups[group].inside:
        return "channels"
    if any(inner.inside == group for inner in symmetries.groups.values()):
        return "attention_heads"
    return "stream" if group.partition(".")[0] == "stream" else "units"


def kinds_of(config: Config, symmetries: Symmetries) -> Kinds:
    """What the settings `stream`, `heads`, `channels` and `units` have done to the groups."""
    kinds: dict[str, Kind] = {}
    for name in symmetries.groups:
        how = getattr(config, kind_of(symmetries, name))
        if how not in (False, "none"):
            kinds[name] = "orthogonal" if how == "orthogonal" else "permutation"
    return kinds


def model_weights(ingredients: Ingredients) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the two models, tensors [*shape] by name.

    Raises IncompatibleWeights where the head is left out.
    """
    missing = {piece.tensor for piece in ingredients.symmetries.pieces} - set(ingredients.shapes)
    if missing:
        raise IncompatibleWeights(
            f"{ingredients[0].name}: models are aligned with their heads, and {min(missing)} is "
            f"left out; merge heads like other weights: {parameter('heads', 'merge')}"
        )
    first, second = ({name: checked(m, name) for name in ingredients.shapes} for m in ingredients)
    return first, second


def match_models(
    ingredients: Ingredients, symmetries: Symmetries, fixed: Tensors, moving: Tensors, how: Search
) -> UnitTransforms:
    """The moves that `matched` finds for weights [*shape], of the groups that the settings name.

    The cosine of the models before and after is logged.
    """
    kinds = kinds_of(how, symmetries)
    matching = matched(symmetries, fixed, moving, kinds, how, ingredients.report)
    log_cosines(ingredients, Matching(symmetries, fixed, moving, kinds), matching)
    return matching.moves


def log_cosines(ingredients: Ingredients, start: Matching, end: Matching) -> None:
    """Log the cosine of the two models' weights before and after the alignment."""
    before, after = start.objective / start.scale, end.objective / end.scale
    ingredients.log.metrics |= {"cosine_before": before, "cosine_after": after}
    ingredients.log.lines.append(
        f"cosine with {ingredients[0].name}: before {before:.4f}, after {after:.4f}"
    )
