"""The best permutations, orthogonal maps and transport plans of units for tables of scores."""

from collections.abc import Mapping
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.architectures.symmetries.base import UnitTransforms

_CLOSE = 1e-9  # of a plan's marginals to 1/n, relative, where Sinkhorn's iterations end


def best_transform(
    group: str, scores: Tensor, kind: Literal["permutation", "orthogonal"]
) -> tuple[UnitTransforms, float]:
    """The transform of a group that scores highest, and what it gains over the identity.

    scores [n, n]: at i, j what unit j is worth in position i.
    """
    now = scores.diagonal().sum(dtype=torch.float64).item()
    move, value = (solve_assignment if kind == "permutation" else solve_procrustes)(scores)
    return {group: move}, value - now


def solve_assignment(scores: Tensor) -> tuple[Tensor, float]:
    """Linear assignment for scores [n, n]: position -> unit, int64 [n], and the highest sum."""
    _, units = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    permutation = torch.from_numpy(units).to(scores.device)
    return permutation, scores.gather(1, permutation[:, None]).sum(dtype=torch.float64).item()


def solve_procrustes(scores: Tensor) -> tuple[Tensor, float]:
    """Procrustes: the orthogonal O [n, n] with O 1 = 1 of the highest <O, scores>, and that value.

    It is the Procrustes solution on what has mean zero over the units, where a LayerNorm's input
    lives; the direction of the mean stays.
    """
    n = len(scores)
    centered = scores - scores.mean(0) - scores.mean(1, keepdim=True) + scores.mean()
    # With a singular value of its own, the direction of the mean mixes with no other.
    separation = 2 * torch.linalg.matrix_norm(centered) + 1
    u, _, v = torch.linalg.svd(centered + separation / n)
    rotation = u @ v
    return rotation, (rotation.double() * scores.double()).sum().item()


def match_heads(
    group: str, head_scores: Tensor, inner: Mapping[str, Tensor], kinds: Mapping[str, str]
) -> tuple[UnitTransforms, float]:
    """The best moves of the heads and of what is inside, and what they gain over none.

    Every head of one model is compared with every head of the other at their best: with the
    channels between queries and keys, and those between values and projection, matched for that
    pair. So the assignment of heads that follows is the best there is for the whole block.

    Args:
        head_scores: [heads, heads]: at p, q what head q, without inner units, is worth in place p.
        inner: by group inside, [heads, n, heads, n]: at p, i, q, j what unit j of head q is worth
            at unit i of place p.
    """
    heads = len(head_scores)
    total, maps = head_scores.double(), {}
    now = head_scores.diagonal().sum(dtype=torch.float64)
    for name, scores in inner.items():
        pairs = scores.transpose(1, 2)
        traces = pairs.diagonal(dim1=2, dim2=3).sum(-1, dtype=torch.float64)
        now = now + traces.diagonal().sum()
        best = traces
        if kinds.get(name) == "permutation":
            best = torch.zeros_like(traces)
            maps[name] = torch.zeros(pairs.shape[:3], dtype=torch.int64, device=pairs.device)
            for p in range(heads):
                for q in range(heads) if group in kinds else [p]:
                    maps[name][p, q], best[p, q] = solve_assignment(pairs[p, q])
        elif kinds.get(name) == "orthogonal":
            u, values, v = torch.linalg.svd(pairs)
            maps[name], best = u @ v, values.sum(-1, dtype=torch.float64)
        total = total + best
    positions = torch.arange(heads, device=head_scores.device)
    heads_move = solve_assignment(total)[0] if group in kinds else positions
    moves = {name: matrices[positions, heads_move] for name, matrices in maps.items()}
    if group in kinds:
        moves = {group: heads_move, **moves}
    return moves, (total[positions, heads_move].sum() - now).item()


def transport_plan(cost: Tensor, regularization: float = 0.0, iterations: int = 1000) -> Tensor:
    """The plan T >= 0 of least <T, cost> with rows and columns that sum to 1/n; float64 [n, n].

    With regularization, of least <T, cost> / mean(cost) - regularization * entropy(T): Sinkhorn's
    algorithm on logarithms (Cuturi 2013, arXiv 1306.0895), of so many iterations at most, which
    ends with exact rows. Without, it is a permutation divided by n.
    """
    n, cost = len(cost), cost.double()
    if regularization == 0:
        rows, columns = linear_sum_assignment(cost.numpy())
        plan = torch.zeros(n, n, dtype=torch.float64)
        plan[rows, columns] = 1 / n
        return plan
    cost = cost / cost.mean().clamp(min=torch.finfo(cost.dtype).tiny)
    right, now = torch.zeros(n, dtype=torch.float64), max(regularization, 1.0)
    while True:  # sharp plans converge slowly, unless they start from less sharp ones
        for _ in range(iterations):
            scores = (right - cost) / now
            plan = scores.softmax(1)  # rows of sum 1, not 1/n
            if (plan.sum(0) - 1).abs().max() < _CLOSE:
                break
            left = scores.logsumexp(1, keepdim=True)
            right = right - now * (scores - left).logsumexp(0)
        if now == regularization:
            return plan / n
        now = max(now / 2, regularization)
