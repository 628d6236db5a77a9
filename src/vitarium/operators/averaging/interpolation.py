"""The straight line between two models."""

from pydantic import FiniteFloat

from vitarium.core.config import Config
from vitarium.operators.averaging._means import weighted_sum
from vitarium.operators.base import Ingredients, NamedTensors, operator


class Interpolation(Config):
    """Where on the line."""

    t: FiniteFloat = 0.5
    """Position on the line: 0 gives the first model, 1 the second; numbers outside [0, 1]
    extrapolate."""


@operator("interpolation", title="Interpolation", ordered=True, models=(2, 2))
def interpolation(config: Interpolation, ingredients: Ingredients) -> NamedTensors:
    """Linear interpolation between two models: (1 - t) first + t second.

    Yields (name, tensor [*shape]) in float64.
    """
    return weighted_sum(ingredients, [1 - config.t, config.t])
