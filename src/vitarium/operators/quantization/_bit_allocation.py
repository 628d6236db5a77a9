"""Bits of each layer under a budget of mean bits: more where more depends on the layer."""

import heapq
from collections.abc import Mapping


def allocate_bits(
    importances: Mapping[str, float],
    sizes: Mapping[str, int],
    mean_bits: float,
    *,
    fewest: int = 3,
    most: int = 8,
) -> dict[str, int]:
    """Bits by layer, from `fewest` to `most`, that minimize sum_l importance_l * 4^-bits_l.

    The squared error of a uniform quantizer falls to a quarter with each bit. The sum of
    size_l * bits_l stays at most mean_bits * sum_l size_l. Bits are given one by one where a weight
    gains most (greedy, exact for layers of equal size, since each bit gains a quarter of the one
    before; otherwise for the relaxed problem up to its last bit), and then to smaller layers that
    still fit. Layers of equal gain get theirs in the order of the names.

    Raises ValueError where `mean_bits` is below `fewest`, or names differ.
    """
    if importances.keys() != sizes.keys():
        raise ValueError("importances and sizes are of different layers")
    if mean_bits < fewest:
        raise ValueError(f"{mean_bits} mean bits are less than the fewest of a layer, {fewest}")
    bits = dict.fromkeys(sizes, fewest)
    left = mean_bits * sum(sizes.values()) - fewest * sum(sizes.values())

    def candidate(name: str) -> tuple[float, str]:
        gain = importances[name] * 4.0 ** -bits[name] * 0.75
        return -gain / sizes[name], name

    queue = [candidate(name) for name in sizes]
    heapq.heapify(queue)
    while queue:
        _, name = heapq.heappop(queue)
        if sizes[name] > left + 1e-9 or bits[name] == most:
            continue
        bits[name] += 1
        left -= sizes[name]
        heapq.heappush(queue, candidate(name))
    return bits


def mean_of_bits(bits: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Mean bits of a weight: sum_l size_l * bits_l / sum_l size_l."""
    return sum(sizes[name] * count for name, count in bits.items()) / sum(sizes.values())
