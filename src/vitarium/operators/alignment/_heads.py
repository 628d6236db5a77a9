"""Match heads of attention: which head goes where, and how its channels lie inside of it, at once.

Every head of one model is compared with every head of the other at their best: with the channels
between queries and keys, and those between values and projection, matched for that pair. So the
assignment of heads that follows is the best there is for the whole block.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import UnitTransforms
from vitarium.operators.alignment._assignment import solve_assignment


def match_heads(
    group: str, head_scores: Tensor, inner: Mapping[str, Tensor], kinds: Mapping[str, str]
) -> tuple[UnitTransforms, float]:
    """The best moves of the heads and of what is inside, and what they gain over none.

    Args:
        head_scores: [heads, heads]: at p, q what head q is worth in position p, but for its inner
            units.
        inner: by group inside, [heads, n, heads, n]: at p, i, q, j what unit j of head q is worth
            at unit i of position p.
    """
    heads = len(head_scores)
    total, maps = head_scores.double(), {}
    now = head_scores.diagonal().sum(dtype=torch.float64)
    for name, scores in inner.items():
        pairs = scores.transpose(1, 2)
        traces = pairs.diagonal(dim1=2, dim2=3).sum(-1, dtype=torch.float64)
        now = now + traces.diagonal().sum()
        kind = kinds.get(name)
        if kind == "permutation":
            maps[name], best = _permutations(pairs, group in kinds)
        elif kind == "orthogonal":
            u, values, v = torch.linalg.svd(pairs)
            maps[name], best = u @ v, values.sum(-1, dtype=torch.float64)
        else:
            best = traces
        total = total + best
    positions = torch.arange(heads, device=head_scores.device)
    heads_move = solve_assignment(total)[0] if group in kinds else positions
    moves = {name: matrices[positions, heads_move] for name, matrices in maps.items()}
    if group in kinds:
        moves = {group: heads_move, **moves}
    return moves, (total[positions, heads_move].sum() - now).item()


def _permutations(pairs: Tensor, every: bool) -> tuple[Tensor, Tensor]:
    """Of each pair of heads (or of those in their places alone), [p, q, n], and their sums."""
    heads, n = len(pairs), pairs.shape[-1]
    maps = torch.zeros(heads, heads, n, dtype=torch.int64, device=pairs.device)
    sums = torch.zeros(heads, heads, dtype=torch.float64, device=pairs.device)
    for p in range(heads):
        for q in range(heads) if every else [p]:
            maps[p, q], sums[p, q] = solve_assignment(pairs[p, q])
    return maps, sums
