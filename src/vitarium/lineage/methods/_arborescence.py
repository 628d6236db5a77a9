"""Minimum spanning arborescences of dense graphs (networkx has sparse ones), and probabilities."""

from typing import NamedTuple

import numpy as np

from vitarium.core.errors import InvalidInput

NO_PARENT = -1


class Arborescence(NamedTuple):
    """A tree in which every node but the root has one parent, of the least sum of costs."""

    root: int
    parents: np.ndarray  # of every node, int64 [K]; NO_PARENT of the root
    cost: float  # sum over the edges
    root_costs: np.ndarray
    """The least sum with each node as the root, float64 [K]; inf where it cannot be."""


def minimum_arborescence(costs: np.ndarray) -> Arborescence:
    """The spanning arborescence of least cost, by contracting circles of cheapest edges; of several
    that cost the same, which it is depends on the order of the nodes.

    Costs are float64 [K, K], at i, j of the edge from i to j, of any sign; inf or NaN where there
    is none; the diagonal is not looked at. Raises InvalidInput where no node reaches all others.

    Time K^2 for a complete graph, and a few numpy calls for each node (Tarjan 1977, Finding
    optimum branchings, Networks 7, with paths grown as by Gabow et al. 1986). The best root is
    found without a virtual one above all, whose edges would need a cost so high that digits are
    lost: once all nodes are contracted to one, what each saves as the root is known.
    """
    edges = _validated(costs)
    contraction = _Contraction(edges.copy())
    root_costs = contraction.root_costs()
    best = int(root_costs.argmin())
    parents = contraction.parents(best)
    children = np.flatnonzero(parents != NO_PARENT)
    cost = float(edges[parents[children], children].sum())
    return Arborescence(best, parents, cost, root_costs)


def probabilities(
    costs: np.ndarray, tree: Arborescence, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """How probable the tree's edges are, and each root, where trees are drawn by exp(-cost / T).

    A root's is exact: its best tree counts, of the best trees of all roots. An edge's counts the
    tree itself, and every tree that is one move away and lacks the edge: the child has another
    parent, or is the root (of the best such tree), or changes places with one of its children.
    (All trees could be counted by the matrix-tree theorem; but the determinant has no digits left
    where some models are very near to each other, and others far.)

    Costs are float64 [K, K], as the tree was found with; T is in their unit, above 0. Returns
    float64 [K] of each node's edge from its parent, NaN of the root's, and of each as the root.
    """
    edges, nodes = _validated(costs), np.arange(len(costs))
    as_root = np.exp((tree.root_costs.min() - tree.root_costs) / temperature)
    children = np.flatnonzero(tree.parents != NO_PARENT)
    parents = tree.parents[children]
    paid = np.zeros(len(costs))
    paid[children] = edges[parents, children]

    possible = np.ones(edges.shape, dtype=bool)
    below, ancestors = nodes, nodes
    while len(below):  # no descendant of a node, nor itself, can be its parent
        possible[below, ancestors] = False
        ancestors = tree.parents[ancestors]
        below, ancestors = below[ancestors != NO_PARENT], ancestors[ancestors != NO_PARENT]
    possible[parents, children] = False
    weights = np.exp(-np.maximum(np.where(possible, edges - paid, np.inf), 0) / temperature)
    alternatives = weights.sum(0) + as_root
    for node in children[parents != tree.root]:  # it and its parent change places
        parent = tree.parents[node]
        above = tree.parents[parent]
        rise = edges[above, node] + edges[node, parent] - paid[node] - paid[parent]
        alternatives[parent] += np.exp(-max(rise, 0) / temperature)
    return np.where(nodes == tree.root, np.nan, 1 / (1 + alternatives)), as_root / as_root.sum()


def _validated(costs: np.ndarray) -> np.ndarray:
    """A copy of costs [K, K], inf where there is no edge."""
    edges = np.array(costs, dtype=np.float64)
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1] or not len(edges):
        raise InvalidInput(f"costs are {list(edges.shape)}; they are to be [K, K], K at least 1")
    if np.isneginf(edges).any():
        raise InvalidInput("a cost is -inf, so that no tree is the cheapest; give a finite one")
    edges[np.isnan(edges)] = np.inf
    np.fill_diagonal(edges, np.inf)
    return edges


class _Contraction:
    """Circles of cheapest edges contracted to one node each, until no circle is left. The graph's K
    nodes are numbered first, at most K - 1 contracted ones follow. One lies at the index of one of
    its members in `costs`: what edges cost, less what the node they lead to has paid already."""

    def __init__(self, costs: np.ndarray) -> None:
        self.count = len(costs)
        self.costs = costs
        self.edges = np.arange(costs.size).reshape(costs.shape)
        """The cheapest edge between two indices, as tail * K + head; int [K, K]."""
        self.node_at = list(range(self.count))
        # by node: which of the K it consists of, the contracted one that it is part of, what the
        # cheapest edge to it costs beyond what its members have paid, and that edge
        self.members = [[node] for node in range(self.count)]
        self.container = [NO_PARENT] * self.count
        self.paid = [0.0] * self.count
        self.entered = [NO_PARENT] * self.count
        self.source = NO_PARENT  # the node that no edge leads to, so that the root is in it
        self._active = np.ones(self.count, dtype=bool)
        done = np.zeros(self.count, dtype=bool)
        for start in range(self.count):
            path = [start] if self._active[start] and not done[start] else []
            while path:
                tail = self._enter(path[-1])
                if tail == NO_PARENT or done[tail]:
                    done[path] = True
                    break
                if tail in path:
                    circle = path[path.index(tail) :]
                    del path[-len(circle) + 1 :]
                    self._contract(circle)
                else:
                    path.append(tail)

    def root_costs(self) -> np.ndarray:
        """See `Arborescence`. Nothing that the root is part of needs an edge; all else does."""
        costs = np.full(self.count, np.inf)
        saved = [0.0] * len(self.paid)
        for node in reversed(range(len(self.paid))):
            around = self.container[node]
            saved[node] = self.paid[node] + (saved[around] if around != NO_PARENT else 0.0)
        roots = self.members[self.source]
        costs[roots] = sum(self.paid) - np.array(saved)[roots]
        return costs

    def parents(self, root: int) -> np.ndarray:
        """See `Arborescence`. The last contraction is undone first: who is entered leaves it."""
        entered = list(self.entered)
        entered[self.source] = root
        settled = [False] * len(entered)
        for node in reversed(range(len(entered))):
            edge, member = entered[node], entered[node] % self.count
            while not settled[node]:
                entered[member] = edge
                settled[member] = True
                member = self.container[member]
        parents = np.array(entered[: self.count]) // self.count
        parents[root] = NO_PARENT
        return parents

    def _enter(self, head: int) -> int:
        """Pay for the cheapest edge to the node at index `head`; the index that it comes from."""
        node = self.node_at[head]
        costs = np.where(self._active, self.costs[:, head], np.inf)
        costs[head] = np.inf
        tail = int(costs.argmin())
        if np.isfinite(costs[tail]):
            self.paid[node] = float(costs[tail])
            self.entered[node] = int(self.edges[tail, head])
            return tail
        if self.source != NO_PARENT:
            source_node, unreached_node = self.members[self.source][0], self.members[node][0]
            what = f"no node reaches both {source_node} and {unreached_node}"
            why = "along the edges that have a cost: there is no spanning arborescence"
            raise InvalidInput(f"{what} {why}")
        self.source = node
        return NO_PARENT

    def _contract(self, circle: list[int]) -> None:
        """Make one node of those at the indices of a circle; it lies at the first of these."""
        nodes, first = [self.node_at[index] for index in circle], circle[0]
        members, everyone = np.array(circle), np.arange(self.count)
        into = self.costs[:, members] - np.array([self.paid[node] for node in nodes])
        nearest = into.argmin(1)
        out = self.costs[members]
        leaving_from = out.argmin(0)
        entering = self.edges[everyone, members[nearest]]
        leaving = self.edges[members[leaving_from], everyone]
        self.costs[:, first], self.edges[:, first] = into[everyone, nearest], entering
        self.costs[first], self.edges[first] = out[leaving_from, everyone], leaving
        self._active[circle[1:]] = False
        self.node_at[first] = len(self.members)
        for node in nodes:
            self.container[node] = len(self.members)
        self.members.append([member for node in nodes for member in self.members[node]])
        self.container.append(NO_PARENT)
        self.paid.append(0.0)
        self.entered.append(NO_PARENT)
