"""Our own method: lines of descent from inner products alone, with a probability for every edge.

README.md in this folder tells in which order it decides.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vitarium.core.config import Config
from vitarium.lineage._canonical_order import first_appearance
from vitarium.lineage._clusters import families_by_angle
from vitarium.lineage._gram import squared_distances
from vitarium.lineage._initialization_statistics import (
    centered_at_init,
    layer_grams,
    weight_layers,
)
from vitarium.lineage.base import lineage
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.methods.descent._alignment import align_units
from vitarium.lineage.methods.descent._copies import copy_groups, with_copies
from vitarium.lineage.methods.descent._derived import (
    Derived,
    shares_by_name,
    with_derived,
    with_edge_kinds,
    without_circles,
)
from vitarium.lineage.methods.descent._mixtures import TOLERANCE, mixtures
from vitarium.lineage.methods.descent._roots import root_family
from vitarium.lineage.methods.descent._storage_artifacts import compressed_from, storage_artifacts
from vitarium.lineage.methods.descent._tensor_mixtures import tensor_mixtures
from vitarium.lineage.model_set import ModelSet

_MAX_LISTED = 5
"""Models that a note names."""


class Descent(Config):
    """What is looked for beside parents and children."""

    align: bool = True
    """Bring copies whose units stand in another order into one order first."""
    mixtures: bool = True
    """Find models that are mixtures of others: soups, interpolations, averages of epochs."""
    mixture_tolerance: float = Field(TOLERANCE, gt=0, lt=1)
    """How far a mixture may lie from its ingredients' span, as a share of what other models do."""


@lineage("descent", config=Descent)
def descent(config: Descent, model_set: ModelSet, trees: int | None) -> Forest:
    """Squared distances add up along a line of descent; with roots, mixtures and copies.

    Families are models whose weights are not at right angles (`families_by_angle`). In each, the
    root is what all others can have come from (`root_family`); every model gets the parent at the
    end of the line along which steps are at right angles, in all layers alike (`insert_models`).
    """
    model_set, permuted, unaligned = _aligned(config, model_set)
    families = _families(config, model_set, trees, permuted)
    grown = [_grow_tree(family) for family in families]
    derived = {name: shares for family in families for name, shares in family.derived.items()}
    edges, circular = with_derived([edge for tree in grown for edge in tree.edges], derived)
    later = {pair for family in families for pair in family.later}
    kinds = with_edge_kinds(edges, [family.model_set for family in families], later)
    groups = [group for family in families for group in family.copies]
    edges = with_copies(kinds, groups, model_set, permuted)
    roots = {name: value for tree in grown for name, value in tree.roots.items()}
    return Forest(
        method="descent",
        models=model_set.names,
        families=_tree_numbers(model_set.names, edges),
        edges=sorted(edges, key=lambda edge: (edge.child, edge.parent)),
        roots={name: roots[name] for name in roots if name not in derived or name in circular},
        tied=sorted(tuple(sorted(group)) for group in groups),
        notes=[*unaligned, *_notes(circular), *(note for tree in grown for note in tree.notes)],
    )


@dataclass(frozen=True)
class _Family:
    """A family before its tree is known.

    Args:
        model_set: one model of each group of copies.
        copies: names of equal models, in groups; the first stands for all.
        derived: mixtures, and what was rounded or set to zero in part.
        later: pairs of names; the first cannot be earlier than the second.
    """

    model_set: ModelSet
    copies: Sequence[Sequence[str]]
    derived: Derived
    later: Collection[tuple[str, str]]

    def restricted(self, names: Collection[str]) -> "_Family":
        """Only what concerns these models; they are in the family."""
        return _Family(
            _named_subset(self.model_set, names),
            [group for group in self.copies if group[0] in names],
            {name: shares for name, shares in self.derived.items() if name in names},
            {pair for pair in self.later if pair[0] in names},
        )


@dataclass(frozen=True)
class _FamilyTree:
    """A family's tree, or trees: how sure it is of each root, and what a user should know."""

    edges: Sequence[Edge]
    roots: Mapping[str, float]
    notes: Sequence[str] = ()


def _aligned(
    config: Descent, model_set: ModelSet
) -> tuple[ModelSet, Collection[str], Sequence[str]]:
    """All models in one order of units, which were permuted, and what could not be looked for."""
    if not config.align:
        return model_set, (), ()
    labels = families_by_angle(model_set)
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    aligned = align_units(model_set, groups)
    return aligned.model_set, aligned.permuted, aligned.notes


def _families(
    config: Descent, model_set: ModelSet, trees: int | None, permuted: Collection[str]
) -> list[_Family]:
    """Families: found by themselves, and again without the mixtures that tie them together."""
    split = _split(model_set, families_by_angle(model_set))
    families = [_deduplicate(config, members, permuted) for members in split]
    if trees is None:
        return [smaller for family in families for smaller in _resplit(family)]
    union = _Family(
        _named_subset(model_set, {name for f in families for name in f.model_set.names}),
        [group for family in families for group in family.copies],
        {name: shares for family in families for name, shares in family.derived.items()},
        {pair for family in families for pair in family.later},
    )
    return _resplit(union, trees)


def _split(model_set: ModelSet, labels: np.ndarray) -> list[ModelSet]:
    """Args: labels: of every model the number of its family, int [K]."""
    return [model_set.subset(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _named_subset(model_set: ModelSet, names: Collection[str]) -> ModelSet:
    return model_set.subset([i for i, name in enumerate(model_set.names) if name in names])


def _deduplicate(config: Descent, model_set: ModelSet, permuted: Collection[str]) -> _Family:
    """One of each group of copies, and what was derived from others without training."""
    groups = copy_groups(model_set, permuted)
    distinct = model_set.subset(sorted(model_set.names.index(group[0]) for group in groups))
    names, gram = distinct.names, distinct.statistics.gram()
    artifacts = storage_artifacts(distinct.models, distinct.tensors)
    after = compressed_from(artifacts, gram)
    squares = squared_distances(gram)
    derived: dict[str, Mapping[str, float]] = {
        names[i]: {names[int(np.where(after[i], squares[i], np.inf).argmin())]: 1.0}
        for i in np.flatnonzero(after.any(1)).tolist()
    }
    if config.mixtures and len(names) > 2:
        mixed = mixtures(gram, tolerance=config.mixture_tolerance, rounding=artifacts.rounding)
        mixed |= tensor_mixtures(distinct.statistics.grams, whole_mixtures=list(mixed))
        derived = {**shares_by_name(names, mixed), **derived}
    return _Family(
        distinct,
        [group for group in groups if len(group) > 1],
        without_circles(derived),
        {(names[i], names[j]) for i, j in np.argwhere(after)},
    )


def _resplit(family: _Family, trees: int | None = None) -> list[_Family]:
    """A family without its mixtures may be several, which these had tied together.

    Mixtures and copies go to the family of their greatest ingredient.
    """
    model_set, derived = family.model_set, family.derived
    if not derived and trees is None:
        return [family]
    trained = _named_subset(model_set, set(model_set.names) - derived.keys())
    split = _split(trained, families_by_angle(trained, trees))
    number_of = {name: number for number, members in enumerate(split) for name in members.names}
    for name in derived:
        ingredient = name
        while ingredient not in number_of:
            ingredient = max(sorted(derived[ingredient]), key=derived[ingredient].__getitem__)
        number_of[name] = number_of[ingredient]
    return [
        family.restricted({name for name in model_set.names if number_of[name] == number})
        for number in range(len(split))
    ]


def _grow_tree(family: _Family) -> _FamilyTree:
    """Its tree; mixtures are in it as well, since their children look for them there."""
    model_set, names = family.model_set, family.model_set.names
    if len(names) == 1:
        return _FamilyTree((), {names[0]: 1.0})
    barred = np.array(
        [
            [name in family.derived.get(a, {}) or (a, name) in family.later for a in names]
            for name in names
        ]
    )
    rooted = root_family(
        layer_grams(model_set, weight_layers(model_set)),
        centered_at_init(model_set),
        barred.__getitem__ if barred.any() else None,
        np.array([name in family.derived for name in names]),
    )
    tree = rooted.tree
    edges, roots = [], {names[tree.root]: rooted.probability}
    for model, parent in enumerate(tree.parents):
        if parent < 0:
            continue
        confidence = float(tree.probability[model])
        if rooted.shared_init[model]:
            roots[names[model]] = confidence
            continue
        if parent == tree.root:
            confidence *= rooted.probability
        edges.append(Edge(names[parent], names[model], confidence))
    notes = []
    if rooted.shared_init.any():
        notes.append(
            f"{len(roots)} models ({_abbreviated(sorted(roots))}) began alike, from initial "
            "weights that are not here; each is a root."
        )
    return _FamilyTree(edges, roots, notes)


def _tree_numbers(names: Sequence[str], edges: Collection[Edge]) -> Sequence[int]:
    """Of every model the number of its tree: what edges connect."""
    index = {name: number for number, name in enumerate(names)}
    ends = np.array([[index[edge.parent], index[edge.child]] for edge in edges], int).reshape(-1, 2)
    joined = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(names), len(names)))
    return first_appearance(connected_components(joined, directed=False)[1]).tolist()


def _notes(circular: Sequence[str]) -> Iterator[str]:
    if circular:
        yield (
            f"{_abbreviated(circular)}: made of models that seem to descend from them; the parent "
            "in the tree was kept."
        )


def _abbreviated(names: Sequence[str]) -> str:
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
