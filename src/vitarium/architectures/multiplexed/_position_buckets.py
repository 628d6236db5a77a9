"""Which pairs of tokens share a relative position encoding: the four methods of Wu et al. (2021).

The offset of a pair (i, j), row and column of i less those of j, gives its bucket b(i, j).
"""

import math
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from vitarium.core.errors import InvalidInput

Method = Literal["product", "euclidean", "quantized", "cross"]


class Buckets:
    """The buckets of all pairs of n tokens; there is one such object for the same arguments, whose
    tensors exist once on a device: no buffers, which a stack of models would have once for each."""

    def __init__(
        self, method: Method, ratio: float, grid: tuple[int, int], prefix_tokens: int
    ) -> None:
        self._made_of = (method, ratio, grid, prefix_tokens)
        with torch.inference_mode(False), torch.device("cpu"):
            inside = _inside(method, grid, ratio)
            self.per_axis = 2 * int(2 * ratio) + 1
            """Buckets of a row's or of a column's offset alone."""
            count = self.per_axis**2 if method in ("product", "cross") else self.per_axis
            pads = (prefix_tokens, 0, prefix_tokens, 0)
            self.index = functional.pad(inside, pads, value=count)
            """b [n, n]; of pairs with a prefix token the last bucket."""
        self.count = count + bool(prefix_tokens)
        self._on: dict[torch.device, tuple[Tensor, Tensor | None]] = {}
        self.prepare(torch.device("cpu"))

    def __reduce__(self) -> Any:  # so a copy of a model, or one read from a pickle, shares them
        return buckets, self._made_of

    def prepare(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The tensors on a device, there before some transformation of torch's uses them."""
        if device not in self._on:
            with torch.inference_mode(False):
                index = self.index.to(device)
                matrices = None if device.type == "cpu" else one_hot(index, self.count)
                self._on[device] = (index, matrices)
        return self._on[device]

    # A CPU gathers, and adds up in the backward pass, in 2/3 of the time of products with one-hot
    # vectors; a GPU would have to sort all pairs to do it deterministically.

    def spread(self, looked_up: Tensor) -> Tensor:
        """Each pair's own value: [..., n, buckets] -> [..., n, n]; entry (i, j) is (i, b(i, j))."""
        if (count := looked_up.shape[-2]) != len(self.index):
            raise InvalidInput(
                f"relative positions are those of all {len(self.index)} tokens of an image of the "
                f"model's own size, and there are {count}"
            )
        index, matrices = self.prepare(looked_up.device)
        if matrices is not None:
            return _product(looked_up, matrices)
        expanded = index.expand(*looked_up.shape[:-1], -1)
        return _wide(looked_up).gather(-1, expanded).to(looked_up.dtype)

    def collect(self, maps: Tensor) -> Tensor:
        """Each bucket's sum: [..., n, n] -> [..., n, buckets]; the transposed map of `spread`."""
        index, matrices = self.prepare(maps.device)
        if matrices is not None:
            return _product(maps, matrices.mT)
        sums = _wide(maps).new_zeros(*maps.shape[:-1], self.count)
        return sums.scatter_add(-1, index.expand(maps.shape), _wide(maps)).to(maps.dtype)


@cache
def buckets(method: Method, ratio: float, grid: tuple[int, int], prefix_tokens: int = 0) -> Buckets:
    """Buckets of the pairs of tokens: `prefix_tokens` of them, then a grid of (rows, columns).

    product: one for each pair of a row's and a column's index. cross: the same ones, since the sum
    of a row's and a column's term is a term of the pair. euclidean: the rounded distance's index.
    quantized: the squared distance's index, as the authors' code has it; in their paper distances
    are numbered in order (0, 1, 1.41, 2, ... -> 0, 1, 2, 3, ...) before that. The last two do not
    tell directions apart; of their buckets only the upper half, from 0 on, is ever used.
    """
    return Buckets(method, ratio, grid, prefix_tokens)


def piecewise(offsets: Tensor, ratio: float) -> Tensor:
    """Offsets, int64 [...], as they are up to alpha, then logarithmic up to beta: [...] (Eq. 18).

    alpha = ratio, beta = 2 ratio, gamma = 8 ratio; what comes out is cut off to an integer, as in
    the authors' code: the largest is the whole part of beta.
    """
    far = offsets.abs().double().clamp(min=1) / ratio
    bent = (ratio + far.log() / math.log(8) * ratio).round().clamp(max=2 * ratio)
    return torch.where(offsets.abs() <= ratio, offsets, (offsets.sign() * bent).long())


def _inside(method: Method, grid: tuple[int, int], ratio: float) -> Tensor:
    """The buckets of all pairs of patches, int64 [n, n]."""
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    by_row, by_column = (
        positions.flatten()[:, None] - positions.flatten() for positions in (rows, columns)
    )
    half = int(2 * ratio)
    if method in ("product", "cross"):
        row, column = (piecewise(offsets, ratio) + half for offsets in (by_row, by_column))
        return row * (2 * half + 1) + column
    distance = by_row.square() + by_column.square()
    if method == "euclidean":
        distance = distance.double().sqrt().round().long()
    return piecewise(distance, ratio) + half


def one_hot(index: Tensor, count: int) -> Tensor:
    """[n, m] -> [n, count, m]: 1 where the pair's bucket is that one."""
    return (index[:, None] == torch.arange(count, device=index.device)[:, None]).float()


def _product(inputs: Tensor, matrices: Tensor) -> Tensor:
    """[..., n, a] with a matrix for each of the n: [n, a, b] -> [..., n, b]."""
    rows = inputs.flatten(0, -3).transpose(0, 1)
    product = (rows @ matrices.to(inputs.dtype)).transpose(0, 1)
    return product.reshape(*inputs.shape[:-1], matrices.shape[-1])


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: sums of many short numbers would lose their last bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
