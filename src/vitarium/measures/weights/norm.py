"""L1 or L2 norm of the weights."""

from typing import Literal

import torch

from vitarium.measures.base import Config, Values, Weights, measure


class WeightNorm(Config):
    order: Literal[1, 2] = 2
    """Order of the norm: 1, the sum of absolute values, or 2, the Euclidean norm."""
    names: str = ""
    """Measure only tensors whose name contains this text, e.g. `attn.qkv`; empty: all."""


@measure("weight_norm", unit="norm", studies=True)
def weight_norm(config: WeightNorm, weights: Weights) -> Values:
    """Norm of the weights, of each tensor and of all as one vector; computed in float64."""
    norms = {
        name: float(torch.linalg.vector_norm(tensor, config.order, dtype=torch.float64))
        for name, tensor in weights.floats(config.names)
    }
    total = torch.tensor(list(norms.values()), dtype=torch.float64)
    return {"": float(torch.linalg.vector_norm(total, config.order)), **norms}
