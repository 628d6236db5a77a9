"""Models that are equal apart from their heads: which was first, and whose are the children.

Their weights do not tell. Heads do, where a training goes on: a child that keeps its parent's head
is near it there, and has nothing in common with a new one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vitarium.evaluation.inputs import Weights
from vitarium.lineage._canonical_order import copies
from vitarium.lineage.forest import Edge
from vitarium.lineage.model_set import Heap

Groups = Sequence[Sequence[str]]
"""Names of equal models; the first of each group stands for all of it in a tree."""
_RELATED = 0.5
"""Squared distance of two heads by the sum of their squares, under which one comes from the other:
it is 1 of heads that have nothing to do with each other."""


def grouped_copies(heap: Heap, moved: Collection[str]) -> list[list[str]]:
    """Models in groups of those that have no distance, the single ones among them.

    The first by name stands for all, of those that stand as they were.
    """
    groups: dict[int, list[str]] = {}
    for first, name in zip(copies(heap).tolist(), heap.names, strict=True):
        groups.setdefault(first, []).append(name)
    return [sorted(group, key=lambda name: (name in moved, name)) for group in groups.values()]


def with_copies(
    edges: Iterable[Edge], groups: Groups, heap: Heap, moved: Collection[str]
) -> list[Edge]:
    """Edges to all copies, from the one that was first; their children by their heads.

    Where no head is near another, the one that stands for all is the first, and has the children.

    Args:
        edges: among models of which no two are equal.
        moved: copies that stood in another order of units.
    """
    models = dict(zip(heap.names, heap.models, strict=True))
    found = list(edges)
    for group in groups:
        whole, rest = (
            group[0],
            [edge for edge in found if group[0] not in (edge.parent, edge.child)],
        )
        above = [edge for edge in found if edge.child == whole]
        below = [edge for edge in found if edge.parent == whole]
        first = whole
        for edge in above:
            first = _nearest(models[edge.parent], group, models, heap.tensors) or first
        rest += [replace(edge, child=first) for edge in above]
        rest += [
            replace(
                edge,
                parent=_nearest(models[edge.child], group, models, heap.tensors) or first,
            )
            for edge in below
        ]
        rest += [
            Edge(first, name, 1 / len(group), kind="permuted" if name in moved else "copy")
            for name in group
            if name != first
        ]
        found = rest
    return found


def _nearest(
    model: Weights, group: Sequence[str], models: Mapping[str, Weights], trunk: Collection[str]
) -> str | None:
    """The copy whose head is nearest to a model's; None where none is related."""
    distances = {name: _distance(model, models[name], trunk) for name in group}
    nearest = min(sorted(distances), key=distances.__getitem__)
    return nearest if distances[nearest] < _RELATED else None


def _distance(one: Weights, other: Weights, trunk: Collection[str]) -> float:
    """Of two heads, by the sum of their squares; infinite where they have nothing in common."""
    apart = of_both = 0.0
    for name, shape in one.shapes.items():
        if name not in trunk and other.shapes.get(name) == shape:
            a, b = (model[name].double().numpy() for model in (one, other))
            apart += float(np.square(a - b).sum())
            of_both += float(np.square(a).sum() + np.square(b).sum())
    return apart / of_both if of_both > 0 else np.inf
