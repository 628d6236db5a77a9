"""Scores: by hand, against brute force, and what makes none of them."""

import itertools

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.scores import scores


def forest(parents, families=None, tied=()):
    """`{"a": "", "b": "a", "soup": "ab"}`"""
    models = list(parents)
    edges = [
        Edge(parent, child, 1.0) for child, ancestors in parents.items() for parent in ancestors
    ]
    return Forest("hand", models, families or [0] * len(models), edges, {}, tied)


def truth(**parents):
    return {child: tuple(ancestors) for child, ancestors in parents.items()}


# two trees: a -> b -> c, a -> d; and r -> s
TWO = truth(a="", b="a", c="b", d="a", r="", s="r")
FAMILIES = [0, 0, 0, 0, 1, 1]


def test_the_true_forest_has_all_scores_at_one():
    scored = scores(forest(TWO, FAMILIES), TWO)
    assert scored.node_accuracy == scored.node_accuracy_up_to_ties == scored.parent_accuracy == 1
    assert scored.edge_precision == scored.edge_recall == scored.undirected_edge_accuracy == 1
    assert scored.root_accuracy == scored.adjusted_rand_index == scored.mother_accuracy == 1
    assert scored.mixtures_found is None
    assert (scored.models, scored.trees, scored.families) == (6, 2, 2)
    assert (scored.roots, scored.recovered_roots, scored.mixtures) == (2, 2, 0)
    assert (scored.edges, scored.recovered_edges) == (4, 4)


def test_a_turned_edge_is_wrong_but_right_without_direction():
    # b and a change places: b -> a, b -> c right, a -> d right
    scored = scores(forest(truth(a="b", b="", c="b", d="a", r="", s="r"), FAMILIES), TWO)
    assert scored.node_accuracy == 4 / 6
    assert scored.parent_accuracy == 3 / 4
    assert scored.edge_precision == scored.edge_recall == 3 / 4
    assert scored.undirected_edge_accuracy == 1
    assert scored.root_accuracy == 1 / 2
    assert scored.mother_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert scored.adjusted_rand_index == 1


def test_a_missing_edge_costs_recall_and_a_false_one_precision():
    missing = scores(forest(truth(a="", b="a", c="b", d="", r="", s="r"), FAMILIES), TWO)
    assert (missing.edge_precision, missing.edge_recall) == (1, 3 / 4)
    assert (missing.root_accuracy, missing.recovered_roots) == (1, 3)
    false = scores(forest(truth(a="", b="a", c="b", d="a", r="a", s="r"), [0] * 6), TWO)
    assert (false.edge_precision, false.edge_recall) == (4 / 5, 1)
    assert false.root_accuracy == 1 / 2
    assert false.parent_accuracy == 1
    assert false.node_accuracy == 5 / 6


def test_a_mixture_needs_all_of_its_parents_and_no_other():
    true = truth(a="", b="a", c="a", soup="bc", stew="bc")
    scored = scores(forest(truth(a="", b="a", c="a", soup="bc", stew="b")), true)
    assert (scored.mixtures, scored.mixtures_found) == (2, 1 / 2)
    assert scored.node_accuracy == 4 / 5
    assert scored.parent_accuracy == 3 / 4
    more = scores(forest(truth(a="", b="a", c="a", soup="abc", stew="cb")), true)
    assert more.mixtures_found == 1
    assert more.node_accuracy == 4 / 5
    assert more.edge_precision == 6 / 7


def test_a_mixture_of_two_trees_makes_them_one_tree_with_two_roots():
    true = truth(a="", b="", soup="ab", r="")
    scored = scores(forest(true, [0, 0, 0, 1]), true)
    assert (scored.trees, scored.roots) == (2, 3)
    assert scored.adjusted_rand_index == scored.root_accuracy == 1
    half = scores(forest(truth(a="", b="a", soup="ab", r=""), [0, 0, 0, 1]), true)
    assert half.root_accuracy == 1 / 2  # b was a root, too


def test_tied_models_may_stand_in_each_others_place():
    true = truth(a="", b="a", c="b", d="c")
    # b and c are copies: which of them is a's child, and which d's parent, nobody can tell
    turned = truth(a="", b="c", c="a", d="b")
    strict, tied = (scores(forest(turned, tied=ties), true) for ties in ([], [("b", "c")]))
    assert strict.node_accuracy == tied.node_accuracy == 1 / 4
    assert strict.node_accuracy_up_to_ties == 1 / 4
    assert tied.node_accuracy_up_to_ties == 1
    # both copies are a's children: one of them would have to be the other's
    fan = scores(forest(truth(a="", b="a", c="a", d="b"), tied=[("b", "c")]), true)
    assert fan.node_accuracy_up_to_ties == 3 / 4
    # other mistakes stay mistakes
    wrong = scores(forest(truth(a="", b="c", c="a", d="a"), tied=[("b", "c")]), true)
    assert wrong.node_accuracy_up_to_ties == 3 / 4


def test_nothing_recovered_and_nothing_to_recover_have_no_share():
    scored = scores(forest(truth(a="", b="")), truth(a="", b="a"))
    assert scored.edge_precision is None
    assert scored.edge_recall == scored.mother_accuracy == scored.undirected_edge_accuracy == 0
    scored = scores(forest(truth(a="", b="a")), truth(a="", b=""))
    assert scored.edge_precision == 0
    assert scored.edge_recall is scored.mother_accuracy is scored.parent_accuracy is None
    assert scored.undirected_edge_accuracy is None


def test_unknown_and_missing_models_are_errors_that_name_them():
    recovered = forest(truth(alpha="", beta=["alpha"]))
    with pytest.raises(UnknownName, match=r"'alfa'; did you mean 'alpha'\?"):
        scores(recovered, {"alpha": (), "beta": ("alfa",)})
    with pytest.raises(UnknownName, match="unknown model of the forest 'gamma'"):
        scores(recovered, {"alpha": (), "beta": (), "gamma": ()})
    with pytest.raises(InvalidInput, match="the truth is of no model"):
        scores(recovered, {})
    with pytest.raises(InvalidInput, match="without models"):
        scores(forest({}), {})


def test_models_whose_parents_are_not_known_are_no_part_of_the_scores():
    # x and y were imported, y's child z with its parent; a -> b is a tree that is known
    true = truth(a="", b="a", z="y")
    recovered = truth(a="", b="a", z="y", x="a", y="b")
    scored = scores(forest(recovered, [0] * 5), true)
    assert scored.node_accuracy == scored.parent_accuracy == scored.node_accuracy_up_to_ties == 1
    assert scored.edge_precision == scored.edge_recall == scored.mother_accuracy == 1
    assert scored.root_accuracy == scored.adjusted_rand_index == 1
    assert (scored.models, scored.trees, scored.roots, scored.edges) == (3, 1, 1, 2)
    assert scored.recovered_edges == 2
    turned = scores(forest(recovered | truth(z="", y="z"), [0] * 5), true)
    assert (turned.edge_recall, turned.undirected_edge_accuracy) == (1 / 2, 1)
    only_edge = scores(forest(truth(y="", z="y")), truth(z="y"))
    assert (only_edge.node_accuracy, only_edge.trees) == (1, 0)
    assert only_edge.root_accuracy is only_edge.adjusted_rand_index is None


def matrix(parents, models):
    edges = np.zeros((len(models), len(models)), dtype=bool)
    for child, its in parents.items():
        for parent in its:
            edges[models.index(parent), models.index(child)] = True
    return edges


def rand(first, second):
    """The adjusted Rand index by counting pairs (Steinley 2004, Psychological Methods 9(3))."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    counts = {(x, y): 0 for x in (True, False) for y in (True, False)}
    for i, j in pairs:
        counts[first[i] == first[j], second[i] == second[j]] += 1
    a, b, c, d = (
        counts[key] for key in ((True, True), (True, False), (False, True), (False, False))
    )
    below = (a + b) * (b + d) + (a + c) * (c + d)
    return 2 * (a * d - b * c) / below if below else 1.0


def by_matrices(ours, true, families):
    """The scores from adjacency matrices [parent, child]."""
    right = (ours == true).all(0)
    child, mixture = true.any(0), true.sum(0) > 1
    trees = list(networkx.connected_components(networkx.Graph(true | true.T)))
    number = [next(k for k, tree in enumerate(trees) if m in tree) for m in range(len(true))]

    def share(values):
        return float(np.mean(values)) if np.size(values) else None

    def in_tree(tree, edges):
        return edges[np.ix_(sorted(tree), sorted(tree))]

    of_trees = [share((in_tree(t, ours))[in_tree(t, true)]) for t in trees if len(t) > 1]
    return {
        "node_accuracy": right.mean(),
        "parent_accuracy": share(right[child]),
        "edge_precision": share(true[ours]),
        "edge_recall": share(ours[true]),
        "undirected_edge_accuracy": share((ours | ours.T)[true]),
        "root_accuracy": np.mean(
            [all(not ours[:, m].any() for m in t if not true[:, m].any()) for t in trees]
        ),
        "adjusted_rand_index": rand(number, families),
        "mixtures_found": share([ours[true[:, m], m].all() for m in np.flatnonzero(mixture)]),
        "mother_accuracy": share([accuracy for accuracy in of_trees if accuracy is not None]),
        "trees": len(trees),
        "families": len(set(families)),
        "edges": true.sum(),
        "recovered_edges": ours.sum(),
        "roots": (~child).sum(),
        "recovered_roots": (~ours.any(0)).sum(),
        "mixtures": mixture.sum(),
        "models": len(true),
    }


@st.composite
def lineages(draw, models):
    """Parents without circles, in any order."""
    order = draw(st.permutations(models))
    return {
        model: tuple(draw(st.sets(st.sampled_from(order[:index]), max_size=3)) if index else ())
        for index, model in enumerate(order)
    }


@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.integers(1, 7))
def test_scores_are_as_by_brute_force_and_do_not_depend_on_names_or_order(data, size):
    models = list("abcdefg"[:size])
    true, ours = data.draw(lineages(models)), data.draw(lineages(models))
    number = dict(
        zip(
            models,
            data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)),
            strict=True,
        )
    )
    tied = [group for group in ("abc", "de") if group[-1] in models]
    families = [number[model] for model in ours]
    scored = scores(forest(ours, families, tied), true)
    order = list(ours)
    expected = by_matrices(matrix(ours, order), matrix(true, order), families)
    for name, value in expected.items():
        assert getattr(scored, name) == pytest.approx(value), name
    best = max(
        sum(
            {group_of(p, tied) for p in ours[model]} == {group_of(p, tied) for p in true[new]}
            for model, new in exchanged.items()
        )
        for exchanged in exchanges(models, tied)
    )
    assert scored.node_accuracy_up_to_ties == pytest.approx(best / size)
    assert scored.node_accuracy_up_to_ties >= scored.node_accuracy
    new = dict(zip(models, data.draw(st.permutations(models)), strict=True))
    renamed = [
        {new[m]: tuple(new[p] for p in its) for m, its in old.items()} for old in (ours, true)
    ]
    shuffled = {m: renamed[0][m] for m in data.draw(st.permutations(models))}
    back = {name: old for old, name in new.items()}
    again = forest(
        shuffled, [number[back[m]] for m in shuffled], [[new[m] for m in group] for group in tied]
    )
    assert scores(again, renamed[1]) == scored


def group_of(model, tied):
    return next((group for group in tied if model in group), model)


def exchanges(models, tied):
    """All ways to exchange models within their groups."""
    singles = {m: m for m in models if group_of(m, tied) == m}
    for orders in itertools.product(*(itertools.permutations(group) for group in tied)):
        pairs = (zip(g, order, strict=True) for g, order in zip(tied, orders, strict=True))
        yield singles | dict(itertools.chain(*pairs))
