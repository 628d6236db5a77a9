"""Inner products of models about what they began as, where an initialisation is always the same.

Weights begin at random around zero; biases at zero, and the gains of norms at one. Models that
begin alike and have no common parent give themselves away: what each has learned of its biases and
gains is its own.
"""

from collections.abc import Sequence

import numpy as np

from vitarium.lineage.model_set import Heap


def weight_layers(heap: Heap) -> list[str]:
    """Matrices and convolutions, which begin at random; all tensors where there are none."""
    found = [name for name, shape in heap.shapes.items() if len(shape) in (2, 4) and shape[0] > 1]
    return found or list(heap.shapes)


def stacked(heap: Heap, tensors: Sequence[str]) -> np.ndarray:
    """Inner products layer by layer, float64 [layers, K, K]."""
    return np.stack([heap.evidence.grams[name] for name in tensors])


def about_beginnings(heap: Heap) -> np.ndarray:
    """Inner products of what biases and gains have learned, float64 [K, K]; 0 without any.

    A vector whose entries are nearer 1 than 0 in most models is a gain, and began at 1.
    """
    total = np.zeros((len(heap), len(heap)))
    for name, shape in heap.shapes.items():
        if len(shape) != 1:
            continue
        mean, size = heap.evidence.moments["mean"][name], shape[0]
        total += heap.evidence.grams[name]
        if np.median(mean) > 0.5:
            total += size * (1 - mean[:, None] - mean)
    return total
