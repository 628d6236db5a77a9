"""Spherical linear interpolation between two models."""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from vitarium.core.config import Config
from vitarium.operators.averaging._spheres import Over, combined
from vitarium.operators.base import Ingredients, NamedTensors, operator


class Slerp(Config):
    """sin((1 - t) omega) / sin omega x first + sin(t omega) / sin omega x second."""

    t: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Position on the arc: 0 gives the first model, 1 the second."""
    over: Over = "tensor"
    """Whether the angle is taken for each tensor by itself, or for the whole model as one
    vector."""
    linear_above: Annotated[float, Field(gt=0, le=1)] = 1 - 1e-12
    """Absolute cosine of the angle from which on the arc is replaced by a straight line."""


@operator(
    "slerp", title="SLERP", ordered=True, models=(2, 2), paper="Shoemake 1985, SIGGRAPH 19(3)"
)
def slerp(config: Slerp, ingredients: Ingredients) -> NamedTensors:
    """Spherical linear interpolation between two models, along the great circle.

    Yields (name, tensor [*shape]) in float64. Norms are not equalized. mergekit's slerp has
    `linear_above=0.9995`, which most children of one parent pass: then it is a plain interpolation.
    """

    def coefficients(name: str, products: Tensor) -> list[float]:
        (first_square, between), (_, second_square) = products.tolist()
        squares = first_square * second_square
        cosine = between / math.sqrt(squares) if first_square and second_square else 1.0
        if abs(cosine) >= config.linear_above:
            return [1 - config.t, config.t]
        angle = math.acos(max(-1.0, min(1.0, cosine)))
        ends = (1 - config.t, config.t)
        return [math.sin(share * angle) / math.sin(angle) for share in ends]

    ingredients.share([1 - config.t, config.t])
    yield from combined(ingredients, config.over, coefficients)
