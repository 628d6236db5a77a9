"""Averages over the epochs of one training run: the last ones, LAWA, SWA and EMA."""

import math
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.operators.averaging._means import mean, weighted_sum
from vitarium.operators.base import Ingredients, NamedTensors, operator


class EpochAverage(Config):
    """Which epochs of the model are averaged."""

    last: int | None = Field(default=5, ge=2)
    """So many of the latest epochs; none: all. The state before training never counts."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        return (
            trained_epochs(checkpoints)
            if self.last is None
            else latest_epochs(checkpoints, self.last)
        )


class Lawa(Config):
    """How long the window is."""

    k: int = Field(default=6, ge=2)
    """Latest epochs in it."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        return latest_epochs(checkpoints, self.k)


class Swa(Config):
    """From when on, and how often, weights are averaged."""

    start: float = Field(default=0.75, ge=0, le=1)
    """Share of the epochs after which averaging starts; the epoch there is the first."""
    every: PositiveInt = 1
    """Every how many of the epochs from there on counts: the length of a cycle."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        return cycle_epochs(checkpoints, self.start, self.every)


class Ema(Config):
    """How fast the average forgets."""

    decay: float = Field(default=0.9, ge=0, lt=1)
    """d in average = d average + (1 - d) epoch; 0 gives the last epoch."""
    debias: bool = True
    """Divide by the sum of the weights, as if the average had no beginning; false: it begins as
    the first epoch, which then weighs d^(n - 1) of n."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        return trained_epochs(checkpoints)

    def weights(self, count: int) -> list[float]:
        """The weight of each epoch in the average, the first epoch first; they sum to 1."""
        decayed = [(1 - self.decay) * self.decay**age for age in reversed(range(count))]
        if self.debias:
            return [weight / sum(decayed) for weight in decayed]
        return [self.decay ** (count - 1), *decayed[1:]]


@operator(
    "epoch_average",
    title="Epoch average",
    config=EpochAverage,
    epochs=EpochAverage.epochs,
    paper="Izmailov et al. 2018, arXiv 1803.05407; Schürholt et al. 2022, arXiv 2209.14764",
    tiny={"last": 2},
)
def epoch_average(config: EpochAverage, ingredients: Ingredients) -> NamedTensors:
    """Mean of the last epochs of one model, or of all.

    Yields (name, tensor [*shape]) in float64.
    """
    return mean(ingredients)


@operator(
    "lawa",
    title="LAWA",
    config=Lawa,
    epochs=Lawa.epochs,
    paper="Kaddour 2022, arXiv 2209.14981",
    tiny={"k": 2},
)
def lawa(config: Lawa, ingredients: Ingredients) -> NamedTensors:
    """Latest weight averaging: mean of the k latest epochs of one model.

    Yields (name, tensor [*shape]) in float64. With `ID@EPOCH` it is what it was at that epoch.
    """
    return mean(ingredients)


@operator(
    "swa",
    title="SWA",
    config=Swa,
    epochs=Swa.epochs,
    paper="Izmailov et al. 2018, arXiv 1803.05407",
    tiny={"start": 0},
)
def swa(config: Swa, ingredients: Ingredients) -> NamedTensors:
    """Stochastic weight averaging: mean of every c-th epoch of the last part of training.

    Yields (name, tensor [*shape]) in float64. Algorithm 1 of the paper. The statistics of a batch
    normalization are averaged like all weights, and would have to be computed anew; vision
    transformers have none.
    """
    return mean(ingredients)


@operator(
    "ema",
    title="EMA",
    config=Ema,
    epochs=Ema.epochs,
    paper="Polyak and Juditsky 1992; Morales-Brotons et al. 2024, arXiv 2411.18704",
)
def ema(config: Ema, ingredients: Ingredients) -> NamedTensors:
    """Exponential moving average over the epochs of one model that have checkpoints.

    Yields (name, tensor [*shape]) in float64.
    """
    return weighted_sum(ingredients, config.weights(len(ingredients)))


def trained_epochs(checkpoints: Sequence[int]) -> list[int]:
    """The epochs with checkpoints in order, without the state before training (epoch 0)."""
    return sorted(epoch for epoch in checkpoints if epoch > 0)


def latest_epochs(checkpoints: Sequence[int], count: int) -> list[int]:
    """The last `count` epochs of training. Raises InvalidInput where there are fewer."""
    epochs = trained_epochs(checkpoints)
    if len(epochs) < count:
        listed = ", ".join(map(str, epochs)) or "none"
        raise InvalidInput(
            f"the last {count} epochs are asked for, and {len(epochs)} are kept ({listed}); "
            "ask for fewer"
        )
    return epochs[-count:]


def cycle_epochs(checkpoints: Sequence[int], start: float, cycle: int) -> list[int]:
    """Every `cycle`-th epoch, the first at the share `start` of training or right after it."""
    epochs = trained_epochs(checkpoints)
    first = math.ceil(round(start * epochs[-1], 9)) if epochs else 0
    return [epoch for epoch in epochs if epoch >= first][::cycle]
