"""Epoch averaging: the mean of what one training run passed through."""

from collections.abc import Sequence

from pydantic import Field

from vitarium.core.config import Config
from vitarium.operators.averaging._epochs import latest, trained
from vitarium.operators.averaging._means import mean
from vitarium.operators.base import Ingredients, NamedTensors, operator


class EpochAverage(Config):
    """Which epochs of the model are averaged."""

    last: int | None = Field(default=5, ge=2)
    """So many of the latest kept epochs; none: all. The state before training never counts."""


def epochs(config: EpochAverage, kept: Sequence[int]) -> list[int]:
    """Raises InvalidInput where fewer are kept than are asked for."""
    return trained(kept) if config.last is None else latest(kept, config.last)


@operator(
    "epoch_average",
    title="Epoch average",
    config=EpochAverage,
    epochs=epochs,
    paper="Izmailov et al. 2018, arXiv 1803.05407; Schürholt et al. 2022, arXiv 2209.14764",
    tiny={"last": 2},
)
def epoch_average(config: EpochAverage, ingredients: Ingredients) -> NamedTensors:
    """Mean of the last epochs of one model, or of all."""
    return mean(ingredients)
