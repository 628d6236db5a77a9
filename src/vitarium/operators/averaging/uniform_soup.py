"""The uniform soup: the mean of models' weights."""

from vitarium.core.config import NoConfig
from vitarium.operators.averaging._means import mean
from vitarium.operators.base import Ingredients, NamedTensors, operator


@operator("uniform_soup", title="Uniform soup", paper="Wortsman et al. 2022, arXiv 2203.05482")
def uniform_soup(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Uniform soup: the mean of the models' weights.

    Yields (name, tensor [*shape]), computed in float64.
    """
    return mean(ingredients)
