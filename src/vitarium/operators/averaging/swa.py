"""Stochastic weight averaging, of epochs that a zoo has kept."""

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from vitarium.core.config import Config
from vitarium.operators.averaging._epochs import every
from vitarium.operators.averaging._means import mean
from vitarium.operators.base import Ingredients, NamedTensors, operator


class Swa(Config):
    """From when on, and how often, weights are averaged."""

    start: float = Field(default=0.75, ge=0, le=1)
    """Share of the epochs after which averaging starts; the epoch there is the first."""
    every: PositiveInt = 1
    """Of the kept epochs from there on, every how-manieth counts: the length of a cycle."""


def epochs(config: Swa, kept: Sequence[int]) -> list[int]:
    return every(kept, config.start, config.every)


@operator(
    "swa",
    title="SWA",
    config=Swa,
    epochs=epochs,
    paper="Izmailov et al. 2018, arXiv 1803.05407",
    tiny={"start": 0},
)
def swa(config: Swa, ingredients: Ingredients) -> NamedTensors:
    """Stochastic weight averaging: mean of every c-th epoch of the last part of training.

    Algorithm 1 of the paper. What a batch normalisation counted is averaged like all weights, and
    would have to be counted anew; vision transformers have none.
    """
    return mean(ingredients)
