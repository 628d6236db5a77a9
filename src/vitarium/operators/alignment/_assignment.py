"""Linear assignment and Procrustes: the best permutation or orthogonal map for scores [n, n]."""

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.architectures.symmetries.base import UnitTransforms


def best_transform(
    group: str, scores: Tensor, kind: Literal["permutation", "orthogonal"]
) -> tuple[UnitTransforms, float]:
    """The transform of a group that scores highest, and what it gains over the identity.

    Args:
        scores: [n, n]: at i, j what unit j is worth in position i.
    """
    now = scores.diagonal().sum(dtype=torch.float64).item()
    if kind == "permutation":
        move, value = solve_assignment(scores)
    else:
        move, value = solve_procrustes(scores)
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
