"""Averages over the epochs of one training run, each a choice of epochs and their weights."""

import math
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.operators.averaging._means import mean, weighted_sum
from vitarium.operators.base import Ingredients, NamedTensors, operator


class EpochChoice(Config):
    """Base of the settings: which epochs are averaged, and how much each counts."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        """Those that are averaged. Raises InvalidInput where there are too few."""
        return list(checkpoints)

    def weights(self, count: int) -> list[float] | None:
        """Of so many epochs, the first epoch first; None: all the same."""
        return None


class EpochAverage(EpochChoice):
    """Mean of the last epochs of one model, or of all its epochs."""

    last: int | None = Field(default=5, ge=2)
    """Number of latest epochs to average; none: all. The state before training never counts."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        if self.last is None:
            return list(checkpoints)
        return latest_epochs(checkpoints, self.last)


class Lawa(EpochChoice):
    """LAWA, latest weight averaging: mean of the k latest epochs of one model.

    With `ID@EPOCH` it is what it was at that epoch.
    """

    k: int = Field(default=6, ge=2)
    """Number of latest epochs to average."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        return latest_epochs(checkpoints, self.k)


class Swa(EpochChoice):
    """SWA, stochastic weight averaging: mean of every c-th epoch in the last part of training.

    Algorithm 1 of the paper.
    """

    start: float = Field(default=0.75, ge=0, le=1)
    """Share of the epochs after which averaging starts, in [0, 1]; the epoch there is the first to
    count."""
    every: PositiveInt = 1
    """Cycle length: every how many epochs, from the start on, one counts."""

    def epochs(self, checkpoints: Sequence[int]) -> list[int]:
        if not checkpoints:
            return []
        from_zero = checkpoints[0] == 0  # then the weights of epoch n are those after n + 1
        first = math.ceil(round(self.start * (checkpoints[-1] + from_zero), 9)) - from_zero
        return [epoch for epoch in checkpoints if epoch >= first][:: self.every]


class Ema(EpochChoice):
    """Exponential moving average of the kept epochs of one model."""

    decay: float = Field(default=0.9, ge=0, lt=1)
    """Decay rate d per kept epoch: average = d average + (1 - d) epoch; 0 gives the last epoch."""
    debias: bool = True
    """Divide by the sum of the weights, so that the first epoch is not favored; false: the average
    starts as the first epoch, whose weight is then d^(n - 1) of n epochs."""

    def weights(self, count: int) -> list[float]:
        decayed = [(1 - self.decay) * self.decay**age for age in reversed(range(count))]
        if self.debias:
            total = sum(decayed)
            return [weight / total for weight in decayed]
        return [self.decay ** (count - 1), *decayed[1:]]


def latest_epochs(checkpoints: Sequence[int], count: int) -> list[int]:
    """The last `count` of the trained epochs. Raises InvalidInput where there are fewer."""
    if len(checkpoints) < count:
        listed = ", ".join(map(str, checkpoints)) or "none"
        raise InvalidInput(
            f"the last {count} epochs are asked for, and {len(checkpoints)} are kept ({listed}); "
            "ask for fewer"
        )
    return list(checkpoints[-count:])


def _average(config: EpochChoice, ingredients: Ingredients) -> NamedTensors:
    # without a docstring of its own: each method's summary is its settings'
    weights = config.weights(len(ingredients))
    return mean(ingredients) if weights is None else weighted_sum(ingredients, weights)


_SWA_PAPER = "Izmailov et al. 2018, arXiv 1803.05407"
_MEAN_PAPER = f"{_SWA_PAPER}; Schürholt et al. 2022, arXiv 2209.14764"
_EMA_PAPER = "Polyak and Juditsky 1992; Morales-Brotons et al. 2024, arXiv 2411.18704"
_METHODS: list[tuple[str, str, type[EpochChoice], str, dict[str, int]]] = [
    ("epoch_average", "Epoch average", EpochAverage, _MEAN_PAPER, {"last": 2}),
    ("lawa", "LAWA", Lawa, "Kaddour 2022, arXiv 2209.14981", {"k": 2}),
    ("swa", "SWA", Swa, _SWA_PAPER, {"start": 0}),
    ("ema", "EMA", Ema, _EMA_PAPER, {}),
]
for _name, _title, _config, _paper, _tiny in _METHODS:
    operator(_name, title=_title, config=_config, epochs=_config.epochs, paper=_paper, tiny=_tiny)(
        _average
    )
