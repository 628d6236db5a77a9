"""Inner products of models centered at their initialization, where that is always the same.

Weights begin at random around zero; biases at zero, and the gains of norms at one. Models that
begin alike and have no common parent give themselves away: what each has learned of its biases and
gains is its own.
"""

from collections.abc import Sequence

import numpy as np

from vitarium.lineage.model_set import ModelSet


def weight_layers(model_set: ModelSet) -> list[str]:
    """Names of matrices and convolutions, which begin at random; of all tensors without any."""
    layers = [
        name for name, shape in model_set.shapes.items() if len(shape) in (2, 4) and shape[0] > 1
    ]
    return layers or list(model_set.shapes)


def layer_grams(model_set: ModelSet, tensors: Sequence[str]) -> np.ndarray:
    """Gram matrices of these tensors, float64 [layers, K, K]."""
    return np.stack([model_set.statistics.grams[name] for name in tensors])


def centered_at_init(model_set: ModelSet) -> np.ndarray:
    """Gram matrix of biases minus 0 and gains minus 1, float64 [K, K]; 0 without any.

    A vector whose entries are nearer 1 than 0 in most models is a gain, and began at 1.
    """
    total = np.zeros((len(model_set), len(model_set)))
    for name, shape in model_set.shapes.items():
        if len(shape) != 1:
            continue
        mean, size = model_set.statistics.moments["mean"][name], shape[0]
        total += model_set.statistics.grams[name]
        if np.median(mean) > 0.5:
            total += size * (1 - mean[:, None] - mean)
    return total
