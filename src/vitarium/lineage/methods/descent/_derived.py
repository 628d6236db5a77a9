"""Edges that no tree has: from all that a model was derived from without training, and to copies.

Which copy was first, and whose are the children, heads tell where a training goes on: a child that
keeps its parent's head is near it there, and has nothing in common with a new one.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

import numpy as np

from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import Edge, Kind, ModelSet, copies
from vitarium.lineage.methods.descent._storage_artifacts import edge_kind

Derived = Mapping[str, Mapping[str, float]]
"""Soups, interpolations, quantized and pruned models, by name: their parents' shares."""
_CONFIDENCE = 0.99  # of edges to these: what fits up to rounding is hardly chance
_MAX_HEAD_DISTANCE = 0.5
"""Squared distance of two heads by the sum of their squares, under which one comes from the other:
it is 1 of heads that have nothing to do with each other."""


def without_circles(derived: Derived) -> Derived:
    """Without models that would be their own ancestors, the later by name left out: zeros and few
    values can make models seem to be derived from each other."""
    acyclic: dict[str, Mapping[str, float]] = {}
    for name in sorted(derived):
        acyclic[name] = derived[name]
        if _has_circle(acyclic):
            del acyclic[name]
    return acyclic


def with_derived(edges: Iterable[Edge], derived: Derived) -> tuple[list[Edge], list[str]]:
    """Edges from all ingredients in place of the tree's, unless that closes a circle. Returns the
    edges, and the names of models that kept the tree's parent because of a circle."""
    parents: dict[str, dict[str, Edge]] = {}
    for edge in edges:
        parents.setdefault(edge.child, {})[edge.parent] = edge
    circular = []
    for name in sorted(derived):
        before, shares = parents.get(name, {}), derived[name]
        kind: Kind = "merged" if len(shares) > 1 else "trained"
        parents[name] = {p: Edge(p, name, _CONFIDENCE, share, kind) for p, share in shares.items()}
        if _has_circle(parents):
            parents[name] = before
            circular.append(name)
    return [edge for of_child in parents.values() for edge in of_child.values()], circular


def _has_circle(parents: Mapping[str, Iterable[str]]) -> bool:
    try:
        TopologicalSorter(parents).prepare()
    except CycleError:
        return True
    return False


def with_edge_kinds(
    edges: Iterable[Edge], model_sets: Iterable[ModelSet], later: Collection[tuple[str, str]]
) -> Iterator[Edge]:
    """Edges with what became of the parent, where there is a sign that it is more than training:
    equal tensors, or that storage shows the child to be `later`. Edges across families stay."""
    where = {name: (m, index) for m in model_sets for index, name in enumerate(m.names)}
    for edge in edges:
        (models, child), (parents_family, parent) = where[edge.child], where[edge.parent]
        if edge.kind == "trained" and models is parents_family:
            grams = models.statistics.grams.values()
            same = any(g[parent, parent] == g[parent, child] == g[child, child] for g in grams)
            is_later = (edge.child, edge.parent) in later
            if same or is_later:
                kind = edge_kind(models.models[parent], models.models[child], models.tensors)
                hidden = is_later and kind == "trained"  # zeros would have been seen
                yield replace(edge, kind="quantized" if hidden else kind)
                continue
        yield edge


def copy_groups(model_set: ModelSet, permuted: Collection[str]) -> list[list[str]]:
    """Models in groups of those that have no distance, the single ones among them. The first by
    name stands for all, of those that stand as they were."""
    groups: dict[int, list[str]] = {}
    for first, name in zip(copies(model_set).tolist(), model_set.names, strict=True):
        groups.setdefault(first, []).append(name)
    return [sorted(group, key=lambda name: (name in permuted, name)) for group in groups.values()]


def with_copies(
    edges: Iterable[Edge],
    groups: Iterable[Sequence[str]],
    model_set: ModelSet,
    permuted: Collection[str],
) -> list[Edge]:
    """Edges to all copies, from the one that was first; their children by their heads. The first of
    each group stands for all in `edges`; where no head is near, it is the first, with the children.
    """
    models = dict(zip(model_set.names, model_set.models, strict=True))

    def nearest(name: str, group: Sequence[str]) -> str | None:
        """The copy whose head is nearest to a model's; None where none is related."""
        distances = {n: _head_distance(models[name], models[n], model_set.tensors) for n in group}
        copy = min(sorted(distances), key=distances.__getitem__)
        return copy if distances[copy] < _MAX_HEAD_DISTANCE else None

    updated = list(edges)
    for group in groups:
        first = representative = group[0]
        above = [edge for edge in updated if edge.child == representative]
        below = [edge for edge in updated if edge.parent == representative]
        updated = [edge for edge in updated if representative not in (edge.parent, edge.child)]
        for edge in above:
            first = nearest(edge.parent, group) or first
        updated += [replace(edge, child=first) for edge in above]
        updated += [replace(edge, parent=nearest(edge.child, group) or first) for edge in below]
        updated += [
            Edge(first, name, 1 / len(group), kind="permuted" if name in permuted else "copy")
            for name in group
            if name != first
        ]
    return updated


def _head_distance(model: Weights, copy: Weights, trunk: Collection[str]) -> float:
    """Of two heads, by the sum of their squares; infinite where they have nothing in common."""
    squared_distance = squared_norms = 0.0
    for name, shape in model.shapes.items():
        if name not in trunk and copy.shapes.get(name) == shape:
            a, b = (weights[name].double().numpy() for weights in (model, copy))
            squared_distance += float(np.square(a - b).sum())
            squared_norms += float(np.square(a).sum() + np.square(b).sum())
    return squared_distance / squared_norms if squared_norms > 0 else np.inf
