"""Layer statistics: mean, variance and percentiles of every tensor, to predict accuracy from."""

from typing import Annotated

import numpy as np
from pydantic import Field

from vitarium.measures.base import Config, Values, Weights, measure

PAPER = "Unterthiner et al. 2020, Predicting neural network accuracy from weights, arXiv 2002.11448"


class LayerStatistics(Config):
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (0, 25, 50, 75, 100)
    """Percentiles of each tensor's entries, in [0, 100]; the default is the paper's, published
    model zoos have also used 1, 25, 50, 75, 99."""


@measure(
    "layer_statistics",
    unit="weight",
    part_units={"variance": "squared weight"},
    title="weight statistics",
    studies=True,
    paper=PAPER,
)
def layer_statistics(config: LayerStatistics, weights: Weights) -> Values:
    """Mean, variance and percentiles of each tensor, as features that predict a model's accuracy.

    Parts are `TENSOR/mean`, `TENSOR/variance`, `TENSOR/percentile_25`, ..., in the order of the
    model's tensors. The variance is divided by n; percentiles are interpolated linearly.
    """
    values: dict[str, float] = {}
    for name, tensor in weights.floats():
        if not tensor.numel():
            continue
        numbers = tensor.double().flatten().numpy()
        values[f"{name}/mean"] = float(numbers.mean())
        values[f"{name}/variance"] = float(numbers.var())
        percentiles = np.percentile(numbers, config.percentiles)
        for percentile, value in zip(config.percentiles, percentiles, strict=True):
            values[f"{name}/percentile_{percentile:g}"] = float(value)
    return values
