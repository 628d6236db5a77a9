"""Retention in its three forms, which compute the same: parallel, recurrent, and by chunks.

A token retains what it has read of those before it, less by a factor gamma for each step between
(Sun et al. 2023, arXiv 2307.08621, Sec. 2.1; Hatamizadeh et al. 2023, arXiv 2310.19731, Sec. 3).
Here tokens are the rows of a grid of patches, one after the other, and then any number of others.
In one dimension steps are counted along the sequence. In two, a patch sees those above and to the
left, and steps are rows and columns between them; the others stand below the last column.

Queries, keys and values are [batch, heads, n, head_dim], decays float [heads]. States, the sums of
outer products of keys and values, are [batch, heads, head_dim, head_dim], in the decays' dtype.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """How a sequence is laid out; a grid of no columns is a plain sequence."""

    rows: int = 0
    columns: int = 0

    @property
    def patches(self) -> int:
        return self.rows * self.columns


SEQUENCE = Layout()
Retain = Callable[[Tensor, Tensor, Tensor, Tensor, Layout], Tensor]


def decay_mask(decays: Tensor, count: int, layout: Layout = SEQUENCE) -> Tensor:
    """gamma^(steps from j to i) where token i sees j, else 0: [heads] -> [heads, count, count]"""
    number = torch.arange(count, device=decays.device)
    position = [number]
    if layout.columns:
        beyond = (number - layout.patches).clamp_min(0)
        is_patch = number < layout.patches
        row = torch.where(is_patch, number // layout.columns, layout.rows + beyond)
        column = torch.where(is_patch, number % layout.columns, layout.columns - 1)
        position = [row, column]
    steps = torch.stack([axis.unsqueeze(1) - axis for axis in position])
    powers = decays.view(-1, 1, 1) ** steps.sum(0).clamp_min(0)
    return torch.where((steps >= 0).all(0), powers, torch.zeros_like(powers))


def parallel(query: Tensor, key: Tensor, value: Tensor, decays: Tensor, layout: Layout) -> Tensor:
    """(Q K' * D) V, all tokens at once (equation 5 of Sun et al.): [batch, heads, n, head_dim]"""
    mask = decay_mask(decays, query.shape[-2], layout)
    return ((query @ key.transpose(-2, -1)) * mask).to(value.dtype) @ value


def recurrent(query: Tensor, key: Tensor, value: Tensor, decays: Tensor, layout: Layout) -> Tensor:
    """S_n = gamma S_(n-1) + k_n v_n', o_n = q_n S_n, token by token: [batch, heads, n, head_dim]

    On a grid S[r, c] = gamma S[r-1, c] + (the same sum along row r), so that the states of one row
    are all that has to be remembered.
    """
    gamma = decays.view(-1, 1, 1)
    products = key.to(decays.dtype).unsqueeze(-1) * value.to(decays.dtype).unsqueeze(-2)
    above = [torch.zeros_like(products[:, :, 0])] * max(layout.columns, 1)
    states = []
    for row in range(layout.rows):
        along, start = torch.zeros_like(above[0]), row * layout.columns
        for column in range(layout.columns):
            along = gamma * along + products[:, :, start + column]
            above[column] = gamma * above[column] + along
        states += above
    state = above[-1]
    for number in range(layout.patches, query.shape[-2]):
        state = gamma * state + products[:, :, number]
        states.append(state)
    read = query.unsqueeze(-2) @ torch.stack(states, 2).to(query.dtype)
    return read.squeeze(-2).to(value.dtype)


def chunked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decays: Tensor,
    layout: Layout = SEQUENCE,
    *,
    length: int,
) -> Tensor:
    """Chunks of `length` tokens, parallel inside, with a state between (equation 7 of Sun et al.).

    On a grid a chunk has whole rows, as many as have no more tokens than `length`, or one, and
    there is a state for each column. The last chunk may be shorter. -> [batch, heads, n, head_dim]
    """
    batch, heads, count, width = query.shape
    columns = max(layout.columns, 1)
    states = torch.zeros((batch, heads, columns, width, width)).to(decays)
    split = layout.patches
    grid = [part[:, :, :split].unflatten(2, (layout.rows, columns)) for part in (query, key, value)]
    outputs: list[Tensor] = []
    if split:
        outputs, states = _chunks(grid, states, decays, max(length // columns, 1))
    if count > split:
        beyond = [part[:, :, split:].unsqueeze(3) for part in (query, key, value)]
        outputs += _chunks(beyond, states[:, :, -1:], decays, length)[0]
    return torch.cat(outputs, 2).to(value.dtype)


def _chunks(
    parts: list[Tensor], states: Tensor, decays: Tensor, length: int
) -> tuple[list[Tensor], Tensor]:
    """Of [batch, heads, rows, columns, head_dim] each, so many rows at a time; and the states after
    them, [batch, heads, columns, head_dim, head_dim]."""
    columns, outputs = parts[0].shape[3], []
    along = decay_mask(decays, columns)
    for chunk in zip(*(part.split(length, 2) for part in parts), strict=True):
        query, key, value = chunk
        rows = query.shape[2]
        steps = torch.arange(rows, device=decays.device)
        since, until = (decays.unsqueeze(1) ** power for power in (steps + 1, rows - 1 - steps))
        flat = [part.flatten(2, 3) for part in chunk]
        inner = parallel(flat[0], flat[1], flat[2], decays, Layout(rows, columns))
        read = torch.einsum("bhrci,bhcij->bhrcj", query, states.to(query.dtype))
        outputs.append(inner + (read * since[..., None, None]).flatten(2, 3))
        left = key * until[..., None, None]
        by_column = torch.einsum("bhrci,bhrcj->bhcij", left.to(value.dtype), value)
        added = torch.einsum("hcd,bhdij->bhcij", along, by_column.to(along.dtype))
        states = decays.view(-1, 1, 1, 1) ** rows * states + added
    return outputs, states
