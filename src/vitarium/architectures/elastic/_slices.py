"""Weights of a smaller vision transformer inside those of a larger one: the first of each axis."""

from collections.abc import Sequence

from torch import Tensor


def member_weight(name: str, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight [*shape] of a smaller ViT inside that of a larger one, as a view.

    It has the first units of every axis. Rows of a fused qkv are those of queries, keys and values,
    and within each of one head after the other: the first heads of each are taken, with all their
    channels (the released ElasticViT cuts heads differently in each of its sub-networks).
    """
    if ".attn.qkv." in name:
        by_part = weight.unflatten(0, (3, -1))
        return _first(by_part, (3, shape[0] // 3, *shape[1:])).flatten(0, 1)
    return _first(weight, shape)


def _first(weight: Tensor, shape: Sequence[int]) -> Tensor:
    return weight[tuple(slice(size) for size in shape)]
