"""L1 or L2 norm of the weights."""

from typing import Literal

import torch

from vitarium.measures.base import Config, Values, Weights, measure


class WeightNorm(Config):
    order: Literal[1, 2] = 2
    """1: sum of absolute values; 2: Euclidean."""
    names: str = ""
    """Measure tensors with this in their name alone, e.g. `attn.qkv`; "": all of them."""


@measure("weight_norm", unit="norm", studies=True)
def weight_norm(config: WeightNorm, weights: Weights) -> Values:
    """Norm of every tensor, and of all of them as one vector, in float64."""
    norms = {
        name: float(torch.linalg.vector_norm(tensor, config.order, dtype=torch.float64))
        for name, tensor in weights.floats(config.names)
    }
    total = torch.tensor(list(norms.values()), dtype=torch.float64)
    return {"": float(torch.linalg.vector_norm(total, config.order)), **norms}
