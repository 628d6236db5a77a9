"""What holds for every method of lineage recovery that is registered."""

from pathlib import Path

import networkx
import numpy as np
import pytest

from vitarium.core import registry
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.files.forests import read_json, write_json
from vitarium.lineage.model_set import Heap

METHODS = registry.plugins("lineage")
OWN = {"descent", "nearest_root"}
"""Without a paper: our own, and what anyone would try first."""


@pytest.fixture(scope="module")
def walks(weight_walks):
    """Two trees, a soup and a copy."""
    known = weight_walks.Walks(0)
    known.tree("a", (3, 1), 0.2, 0.6)
    known.tree("b", (3,), 0.2, 0.6)
    known.soup("soup", {"a.0": 0.5, "a.1": 0.5})
    known.put("twin", known.tensors["b.1"], "b.1")
    return known


@pytest.fixture(scope="module")
def heap(walks):
    return walks.heap()


def recover(name, heap, trees=None):
    return choose("lineage", name)(heap, trees)


def check(forest, heap):
    assert list(forest.models) == heap.names
    families = list(forest.families)
    assert len(families) == len(heap)
    assert list(dict.fromkeys(families)) == list(range(len(set(families))))
    family = dict(zip(forest.models, families, strict=True))
    graph = networkx.DiGraph()
    graph.add_nodes_from(forest.models)
    for edge in forest.edges:
        assert family[edge.parent] == family[edge.child]
        assert 0 <= edge.confidence <= 1
        assert 0 < edge.share <= 1
        graph.add_edge(edge.parent, edge.child)
    assert networkx.is_directed_acyclic_graph(graph)
    assert len(graph) == len(heap)
    for model, of in forest.parents.items():
        assert of or model in forest.roots, f"{model} has no parent and is no root"
        if of:
            assert sum(edge.share for edge in of.values()) == pytest.approx(1)
    assert forest.roots.keys() <= set(forest.models)
    assert all(0 <= sure <= 1 for sure in forest.roots.values())


def test_each_is_told_in_one_line_and_names_its_paper():
    for name, plugin in METHODS.items():
        assert 10 < len(plugin.summary) <= 100, name
        assert plugin.summary.endswith("."), name
        assert plugin.facts.get("paper") or name in OWN, name


def test_each_setting_is_explained():
    for name, plugin in METHODS.items():
        for field, about in plugin.config.model_fields.items():
            assert about.description, f"{name}: the setting {field} has no docstring"


def test_each_stands_in_the_guide():
    guide = Path(__file__).parents[2] / "docs" / "lineage.md"
    text = guide.read_text()
    assert not [
        name
        for name in METHODS
        if f"`{name}`" not in text and f"`{name.replace('_', '-')}`" not in text
    ]


@pytest.mark.parametrize("name", METHODS)
def test_each_gives_a_forest_of_all_models(name, heap):
    found = recover(name, heap)
    assert found.method == name
    check(found, heap)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("count", [1, 2])
def test_each_takes_few_models(name, count, heap):
    few = heap.part(range(count))
    check(recover(name, few), few)


@pytest.mark.parametrize("name", METHODS)
def test_each_says_which_models_are_copies(name, heap):
    assert [tuple(sorted(group)) for group in recover(name, heap).tied] == [("b.1", "twin")]


@pytest.mark.parametrize("name", METHODS)
def test_files_keep_what_each_gives(name, heap, tmp_path):
    found = recover(name, heap)
    write_json(found, tmp_path / "forest.json")
    kept = read_json(tmp_path / "forest.json").forest
    assert kept.parents == found.parents
    assert (list(kept.models), list(kept.families)) == (list(found.models), list(found.families))
    assert kept.roots == found.roots
    assert [list(group) for group in kept.tied] == [list(group) for group in found.tied]
    assert list(kept.notes) == list(found.notes)


@pytest.mark.parametrize("name", METHODS)
def test_shuffled_models_have_the_same_forest(name, walks, heap):
    plain = recover(name, heap)
    order = np.random.default_rng(1).permutation(heap.names).tolist()
    again = recover(name, walks.heap(order))
    assert list(again.models) == order
    ours, theirs = ({(e.parent, e.child, e.kind) for e in f.edges} for f in (plain, again))
    assert ours == theirs
    confidences = {(e.parent, e.child): e.confidence for e in plain.edges}
    assert {(e.parent, e.child): e.confidence for e in again.edges} == pytest.approx(
        confidences, rel=1e-6
    )
    assert again.roots == pytest.approx(plain.roots, rel=1e-6)
    families = [{frozenset(tree) for tree in forest.trees} for forest in (plain, again)]
    assert families[0] == families[1]
    check(again, walks.heap(order))


@pytest.mark.parametrize("name", METHODS)
def test_names_mean_nothing(name, walks):
    """But where weights leave a choice, between copies."""
    different = walks.heap([model for model in walks.tensors if model != "twin"])
    renamed = {m: f"{n:02}" for n, m in enumerate(sorted(different.names, reverse=True))}
    other = Heap([Weights(renamed[m.name], dict(m)) for m in different.models], different.tensors)
    plain, again = recover(name, different), recover(name, other)
    edges = {(renamed[edge.parent], renamed[edge.child]) for edge in plain.edges}
    assert edges == {(edge.parent, edge.child) for edge in again.edges}
    assert again.roots == pytest.approx({renamed[m]: c for m, c in plain.roots.items()}, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("trees", [1, 2, 3])
def test_each_gives_as_many_trees_as_are_asked_for(name, trees, walks):
    heap = walks.heap([model for model in walks.tensors if model not in ("soup", "twin")])
    found = recover(name, heap, trees)
    check(found, heap)
    assert len(set(found.families)) == trees


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("trees", [0, 100])
def test_impossible_numbers_of_trees_are_refused_with_the_number(name, trees, heap):
    with pytest.raises(InvalidInput, match=rf"\b{trees} trees"):
        recover(name, heap, trees)
