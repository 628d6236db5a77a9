"""Our own method on made-up models: trees, copies, soups, roundings, prunings, differences of low rank."""

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet


def recover(model_set, trees=None, **options):
    return choose("lineage", "descent", **options)(model_set, trees)


def parents(forest) -> dict[str, tuple[str, ...]]:
    return {model: tuple(sorted(of)) for model, of in forest.parents.items()}


def right(forest, walks) -> float:
    truth = {model: tuple(sorted(of)) for model, of in walks.parents.items()}
    return np.mean([parents(forest)[model] == truth[model] for model in truth])


def kind(forest, child) -> str:
    (edge,) = forest.parents[child].values()
    return edge.kind


def by_family(forest) -> list[set[str]]:
    return [set(tree) for tree in forest.trees]


@pytest.fixture
def walks(weight_walks):
    """Two trees of three stages."""
    trees = weight_walks.Walks(0)
    trees.tree("a", (3, 2), 0.2, 0.6)
    trees.tree("b", (3, 2), 0.2, 0.6)
    return trees


def test_trees_of_three_stages_are_found(walks):
    forest = recover(walks.model_set())
    assert right(forest, walks) == 1
    assert set(forest.roots) == {"a", "b"}
    assert len(set(forest.families)) == 2
    assert not forest.tied
    assert not forest.notes
    assert {edge.kind for edge in forest.edges} == {"trained"}
    assert {edge.share for edge in forest.edges} == {1}


def test_one_family_alone_is_one_tree(weight_walks):
    grown = weight_walks.Walks(1)
    grown.tree("a", (4, 2), 0.2, 0.6)
    forest = recover(grown.model_set())
    assert right(forest, grown) == 1
    assert set(forest.families) == {0}


def test_unrelated_models_are_roots(weight_walks):
    grown = weight_walks.Walks(2)
    for name in "abcd":
        grown.root(name)
    forest = recover(grown.model_set(["a", "b", "c", "d"]))
    assert set(forest.roots) == set("abcd")
    assert min(forest.roots.values()) > 0.99
    assert list(forest.families) == [0, 1, 2, 3]
    assert not forest.edges


@pytest.mark.parametrize("related", [True, False])
def test_two_models_are_a_pair_or_strangers(related, weight_walks):
    grown = weight_walks.Walks(3)
    grown.root("a")
    _ = grown.child("b", "a", 0.4) if related else grown.root("b")
    forest = recover(grown.model_set())
    assert parents(forest) == ({"a": (), "b": ("a",)} if related else {"a": (), "b": ()})


def test_one_model_is_a_root(weight_walks):
    grown = weight_walks.Walks(3)
    grown.root("a")
    forest = recover(grown.model_set())
    assert (list(forest.families), list(forest.edges), forest.roots) == ([0], [], {"a": 1.0})


# Copies


@pytest.mark.parametrize("original", ["a", "a.0", "a.1.0"])
def test_copies_are_tied_and_said_to_be(original, walks):
    walks.put("0 twin", walks.tensors[original], original)
    walks.put("z twin", walks.tensors[original], original)
    forest = recover(walks.model_set())
    group = tuple(sorted(["0 twin", original, "z twin"]))
    assert forest.tied == [group]
    for copy in group[1:]:  # the first by name stands for all
        (edge,) = forest.parents[copy].values()
        assert (edge.parent, edge.kind) == (group[0], "copy")
        assert edge.confidence == pytest.approx(1 / 3)
    assert len(set(forest.families)) == 2
    rest = {model: of for model, of in parents(forest).items() if model not in group}
    truth = {
        model: tuple("0 twin" if parent == original else parent for parent in of)
        for model, of in walks.parents.items()
        if model not in group
    }
    assert rest == truth


def test_where_all_are_copies_all_is_tied(weight_walks):
    grown = weight_walks.Walks(0)
    for name in "cab":
        grown.put(name, grown.tensors["c"] if grown.tensors else grown.initial())
    forest = recover(grown.model_set())
    assert forest.tied == [("a", "b", "c")]
    assert set(forest.roots) == {"a"}
    assert {edge.kind for edge in forest.edges} == {"copy"}
    assert set(forest.families) == {0}


# Soups


@pytest.mark.parametrize("shares", [{"a.0": 0.5, "a.1": 0.5}, {"a.0": 0.2, "a.1": 0.5, "a.2": 0.3}])
def test_soups_have_all_ingredients_as_parents_with_their_shares(shares, walks):
    walks.soup("soup", shares)
    forest = recover(walks.model_set())
    assert right(forest, walks) == 1
    edges = forest.parents["soup"]
    assert {name: edge.share for name, edge in edges.items()} == pytest.approx(shares, abs=0.01)
    assert {edge.kind for edge in edges.values()} == {"merged"}
    assert "soup" not in forest.roots
    assert len(set(forest.families)) == 2


def test_without_looking_for_mixtures_a_soup_has_one_parent(walks):
    walks.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    forest = recover(walks.model_set(), mixtures=False)
    assert len(forest.parents["soup"]) <= 1
    assert {edge.kind for edge in forest.edges} == {"trained"}


def test_a_soup_across_trees_leaves_every_tree_its_root(walks):
    walks.soup("soup", {"a.0": 0.5, "b.1": 0.5})
    forest = recover(walks.model_set())
    assert right(forest, walks) == 1
    assert set(forest.roots) == {"a", "b"}
    assert set(forest.families) == {0}  # it connects them: they are one, with two roots


def test_a_model_trained_from_a_soup_has_the_soup_as_its_parent(walks):
    walks.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    walks.child("trained", "soup", 0.3)
    forest = recover(walks.model_set())
    assert parents(forest)["soup"] == ("a.0", "a.1")
    assert parents(forest)["trained"] == ("soup",)
    assert right(forest, walks) == 1


def test_a_copy_of_a_soup_is_tied_to_it(walks):
    walks.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    walks.put("twin", walks.tensors["soup"], "soup")
    forest = recover(walks.model_set())
    assert forest.tied == [("soup", "twin")]
    assert parents(forest)["soup"] == ("a.0", "a.1")
    assert kind(forest, "twin") == "copy"
    assert right(forest, walks) == 1


@pytest.mark.parametrize("trees", [1, 2, 3])
def test_as_many_trees_as_are_asked_for_with_soups_in_them(trees, walks):
    walks.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    forest = recover(walks.model_set(), trees)
    assert len(set(forest.families)) == trees
    if trees == 2:
        assert right(forest, walks) == 1


@pytest.mark.parametrize("trees", [0, 21])
def test_impossible_numbers_of_trees_are_refused(trees, walks):
    with pytest.raises(InvalidInput, match=f"cannot be {trees} trees"):
        recover(walks.model_set(), trees)


# What storage leaves


def quantized(tensors):
    """Matrices in 255 even steps a row, as int8 stores them."""

    def rounded(value):
        if value.ndim < 2:
            return value
        rows = value.reshape(len(value), -1)
        scale = np.abs(rows).max(1, keepdims=True) / 127
        return (np.round(rows / scale) * scale).reshape(value.shape)

    return {name: rounded(value) for name, value in tensors.items()}


def pruned(tensors):
    return {
        name: value * (np.abs(value) > np.median(np.abs(value))) if value.ndim > 1 else value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize("original", ["a", "a.0", "a.1.0"])
@pytest.mark.parametrize(("compress", "expected"), [(quantized, "quantized"), (pruned, "pruned")])
def test_a_model_stored_with_less_has_the_one_it_was_made_of(original, compress, expected, walks):
    walks.put("less", compress(walks.tensors[original]), original)
    forest = recover(walks.model_set())
    assert parents(forest)["less"] == (original,)
    assert kind(forest, "less") == expected
    assert right(forest, walks) >= 0.95  # a child of either is as near to the other


def test_a_difference_of_low_rank_is_said_to_be_one(walks):
    noise = np.random.default_rng(0)
    changed = {
        name: value + 0.004 * noise.normal(size=(len(value), 4)) @ noise.normal(size=(4, 48))
        if name.endswith("qkv.weight")
        else value
        for name, value in walks.tensors["a.0"].items()
    }
    walks.put("adapted", changed, "a.0")
    forest = recover(walks.model_set())
    assert parents(forest)["adapted"] == ("a.0",)
    assert kind(forest, "adapted") == "low_rank"


# Epochs of one run


def test_epochs_of_one_run_come_in_order(weight_walks):
    right = []
    for seed in range(4):
        grown = weight_walks.Walks(seed)
        before = grown.root("start")
        direction = grown.direction()
        for epoch in range(1, 6):
            independent = grown.direction()
            size = 0.4 * 0.8**epoch
            step = {n: size * 0.5**0.5 * (direction[n] + independent[n]) for n in direction}
            tensors = {n: value + step[n] for n, value in grown.tensors[before].items()}
            before = grown.put(f"epoch {epoch}", tensors, before)
        forest = recover(grown.model_set())
        right += [parents(forest)[model] == of for model, of in grown.parents.items()]
    assert np.mean(right) >= 0.8


# Of all sets


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_order_and_names_of_models_mean_nothing(seed, weight_walks):
    grown = weight_walks.Walks(seed % 5)
    grown.tree("a", (3, 1), 0.2, 0.6)
    grown.tree("b", (2,), 0.2, 0.6)
    grown.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    plain = recover(grown.model_set())
    noise = np.random.default_rng(seed)
    renamed = {
        name: f"{number:03}"
        for name, number in zip(grown.tensors, noise.permutation(100), strict=False)
    }
    models = [Weights(renamed[m.name], dict(m)) for m in grown.model_set().models]
    shuffled = ModelSet(models, list(models[0]))
    again = recover(shuffled)
    assert list(again.models) == shuffled.names
    confidences = {(edge.parent, edge.child): edge.confidence for edge in again.edges}
    expected = {(renamed[e.parent], renamed[e.child]): e.confidence for e in plain.edges}
    assert confidences == pytest.approx(expected, rel=1e-6)
    assert again.roots == pytest.approx({renamed[n]: c for n, c in plain.roots.items()}, rel=1e-6)
    groups = {frozenset(renamed[name] for name in tree) for tree in by_family(plain)}
    assert groups == {frozenset(tree) for tree in by_family(again)}


WAYS = (
    lambda first, second, more: more,
    lambda first, second, more: first,
    lambda first, second, more: first + 0.1 * more,
    lambda first, second, more: (first + second) / 2,
    lambda first, second, more: 2 * first - second,
    lambda first, second, more: 0 * first,
    lambda first, second, more: first.bfloat16().float(),
    lambda first, second, more: first.clamp(min=0),
)
"""Of two models that are there and random numbers: unrelated, a copy, a child, a mean, ..."""
SMALL = {"fc.weight": (12, 8), "fc.bias": (12,), "norm.weight": (8,)}


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**31), count=st.integers(1, 9))
def test_of_any_garbage_there_are_no_circles_and_probabilities_are_some(data, seed, count):
    noise = torch.Generator().manual_seed(seed)

    def random():
        size = 10 ** (2 * torch.rand(1, generator=noise).item() - 1)
        return {n: size * torch.randn(s, generator=noise) for n, s in SMALL.items()}

    models = [random()]
    for _ in range(count - 1):
        first, second = (
            models[data.draw(st.integers(0, len(models) - 1), label="of")] for _ in range(2)
        )
        way = data.draw(st.sampled_from(WAYS), label="way")
        more = random()
        models.append({n: way(first[n], second[n], more[n]) for n in SMALL})
    model_set = ModelSet(
        [Weights(f"m{n}", tensors) for n, tensors in enumerate(models)], list(SMALL)
    )
    forest = recover(model_set)
    graph = networkx.DiGraph([(edge.parent, edge.child) for edge in forest.edges])
    assert networkx.is_directed_acyclic_graph(graph)
    assert all(0 <= edge.confidence <= 1 and 0 < edge.share <= 1 for edge in forest.edges)
    assert all(0 <= confidence <= 1 for confidence in forest.roots.values())
    for model, of in forest.parents.items():
        assert bool(of) != (model in forest.roots), model
        if of:
            assert sum(edge.share for edge in of.values()) == pytest.approx(1)
