"""Our own method: lines of descent from inner products alone, with a probability for every edge."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from pydantic import Field

from vitarium.config import Config
from vitarium.lineage.beginnings import about_beginnings, stacked, weight_layers
from vitarium.lineage.families import families, grouped, in_order
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.heap import Heap
from vitarium.lineage.mixtures import TOLERANCE, Mixture, mixtures
from vitarium.lineage.roots import rooted
from vitarium.registry import lineage

Shares = Mapping[str, Mapping[str, float]]
"""Of merged models, by name: their parents' shares."""


class Descent(Config):
    """What is looked for beside parents and children."""

    mixtures: bool = True
    """Find models that are mixtures of others: soups, interpolations, averages of epochs."""
    mixture_tolerance: float = Field(TOLERANCE, gt=0, lt=1)
    """How far a mixture may lie from its ingredients' span, as a share of what other models do."""


@lineage("descent", config=Descent)
def descent(config: Descent, heap: Heap, trees: int | None) -> Forest:
    """Squared distances add up along a line of descent; with roots, mixtures and copies.

    Families are models whose weights are not at right angles (`families`). In each, the root is
    what all others can have come from (`roots`); every model is let down from the root to where its
    step is at right angles, in all layers alike, to its parent's (`insertion`, `relations`).
    """
    parts = _parts(config, heap, trees)
    found = [_family(part) for part in parts]
    copies = {name: group for part in parts for group in part.copies for name in group}
    shares = {name: shares for part in parts for name, shares in part.shares.items()}
    edges = [edge for one in found for edge in one.edges]
    edges, circular = _with_mixtures(edges, shares)
    edges += [
        Edge(group[0], name, 1 / len(group), kind="copy")
        for part in parts
        for group in part.copies
        for name in group[1:]
    ]
    roots = {name: value for one in found for name, value in one.roots.items()}
    return Forest(
        method="descent",
        models=heap.names,
        families=_numbers(heap.names, edges, found),
        edges=sorted(edges, key=lambda edge: (edge.child, edge.parent)),
        roots={name: value for name, value in roots.items() if name not in shares},
        tied=sorted({tuple(group) for group in copies.values()}),
        notes=[*_notes(circular), *(note for one in found for note in one.notes)],
    )


@dataclass(frozen=True)
class _Part:
    """A family before its tree is known.

    Args:
        heap: one model of each group of copies.
        copies: names of equal models, in groups, sorted.
        shares: of mixtures.
    """

    heap: Heap
    copies: Sequence[Sequence[str]]
    shares: Shares


@dataclass(frozen=True)
class _Found:
    """A family's tree; `families` are its models in groups that have a root each."""

    edges: Sequence[Edge]
    roots: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=tuple)


def _parts(config: Descent, heap: Heap, trees: int | None) -> list[_Part]:
    """Families: found by themselves, and again without the mixtures that tie them together."""
    first = grouped(heap, None if config.mixtures else trees)
    parts = [_different(config, part) for part in _split(heap, first)]
    if trees is None:
        return [one for part in parts for one in _again(part)]
    if not config.mixtures:
        return parts
    shares = {name: found for part in parts for name, found in part.shares.items()}
    copies = [group for part in parts for group in part.copies]
    kept = [name for part in parts for name in part.heap.names if name not in shares]
    unmixed = heap.part([heap.names.index(name) for name in kept])
    return _with(heap, _split(unmixed, grouped(unmixed, trees)), shares, copies)


def _split(heap: Heap, labels: np.ndarray) -> list[Heap]:
    return [heap.part(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]


def _different(config: Descent, heap: Heap) -> _Part:
    """One of each group of copies, and the mixtures among them."""
    gram = heap.evidence.gram()
    groups = _copies(heap)
    places = sorted(heap.names.index(group[0]) for group in groups)
    different = heap.part(places)
    several = [group for group in groups if len(group) > 1]
    if not config.mixtures or len(different) < 3:
        return _Part(different, several, {})
    found = mixtures(gram[np.ix_(places, places)], tolerance=config.mixture_tolerance)
    return _Part(different, several, _named(different.names, found))


def _named(names: Sequence[str], found: Mapping[int, Mixture]) -> Shares:
    return {
        names[model]: {names[one]: share for one, share in mixture.shares.items()}
        for model, mixture in found.items()
    }


def _copies(heap: Heap) -> list[list[str]]:
    """Names of models that have no distance, in sorted groups, the single ones among them."""
    squares = heap.evidence.squared_distances()
    groups: dict[int, list[str]] = {}
    for place, name in enumerate(heap.names):
        groups.setdefault(int((squares[place] == 0).argmax()), []).append(name)
    return [sorted(group) for group in groups.values()]


def _again(part: _Part) -> list[_Part]:
    """A family without its mixtures may be several, which these had tied together."""
    if not part.shares:
        return [part]
    heap = part.heap
    kept = [place for place, name in enumerate(heap.names) if name not in part.shares]
    unmixed = heap.part(kept)
    gram = unmixed.evidence.gram(weight_layers(unmixed))
    return _with(heap, _split(unmixed, families(gram)), part.shares, part.copies)


def _with(
    heap: Heap, split: Iterable[Heap], shares: Shares, copies: Sequence[Sequence[str]]
) -> list[_Part]:
    """Mixtures and copies go to the family of their greatest ingredient."""
    split = list(split)
    home = {name: number for number, part in enumerate(split) for name in part.names}
    for name in shares:
        ingredient = name
        while ingredient not in home:
            ingredient = max(sorted(shares[ingredient]), key=shares[ingredient].__getitem__)
        home[name] = home[ingredient]
    found = []
    for number in range(len(split)):
        names = [name for name in heap.names if home.get(name) == number]
        part = heap.part([heap.names.index(name) for name in names])
        own = {name: shares[name] for name in names if name in shares}
        found.append(_Part(part, [group for group in copies if group[0] in names], own))
    return found


def _family(part: _Part) -> _Found:
    """Its tree, mixtures at the places where their children look for them."""
    heap = part.heap
    names = heap.names
    if len(names) == 1:
        return _Found((), {names[0]: 1.0})
    barred = {
        one: np.array([name in part.shares and one in part.shares[name] for name in names])
        for one in names
    }
    forbidden = partial(_forbidden, [barred[name] for name in names]) if part.shares else None
    grams = stacked(heap, weight_layers(heap))
    result = rooted(grams, about_beginnings(heap), forbidden)
    tree = result.tree
    root = names[tree.root]
    edges, roots = [], {root: result.probability}
    for model, parent in enumerate(tree.parents):
        if parent < 0:
            continue
        sure = float(tree.probability[model])
        if parent == tree.root and not result.has_root:
            roots[names[model]] = sure
            continue
        if parent == tree.root:
            sure *= result.probability
        edges.append(Edge(names[parent], names[model], sure))
    notes = []
    if not result.has_root:
        notes.append(
            f"{len(roots)} models ({_some(sorted(roots))}) began alike, from initial weights that "
            "are not here; each is a root."
        )
    return _Found(edges, roots, notes)


def _forbidden(barred: Sequence[np.ndarray], model: int) -> np.ndarray:
    return barred[model]


def _with_mixtures(edges: list[Edge], shares: Shares) -> tuple[list[Edge], list[str]]:
    """Edges from all ingredients in place of a mixture's one; but never a circle."""
    parents: dict[str, dict[str, Edge]] = {}
    for edge in edges:
        parents.setdefault(edge.child, {})[edge.parent] = edge
    circular = []
    for name in sorted(shares):
        before = parents.get(name, {})
        parents[name] = {
            one: Edge(one, name, 0.99, share, "merged") for one, share in shares[name].items()
        }
        if _is_its_own_ancestor(name, parents):
            parents[name] = before
            circular.append(name)
    return [edge for found in parents.values() for edge in found.values()], circular


def _is_its_own_ancestor(name: str, parents: Mapping[str, Mapping[str, Edge]]) -> bool:
    waiting, seen = list(parents[name]), set()
    while waiting:
        model = waiting.pop()
        if model == name:
            return True
        if model not in seen:
            seen.add(model)
            waiting += parents.get(model, {})
    return False


def _numbers(names: Sequence[str], edges: Iterable[Edge], found: Iterable[_Found]) -> Sequence[int]:
    """Numbers of trees: what edges connect."""
    place = {name: number for number, name in enumerate(names)}
    of = list(range(len(names)))

    def top(number: int) -> int:
        while of[number] != number:
            of[number] = of[of[number]]
            number = of[number]
        return number

    for edge in edges:
        of[top(place[edge.child])] = top(place[edge.parent])
    return in_order(np.array([top(number) for number in range(len(names))])).tolist()


def _notes(circular: Sequence[str]) -> Iterator[str]:
    if circular:
        yield (
            f"{_some(circular)}: mixtures of models that seem to descend from them; the parent in "
            "the tree was kept."
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
