"""Scores of a recovered forest against the true parents."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage.base import Forest, tree_numbers
from vitarium.lineage.ground_truth import Truth


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1] unless said otherwise; None where there is nothing to be right about.

    Models whose true parents are not known are no part of them, nor are edges to these. A true tree
    is a connected component of the true edges: a model that was merged of two trees makes them one,
    which then has two roots. Of a tree with models whose parents are not known, the edges count and
    the tree does not: nobody knows where it ends.
    """

    node_accuracy: float
    """Of models whose parents are exactly the true ones; a root is right if it has none."""
    node_accuracy_up_to_ties: float
    """The same where models that the forest says are tied may stand in each other's place, as
    parents and as children: no method can tell them apart by their weights."""
    parent_accuracy: float | None
    """Of models that have true parents, those whose parents are exactly these."""
    edge_precision: float | None  # of recovered edges, those that are true
    edge_recall: float | None  # of true edges, those that were recovered
    undirected_edge_accuracy: float | None
    """Of true edges, those that were recovered in either direction."""
    root_accuracy: float | None
    """Of true trees, those whose true roots have no parent in the forest."""
    adjusted_rand_index: float | None
    """Of the forest's families against the true trees: 1 where they are the same, near 0 for
    families by chance (Hubert & Arabie 1985, J. Classification 2)."""
    mixtures_found: float | None
    """Of models with two true parents or more, those of which all were found, whatever else was."""
    mother_accuracy: float | None
    """MoTHer's own score (Horwitz et al. 2025, arXiv 2405.18432): a tree's true edges that were
    recovered, as a share of its true edges; mean over the true trees that have edges."""
    models: int  # whose true parents are known
    trees: int  # true ones, as roots, edges and mixtures (models with two parents or more)
    families: int  # recovered ones, of all models
    roots: int
    recovered_roots: int
    edges: int
    recovered_edges: int
    mixtures: int


def scores(forest: Forest, truth: Truth) -> Scores:
    """Scores of a forest against the true parents of its models, as far as they are known. Where
    some models were set aside, `ground_truth.restrict_truth` gives the truth of the rest. Raises
    UnknownName for a model, or a parent, that the forest does not have, and InvalidInput for a
    truth, or a forest, without models."""
    from sklearn.metrics import adjusted_rand_score

    _check(forest, truth)
    true = {model: frozenset(truth[model]) for model in forest.models if model in truth}
    recovered = {model: frozenset(forest.parents[model]) for model in true}
    edges, true_edges = (
        {(parent, child) for child, parents in side.items() for parent in parents}
        for side in (recovered, true)
    )
    whole_forest = {(edge.parent, edge.child) for edge in forest.edges}
    numbers = dict(zip(forest.models, tree_numbers(forest.models, true_edges), strict=True))
    unknown_trees = {number for model, number in numbers.items() if model not in true}
    in_known_tree = [model for model in true if numbers[model] not in unknown_trees]
    root_right = {numbers[model]: True for model in in_known_tree}
    for model in in_known_tree:
        root_right[numbers[model]] &= bool(true[model]) or not recovered[model]
    family = dict(zip(forest.models, forest.families, strict=True))
    sides = [[of_model[model] for model in in_known_tree] for of_model in (numbers, family)]
    children = [model for model in true if true[model]]
    mixtures = [model for model in true if len(true[model]) > 1]
    in_tree = Counter(numbers[child] for _, child in true_edges)
    correct = Counter(numbers[child] for _, child in edges & true_edges)
    return Scores(
        node_accuracy=fmean(recovered[model] == true[model] for model in true),
        node_accuracy_up_to_ties=_up_to_ties(recovered, true, forest) / len(true),
        parent_accuracy=_share(recovered[model] == true[model] for model in children),
        edge_precision=_share(edge in true_edges for edge in edges),
        edge_recall=_share(edge in edges for edge in true_edges),
        undirected_edge_accuracy=_share(
            bool({edge, edge[::-1]} & whole_forest) for edge in true_edges
        ),
        root_accuracy=_share(root_right.values()),
        adjusted_rand_index=float(adjusted_rand_score(*sides)) if in_known_tree else None,
        mixtures_found=_share(true[model] <= recovered[model] for model in mixtures),
        mother_accuracy=_share(correct[tree] / in_tree[tree] for tree in in_tree),
        models=len(true),
        trees=len(root_right),
        families=len(set(forest.families)),
        roots=len(true) - len(children),
        recovered_roots=sum(not parents for parents in recovered.values()),
        edges=len(true_edges),
        recovered_edges=len(edges),
        mixtures=len(mixtures),
    )


def _check(forest: Forest, truth: Truth) -> None:
    models = set(forest.models)
    if not models:
        raise InvalidInput("a forest without models has no scores")
    for model, parents in truth.items():
        for name in (model, *parents):
            if name not in models:
                raise UnknownName("model of the forest", name, models)
    if not truth:
        raise InvalidInput("the truth is of no model; a root's parents are an empty tuple")


def _share(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None


def _up_to_ties(
    recovered: Mapping[str, frozenset[str]],
    true: Mapping[str, frozenset[str]],
    forest: Forest,
) -> int:
    """Models that are right for the best way to exchange tied ones: of a group of tied models, the
    parents (groups, too) that it has in the forest and in truth, each as often as both."""
    group: dict[str, Hashable] = {model: model for model in forest.models}
    for number, models in enumerate(forest.tied):
        group.update(dict.fromkeys(models, number))
    sides = []
    for parents in (recovered, true):
        side: dict[Hashable, Counter[frozenset[Hashable]]] = defaultdict(Counter)
        for model, of_model in parents.items():
            side[group[model]][frozenset(group[parent] for parent in of_model)] += 1
        sides.append(side)
    return sum((sides[0][group_id] & sides[1][group_id]).total() for group_id in sides[0])
