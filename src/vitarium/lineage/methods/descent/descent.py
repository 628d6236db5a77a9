"""Our own method: lines of descent from inner products alone; README.md tells how it decides."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from vitarium.core.config import Config
from vitarium.lineage._clusters import families_by_angle
from vitarium.lineage._relatedness import unrelated_probability
from vitarium.lineage._statistics import squared_distances
from vitarium.lineage.base import NO_PARENT, Edge, Forest, ModelSet, lineage, tree_numbers
from vitarium.lineage.methods.descent import _derived
from vitarium.lineage.methods.descent._alignment import align_units
from vitarium.lineage.methods.descent._mixtures import TOLERANCE, mixtures, tensor_mixtures
from vitarium.lineage.methods.descent._storage_artifacts import compressed_from, storage_artifacts
from vitarium.lineage.methods.descent._trees import root_family

_MAX_LISTED = 5  # models that a note names
_MIN_CANDIDATE = 0.01  # probability of a parent that is listed


class Descent(Config):
    """What is looked for beside parents and children."""

    align: bool = True
    """First undo permutations: bring copies whose units are in another order into one order."""
    mixtures: bool = True
    """Look for models that are mixtures of others: soups, interpolations, averages of epochs."""
    mixture_tolerance: float = Field(TOLERANCE, gt=0, lt=1)
    """Largest distance of a mixture from its ingredients' span, as a share of other models'
    distance from it."""


class _Family(NamedTuple):
    """A family before its tree is known."""

    model_set: ModelSet
    copies: Sequence[Sequence[str]]  # groups of equal models; the first stands for all in the set
    derived: _derived.Derived
    later: Collection[tuple[str, str]]
    """Pairs of names; the first cannot be earlier than the second."""


class _Result(NamedTuple):
    """What families add to."""

    edges: list[Edge]
    roots: dict[str, float]
    candidates: dict[str, Mapping[str, float]]
    notes: list[str]


@lineage("descent")
def descent(config: Descent, model_set: ModelSet, trees: int | None) -> Forest:
    """Descent: trees in which squared weight distances add up, with roots, mixtures and copies.

    Families are models whose weights are not at right angles (`families_by_angle`). In each, the
    root is what all others can have come from (`root_family`); every model gets the parent at the
    end of the line along which steps are at right angles, in all layers alike (`insert_models`).
    """
    permuted: Collection[str] = ()
    notes: list[str] = []
    if config.align:
        related = _indices(families_by_angle(model_set))
        model_set, permuted, unaligned = align_units(model_set, related)
        notes += unaligned
    groups = [model_set.subset(indices) for indices in _indices(families_by_angle(model_set))]
    families = [_deduplicate(config, group, permuted) for group in groups]
    if trees is not None:
        names = {name for family in families for name in family.model_set.names}
        families = [_joined(_named_subset(model_set, names), families)]
    families = [smaller for family in families for smaller in _resplit(family, trees)]
    union = _joined(model_set, families)
    result = _Result([], {}, {}, notes)
    for family in families:
        _grow_tree(family, result, _apart(model_set, family, union) if trees is None else 1.0)
    edges, circular = _derived.with_derived(result.edges, union.derived)
    kinds = _derived.with_edge_kinds(edges, [family.model_set for family in families], union.later)
    edges = _derived.with_copies(kinds, union.copies, model_set, permuted)
    if circular:
        why = "made of models that seem to descend from them; the parent in the tree was kept."
        notes.append(f"{_abbreviated(circular)}: {why}")
    replaced = union.derived.keys() | {name for group in union.copies for name in group}
    return Forest(
        method="descent",
        models=model_set.names,
        families=tree_numbers(model_set.names, ((edge.parent, edge.child) for edge in edges)),
        edges=sorted(edges, key=lambda edge: (edge.child, edge.parent)),
        roots={n: p for n, p in result.roots.items() if n not in union.derived or n in circular},
        tied=sorted(tuple(sorted(group)) for group in union.copies),
        notes=notes,
        candidates={n: of for n, of in result.candidates.items() if not replaced & {n, *of}},
    )


def _apart(model_set: ModelSet, family: _Family, union: _Family) -> float:
    """Probability that no model of a family is related to one outside. What was derived from others
    may be of several families. It is 1 where no products of models of several families are there.
    """
    if not model_set.has_statistics:
        return 1.0
    skipped = union.derived.keys() | {name for group in union.copies for name in group[1:]}
    inside = [i for i, n in enumerate(model_set.names) if n in family.model_set.names]
    outside = sorted(set(range(len(model_set))) - set(inside))
    inside, outside = (
        [i for i in indices if model_set.names[i] not in skipped] for indices in (inside, outside)
    )
    cosines, errors = (matrix[np.ix_(inside, outside)].ravel() for matrix in model_set.cosines)
    return unrelated_probability(cosines, errors)


def _indices(labels: np.ndarray) -> list[list[int]]:
    """Indices of the models of each family, of labels int [K]."""
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]


def _named_subset(model_set: ModelSet, names: Collection[str]) -> ModelSet:
    return model_set.subset([i for i, name in enumerate(model_set.names) if name in names])


def _joined(model_set: ModelSet, families: Sequence[_Family]) -> _Family:
    return _Family(
        model_set,
        [group for family in families for group in family.copies],
        {name: shares for family in families for name, shares in family.derived.items()},
        {pair for family in families for pair in family.later},
    )


def _deduplicate(config: Descent, model_set: ModelSet, permuted: Collection[str]) -> _Family:
    """One of each group of copies, and what was derived from others without training."""
    groups = _derived.copy_groups(model_set, permuted)
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
        shares = {i: {names[j]: share for j, share in m.shares.items()} for i, m in mixed.items()}
        derived = {names[i]: of_model for i, of_model in shares.items()} | derived
    return _Family(
        distinct,
        [group for group in groups if len(group) > 1],
        _derived.without_circles(derived),
        {(names[i], names[j]) for i, j in np.argwhere(after)},
    )


def _resplit(family: _Family, trees: int | None) -> list[_Family]:
    """A family without its mixtures may be several, which these had tied together. Mixtures and
    copies go to the family of their greatest ingredient."""
    model_set, derived = family.model_set, family.derived
    if not derived and trees is None:
        return [family]
    trained = _named_subset(model_set, set(model_set.names) - derived.keys())
    labels = families_by_angle(trained, trees)
    number_of = dict(zip(trained.names, labels.tolist(), strict=True))
    for name in derived:
        ingredient = name
        while ingredient not in number_of:
            ingredient = max(sorted(derived[ingredient]), key=derived[ingredient].__getitem__)
        number_of[name] = number_of[ingredient]
    members = [{n for n in number_of if number_of[n] == number} for number in np.unique(labels)]
    return [
        _Family(
            _named_subset(model_set, names),
            [group for group in family.copies if group[0] in names],
            {name: shares for name, shares in derived.items() if name in names},
            {pair for pair in family.later if pair[0] in names},
        )
        for names in members
    ]


def _grow_tree(family: _Family, result: _Result, apart: float) -> None:
    """Add a family's edges, roots and candidates, with their probabilities; mixtures are in its
    tree as well, since their children look for them there. `apart`: the probability that it has no
    relative in other families."""
    names, derived = family.model_set.names, family.derived
    if len(names) == 1:
        result.roots[names[0]] = apart
        return
    barred = [[n in derived.get(a, {}) or (a, n) in family.later for a in names] for n in names]
    is_derived = np.array([name in derived for name in names])
    rooted = root_family(family.model_set, np.array(barred), is_derived)
    parents, is_root = rooted.probabilities()
    own_roots = []
    for index, name in enumerate(names):
        parent = int(rooted.tree.parents[index])
        if parent < 0 or rooted.shared_init[index]:
            result.roots[name] = float(is_root[index]) * apart
            own_roots.append(name)
        else:
            result.edges.append(Edge(names[parent], name, float(parents[index, parent])))
        likely = {names[p]: float(parents[index, p]) for p in np.flatnonzero(parents[index])}
        likely[NO_PARENT] = 1 - sum(likely.values())
        ranked = sorted(likely.items(), key=lambda candidate: (-candidate[1], candidate[0]))
        result.candidates[name] = {n: p for n, p in ranked if p >= _MIN_CANDIDATE}
    if rooted.shared_init.any():
        why = "began alike, from initial weights that are not here; each is a root."
        count = len(own_roots)
        result.notes.append(f"{count} models ({_abbreviated(sorted(own_roots))}) {why}")


def _abbreviated(names: Sequence[str]) -> str:
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
