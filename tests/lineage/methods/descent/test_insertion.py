"""Models are let down to their parents in walks that are known, whatever their order."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.lineage.methods.descent._relations import Geometry
from vitarium.lineage.methods.descent._trees import insert_models

LAYERS = (2304, 6912, 2304, 9216, 9216)


def walk(
    noise, fans=(5, 3), steps=(0.03, 1.0), similarity=0.6, decay=0.0, layers=LAYERS
) -> tuple[np.ndarray, list[int]]:
    """Models [K, numbers] of a tree and their parents: siblings' steps are alike in some layers.

    A step of length 1 is as long as the root; decay is the share of the parent it takes away.
    """
    models, parents, generation = [noise.normal(size=sum(layers))], [-1], [0]
    sizes = np.repeat(np.exp(noise.normal(0, 0.3, len(layers))), layers)
    for fan in fans:
        below = []
        for parent in generation:
            share = np.repeat(similarity * noise.random(len(layers)), layers)
            common = noise.normal(size=sum(layers))
            for _ in range(fan):
                independent = noise.normal(size=sum(layers))
                step = np.exp(noise.uniform(*np.log(steps)))
                way = share**0.5 * common + (1 - share) ** 0.5 * independent
                models.append((1 - decay * step) * models[parent] + step * sizes * way)
                parents.append(parent)
                below.append(len(models) - 1)
        generation = below
    return np.array(models), parents


def grams(models, layers=LAYERS) -> np.ndarray:
    ends = np.cumsum(layers)
    parts = [models[:, end - size : end] for end, size in zip(ends, layers, strict=True)]
    return np.stack([part @ part.T for part in parts])


def relabelled(values, parents, order) -> tuple[np.ndarray, list[int]]:
    """Inner products and parents of models in another order."""
    new_index = {int(old): new for new, old in enumerate(order)} | {-1: -1}
    return values[:, order][:, :, order], [new_index[parents[old]] for old in order]


@pytest.mark.parametrize(("decay", "least"), [(0, 0.01), (0.05, 0.1)])
def test_parents_are_found_whatever_the_lengths_of_steps(decay, least):
    right = []
    for seed in range(6):
        noise = np.random.default_rng(seed)
        models, parents = walk(noise, steps=(least, 1), decay=decay)
        order = noise.permutation(len(models))
        values, truth = relabelled(grams(models), parents, order)
        tree = insert_models(Geometry(values), truth.index(-1))
        assert (tree.posterior >= 0).all()
        assert np.delete(tree.posterior.sum(1), tree.root) == pytest.approx(1)
        right += [p == t for p, t in zip(tree.parents.tolist(), truth, strict=True)]
    assert np.mean(right) >= 0.8


@pytest.mark.parametrize("fans", [(12,), (1, 1, 1, 1), (2, 2, 2), (1, 8), (8, 1)])
def test_fans_chains_and_deep_trees_are_found(fans):
    right = []
    for seed in range(4):
        models, parents = walk(np.random.default_rng(seed), fans, steps=(0.4, 0.4))
        right.append((insert_models(Geometry(grams(models)), 0).parents == parents).mean())
    assert np.mean(right) >= 0.95


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_relabelled_models_have_the_relabelled_tree(seed):
    noise = np.random.default_rng(seed)
    models, _ = walk(noise, (4, 2), layers=(300, 900, 500))
    values = grams(models, (300, 900, 500))
    plain = insert_models(Geometry(values), 0)
    order = noise.permutation(len(models))
    again_values, expected = relabelled(values, plain.parents.tolist(), order)
    again = insert_models(Geometry(again_values), expected.index(-1))
    assert again.parents.tolist() == expected
    assert again.posterior == pytest.approx(plain.posterior[np.ix_(order, order)], abs=1e-6)


def test_nobody_descends_from_whom_it_cannot():
    models, parents = walk(np.random.default_rng(0), (3, 2), steps=(0.4, 0.4))
    geometry = Geometry(grams(models))
    barred = np.zeros((10, 10), dtype=bool)
    grandchild = 9
    barred[grandchild, parents[grandchild]] = True
    tree = insert_models(geometry, 0, barred)
    assert tree.parents[grandchild] != parents[grandchild]
    rest = np.delete(np.arange(10), grandchild)
    assert (tree.parents[rest] == np.array(parents)[rest]).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 12), size=st.integers(1, 40))
def test_whatever_the_models_it_is_a_tree_with_probabilities(seed, count, size):
    noise = np.random.default_rng(seed)
    models = noise.normal(size=(count, size)) * 10 ** noise.uniform(-2, 2, (count, 1))
    models[noise.integers(count)] = models[0]
    root = int(noise.integers(count))
    tree = insert_models(Geometry(grams(models, (size,))), root)
    assert tree.root == root
    assert tree.parents[root] == -1
    edges = [(int(p), child) for child, p in enumerate(tree.parents) if child != root]
    graph = networkx.DiGraph(edges)
    graph.add_node(root)
    assert networkx.is_arborescence(graph)
    assert len(graph) == count
    assert np.delete(tree.posterior.sum(1), root) == pytest.approx(1)
    assert not tree.posterior[root].any()
