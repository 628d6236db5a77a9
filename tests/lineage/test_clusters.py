"""Trees of a set of models are told apart by angles, whether all pairs are compared or sketches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.lineage import _clusters as module
from vitarium.lineage._clusters import cut_height, families_by_angle, single_linkage
from vitarium.lineage.base import ModelSet, first_appearance

SIZE = 1500


def trees(noise, sizes, steps=(0.02, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [K, SIZE] of trees in which a model's parent is any earlier one, and their trees."""
    vectors, labels = [], []
    for tree, size in enumerate(sizes):
        members = [noise.normal(size=SIZE)]
        for _ in range(size - 1):
            step = np.exp(noise.uniform(*np.log(steps)))
            members.append(members[noise.integers(len(members))] + step * noise.normal(size=SIZE))
        vectors += members
        labels += [tree] * size
    return np.array(vectors), np.array(labels)


def model_set(vectors) -> ModelSet:
    tensors = torch.from_numpy(np.asarray(vectors, np.float32)).reshape(len(vectors), -1, 30)
    models = [
        Weights(f"m{n}", {"fc.weight": tensor, "norm.weight": 9 * torch.ones(500)})
        for n, tensor in enumerate(tensors)
    ]
    return ModelSet(models, ["fc.weight", "norm.weight"])


sizes = st.lists(st.integers(2, 8), min_size=2, max_size=5)
seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, sizes=sizes)
def test_independent_trees_are_families_and_their_order_means_nothing(seed, sizes):
    noise = np.random.default_rng(seed)
    vectors, labels = trees(noise, sizes)
    order = noise.permutation(len(vectors))
    gram = vectors @ vectors.T
    families = single_linkage(gram)
    assert families.tolist() == labels.tolist()
    shuffled = single_linkage(gram[np.ix_(order, order)])
    assert shuffled.tolist() == first_appearance(labels[order]).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [(0.01, 0.05), (0.1, 0.6), (0.5, 0.5)])
def test_a_tree_alone_is_one_family(seed, steps):
    vectors, _ = trees(np.random.default_rng(seed), [12], steps)
    assert set(single_linkage(vectors @ vectors.T)) == {0}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_unrelated_models_are_each_its_own(count):
    vectors = np.random.default_rng(count).normal(size=(count, SIZE))
    assert single_linkage(vectors @ vectors.T).tolist() == list(range(count))


def test_lengths_of_weights_mean_nothing():
    vectors, labels = trees(np.random.default_rng(0), [5, 5])
    scaled = vectors * np.geomspace(0.1, 10, 10)[:, None]
    assert single_linkage(scaled @ scaled.T).tolist() == labels.tolist()


def test_copies_are_one_family():
    vector = np.random.default_rng(0).normal(size=SIZE)
    assert set(single_linkage(np.full((3, 3), vector @ vector))) == {0}


def test_a_model_alone_and_one_of_zeros_have_families():
    assert single_linkage(np.ones((1, 1))).tolist() == [0]
    vectors, _ = trees(np.random.default_rng(0), [3])
    with_zeros = np.concatenate([vectors, np.zeros((1, SIZE))])
    assert single_linkage(with_zeros @ with_zeros.T).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("num_trees", [1, 2, 3, 4, 12])
def test_as_many_families_as_are_asked_for(num_trees):
    vectors, labels = trees(np.random.default_rng(1), [4, 4, 4])
    families = single_linkage(vectors @ vectors.T, num_trees)
    assert len(set(families)) == num_trees
    if num_trees <= 3:  # true families are joined, never torn
        assert all(len(set(families[labels == label])) == 1 for label in range(3))
    else:
        assert all(len(set(labels[families == family])) == 1 for family in set(families))


@pytest.mark.parametrize("num_trees", [0, -1, 5])
@pytest.mark.parametrize("at_once", [600, 2])
def test_impossible_numbers_of_trees_are_refused(num_trees, at_once, monkeypatch):
    monkeypatch.setattr(module, "MAX_ALL_PAIRS", at_once)
    vectors, _ = trees(np.random.default_rng(1), [4])
    with pytest.raises(InvalidInput, match=f"4 models cannot be {num_trees} trees"):
        families_by_angle(model_set(vectors), num_trees)


@pytest.mark.parametrize("num_trees", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_sketches_give_the_families_of_all_pairs(num_trees, seed, monkeypatch):
    vectors, labels = trees(np.random.default_rng(seed), [7, 9, 5], (0.1, 0.6))
    by_pairs = families_by_angle(model_set(vectors), num_trees)
    monkeypatch.setattr(module, "MAX_ALL_PAIRS", 10)
    many = model_set(vectors)
    by_sketches = families_by_angle(many, num_trees)
    assert not many.has_statistics  # no matrix of all pairs was made for it
    assert len(set(by_sketches)) == (num_trees or 3)
    if num_trees in (None, 3):
        assert by_sketches.tolist() == by_pairs.tolist() == labels.tolist()


def test_what_is_known_of_all_pairs_is_used_however_many_models(monkeypatch):
    vectors, labels = trees(np.random.default_rng(0), [4, 4])
    with_gram = model_set(vectors)
    assert with_gram.statistics.gram().shape == (8, 8)
    monkeypatch.setattr(module, "MAX_ALL_PAIRS", 2)
    monkeypatch.setattr(module, "sketch_weights", None)
    assert families_by_angle(with_gram).tolist() == labels.tolist()


def test_norms_that_are_alike_in_all_models_tie_no_families():
    vectors, labels = trees(np.random.default_rng(0), [3, 3])
    with_norms = model_set(vectors)
    gram = with_norms.statistics.gram()
    assert len(set(single_linkage(gram))) == 1  # they are most of the weights
    assert families_by_angle(with_norms).tolist() == labels.tolist()


def test_heights_are_cut_where_they_differ_most():
    assert 0.4 < cut_height(np.array([0.1, 0.2, 0.4, 0.97])) < 0.97
    assert cut_height(np.array([0.1, 0.2])) > 0.2  # to 1, where independent models are
    assert cut_height(np.array([0.95, 1.02])) < 0.95


@settings(deadline=None, max_examples=20)
@given(labels=st.lists(st.integers(-3, 6), min_size=1, max_size=12))
def test_groups_are_numbered_as_they_appear(labels):
    families = first_appearance(np.array(labels))
    assert adjusted_rand_score(labels, families) == 1
    assert list(dict.fromkeys(families.tolist())) == list(range(len(set(labels))))
