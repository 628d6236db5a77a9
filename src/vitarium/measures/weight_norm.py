"""How large the weights are."""

from typing import Literal

import torch

from vitarium.config import Config
from vitarium.measures.subjects import Weights
from vitarium.registry import measure


class WeightNorm(Config):
    """Of all weights together, or of those whose name contains a text."""

    order: Literal[1, 2] = 2
    """1: sum of absolute values; 2: Euclidean."""
    names: str = ""
    """Measure tensors with this in their name alone, e.g. `attn.qkv`; "": all of them."""


@measure("weight_norm", config=WeightNorm, of="model", needs="weights", unit="norm")
def weight_norm(config: WeightNorm, weights: Weights) -> float:
    """Norm of a state_dict's tensors as one vector, in float64."""
    norms = [
        torch.linalg.vector_norm(tensor, config.order, dtype=torch.float64)
        for name, tensor in weights.items()
        if config.names in name
    ]
    total = torch.stack(norms) if norms else torch.zeros(1, dtype=torch.float64)
    return float(torch.linalg.vector_norm(total, config.order))
