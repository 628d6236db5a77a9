"""The baseline: a star around each root, which is given, or the medoid of its family."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet, margin


def recover(model_set, trees=None, **options):
    return choose("lineage", "nearest_root", **options)(model_set, trees)


def roots_of(grown) -> list[str]:
    return [name for name, parent in grown.parents.items() if parent is None]


def on_a_line(**values: float) -> ModelSet:
    return ModelSet([Weights(n, {"w": torch.tensor([[v, 1.0]])}) for n, v in values.items()], ["w"])


@pytest.mark.parametrize("given_roots", [True, False])
def test_stars_are_found(given_roots, lineage_trees):
    grown = lineage_trees.grow(0, trees=3, fans=(5,))
    options = {"roots": roots_of(grown)} if given_roots else {}
    forest = recover(grown.model_set, **options)
    assert {child: next(iter(of), None) for child, of in forest.parents.items()} == grown.parents
    assert adjusted_rand_score(grown.families, forest.families) == 1
    assert forest.families[0] == 0
    assert set(forest.roots) == set(roots_of(grown))


def test_grandchildren_are_taken_for_children(lineage_trees):
    grown = lineage_trees.grow(0, trees=2, fans=(3, 2))
    forest = recover(grown.model_set, roots=roots_of(grown))
    assert {edge.parent for edge in forest.edges} == set(roots_of(grown))
    assert len(forest.edges) == 18
    assert adjusted_rand_score(grown.families, forest.families) == 1


def test_confidence_says_how_much_farther_the_next_root_is():
    model_set = on_a_line(a=0, b=10, near_a=1, between=5, near_b=12)
    forest = recover(model_set, roots=["a", "b"])
    confidences = {edge.child: (edge.parent, edge.confidence) for edge in forest.edges}
    assert confidences["near_a"] == ("a", pytest.approx(0.9))
    assert confidences["between"] == ("a", pytest.approx(0.5))  # as near: the first by name
    assert confidences["near_b"] == ("b", pytest.approx(12 / 14))
    assert forest.roots == {"a": 1, "b": 1}


def test_the_medoid_is_a_root_as_clearly_as_it_stands_out():
    model_set = on_a_line(left=-1, middle=0, right=1.5)
    forest = recover(model_set, 1)
    sums = {"middle": 1 + 2.25, "left": 1 + 6.25}
    confidence = sums["left"] / sum(sums.values())
    assert forest.roots == {"middle": pytest.approx(confidence)}
    assert [edge.confidence for edge in forest.edges] == [pytest.approx(confidence)] * 2
    assert margin(np.array([0.0, 0.0])) == 0.5
    assert margin(np.array([3.0])) == 1


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_order_does_not_matter(seed, lineage_trees):
    grown = lineage_trees.grow(seed % 10, trees=2, fans=(4,))
    models = list(grown.model_set.models)
    order = np.random.default_rng(seed).permutation(len(models))
    shuffled = ModelSet([models[index] for index in order], grown.model_set.tensors)
    forest, again = recover(grown.model_set), recover(shuffled)
    assert again.roots == pytest.approx(forest.roots, rel=1e-9)
    pairs = [{(e.parent, e.child): e.confidence for e in of.edges} for of in (forest, again)]
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-9)


def test_roots_that_are_copies_stay_roots_and_are_tied():
    forest = recover(on_a_line(b=0, a=0, child=1), roots=["b", "a"])
    assert forest.tied == [["a", "b"]]
    assert forest.roots == {"a": 1, "b": 1}
    assert [(edge.parent, edge.child, edge.confidence) for edge in forest.edges] == [
        ("a", "child", 0.5)
    ]
    assert list(forest.families) == [0, 1, 1]


def test_unknown_roots_and_numbers_that_do_not_fit_are_refused():
    model_set = on_a_line(alpha=0, beta=1)
    with pytest.raises(UnknownName, match="unknown model 'alpa'; did you mean 'alpha'"):
        recover(model_set, roots=["alpa"])
    with pytest.raises(InvalidInput, match="2 trees are asked for and 1 roots are named"):
        recover(model_set, 2, roots=["alpha"])
    with pytest.raises(InvalidInput, match="2 models cannot be 3 trees"):
        recover(model_set, 3)


def test_one_model_is_a_root():
    forest = recover(on_a_line(a=0))
    assert (forest.edges, forest.roots, list(forest.families)) == ([], {"a": 1}, [0])
