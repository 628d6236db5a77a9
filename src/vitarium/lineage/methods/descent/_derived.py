"""Models derived from others without training, and edges from all that they are derived from."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from vitarium.lineage.forest import Edge, Kind
from vitarium.lineage.methods.descent._mixtures import Mixture
from vitarium.lineage.methods.descent._storage_artifacts import edge_kind
from vitarium.lineage.model_set import ModelSet

Derived = Mapping[str, Mapping[str, float]]
"""Soups, interpolations, quantized and pruned models, by name: their parents' shares."""
_CONFIDENCE = 0.99
"""Of edges to these: what fits up to rounding is hardly chance."""


def shares_by_name(names: Sequence[str], mixtures: Mapping[int, Mixture]) -> Derived:
    """Mixtures by name instead of index."""
    return {
        names[model]: {names[ingredient]: share for ingredient, share in mixture.shares.items()}
        for model, mixture in mixtures.items()
    }


def without_circles(derived: Derived) -> Derived:
    """The same without models that would be their own ancestors, the later by name left out.

    Zeros and few values can make models seem to be derived from each other.
    """
    acyclic: dict[str, Mapping[str, float]] = {}
    for name in sorted(derived):
        acyclic[name] = derived[name]
        if _is_own_ancestor(name, acyclic):
            del acyclic[name]
    return acyclic


def with_derived(edges: Iterable[Edge], derived: Derived) -> tuple[list[Edge], list[str]]:
    """Edges from all ingredients in place of the tree's, unless that closes a circle.

    Returns the edges, and the names of models that kept the tree's parent because of a circle.
    """
    parents: dict[str, dict[str, Edge]] = {}
    for edge in edges:
        parents.setdefault(edge.child, {})[edge.parent] = edge
    circular = []
    for name in sorted(derived):
        before, shares = parents.get(name, {}), derived[name]
        kind: Kind = "merged" if len(shares) > 1 else "trained"
        parents[name] = {
            ingredient: Edge(ingredient, name, _CONFIDENCE, share, kind)
            for ingredient, share in shares.items()
        }
        if _is_own_ancestor(name, parents):
            parents[name] = before
            circular.append(name)
    return [edge for of_child in parents.values() for edge in of_child.values()], circular


def with_edge_kinds(
    edges: Iterable[Edge], model_sets: Iterable[ModelSet], later: Collection[tuple[str, str]]
) -> Iterator[Edge]:
    """Edges with what became of the parent, where there is a sign that it is more than training.

    Args:
        model_sets: the families' models; edges across families stay as they are.
        later: pairs (derived, original) that storage artifacts show.
    """
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
                yield replace(edge, kind="quantised" if hidden else kind)
                continue
        yield edge


def _is_own_ancestor(name: str, parents: Mapping[str, Mapping[str, object]]) -> bool:
    waiting, visited = list(parents[name]), set()
    while waiting:
        model = waiting.pop()
        if model == name:
            return True
        if model not in visited:
            visited.add(model)
            waiting += parents.get(model, {})
    return False
