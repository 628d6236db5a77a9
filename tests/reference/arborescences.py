"""All spanning arborescences of a small graph, by trying every parent of every node."""

import itertools
from collections.abc import Iterator

import numpy as np


def every(costs: np.ndarray) -> Iterator[tuple[int, list[int], float]]:
    """Root, parents (-1 of the root) and cost of each whose edges all have a finite cost."""
    count = len(costs)
    for root in range(count):
        others = [node for node in range(count) if node != root]
        for chosen in itertools.product(range(count), repeat=count - 1):
            parents = [-1] * count
            for node, parent in zip(others, chosen, strict=True):
                parents[node] = parent
            if _reaches_all(parents, root):
                cost = sum(float(costs[parents[node], node]) for node in others)
                if np.isfinite(cost):
                    yield root, parents, cost


def least_by_root(costs: np.ndarray) -> np.ndarray:
    """The least cost with each node as the root; inf where there is none."""
    found = np.full(len(costs), np.inf)
    for root, _, cost in every(costs):
        found[root] = min(found[root], cost)
    return found


def _reaches_all(parents: list[int], root: int) -> bool:
    for start in range(len(parents)):
        node, steps = start, 0
        while node != root and steps < len(parents):
            node, steps = parents[node], steps + 1
        if node != root:
            return False
    return True
