"""Layer statistics as a vector: mean, variance and quantiles of every tensor."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vitarium.encoders.base import Config, NotApplicable, Weights, weight_encoder

PAPER = "Unterthiner et al. 2020, Predicting neural network accuracy from weights, arXiv 2002.11448"


class LayerQuantiles(Config):
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (0, 25, 50, 75, 100)
    """Percentiles of each tensor's entries, in [0, 100], interpolated linearly."""


@weight_encoder("layer_quantiles", title="weight statistics", paper=PAPER, standardize=True)
def layer_quantiles(config: LayerQuantiles, weights: Weights) -> Tensor:
    """Mean, variance and percentiles of every tensor, one tensor after the other.

    Returns float64 [tensors * (2 + percentiles)]; the variance is divided by n.
    """
    shares = torch.tensor(config.percentiles, dtype=torch.float64) / 100
    vectors = [_statistics(tensor, shares) for _, tensor in weights.floats() if tensor.numel()]
    if not vectors:
        raise NotApplicable(f"{weights.name}: its backbone has no weights")
    return torch.cat(vectors)


def _statistics(tensor: Tensor, shares: Tensor) -> Tensor:
    """Of a tensor [*shape] and quantiles in [0, 1] [k]: mean, variance and these, float64 [2 + k].

    torch.quantile takes no more than 16 million entries.
    """
    ordered = tensor.double().flatten().sort().values
    position = shares * (len(ordered) - 1)
    lower, upper = ordered[position.floor().long()], ordered[position.ceil().long()]
    quantiles = torch.lerp(lower, upper, position.frac())
    moments = torch.stack([ordered.mean(), ordered.var(correction=0)])
    return torch.cat([moments, quantiles])
