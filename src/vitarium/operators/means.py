"""Means of models' weights, for all operators that are one: summed in float64, as fast as the disk.

Reading (page faults, checksums, unpacking) and summing go on at the same time, on threads.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vitarium.measures.subjects import Weights
from vitarium.operators.ingredients import Ingredients, Made

_READERS = 2
"""Threads that read; more are no faster on two cores."""
_AHEAD = 4
"""Groups of tensors that are read before they are needed."""
_GROUP_BYTES = 8_000_000
"""Of one group: tensors of one name, of as many models. Small tensors are many, and handing each
from thread to thread would take longer than to read it."""
_AT_ONCE = 1 << 17
"""Numbers of a sum that are added to at once: in float64 they stay in the processor's cache."""


def mean(ingredients: Ingredients) -> Made:
    """The mean of the models' weights, tensor by tensor, in float64.

    Raises IncompatibleWeights, CorruptFile.
    """
    for name, total in _sums(ingredients, None):
        yield name, total.div_(len(ingredients))


def weighted_sum(ingredients: Ingredients, weights: Sequence[float]) -> Made:
    """The models' weights, each times a number, added up in float64.

    Raises IncompatibleWeights, CorruptFile.
    """
    return _sums(ingredients, weights)


def _sums(ingredients: Ingredients, weights: Sequence[float] | None) -> Made:
    total, place = torch.empty(0), 0
    for name, tensors in _read(_groups(ingredients)):
        if not place:
            shape = ingredients.shapes[name]
            total = torch.zeros(shape, dtype=torch.float64, device=tensors[0].device)
        shares = weights[place : place + len(tensors)] if weights else [1.0] * len(tensors)
        _add(total, tensors, shares)
        place += len(tensors)
        if place == len(ingredients):
            place = 0
            if not torch.isfinite(total).all():
                for _ in ingredients.each(name):  # raises, and names the model
                    pass
            yield name, total


def _groups(ingredients: Ingredients) -> Iterator[tuple[str, list[Weights]]]:
    """What is to be read at once: a name, and its tensors of some models."""
    models = list(ingredients)
    for name in ingredients.in_turn():
        size = max(1, _GROUP_BYTES // (4 * max(1, math.prod(ingredients.shapes[name]))))
        for start in range(0, len(models), size):
            yield name, models[start : start + size]


def _read(groups: Iterable[tuple[str, list[Weights]]]) -> Iterator[tuple[str, list[Tensor]]]:
    """The tensors of the groups, in their order; some are read ahead."""
    with ThreadPoolExecutor(_READERS) as pool:
        waiting: deque[tuple[str, Future[list[Tensor]]]] = deque()
        try:
            for name, models in groups:
                waiting.append((name, pool.submit(_tensors, name, models)))
                if len(waiting) > _AHEAD:
                    name, found = waiting.popleft()
                    yield name, found.result()
            for name, found in waiting:
                yield name, found.result()
        finally:
            for _, found in waiting:
                found.cancel()


def _tensors(name: str, models: Sequence[Weights]) -> list[Tensor]:
    return [model[name] for model in models]


def _add(total: Tensor, tensors: Sequence[Tensor], shares: Sequence[float]) -> None:
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, total.numel(), _AT_ONCE):
        part = total.view(-1)[start : start + _AT_ONCE]
        for tensor, share in zip(flat, shares, strict=True):
            part.add_(tensor[start : start + _AT_ONCE], alpha=share)
