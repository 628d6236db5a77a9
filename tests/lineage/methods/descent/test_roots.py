"""Roots of walks in weight space are found by what weights, biases and gains began as."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.registry import choose
from vitarium.lineage.methods.descent._trees import centered_at_init, root_family


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("fans", [(6,), (4, 2)])
def test_the_root_of_a_walk_is_found_and_believed(fans, decay, weight_walks):
    right = []
    for seed in range(4):
        walks = weight_walks.Walks(seed, decay=decay)
        walks.tree("root", fans, 0.2, 0.6)
        model_set = walks.model_set()
        rooted_at = root_family(model_set)
        assert rooted_at.root_posterior.sum() == pytest.approx(1)
        is_root = model_set.names[rooted_at.tree.root] == "root"
        right.append(is_root and not rooted_at.shared_init.any())
    assert np.mean(right) >= 0.75


def test_the_root_is_found_with_steps_over_two_decades(weight_walks):
    right = []
    for seed in range(4):
        walks = weight_walks.Walks(seed)
        walks.tree("root", (4, 2), 0.01, 1)
        model_set = walks.model_set()
        right.append(model_set.names[root_family(model_set).tree.root] == "root")
    assert np.mean(right) >= 0.75


@pytest.mark.parametrize("count", [2, 5])
def test_models_that_began_alike_have_no_root(count, weight_walks):
    for seed in range(3):
        walks = weight_walks.Walks(seed)
        start = walks.initial()
        for number in range(count):
            walks.root(f"m{number}", start, 0.3)
        model_set = walks.model_set()
        assert root_family(model_set).shared_init.sum() == count - 1
        forest = choose("lineage", "descent")(model_set, None)
        assert not forest.edges
        assert set(forest.roots) == set(model_set.names)
        assert "began alike" in forest.notes[0]


def test_a_parent_beside_models_that_began_like_it_is_theirs_no_more(weight_walks):
    """A root has learned its biases and gains, and its children go on from there."""
    walks = weight_walks.Walks(0)
    walks.root("root", step=0.3)
    for number in range(5):
        walks.child(f"child {number}", "root", 0.3)
    model_set = walks.model_set()
    rooted = root_family(model_set)
    assert not rooted.shared_init.any()
    assert model_set.names[rooted.tree.root] == "root"


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
    for number, siblings in enumerate([children[:2], children[::2], children]):
        walks.soup(f"soup {number}", {name: 1 / len(siblings) for name in siblings})
    model_set = walks.model_set()
    forest = choose("lineage", "descent")(model_set, None)
    assert forest.roots.keys() == {"root"}
    assert {edge.child for edge in forest.edges if edge.share < 1} == {
        name for name in model_set.names if "soup" in name
    }


@pytest.mark.parametrize(("third", "is_root"), [(0.1, True), (-0.08, False)])
def test_of_children_that_unlearned_a_little_the_mean_has_to_agree(third, is_root, weight_walks):
    walks = weight_walks.Walks(0)
    walks.root("root")
    for number, share in enumerate([-0.08, -0.08, third]):
        walks.child(f"child {number}", "root", 0.3)
        relearned(walks, f"child {number}", share)
    assert root_family(walks.model_set()).shared_init.any() != is_root


def test_whom_a_model_cannot_have_as_an_ancestor_is_no_root(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (5,), 0.3, 0.3)
    model_set = walks.model_set()
    names = model_set.names
    barred = np.zeros((len(model_set), len(model_set)), dtype=bool)
    barred[names.index("root.2"), names.index("root")] = True
    rooted = root_family(model_set, barred)
    assert names[rooted.tree.root] != "root"
    assert names[root_family(model_set).tree.root] == "root"


def test_where_everyone_is_barred_there_is_a_root_all_the_same(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (2,), 0.3, 0.3)
    barred = ~np.eye(3, dtype=bool)
    assert 0 <= root_family(walks.model_set(), barred).tree.root < 3


def test_without_biases_and_gains_the_weights_tell(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (4, 2), 0.3, 0.6)
    model_set = walks.model_set()
    rooted = root_family(replace(model_set, tensors=model_set.weight_layers))
    assert model_set.names[rooted.tree.root] == "root"
    assert not rooted.shared_init.any()


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_relabelled_models_have_the_relabelled_root(seed, weight_walks):
    walks = weight_walks.Walks(seed % 7)
    walks.tree("root", (3, 1))
    first = walks.model_set()
    order = np.random.default_rng(seed).permutation(first.names).tolist()
    reordered = walks.model_set(order)
    plain, again = root_family(first), root_family(reordered)
    assert first.names[plain.tree.root] == order[again.tree.root]
    assert plain.shared_init.any() == again.shared_init.any()
    order_of_first = [first.names.index(name) for name in order]
    assert again.root_posterior == pytest.approx(plain.root_posterior[order_of_first], abs=1e-6)


# What biases and gains began as


def test_what_was_learned_is_counted_from_zero_and_from_one(weight_walks):
    walks = weight_walks.Walks(0)
    walks.tree("root", (2,), 0.2, 0.5)
    model_set = walks.model_set()
    vectors = [
        np.concatenate(
            [
                model[name].double().numpy() - ("norm" in name and name.endswith("weight"))
                for name, shape in model_set.shapes.items()
                if len(shape) == 1
            ]
        )
        for model in model_set.models
    ]
    assert centered_at_init(model_set) == pytest.approx(np.array(vectors) @ np.transpose(vectors))


def test_weight_layers_are_matrices_and_convolutions_or_all_there_is(weight_walks):
    walks = weight_walks.Walks(0)
    walks.root("root")
    model_set = walks.model_set()
    assert all(len(model_set.shapes[name]) in (2, 4) for name in model_set.weight_layers)
    assert {"blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"} <= set(model_set.weight_layers)
    vectors = type(model_set)(model_set.models, ["norm.weight", "norm.bias"])
    assert vectors.weight_layers == ["norm.weight", "norm.bias"]
    matrices = type(model_set)(model_set.models, model_set.weight_layers)
    assert (centered_at_init(matrices) == 0).all()
