"""The mean of any number of models on the sphere."""

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor

from vitarium.operators.averaging._spheres import Over, combined, spherical_mean
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.weighting import Weighted


class MultiSlerp(Weighted):
    """The weighted mean of the models' directions, times the mean of their norms."""

    weights: dict[str, PositiveFloat] = {}
    """How much models count, by how their ids begin, `{"3f2a": 0.5}`; the others count 1."""
    mean: Literal["karcher", "chordal"] = "karcher"
    """Mean on the sphere: the point with the least sum of squared angles to the models (karcher),
    or the direction of the mean of their unit vectors (chordal), as mergekit's multislerp."""
    over: Over = "tensor"
    """Whether each tensor is a vector of its own, or the whole model is one vector."""


@operator(
    "multi_slerp", title="Multi-SLERP", paper="Buss and Fillmore 2001, ACM Trans. Graphics 20(2)"
)
def multi_slerp(config: MultiSlerp, ingredients: Ingredients) -> NamedTensors:
    """Spherical mean of several models: the mean of their directions times the mean of their norms.

    Yields (name, tensor [*shape]) in float64. For two models of one norm it is slerp's midpoint. A
    tensor that is 0 in some models has its direction from the others. Raises IncompatibleWeights
    where directions cancel out.
    """
    weights = config.of(ingredients)

    def coefficients(name: str, products: Tensor) -> list[float]:
        models = [f"{model}: {name}" for model in ingredients.names]
        return spherical_mean(models, products, weights, config.mean)

    yield from combined(ingredients, config.over, coefficients)
