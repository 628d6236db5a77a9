"""Means of models' weights in float64: every core reads, unpacks and sums a tensor of its own."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors

_MOST_THREADS = 8  # A disk, or the memory, is not faster for more
_AT_ONCE = 1 << 15
"""Numbers of a sum that are added to at once: in float64 they stay in the processor's cache, and
torch uses one thread for so few, so that threads do not fight for the cores."""


def mean(ingredients: Ingredients) -> NamedTensors:
    """As `weighted_sum`: the mean of the models' weights, tensor [*shape] by tensor."""
    for name, total in weighted_sum(ingredients, [1.0] * len(ingredients)):
        yield name, total.div_(len(ingredients))


def weighted_sum(ingredients: Ingredients, weights: Sequence[float]) -> NamedTensors:
    """Weighted sum of the models' weights, tensor [*shape] by tensor, in float64.

    Raises IncompatibleWeights, CorruptFile.
    """
    ingredients.share(weights)
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[tuple[str, Future[Tensor]]] = deque()

    def first_waiting() -> tuple[str, Tensor]:
        name, future = waiting.popleft()
        total = future.result()
        if not torch.isfinite(total).all():
            for _ in ingredients.model_tensors(name):  # raises, and names the model
                pass
        return name, total

    with ThreadPoolExecutor(threads) as pool:
        try:
            for name in ingredients.in_turn():
                waiting.append((name, pool.submit(_sum, ingredients, name, weights)))
                if len(waiting) > threads:
                    yield first_waiting()
            while waiting:
                yield first_waiting()
        finally:
            for _, future in waiting:
                future.cancel()


def _sum(ingredients: Ingredients, name: str, weights: Sequence[float]) -> Tensor:
    total = torch.zeros(ingredients.shapes[name], dtype=torch.float64)
    flat = total.view(-1)
    for model, weight in zip(ingredients, weights, strict=True):
        tensor = model[name].reshape(-1)
        for start in range(0, len(flat), _AT_ONCE):
            flat[start : start + _AT_ONCE].add_(tensor[start : start + _AT_ONCE], alpha=weight)
    return total
