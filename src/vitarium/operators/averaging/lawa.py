"""LAWA: latest weight averaging, at the end of training or, given `ID@EPOCH`, during it."""

from collections.abc import Sequence

from pydantic import Field

from vitarium.core.config import Config
from vitarium.operators.averaging._epochs import latest
from vitarium.operators.averaging._means import mean
from vitarium.operators.base import Ingredients, NamedTensors, operator


class Lawa(Config):
    """How long the window is."""

    k: int = Field(default=6, ge=2)
    """Latest kept epochs in it."""


def epochs(config: Lawa, kept: Sequence[int]) -> list[int]:
    """Raises InvalidInput where fewer are kept."""
    return latest(kept, config.k)


@operator(
    "lawa",
    title="LAWA",
    config=Lawa,
    epochs=epochs,
    paper="Kaddour 2022, arXiv 2209.14981",
    tiny={"k": 2},
)
def lawa(config: Lawa, ingredients: Ingredients) -> NamedTensors:
    """Latest weight averaging: mean of the k latest epochs of one model."""
    return mean(ingredients)
