"""Our own method: lines of descent from inner products alone, with a probability for every edge."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import Field
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vitarium.core.config import Config
from vitarium.core.registry import lineage
from vitarium.lineage._canonical_order import first_appearance
from vitarium.lineage._clusters import grouped
from vitarium.lineage._gram import squared_distances
from vitarium.lineage._initialization_statistics import about_beginnings, stacked, weight_layers
from vitarium.lineage.forest import Edge, Forest, Kind
from vitarium.lineage.methods.descent._alignment import aligned
from vitarium.lineage.methods.descent._copies import grouped_copies, with_copies
from vitarium.lineage.methods.descent._mixtures import TOLERANCE, Mixture, mixtures
from vitarium.lineage.methods.descent._roots import rooted
from vitarium.lineage.methods.descent._storage_artifacts import follows, kind_of, traces
from vitarium.lineage.methods.descent._tensor_mixtures import tensor_mixtures
from vitarium.lineage.model_set import Heap

Made = Mapping[str, Mapping[str, float]]
"""Models that were made of others without training, by name: their parents' shares."""
_SURE = 0.99
"""Confidence of edges to these: what fits to rounding is hardly chance."""


class Descent(Config):
    """What is looked for beside parents and children."""

    align: bool = True
    """Bring copies whose units stand in another order into one order first."""
    mixtures: bool = True
    """Find models that are mixtures of others: soups, interpolations, averages of epochs."""
    mixture_tolerance: float = Field(TOLERANCE, gt=0, lt=1)
    """How far a mixture may lie from its ingredients' span, as a share of what other models do."""


@lineage("descent", config=Descent)
def descent(config: Descent, heap: Heap, trees: int | None) -> Forest:
    """Squared distances add up along a line of descent; with roots, mixtures and copies.

    Families are models whose weights are not at right angles (`families`). In each, the root is
    what all others can have come from (`roots`); every model gets the parent at the end of the line
    along which steps are at right angles, in all layers alike (`insertion`, `relations`).
    """
    heap, moved, unaligned = _aligned(config, heap)
    parts = _parts(config, heap, trees, moved)
    found = [_family(part) for part in parts]
    made = {name: shares for part in parts for name, shares in part.made.items()}
    edges = [edge for one in found for edge in one.edges]
    edges, circular = _with_made(edges, made)
    edges = [*_with_kinds(edges, parts)]
    groups = [group for part in parts for group in part.copies]
    edges = with_copies(edges, groups, heap, moved)
    roots = {name: value for one in found for name, value in one.roots.items()}
    return Forest(
        method="descent",
        models=heap.names,
        families=_numbers(heap.names, edges),
        edges=sorted(edges, key=lambda edge: (edge.child, edge.parent)),
        roots={name: roots[name] for name in roots if name not in made or name in circular},
        tied=sorted(tuple(sorted(group)) for group in groups),
        notes=[*unaligned, *_notes(circular), *(note for one in found for note in one.notes)],
    )


@dataclass(frozen=True)
class _Part:
    """A family before its tree is known.

    Args:
        heap: one model of each group of copies.
        copies: names of equal models, in groups; the first stands for all.
        made: mixtures, and what was rounded or set to zero in part.
        later: who cannot be earlier than whom, by names.
    """

    heap: Heap
    copies: Sequence[Sequence[str]]
    made: Made
    later: Collection[tuple[str, str]]


@dataclass(frozen=True)
class _Found:
    """A family's tree, or trees: how sure it is of each root, and what a user should know."""

    edges: Sequence[Edge]
    roots: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=tuple)


def _aligned(config: Descent, heap: Heap) -> tuple[Heap, Collection[str], Sequence[str]]:
    """All models in one order of units, who was moved, and what could not be looked for."""
    if not config.align:
        return heap, (), ()
    labels = grouped(heap)
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    found = aligned(heap, groups)
    return found.heap, found.moved, found.notes


def _parts(config: Descent, heap: Heap, trees: int | None, moved: Collection[str]) -> list[_Part]:
    """Families: found by themselves, and again without the mixtures that tie them together."""
    parts = [_different(config, part, moved) for part in _split(heap, grouped(heap))]
    if trees is None:
        return [one for part in parts for one in _again(part)]
    different = [name for part in parts for name in part.heap.names]
    kept = heap.part([place for place, name in enumerate(heap.names) if name in set(different)])
    whole = _Part(
        kept,
        [group for part in parts for group in part.copies],
        {name: shares for part in parts for name, shares in part.made.items()},
        {pair for part in parts for pair in part.later},
    )
    return _again(whole, trees)


def _split(heap: Heap, labels: np.ndarray) -> list[Heap]:
    return [heap.part(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]


def _different(config: Descent, heap: Heap, moved: Collection[str]) -> _Part:
    """One of each group of copies, and what was made of others without training."""
    groups = grouped_copies(heap, moved)
    different = heap.part(sorted(heap.names.index(group[0]) for group in groups))
    several = [group for group in groups if len(group) > 1]
    names, gram = different.names, different.evidence.gram()
    traced = traces(different.models, different.tensors)
    after = follows(traced, gram)
    later = {(names[i], names[j]) for i, j in np.argwhere(after)}
    squares = squared_distances(gram)
    made: dict[str, Mapping[str, float]] = {
        names[i]: {names[int(np.where(after[i], squares[i], np.inf).argmin())]: 1.0}
        for i in np.flatnonzero(after.any(1)).tolist()
    }
    if config.mixtures and len(names) > 2:
        mixed = mixtures(gram, tolerance=config.mixture_tolerance, rounding=traced.rounding)
        mixed |= tensor_mixtures(different.evidence.grams, known=list(mixed))
        made |= {n: shares for n, shares in _named(names, mixed).items() if n not in made}
    return _Part(different, several, _without_circles(made), later)


def _without_circles(made: Made) -> Made:
    """Zeros and few values can make models seem to be made of each other."""
    kept: dict[str, Mapping[str, float]] = {}
    for name in sorted(made):
        kept[name] = made[name]
        if _is_its_own_ancestor(name, kept):
            del kept[name]
    return kept


def _named(names: Sequence[str], found: Mapping[int, Mixture]) -> Made:
    return {
        names[model]: {names[one]: share for one, share in mixture.shares.items()}
        for model, mixture in found.items()
    }


def _again(part: _Part, trees: int | None = None) -> list[_Part]:
    """A family without its mixtures may be several, which these had tied together.

    Mixtures and copies go to the family of their greatest ingredient.
    """
    heap, made = part.heap, part.made
    if not made and trees is None:
        return [part]
    unmixed = heap.part([place for place, name in enumerate(heap.names) if name not in made])
    split = _split(unmixed, grouped(unmixed, trees))
    home = {name: number for number, few in enumerate(split) for name in few.names}
    for name in made:
        ingredient = name
        while ingredient not in home:
            ingredient = max(sorted(made[ingredient]), key=made[ingredient].__getitem__)
        home[name] = home[ingredient]
    found = []
    for number in range(len(split)):
        names = {name for name in heap.names if home[name] == number}
        found.append(
            _Part(
                heap.part([place for place, name in enumerate(heap.names) if name in names]),
                [group for group in part.copies if group[0] in names],
                {name: shares for name, shares in made.items() if name in names},
                {pair for pair in part.later if pair[0] in names},
            )
        )
    return found


def _family(part: _Part) -> _Found:
    """Its tree, mixtures at the places where their children look for them."""
    heap = part.heap
    names = heap.names
    if len(names) == 1:
        return _Found((), {names[0]: 1.0})
    barred = np.array(
        [
            [name in part.made.get(one, {}) or (one, name) in part.later for one in names]
            for name in names
        ]
    )
    forbidden = barred.__getitem__ if barred.any() else None
    grams = stacked(heap, weight_layers(heap))
    made = np.array([name in part.made for name in names])
    result = rooted(grams, about_beginnings(heap), forbidden, made)
    tree = result.tree
    root = names[tree.root]
    edges, roots = [], {root: result.probability}
    for model, parent in enumerate(tree.parents):
        if parent < 0:
            continue
        sure = float(tree.probability[model])
        if result.began_alike[model]:
            roots[names[model]] = sure
            continue
        if parent == tree.root:
            sure *= result.probability
        edges.append(Edge(names[parent], names[model], sure))
    notes = []
    if result.began_alike.any():
        notes.append(
            f"{len(roots)} models ({_some(sorted(roots))}) began alike, from initial weights that "
            "are not here; each is a root."
        )
    return _Found(edges, roots, notes)


def _with_made(edges: list[Edge], made: Made) -> tuple[list[Edge], list[str]]:
    """Edges from all ingredients in place of what the tree has; but never a circle."""
    parents: dict[str, dict[str, Edge]] = {}
    for edge in edges:
        parents.setdefault(edge.child, {})[edge.parent] = edge
    circular = []
    for name in sorted(made):
        before, shares = parents.get(name, {}), made[name]
        kind: Kind = "merged" if len(shares) > 1 else "trained"
        parents[name] = {one: Edge(one, name, _SURE, share, kind) for one, share in shares.items()}
        if _is_its_own_ancestor(name, parents):
            parents[name] = before
            circular.append(name)
    return [edge for found in parents.values() for edge in found.values()], circular


def _is_its_own_ancestor(name: str, parents: Mapping[str, Mapping[str, object]]) -> bool:
    waiting, seen = list(parents[name]), set()
    while waiting:
        model = waiting.pop()
        if model == name:
            return True
        if model not in seen:
            seen.add(model)
            waiting += parents.get(model, {})
    return False


def _numbers(names: Sequence[str], edges: Collection[Edge]) -> Sequence[int]:
    """Numbers of trees: what edges connect."""
    place = {name: number for number, name in enumerate(names)}
    ends = np.array([[place[edge.parent], place[edge.child]] for edge in edges], int).reshape(-1, 2)
    joined = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(names), len(names)))
    return first_appearance(connected_components(joined, directed=False)[1]).tolist()


def _with_kinds(edges: Iterable[Edge], parts: Iterable[_Part]) -> Iterator[Edge]:
    """What became of the parent, where there is a sign that it is more than training."""
    homes = {name: part.heap for part in parts for name in part.heap.names}
    places = {name: place for part in parts for place, name in enumerate(part.heap.names)}
    later = {pair for part in parts for pair in part.later}
    for edge in edges:
        heap, one, other = homes[edge.child], places[edge.parent], places[edge.child]
        if edge.kind == "trained" and heap is homes[edge.parent]:
            grams = heap.evidence.grams.values()
            same = any(g[one, one] == g[one, other] == g[other, other] for g in grams)
            is_later = (edge.child, edge.parent) in later
            if same or is_later:
                kind = kind_of(heap.models[one], heap.models[other], heap.tensors)
                hidden = is_later and kind == "trained"  # zeros would have been seen
                yield replace(edge, kind="quantised" if hidden else kind)
                continue
        yield edge


def _notes(circular: Sequence[str]) -> Iterator[str]:
    if circular:
        yield (
            f"{_some(circular)}: made of models that seem to descend from them; the parent in the "
            "tree was kept."
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
