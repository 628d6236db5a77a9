"""What a method says must not depend on the order of models: it sees them sorted by name.

So where weights leave a choice open, the first name is chosen, whatever the order of the heap.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TypeVar

import numpy as np

from vitarium.lineage.forest import Forest
from vitarium.lineage.model_set import Heap

Settings = TypeVar("Settings")
Method = Callable[[Settings, Heap, int | None], Forest]


def by_name(method: Method[Settings]) -> Method[Settings]:
    """A method that gets the heap's models sorted by name, and whose forest is in their order."""

    @wraps(method)
    def ordered(config: Settings, heap: Heap, trees: int | None) -> Forest:
        order = sorted(range(len(heap)), key=heap.names.__getitem__)
        _ = heap.evidence  # gathered here, so that the part shares it, and so does the next method
        found = method(config, heap.part(order), trees)
        family = dict(zip(found.models, found.families, strict=True))
        families = first_appearance(np.array([family[name] for name in heap.names]))
        return replace(found, models=heap.names, families=families.tolist())

    return ordered


def first_appearance(labels: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 as they appear, int64 [K]."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)


def copies(heap: Heap) -> np.ndarray:
    """Of every model the first that has the same weights, int64 [K]; itself, where none has."""
    return (heap.evidence.squared_distances() == 0).argmax(1)


def tied(heap: Heap) -> list[list[str]]:
    """Names of models that have the same weights, in groups of two or more."""
    first = copies(heap)
    groups = [np.flatnonzero(first == place) for place in np.unique(first)]
    return [[heap.names[place] for place in group] for group in groups if len(group) > 1]
