"""The least costly arborescence and the probabilities of edges are those of all that there are."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitarium.core.errors import InvalidInput
from vitarium.lineage.methods._arborescence import NO_PARENT, minimum_arborescence, probabilities

INTEGERS = st.integers(-3, 6).map(float)
"""Few of them, so that many trees cost the same."""
REALS = st.floats(-5, 5, allow_subnormal=False)
MISSING = st.sampled_from([np.inf, np.nan])


def graphs(max_nodes: int, missing: bool = True) -> st.SearchStrategy[np.ndarray]:
    return st.tuples(st.integers(1, max_nodes), st.sampled_from([INTEGERS, REALS])).flatmap(
        lambda size: arrays(
            np.float64,
            (size[0], size[0]),
            elements=st.one_of(size[1], MISSING) if missing else size[1],
        )
    )


def without_loops(costs: np.ndarray) -> np.ndarray:
    costs = np.where(np.isnan(costs), np.inf, costs)
    np.fill_diagonal(costs, np.inf)
    return costs


def rooted(costs: np.ndarray, root: int) -> np.ndarray:
    """Costs with no edge to a node, so that it is the root."""
    costs = costs.copy()
    costs[:, root] = np.inf
    return costs


def cost_of(parents, costs) -> float:
    return sum(costs[parent, node] for node, parent in enumerate(parents) if parent != NO_PARENT)


def is_tree(parents, root) -> bool:
    graph = nx.DiGraph((int(p), node) for node, p in enumerate(parents) if node != root)
    graph.add_nodes_from(range(len(parents)))
    return parents[root] == NO_PARENT and nx.is_arborescence(graph)


@settings(deadline=None, max_examples=150)
@given(costs=graphs(5))
def test_it_costs_the_least_of_all_with_the_best_root_and_with_each(costs, arborescences):
    least = arborescences.least_by_root(without_loops(costs))
    if np.isinf(least).all():
        with pytest.raises(InvalidInput, match="there is no spanning arborescence"):
            minimum_arborescence(costs)
        return
    tree = minimum_arborescence(costs)
    assert tree.cost == pytest.approx(least.min(), abs=1e-9)
    assert tree.root_costs == pytest.approx(least, abs=1e-9)
    assert is_tree(tree.parents, tree.root)
    assert cost_of(tree.parents, costs) == pytest.approx(tree.cost, abs=1e-12)
    for root, cost in enumerate(least):
        if np.isfinite(cost):
            given_root = minimum_arborescence(rooted(costs, root))
            assert given_root.root == root
            assert given_root.cost == pytest.approx(cost, abs=1e-9)
            assert is_tree(given_root.parents, root)


@settings(deadline=None, max_examples=3)
@given(costs=arrays(np.float64, (6, 6), elements=INTEGERS))
def test_with_six_nodes_too(costs, arborescences):
    least = arborescences.least_by_root(without_loops(costs))
    assert minimum_arborescence(costs).root_costs.tolist() == least.tolist()


@pytest.mark.parametrize("kind", ["random", "with ties", "in space", "sparse"])
def test_networkx_finds_no_cheaper_one(kind):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 3))
    costs = {
        "random": rng.random((40, 40)),
        "with ties": rng.integers(0, 4, (40, 40)).astype(float),
        "in space": np.linalg.norm(points[:, None] - points, axis=2) + rng.random(40),
        "sparse": np.where(rng.random((40, 40)) < 0.15, rng.random((40, 40)), np.inf),
    }[kind]
    graph = nx.DiGraph()
    for first, second in np.argwhere(np.isfinite(costs)):
        if first != second:
            graph.add_edge(int(first), int(second), weight=costs[first, second])
    expected = nx.minimum_spanning_arborescence(graph).size("weight")
    tree = minimum_arborescence(costs)
    assert tree.cost == pytest.approx(expected, rel=1e-12)
    assert is_tree(tree.parents, tree.root)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 30))
def test_relabelled_nodes_have_the_relabelled_tree(seed, count):
    rng = np.random.default_rng(seed)
    costs, order = rng.random((count, count)), rng.permutation(count)
    tree = minimum_arborescence(costs)
    shuffled = minimum_arborescence(costs[np.ix_(order, order)])
    assert order[shuffled.root] == tree.root
    for index, parent in enumerate(shuffled.parents):
        named = order[parent] if parent != NO_PARENT else NO_PARENT
        assert tree.parents[order[index]] == named


def test_a_graph_with_ties_costs_the_same_in_every_order():
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 3, (30, 30)).astype(float)
    for _ in range(5):
        order = rng.permutation(30)
        shuffled = minimum_arborescence(costs[np.ix_(order, order)])
        assert shuffled.cost == minimum_arborescence(costs).cost


def test_a_cheap_circle_is_entered_where_that_is_cheapest():
    costs = np.full((4, 4), np.inf)
    costs[0, 1] = costs[1, 2] = costs[2, 0] = 1  # the circle
    costs[3, 0], costs[3, 1], costs[3, 2] = 10, 8, 9
    tree = minimum_arborescence(costs)
    assert (tree.root, tree.parents.tolist(), tree.cost) == (3, [2, 3, 1, NO_PARENT], 10)


def test_a_long_chain_of_circles_in_circles_is_undone():
    count = 300
    costs = np.full((count, count), np.inf)
    for node in range(count - 1):
        costs[node, node + 1] = costs[node + 1, node] = node + 1
    tree = minimum_arborescence(rooted(costs, count - 1))
    assert tree.parents.tolist() == [*range(1, count), NO_PARENT]
    assert minimum_arborescence(costs).cost == tree.cost == count * (count - 1) / 2


def test_costs_of_different_size_keep_their_digits():
    rng = np.random.default_rng(0)
    costs = 1e12 + rng.integers(0, 100, (12, 12)) / 64  # exact in float64
    small = minimum_arborescence(costs - 1e12)
    assert minimum_arborescence(costs).parents.tolist() == small.parents.tolist()


def test_one_node_is_its_own_tree():
    tree = minimum_arborescence(np.zeros((1, 1)))
    assert (tree.root, tree.parents.tolist(), tree.cost) == (0, [NO_PARENT], 0)
    edges, roots = probabilities(np.zeros((1, 1)), tree, 1.0)
    assert np.isnan(edges).all()
    assert roots.tolist() == [1]


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        (np.zeros((2, 3)), "costs are \\[2, 3\\]"),
        (np.zeros((0, 0)), "at least 1"),
        (np.zeros(4), "\\[K, K\\]"),
        (np.array([[0, -np.inf], [1, 0]]), "give a finite one"),
        (np.array([[0, np.inf], [np.inf, 0]]), "no node reaches both"),
        (np.full((3, 3), np.nan), "no node reaches both 0 and 1"),
    ],
)
def test_what_has_no_tree_is_refused(costs, says):
    with pytest.raises(InvalidInput, match=says):
        minimum_arborescence(costs)


# Probabilities


def by_moves(costs, tree, temperature, arborescences):
    """Of each node's edge: among all trees without it, those that are one move away count."""
    trees = list(arborescences.every(costs))
    best = {
        root: min(cost for at, _, cost in trees if at == root) for root in {at for at, *_ in trees}
    }
    now = tree.parents.tolist()
    probability = np.full(len(now), np.nan)
    for child, parent in enumerate(now):
        if parent == NO_PARENT:
            continue
        alternatives = [best[child]] if child in best else []
        for _, parents, cost in trees:
            changed = {node for node in range(len(now)) if parents[node] != now[node]}
            if changed == {child} and parents[child] != NO_PARENT:
                alternatives.append(cost)
            alternatives += [
                cost
                for below in changed - {child}
                if changed == {child, below}
                and now[below] == child
                and parents[below] == parent
                and parents[child] == below
            ]
        probability[child] = 1 / (
            1 + sum(np.exp(-(cost - tree.cost) / temperature) for cost in alternatives)
        )
    return probability


@settings(deadline=None, max_examples=60)
@given(costs=graphs(4), temperature=st.sampled_from([0.3, 1, 5]))
def test_probabilities_are_shares_of_trees_one_move_away(costs, temperature, arborescences):
    costs = without_loops(costs)
    least = arborescences.least_by_root(costs)
    if np.isinf(least).all():
        return
    tree = minimum_arborescence(costs)
    edges, roots = probabilities(costs, tree, temperature)
    expected = by_moves(costs, tree, temperature, arborescences)
    assert edges == pytest.approx(expected, abs=1e-9, nan_ok=True)
    weights = np.exp(-(least - least.min()) / temperature)
    assert roots == pytest.approx(weights / weights.sum(), abs=1e-9)


def test_in_the_cold_the_only_least_costly_tree_is_certain():
    costs = np.random.default_rng(0).random((20, 20))
    tree = minimum_arborescence(costs)
    edges, roots = probabilities(costs, tree, 1e-6)
    assert roots[tree.root] == pytest.approx(1)
    assert np.delete(edges, tree.root) == pytest.approx(np.ones(19))


def test_trees_that_cost_the_same_share():
    costs = np.ones((2, 2))
    edges, roots = probabilities(costs, minimum_arborescence(costs), 0.1)
    assert np.nanmax(edges) == 0.5
    assert roots.tolist() == [0.5, 0.5]


def test_near_models_beside_far_ones_have_probabilities_all_the_same():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1e-6, (20, 3)), rng.normal(10, 1e-6, (20, 3))])
    costs = np.linalg.norm(points[:, None] - points, axis=2)
    tree = minimum_arborescence(costs)
    edges, roots = probabilities(costs, tree, 1e-7)
    assert ((np.delete(edges, tree.root) > 0) & (np.delete(edges, tree.root) <= 1)).all()
    assert roots.sum() == pytest.approx(1)
