"""Roots of walks in weight space are found by what weights, biases and gains began as."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.registry import choose
from vitarium.lineage._initialization_statistics import about_beginnings, stacked, weight_layers
from vitarium.lineage.methods.descent._roots import rooted


def of_heap(heap, forbidden=None):
    return rooted(stacked(heap, weight_layers(heap)), about_beginnings(heap), forbidden)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("fans", [(6,), (4, 2)])
def test_the_root_of_a_walk_is_found_and_believed(fans, decay, weight_walks):
    found = []
    for seed in range(4):
        walks = weight_walks.Walks(seed, decay=decay)
        walks.tree("root", fans, 0.2, 0.6)
        heap = walks.heap()
        rooted_at = of_heap(heap)
        assert 0 < rooted_at.probability <= 1
        is_root = heap.names[rooted_at.tree.root] == "root"
        found.append(is_root and not rooted_at.began_alike.any())
    assert np.mean(found) >= 0.75


def test_the_root_is_found_with_steps_over_two_decades(weight_walks):
    right = []
    for seed in range(4):
        walks = weight_walks.Walks(seed)
        walks.tree("root", (4, 2), 0.01, 1)
        heap = walks.heap()
        right.append(heap.names[of_heap(heap).tree.root] == "root")
    assert np.mean(right) >= 0.75


@pytest.mark.parametrize("count", [2, 5])
def test_models_that_began_alike_have_no_root(count, weight_walks):
    for seed in range(3):
        walks = weight_walks.Walks(seed)
        start = walks.initial()
        for number in range(count):
            walks.root(f"m{number}", start, 0.3)
        heap = walks.heap()
        assert of_heap(heap).began_alike.sum() == count - 1
        forest = choose("lineage", "descent")(heap, None)
        assert not forest.edges
        assert set(forest.roots) == set(heap.names)
        assert "began alike" in forest.notes[0]


def test_a_parent_beside_models_that_began_like_it_is_theirs_no_more(weight_walks):
    """A root has learned its biases and gains, and its children go on from there."""
    walks = weight_walks.Walks(0)
    walks.root("root", step=0.3)
    for number in range(5):
        walks.child(f"child {number}", "root", 0.3)
    heap = walks.heap()
    found = of_heap(heap)
    assert not found.began_alike.any()
    assert heap.names[found.tree.root] == "root"


def relearned(walks, child, share):
    """Let a child learn so much more of what its parent's biases and gains have learned."""
    root = walks.tensors["root"]
    began = {name: float("norm" in name and "weight" in name) for name in root}
    changed = {
        name: value if value.ndim > 1 else value + np.float32(share) * (root[name] - began[name])
        for name, value in walks.tensors[child].items()
    }
    walks.put(child, changed, "root")


def test_soups_of_a_child_that_unlearned_much_make_its_parent_no_other_root(weight_walks):
    """It is one child of three, and its soups only say the same again."""
    walks = weight_walks.Walks(0)
    walks.root("root")
    children = [walks.child(f"child {number}", "root", 0.3) for number in range(3)]
    relearned(walks, "child 0", -0.2)
    for number, others in enumerate([children[:2], children[::2], children]):
        walks.soup(f"soup {number}", {name: 1 / len(others) for name in others})
    heap = walks.heap()
    forest = choose("lineage", "descent")(heap, None)
    assert forest.roots.keys() == {"root"}
    assert {edge.child for edge in forest.edges if edge.share < 1} == {
        name for name in heap.names if "soup" in name
    }


@pytest.mark.parametrize(("third", "is_root"), [(0.1, True), (-0.08, False)])
def test_of_children_that_unlearned_a_little_the_mean_has_to_agree(third, is_root, weight_walks):
    walks = weight_walks.Walks(0)
    walks.root("root")
    for number, share in enumerate([-0.08, -0.08, third]):
        walks.child(f"child {number}", "root", 0.3)
        relearned(walks, f"child {number}", share)
    assert of_heap(walks.heap()).began_alike.any() != is_root


def test_whom_a_model_cannot_have_as_an_ancestor_is_no_root(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (5,), 0.3, 0.3)
    heap = walks.heap()
    names = heap.names
    barred = np.zeros((len(heap), len(heap)), dtype=bool)
    barred[names.index("root.2"), names.index("root")] = True
    found = of_heap(heap, barred.__getitem__)
    assert names[found.tree.root] != "root"
    assert names[of_heap(heap).tree.root] == "root"


def test_where_everyone_is_barred_there_is_a_root_all_the_same(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (2,), 0.3, 0.3)
    barred = ~np.eye(3, dtype=bool)
    assert 0 <= of_heap(walks.heap(), barred.__getitem__).tree.root < 3


def test_one_model_is_its_own_root(weight_walks):
    walks = weight_walks.Walks(0)
    walks.root("root")
    found = of_heap(walks.heap())
    assert (found.tree.root, found.probability, found.began_alike.tolist()) == (0, 1.0, [False])


def test_without_biases_and_gains_the_weights_tell(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (4, 2), 0.3, 0.6)
    heap = walks.heap()
    found = rooted(stacked(heap, weight_layers(heap)), np.zeros((len(heap), len(heap))))
    assert heap.names[found.tree.root] == "root"
    assert not found.began_alike.any()


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_relabelled_models_have_the_relabelled_root(seed, weight_walks):
    walks = weight_walks.Walks(seed % 7)
    walks.tree("root", (3, 1))
    one = walks.heap()
    order = np.random.default_rng(seed).permutation(one.names).tolist()
    other = walks.heap(order)
    plain, again = of_heap(one), of_heap(other)
    assert one.names[plain.tree.root] == order[again.tree.root]
    assert plain.began_alike.any() == again.began_alike.any()
    assert again.probability == pytest.approx(plain.probability, rel=1e-6)


# What biases and gains began as


def test_what_was_learned_is_counted_from_zero_and_from_one(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (2,), 0.2, 0.5)
    heap = walks.heap()
    vectors = [
        np.concatenate(
            [
                model[name].double().numpy() - ("norm" in name and name.endswith("weight"))
                for name, shape in heap.shapes.items()
                if len(shape) == 1
            ]
        )
        for model in heap.models
    ]
    assert about_beginnings(heap) == pytest.approx(np.array(vectors) @ np.transpose(vectors))


def test_weight_layers_are_matrices_and_convolutions_or_all_there_is(weight_walks):
    walks = weight_walks.Walks(0)
    walks.root("root")
    heap = walks.heap()
    assert all(len(heap.shapes[name]) in (2, 4) for name in weight_layers(heap))
    assert {"blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"} <= set(weight_layers(heap))
    vectors = type(heap)(heap.models, ["norm.weight", "norm.bias"])
    assert weight_layers(vectors) == ["norm.weight", "norm.bias"]
    matrices = type(heap)(heap.models, weight_layers(heap))
    assert (about_beginnings(matrices) == 0).all()
