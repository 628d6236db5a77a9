"""The uniform soup: the mean of models' weights."""

from vitarium.config import NoConfig
from vitarium.operators.ingredients import Ingredients, Made
from vitarium.operators.means import mean
from vitarium.registry import operator


@operator("uniform_soup", paper="Wortsman et al. 2022, arXiv 2203.05482")
def uniform_soup(config: NoConfig, ingredients: Ingredients) -> Made:
    """Mean of the models' weights, in float64."""
    return mean(ingredients)
