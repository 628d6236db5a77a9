"""The best permutation, or the best orthogonal map, for a table of scores."""

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.architectures.symmetries.base import UnitTransforms


def best_transform(
    group: str, scores: Tensor, kind: Literal["permutation", "orthogonal"]
) -> tuple[UnitTransforms, float]:
    """The move of a group that scores highest, and what it gains over none.

    Args:
        scores: [n, n]: at i, j what unit j is worth at place i.
    """
    now = scores.diagonal().sum(dtype=torch.float64).item()
    if kind == "permutation":
        move, value = solve_assignment(scores)
    else:
        move, value = solve_procrustes(scores)
    return {group: move}, value - now


def solve_assignment(scores: Tensor) -> tuple[Tensor, float]:
    """Place -> unit, int64 [n], of the highest sum, and the sum."""
    _, units = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    permutation = torch.from_numpy(units).to(scores.device)
    return permutation, scores.gather(1, permutation[:, None]).sum(dtype=torch.float64).item()


def solve_procrustes(scores: Tensor) -> tuple[Tensor, float]:
    """The orthogonal O with O 1 = 1 of the highest <O, scores>, and that value.

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
