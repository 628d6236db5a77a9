"""An exponential moving average over the epochs of one training run."""

from collections.abc import Sequence

from pydantic import Field

from vitarium.core.config import Config
from vitarium.operators.averaging._epochs import trained
from vitarium.operators.averaging._means import weighted_sum
from vitarium.operators.base import Ingredients, NamedTensors, operator


class Ema(Config):
    """How fast the average forgets."""

    decay: float = Field(default=0.9, ge=0, lt=1)
    """d in average = d average + (1 - d) epoch; 0 gives the last epoch."""
    debias: bool = True
    """Divide by the sum of the weights, as if the average had no beginning; false: it begins as
    the first epoch, which then weighs d^(n - 1) of n."""


def epochs(config: Ema, kept: Sequence[int]) -> list[int]:
    return trained(kept)


@operator(
    "ema",
    title="EMA",
    config=Ema,
    epochs=epochs,
    paper="Polyak and Juditsky 1992; Morales-Brotons et al. 2024, arXiv 2411.18704",
)
def ema(config: Ema, ingredients: Ingredients) -> NamedTensors:
    """Exponential moving average over the kept epochs of one model."""
    return weighted_sum(ingredients, shares(config, len(ingredients)))


def shares(config: Ema, count: int) -> list[float]:
    """What each epoch weighs in the average, the first one first; together 1."""
    found = [(1 - config.decay) * config.decay**age for age in reversed(range(count))]
    if config.debias:
        return [share / sum(found) for share in found]
    return [config.decay ** (count - 1), *found[1:]]
