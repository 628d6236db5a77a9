"""Sparsity: share of weights below a magnitude threshold."""

import numpy as np
from pydantic import Field, NonNegativeFloat

from vitarium.measures.base import Config, NotApplicable, Values, Weights, measure


class Sparsity(Config):
    """What counts as zero: an entry up to a threshold in absolute value."""

    thresholds: tuple[NonNegativeFloat, ...] = Field((0.0, 1e-3, 1e-2), min_length=1)
    """Absolute values up to which an entry counts as zero; each gives parts such as `1e-3`, and
    `head.weight/1e-3` for a tensor."""


@measure("sparsity", unit="fraction")
def sparsity(config: Sparsity, weights: Weights) -> Values:
    """Sparsity: share of weights near zero, of all and of each tensor, in [0, 1].

    A threshold is rounded to the tensor's dtype, so that the float32 nearest to 1e-3 counts.
    """
    small = dict.fromkeys(config.thresholds, 0)
    total, parts = 0, {}
    for name, tensor in weights.floats():
        if not tensor.numel():
            continue
        sizes = tensor.abs()
        for threshold in small:
            count = int((sizes <= threshold).sum())
            parts[f"{name}/{_text(threshold)}"] = count / tensor.numel()
            small[threshold] += count
        total += tensor.numel()
    if not total:
        raise NotApplicable(f"{weights.name} has no weights")
    return {_text(threshold): count / total for threshold, count in small.items()} | parts


def _text(threshold: float) -> str:
    """0.001 -> "1e-3", 0.0 -> "0"."""
    if not threshold:
        return "0"
    return np.format_float_scientific(threshold, trim="-", exp_digits=1)
