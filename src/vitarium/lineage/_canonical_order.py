"""Canonical order: a method sees models sorted by name, so that their order means nothing.

Where weights leave a choice open, the first name is chosen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from typing import TypeVar

import numpy as np

from vitarium.lineage.forest import Forest
from vitarium.lineage.model_set import ModelSet

Settings = TypeVar("Settings")
Method = Callable[[Settings, ModelSet, int | None], Forest]


def canonical_order(method: Method[Settings]) -> Method[Settings]:
    """Decorate a method: it gets the models sorted by name; its forest is in the order given."""

    @wraps(method)
    def ordered(config: Settings, model_set: ModelSet, trees: int | None) -> Forest:
        order = sorted(range(len(model_set)), key=model_set.names.__getitem__)
        _ = model_set.statistics  # read here, so that the subset and the next method share it
        forest = method(config, model_set.subset(order), trees)
        tree_of = dict(zip(forest.models, forest.families, strict=True))
        families = first_appearance(np.array([tree_of[name] for name in model_set.names]))
        return replace(forest, models=model_set.names, families=families.tolist())

    return ordered


def first_appearance(labels: np.ndarray) -> np.ndarray:
    """Labels [K] renumbered from 0 as they appear, int64 [K]."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)


def tree_numbers(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[int]:
    """Of every model the number of its tree, what edges connect in either direction; from 0, as
    they appear."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    trees = enumerate(networkx.connected_components(graph))
    tree_of = {name: number for number, tree in trees for name in tree}
    return [tree_of[name] for name in names]


def copies(model_set: ModelSet) -> np.ndarray:
    """Index of the first model with the same weights, int64 [K]; its own, where none has."""
    return (model_set.statistics.squared_distances() == 0).argmax(1)


def tied(model_set: ModelSet) -> list[list[str]]:
    """Names of models with the same weights, in groups of two or more."""
    first = copies(model_set)
    groups = [np.flatnonzero(first == index) for index in np.unique(first)]
    return [[model_set.names[index] for index in group] for group in groups if len(group) > 1]
