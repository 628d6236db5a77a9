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
from vitarium.lineage.methods.nearest_root import ahead
from vitarium.lineage.model_set import Heap


def recover(heap, trees=None, **options):
    return choose("lineage", "nearest_root", **options)(heap, trees)


def roots_of(known) -> list[str]:
    return [name for name, parent in known.parents.items() if parent is None]


def on_a_line(**values: float) -> Heap:
    return Heap([Weights(n, {"w": torch.tensor([[v, 1.0]])}) for n, v in values.items()], ["w"])


@pytest.mark.parametrize("given_roots", [True, False])
def test_stars_are_found(given_roots, lineage_trees):
    known = lineage_trees.grow(0, trees=3, fans=(5,))
    options = {"roots": roots_of(known)} if given_roots else {}
    found = recover(known.heap, **options)
    assert {child: next(iter(of), None) for child, of in found.parents.items()} == known.parents
    assert adjusted_rand_score(known.families, found.families) == 1
    assert found.families[0] == 0
    assert set(found.roots) == set(roots_of(known))


def test_grandchildren_are_taken_for_children(lineage_trees):
    known = lineage_trees.grow(0, trees=2, fans=(3, 2))
    found = recover(known.heap, roots=roots_of(known))
    assert {edge.parent for edge in found.edges} == set(roots_of(known))
    assert len(found.edges) == 18
    assert adjusted_rand_score(known.families, found.families) == 1


def test_confidence_says_how_much_farther_the_next_root_is():
    heap = on_a_line(a=0, b=10, near_a=1, between=5, near_b=12)
    found = recover(heap, roots=["a", "b"])
    confidences = {edge.child: (edge.parent, edge.confidence) for edge in found.edges}
    assert confidences["near_a"] == ("a", pytest.approx(0.9))
    assert confidences["between"] == ("a", pytest.approx(0.5))  # as near: the first by name
    assert confidences["near_b"] == ("b", pytest.approx(12 / 14))
    assert found.roots == {"a": 1, "b": 1}


def test_the_medoid_is_a_root_as_clearly_as_it_stands_out():
    heap = on_a_line(left=-1, middle=0, right=1.5)
    found = recover(heap, 1)
    sums = {"middle": 1 + 2.25, "left": 1 + 6.25}
    sure = sums["left"] / sum(sums.values())
    assert found.roots == {"middle": pytest.approx(sure)}
    assert [edge.confidence for edge in found.edges] == [pytest.approx(sure)] * 2
    assert ahead(np.array([0.0, 0.0])) == 0.5
    assert ahead(np.array([3.0])) == 1


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_order_does_not_matter(seed, lineage_trees):
    known = lineage_trees.grow(seed % 10, trees=2, fans=(4,))
    models = list(known.heap.models)
    order = np.random.default_rng(seed).permutation(len(models))
    shuffled = Heap([models[place] for place in order], known.heap.tensors)
    found, again = recover(known.heap), recover(shuffled)
    assert again.roots == pytest.approx(found.roots, rel=1e-9)
    pairs = [{(e.parent, e.child): e.confidence for e in of.edges} for of in (found, again)]
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-9)


def test_roots_that_are_copies_stay_roots_and_are_tied():
    found = recover(on_a_line(b=0, a=0, child=1), roots=["b", "a"])
    assert found.tied == [["a", "b"]]
    assert found.roots == {"a": 1, "b": 1}
    assert [(edge.parent, edge.child, edge.confidence) for edge in found.edges] == [
        ("a", "child", 0.5)
    ]
    assert list(found.families) == [0, 1, 1]


def test_unknown_roots_and_numbers_that_do_not_fit_are_refused():
    heap = on_a_line(alpha=0, beta=1)
    with pytest.raises(UnknownName, match="unknown model 'alpa'; did you mean 'alpha'"):
        recover(heap, roots=["alpa"])
    with pytest.raises(InvalidInput, match="2 trees are asked for and 1 roots are named"):
        recover(heap, 2, roots=["alpha"])
    with pytest.raises(InvalidInput, match="2 models cannot make 3 trees"):
        recover(heap, 3)


def test_one_model_is_a_root():
    found = recover(on_a_line(a=0))
    assert (found.edges, found.roots, list(found.families)) == ([], {"a": 1}, [0])
