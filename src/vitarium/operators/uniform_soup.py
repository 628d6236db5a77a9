"""The uniform soup: the mean of models' weights."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vitarium.config import NoConfig
from vitarium.operators.ingredients import Ingredients
from vitarium.registry import operator


@operator("uniform_soup", paper="Wortsman et al. 2022, Model soups, arXiv 2203.05482")
def uniform_soup(config: NoConfig, ingredients: Ingredients) -> Iterator[tuple[str, Tensor]]:
    """Mean of the ingredients' weights, tensor by tensor, accumulated in float64.

    Tensors of whole numbers (counters, indices) are the first ingredient's.
    """
    for name, tensors in ingredients.tensors():
        if tensors.is_floating_point():
            yield name, tensors.mean(0, dtype=torch.float64).to(tensors.dtype)
        else:
            yield name, tensors[0]
