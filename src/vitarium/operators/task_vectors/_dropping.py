"""Entries of task vectors dropped at random, and the others made larger: for DARE and DELLA."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from vitarium.core.seeds import derive
from vitarium.operators.base import Ingredients

Rescale = Literal["exact", "l1"]
"""By 1 / (1 - p), as the papers do, or to the L1 norm that the tensor had, as mergekit does."""


def draws(ingredients: Ingredients, seed: int, name: str) -> Iterator[Tensor]:
    """For each model, uniform numbers in [0, 1) for the entries of a tensor.

    A model's stream is named by the model and the tensor, and the how-manyth of its copies it is:
    what is drawn does not depend on the order of the models, nor on which others there are.
    """
    copies: Counter[str] = Counter()
    for model in ingredients:
        stream = derive(seed, "drop", model.name, copies[model.name], name)
        copies[model.name] += 1
        generator = torch.Generator().manual_seed(stream)
        yield torch.rand(ingredients.shapes[name], generator=generator, dtype=torch.float64)


def dropped(delta: Tensor, mask: Tensor, share: Tensor | float, rescale: Rescale) -> Tensor:
    """A task vector [*shape] with only the entries in `mask`, rescaled.

    `share` [] or [*shape] is the probability that an entry is kept.
    """
    if rescale == "exact":
        return (delta / share).where(mask, 0)
    left = delta.where(mask, 0)
    before, after = delta.abs().sum(), left.abs().sum()
    return left * (before / after) if after > 0 else left
