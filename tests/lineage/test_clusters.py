"""Trees of a heap are told apart by angles, whether all pairs are compared or sketches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.lineage import _clusters as module
from vitarium.lineage._canonical_order import first_appearance
from vitarium.lineage._clusters import cut, families, grouped
from vitarium.lineage.model_set import Heap

SIZE = 1500


def trees(noise, sizes, steps=(0.02, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [K, SIZE] of trees in which a model's parent is any earlier one, and their trees."""
    vectors, labels = [], []
    for tree, size in enumerate(sizes):
        own = [noise.normal(size=SIZE)]
        for _ in range(size - 1):
            step = np.exp(noise.uniform(*np.log(steps)))
            own.append(own[noise.integers(len(own))] + step * noise.normal(size=SIZE))
        vectors += own
        labels += [tree] * size
    return np.array(vectors), np.array(labels)


def heap(vectors) -> Heap:
    tensors = torch.from_numpy(np.asarray(vectors, np.float32)).reshape(len(vectors), -1, 30)
    models = [
        Weights(f"m{n}", {"fc.weight": each, "norm.weight": 9 * torch.ones(500)})
        for n, each in enumerate(tensors)
    ]
    return Heap(models, ["fc.weight", "norm.weight"])


sizes = st.lists(st.integers(2, 8), min_size=2, max_size=5)
seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, sizes=sizes)
def test_independent_trees_are_families_and_their_order_means_nothing(seed, sizes):
    noise = np.random.default_rng(seed)
    vectors, labels = trees(noise, sizes)
    order = noise.permutation(len(vectors))
    gram = vectors @ vectors.T
    found = families(gram)
    assert found.tolist() == labels.tolist()
    shuffled = families(gram[np.ix_(order, order)])
    assert shuffled.tolist() == first_appearance(labels[order]).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [(0.01, 0.05), (0.1, 0.6), (0.5, 0.5)])
def test_a_tree_alone_is_one_family(seed, steps):
    vectors, _ = trees(np.random.default_rng(seed), [12], steps)
    assert set(families(vectors @ vectors.T)) == {0}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_unrelated_models_are_each_its_own(count):
    vectors = np.random.default_rng(count).normal(size=(count, SIZE))
    assert families(vectors @ vectors.T).tolist() == list(range(count))


def test_lengths_of_weights_mean_nothing():
    vectors, labels = trees(np.random.default_rng(0), [5, 5])
    scaled = vectors * np.geomspace(0.1, 10, 10)[:, None]
    assert families(scaled @ scaled.T).tolist() == labels.tolist()


def test_copies_are_one_family():
    vector = np.random.default_rng(0).normal(size=SIZE)
    assert set(families(np.full((3, 3), vector @ vector))) == {0}


def test_a_model_alone_and_one_of_zeros_have_families():
    assert families(np.ones((1, 1))).tolist() == [0]
    vectors, _ = trees(np.random.default_rng(0), [3])
    with_zeros = np.concatenate([vectors, np.zeros((1, SIZE))])
    assert families(with_zeros @ with_zeros.T).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("trees_wanted", [1, 2, 3, 4, 12])
def test_as_many_families_as_are_asked_for(trees_wanted):
    vectors, labels = trees(np.random.default_rng(1), [4, 4, 4])
    found = families(vectors @ vectors.T, trees_wanted)
    assert len(set(found)) == trees_wanted
    if trees_wanted <= 3:  # true families are joined, never torn
        assert all(len(set(found[labels == label])) == 1 for label in range(3))
    else:
        assert all(len(set(labels[found == one])) == 1 for one in set(found))


@pytest.mark.parametrize("wanted", [0, -1, 5])
@pytest.mark.parametrize("at_once", [600, 2])
def test_impossible_numbers_of_trees_are_refused(wanted, at_once, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    vectors, _ = trees(np.random.default_rng(1), [4])
    with pytest.raises(InvalidInput, match=f"4 models cannot be {wanted} trees"):
        grouped(heap(vectors), wanted)


@pytest.mark.parametrize("wanted", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_sketches_give_the_families_of_all_pairs(wanted, seed, monkeypatch):
    vectors, labels = trees(np.random.default_rng(seed), [7, 9, 5], (0.1, 0.6))
    by_pairs = grouped(heap(vectors), wanted)
    monkeypatch.setattr(module, "AT_ONCE", 10)
    many = heap(vectors)
    by_sketches = grouped(many, wanted)
    assert not many.is_gathered  # no matrix of all pairs was made for it
    assert len(set(by_sketches)) == (wanted or 3)
    if wanted in (None, 3):
        assert by_sketches.tolist() == by_pairs.tolist() == labels.tolist()


def test_what_is_known_of_all_pairs_is_used_however_many_models(monkeypatch):
    vectors, labels = trees(np.random.default_rng(0), [4, 4])
    known = heap(vectors)
    assert known.evidence.gram().shape == (8, 8)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    monkeypatch.setattr(module, "sketched", None)
    assert grouped(known).tolist() == labels.tolist()


def test_norms_that_are_alike_in_all_models_tie_no_families():
    vectors, labels = trees(np.random.default_rng(0), [3, 3])
    with_norms = heap(vectors)
    gram = with_norms.evidence.gram()
    assert len(set(families(gram))) == 1  # they are most of the weights
    assert grouped(with_norms).tolist() == labels.tolist()


def test_heights_are_cut_where_they_differ_most():
    assert 0.4 < cut(np.array([0.1, 0.2, 0.4, 0.97])) < 0.97
    assert cut(np.array([0.1, 0.2])) > 0.2  # to 1, where independent models are
    assert cut(np.array([0.95, 1.02])) < 0.95


@settings(deadline=None, max_examples=20)
@given(labels=st.lists(st.integers(-3, 6), min_size=1, max_size=12))
def test_groups_are_numbered_as_they_appear(labels):
    found = first_appearance(np.array(labels))
    assert adjusted_rand_score(labels, found) == 1
    assert list(dict.fromkeys(found.tolist())) == list(range(len(set(labels))))
