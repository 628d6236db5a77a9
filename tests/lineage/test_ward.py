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
from vitarium.lineage._clusters import families_by_distance, ward
from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods._layer_distances import l2


def clusters(seed: int, centers: int, per_center: int = 6) -> tuple[np.ndarray, list[int]]:
    """Distances of points around centers that are far apart, shuffled; which center each is of."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(centers * per_center)
    middle = 20 * rng.normal(size=(centers, 30)).repeat(per_center, axis=0)
    points = (middle + rng.normal(size=middle.shape))[order]
    return squareform(pdist(points)), np.arange(centers).repeat(per_center)[order].tolist()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 25), data=st.data())
def test_families_are_those_of_another_implementation(seed, count, data):
    points = np.random.default_rng(seed).normal(size=(count, 4))
    trees = data.draw(st.integers(1, count))
    expected = AgglomerativeClustering(trees, linkage="ward").fit_predict(points)
    clustered = ward(squareform(pdist(points)), trees)
    assert adjusted_rand_score(expected, clustered) == 1
    assert len(set(clustered.tolist())) == trees


@pytest.mark.parametrize("centers", [2, 3, 6, 10])
def test_their_number_is_seen_where_it_is_not_given(centers):
    distances, expected = clusters(centers, centers)
    for trees in (centers, None):
        assert adjusted_rand_score(expected, ward(distances, trees)) == 1


def test_points_around_one_center_are_one_family():
    for seed in range(10):
        assert ward(clusters(seed, 1, per_center=12)[0]).max() == 0


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
    clustered = ward(distances, 4).tolist()
    assert list(dict.fromkeys(clustered)) == [0, 1, 2, 3]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), trees=st.sampled_from([None, 1, 2, 5]))
def test_order_does_not_matter(seed, trees):
    distances, _ = clusters(seed % 50, 3, per_center=4)
    order = np.random.default_rng(seed).permutation(len(distances))
    shuffled = ward(distances[np.ix_(order, order)], trees)
    assert adjusted_rand_score(ward(distances, trees)[order], shuffled) == 1


def test_copies_are_cut_where_so_many_trees_are_asked_for():
    assert ward(np.zeros((3, 3)), 3).tolist() == [0, 1, 2]
    assert ward(np.zeros((3, 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("trees", [0, 4, -1])
def test_more_trees_than_models_are_refused(trees):
    with pytest.raises(InvalidInput, match=f"3 models cannot be {trees} trees"):
        ward(np.ones((3, 3)) - np.eye(3), trees)


def test_one_model_is_a_family():
    assert ward(np.zeros((1, 1))).tolist() == ward(np.zeros((1, 1)), 1).tolist() == [0]


# With a look at the angles


def clustered(grown, trees=None) -> np.ndarray:
    return families_by_distance(grown.model_set, l2(grown.model_set), trees)


@pytest.mark.parametrize("trees", [1, 2, 5])
def test_families_of_models_are_their_trees(trees, lineage_trees):
    grown = lineage_trees.grow(trees, trees=trees, fans=(3, 2))
    assert adjusted_rand_score(grown.families, clustered(grown)) == 1


def test_a_tree_with_one_far_child_is_one_family(lineage_trees):
    """Distances alone say two."""
    grown = lineage_trees.grow(0, fans=(4,), steps=(0.02,), shuffled=False)
    root = grown.model_set.models[0]
    far = {name: t + 0.5 * torch.randn(t.shape, generator=noise(1)) for name, t in root.items()}
    model_set = ModelSet([*grown.model_set.models, Weights("far", far)], grown.model_set.tensors)
    assert ward(l2(model_set)).tolist() == [0, 0, 0, 0, 0, 1]
    assert families_by_distance(model_set, l2(model_set), None).tolist() == [0] * 6
    assert families_by_distance(model_set, l2(model_set), 2).tolist() == [0, 0, 0, 0, 0, 1]


def test_models_that_are_all_unrelated_are_families_each(lineage_trees):
    grown = lineage_trees.grow(0, trees=5, fans=())
    assert ward(l2(grown.model_set)).tolist() == [0] * 5
    assert clustered(grown).tolist() == [0, 1, 2, 3, 4]


def test_biases_and_norms_that_are_alike_make_no_relation():
    drawn = [torch.randn(6, 6, generator=noise(seed)) for seed in range(2)]
    model_set = ModelSet(
        [Weights(f"m{k}", {"w": w, "norm": 100 * torch.ones(6)}) for k, w in enumerate(drawn)],
        ["w", "norm"],
    )
    assert families_by_distance(model_set, l2(model_set), None).tolist() == [0, 1]


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
