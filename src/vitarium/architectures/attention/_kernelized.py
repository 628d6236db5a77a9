"""Linear attention: products of mapped queries and keys in the place of a softmax."""

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional as F

Map = Callable[[Tensor], Tensor]

FEATURE_MAPS: Mapping[str, tuple[Map, Map]] = {
    "relu": (F.relu, F.relu),
    "elu1": (lambda query: F.elu(query) + 1, lambda key: F.elu(key) + 1),
    "softmax": (lambda query: query.softmax(-1), lambda key: key.softmax(-2)),
}
"""Maps of queries and of keys [..., n, head_dim], by name; none of their values is negative."""


def linear_attention(query: Tensor, key: Tensor, value: Tensor, least: float) -> Tensor:
    """Keys and values first: q_i (sum_j k_j v_j') / max(q_i . sum_j k_j, least).

    Mapped queries and keys, and values, [..., n, head_dim] -> the same; the cost is linear in n.
    """
    gathered = key.transpose(-2, -1) @ value
    return (query @ gathered) / _row_sums(query, key, least)


def attention_weights(query: Tensor, key: Tensor, least: float) -> Tensor:
    """The weights of the values, none negative: mapped [..., n, head_dim] -> [..., n, n]."""
    return (query @ key.transpose(-2, -1)) / _row_sums(query, key, least)


def _row_sums(query: Tensor, key: Tensor, least: float) -> Tensor:
    return (query * key.sum(-2, keepdim=True)).sum(-1, keepdim=True).clamp_min(least)
