"""The uniform soup: the mean of models' weights."""

import torch

from vitarium.config import NoConfig
from vitarium.operators.ingredients import Ingredients, Made
from vitarium.registry import operator


@operator("uniform_soup", paper="Wortsman et al. 2022, arXiv 2203.05482")
def uniform_soup(config: NoConfig, ingredients: Ingredients) -> Made:
    """Mean of the models' weights, in float64."""
    for done, (name, shape) in enumerate(ingredients.shapes.items()):
        ingredients.report(done, len(ingredients.shapes))
        total = torch.zeros(shape, dtype=torch.float64)
        for tensor in ingredients.each(name):
            total += tensor
        yield name, total / len(ingredients)
