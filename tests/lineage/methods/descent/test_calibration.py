"""Probabilities are honest: what is stated is right about as often, and the rest is undecided."""

import numpy as np
import pytest

from vitarium.core.registry import choose
from vitarium.lineage.base import DECIDED, NO_PARENT
from vitarium.lineage.methods.descent._trees import root_probabilities


def recover(model_set):
    return choose("lineage", "descent")(model_set, None)


def stated(forest, truth):
    """Whether each edge and root of DECIDED or more is right."""
    edges = [e.parent in truth[e.child] for e in forest.edges if e.confidence >= DECIDED]
    return edges, [not truth[name] for name, sure in forest.roots.items() if sure >= DECIDED]


def siblings(weight_walks, seed):
    """Six children, steps over two decades, without their parent."""
    walks = weight_walks.Walks(seed)
    walks.tree("root", (6,), 0.05, 5)
    del walks.tensors["root"], walks.parents["root"]
    return walks


def test_siblings_without_their_parent_are_undecided(weight_walks):
    edges = sure = 0
    for seed in range(8):
        forest = recover(siblings(weight_walks, seed).model_set())
        edges += len(forest.edges)
        sure += sum(edge.confidence >= DECIDED for edge in forest.edges)
    assert edges > 0
    assert sure <= 0.15 * edges


def test_what_is_stated_is_right_over_trees_of_all_step_lengths(weight_walks):
    edges, roots, undecided, models = [], [], 0, 0
    for seed in range(8):
        walks = weight_walks.Walks(100 + seed, alike=0.7)
        walks.tree("a", (4, 1), 0.02, 3)
        walks.tree("b", (6,), 0.02, 3)
        forest = recover(walks.model_set())
        right = stated(forest, walks.parents)
        edges += right[0]
        roots += right[1]
        undecided += len(forest.undecided)
        models += len(forest.models)
    assert np.mean(edges) >= 0.9
    assert np.mean(roots) >= 0.9
    assert undecided < models


def test_a_child_that_moved_far_is_no_root_of_its_own(weight_walks):
    """Its cosine with its parent is 0.2, that of independent models is 0."""
    for seed in range(3):
        walks = weight_walks.Walks(seed)
        walks.tree("a", (3,), 0.1, 0.5)
        walks.child("far", "a", 6)
        walks.tree("b", (3,), 0.1, 0.5)
        forest = recover(walks.model_set())
        assert "far" not in forest.roots
        trees = [set(tree) for tree in forest.trees]
        assert {name for name in walks.parents if walks.family(name) == "a"} in trees


def test_candidates_are_probabilities_that_the_edges_have(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (3, 2), 0.05, 1)
    forest = recover(walks.model_set())
    assert forest.candidates.keys() == set(forest.models)
    for model, candidates in forest.candidates.items():
        assert 0.9 < sum(candidates.values()) < 1.001
        assert list(candidates.values()) == sorted(candidates.values(), reverse=True)
        for parent, edge in forest.parents[model].items():
            assert candidates[parent] == pytest.approx(edge.confidence)
        if not forest.parents[model]:
            assert candidates[NO_PARENT] == pytest.approx(forest.roots[model])


def test_roots_are_weighed_as_if_the_square_root_of_the_models_spoke():
    scores = np.array([3.0, 1.0, 0.0])
    expected = np.exp(scores / 3) / np.exp(scores / 3).sum()
    assert root_probabilities(scores, 9) == pytest.approx(expected)
    assert root_probabilities(1000 * scores, 9) == pytest.approx([1, 0, 0])
