"""Copies, equal apart from their heads: which was first, and whose are the children.

Their weights do not tell. Heads do, where a training goes on: a child that keeps its parent's head
is near it there, and has nothing in common with a new one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vitarium.evaluation.inputs import Weights
from vitarium.lineage._canonical_order import copies
from vitarium.lineage.forest import Edge
from vitarium.lineage.model_set import ModelSet

Groups = Sequence[Sequence[str]]
"""Names of equal models; the first of each group stands for all of it in a tree."""
_MAX_HEAD_DISTANCE = 0.5
"""Squared distance of two heads by the sum of their squares, under which one comes from the other:
it is 1 of heads that have nothing to do with each other."""


def copy_groups(model_set: ModelSet, permuted: Collection[str]) -> list[list[str]]:
    """Models in groups of those that have no distance, the single ones among them.

    The first by name stands for all, of those that stand as they were.
    """
    groups: dict[int, list[str]] = {}
    for first, name in zip(copies(model_set).tolist(), model_set.names, strict=True):
        groups.setdefault(first, []).append(name)
    return [sorted(group, key=lambda name: (name in permuted, name)) for group in groups.values()]


def with_copies(
    edges: Iterable[Edge], groups: Groups, model_set: ModelSet, permuted: Collection[str]
) -> list[Edge]:
    """Edges to all copies, from the one that was first; their children by their heads.

    Where no head is near another, the one that stands for all is the first, and has the children.

    Args:
        edges: among models of which no two are equal.
        moved: copies that stood in another order of units.
    """
    models = dict(zip(model_set.names, model_set.models, strict=True))
    updated = list(edges)
    for group in groups:
        representative, rest = (
            group[0],
            [edge for edge in updated if group[0] not in (edge.parent, edge.child)],
        )
        above = [edge for edge in updated if edge.child == representative]
        below = [edge for edge in updated if edge.parent == representative]
        first = representative
        for edge in above:
            first = _nearest(models[edge.parent], group, models, model_set.tensors) or first
        rest += [replace(edge, child=first) for edge in above]
        rest += [
            replace(
                edge,
                parent=_nearest(models[edge.child], group, models, model_set.tensors) or first,
            )
            for edge in below
        ]
        rest += [
            Edge(first, name, 1 / len(group), kind="permuted" if name in permuted else "copy")
            for name in group
            if name != first
        ]
        updated = rest
    return updated


def _nearest(
    model: Weights, group: Sequence[str], models: Mapping[str, Weights], trunk: Collection[str]
) -> str | None:
    """The copy whose head is nearest to a model's; None where none is related."""
    distances = {name: _head_distance(model, models[name], trunk) for name in group}
    nearest = min(sorted(distances), key=distances.__getitem__)
    return nearest if distances[nearest] < _MAX_HEAD_DISTANCE else None


def _head_distance(model: Weights, copy: Weights, trunk: Collection[str]) -> float:
    """Of two heads, by the sum of their squares; infinite where they have nothing in common."""
    squared_distance = squared_norms = 0.0
    for name, shape in model.shapes.items():
        if name not in trunk and copy.shapes.get(name) == shape:
            a, b = (weights[name].double().numpy() for weights in (model, copy))
            squared_distance += float(np.square(a - b).sum())
            squared_norms += float(np.square(a).sum() + np.square(b).sum())
    return squared_distance / squared_norms if squared_norms > 0 else np.inf
