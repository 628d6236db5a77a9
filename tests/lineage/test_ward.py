"""Families are those of Ward's linkage of pairwise distances, as many as asked for, or as appear."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._ward import families, ward
from vitarium.lineage.methods._layer_distances import l2
from vitarium.lineage.model_set import Heap


def clusters(seed: int, centres: int, each: int = 6) -> tuple[np.ndarray, list[int]]:
    """Distances of points around centres that are far apart, shuffled; which centre each is of."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(centres * each)
    middle = 20 * rng.normal(size=(centres, 30)).repeat(each, axis=0)
    points = (middle + rng.normal(size=middle.shape))[order]
    return squareform(pdist(points)), np.arange(centres).repeat(each)[order].tolist()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 25), data=st.data())
def test_families_are_those_of_another_implementation(seed, count, data):
    points = np.random.default_rng(seed).normal(size=(count, 4))
    trees = data.draw(st.integers(1, count))
    expected = AgglomerativeClustering(trees, linkage="ward").fit_predict(points)
    found = ward(squareform(pdist(points)), trees)
    assert adjusted_rand_score(expected, found) == 1
    assert len(set(found.tolist())) == trees


@pytest.mark.parametrize("centres", [2, 3, 6, 10])
def test_their_number_is_seen_where_it_is_not_given(centres):
    distances, expected = clusters(centres, centres)
    for trees in (centres, None):
        assert adjusted_rand_score(expected, ward(distances, trees)) == 1


def test_points_around_one_centre_are_one_family():
    for seed in range(10):
        assert ward(clusters(seed, 1, each=12)[0]).max() == 0


def test_distances_are_not_taken_for_coordinates():
    """`linkage` takes a square matrix for points, and would find the last two nearer."""
    points = np.array([[0, 0], [1, 0], [50, -0.55], [50, 0.55]])
    distances = squareform(pdist(points))
    rows = squareform(pdist(distances))
    assert distances[0, 1] < distances[2, 3]
    assert rows[0, 1] > rows[2, 3]
    assert ward(distances, 3).tolist() == [0, 0, 1, 2]


def test_families_are_numbered_in_order_of_appearance():
    distances, _ = clusters(3, 4)
    found = ward(distances, 4).tolist()
    assert list(dict.fromkeys(found)) == [0, 1, 2, 3]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), trees=st.sampled_from([None, 1, 2, 5]))
def test_order_does_not_matter(seed, trees):
    distances, _ = clusters(seed % 50, 3, each=4)
    order = np.random.default_rng(seed).permutation(len(distances))
    shuffled = ward(distances[np.ix_(order, order)], trees)
    assert adjusted_rand_score(ward(distances, trees)[order], shuffled) == 1


def test_copies_are_cut_where_so_many_trees_are_asked_for():
    assert ward(np.zeros((3, 3)), 3).tolist() == [0, 1, 2]
    assert ward(np.zeros((3, 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("trees", [0, 4, -1])
def test_more_trees_than_models_are_refused(trees):
    with pytest.raises(InvalidInput, match=f"3 models cannot make {trees} trees"):
        ward(np.ones((3, 3)) - np.eye(3), trees)


def test_one_model_is_a_family():
    assert ward(np.zeros((1, 1))).tolist() == ward(np.zeros((1, 1)), 1).tolist() == [0]


# With a look at the angles


def found(known, trees=None) -> np.ndarray:
    return families(known.heap, l2(known.heap), trees)


@pytest.mark.parametrize("trees", [1, 2, 5])
def test_families_of_models_are_their_trees(trees, lineage_trees):
    known = lineage_trees.grow(trees, trees=trees, fans=(3, 2))
    assert adjusted_rand_score(known.families, found(known)) == 1


def test_a_tree_with_one_far_child_is_one_family(lineage_trees):
    """Distances alone say two."""
    known = lineage_trees.grow(0, fans=(4,), steps=(0.02,), shuffled=False)
    root = known.heap.models[0]
    far = {name: t + 0.5 * torch.randn(t.shape, generator=noise(1)) for name, t in root.items()}
    heap = Heap([*known.heap.models, Weights("far", far)], known.heap.tensors)
    assert ward(l2(heap)).tolist() == [0, 0, 0, 0, 0, 1]
    assert families(heap, l2(heap), None).tolist() == [0] * 6
    assert families(heap, l2(heap), 2).tolist() == [0, 0, 0, 0, 0, 1]


def test_models_that_are_all_unrelated_are_families_each(lineage_trees):
    known = lineage_trees.grow(0, trees=5, fans=())
    assert ward(l2(known.heap)).tolist() == [0] * 5
    assert found(known).tolist() == [0, 1, 2, 3, 4]


def test_biases_and_norms_that_are_alike_make_no_relation():
    drawn = [torch.randn(6, 6, generator=noise(seed)) for seed in range(2)]
    heap = Heap(
        [Weights(f"m{k}", {"w": w, "norm": 100 * torch.ones(6)}) for k, w in enumerate(drawn)],
        ["w", "norm"],
    )
    assert families(heap, l2(heap), None).tolist() == [0, 1]


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
