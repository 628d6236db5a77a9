"""Orthogonal matching: units mixed, where that changes nothing, so that weights come close."""

from dataclasses import replace
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from vitarium.architectures.symmetries._folding import factors, folded, unfolded
from vitarium.architectures.symmetries.base import moved
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.alignment._search import Search, kind_of, match_models, model_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator

How = Literal["orthogonal", "permutation", "none"]


class OrthogonalMatching(Search):
    stream: How = "orthogonal"
    """Map of the residual stream: a rotation (orthogonal), a permutation, or none."""
    channels: How = "orthogonal"
    """Map of the channels inside each attention head, of queries and keys, and of values and
    projection: a rotation (orthogonal), a permutation, or none."""
    attention_heads: bool = True
    """Permute whole attention heads."""
    units: bool = True
    """Permute the hidden units of the MLPs, and of an MLP head."""
    sweeps: PositiveInt = 50
    """Largest number of passes over all units from one starting point."""
    tolerance: PositiveFloat = 1e-6
    """Smallest gain in the two models' cosine for which a move is made."""


@operator(
    "orthogonal_matching",
    title="Orthogonal matching",
    paper="Theus et al. 2025, arXiv 2506.22712; Ashkboos et al. 2024, arXiv 2401.15024",
    aligns=True,
    tiny={"restarts": 1},
)
def orthogonal_matching(config: OrthogonalMatching, ingredients: Ingredients) -> NamedTensors:
    """Orthogonal matching: rotate and permute the second model's units toward the first's.

    Yields (name, tensor [*shape]) of the second model. Both models' norms and layer scales are
    folded into their neighbors; then rotations of the residual stream that keep the mean of its
    units (Procrustes), of the channels inside of heads, and permutations of heads and hidden units
    are found in turn, until they gain nothing. The result has the first model's norms and layer
    scales, so that the two can be averaged as they are; its function stays what it is. Needs memory
    for six models in float64.

    Raises IncompatibleWeights where no symmetries are declared, where the stream of the
    architecture cannot be rotated, or where norms cannot be folded; see `folding`.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    streams = [g for n, g in symmetries.groups.items() if kind_of(symmetries, n) == "stream"]
    is_fixed = any(stream.maps == "permutation" for stream in streams)
    if config.stream == "orthogonal" and is_fixed:
        raise IncompatibleWeights(
            f"{ingredients[0].name}: the residual stream of its architecture can be permuted, but "
            "not rotated; set stream to permutation"
        )
    reference, source = folded(symmetries, first), folded(symmetries, second)
    gone = set(factors(symmetries))  # ones and zeros, in both
    left = replace(symmetries, pieces=tuple(p for p in symmetries.pieces if p.tensor not in gone))
    moves = match_models(ingredients, left, reference, source, config)
    # What the norms take out anyway does not count in matching, but stays part of the model.
    uncentered = folded(symmetries, second, center=False)
    aligned = moved(symmetries, uncentered, moves)
    yield from unfolded(symmetries, aligned, like=first).items()
