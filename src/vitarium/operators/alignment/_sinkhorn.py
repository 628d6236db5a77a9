"""Optimal transport between as many units as there are, all of the same mass."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CLOSE = 1e-9
"""Of the plan's marginals to 1/n, relative, where Sinkhorn's iterations end."""


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
            if (plan.sum(0) - 1).abs().max() < CLOSE:
                break
            left = scores.logsumexp(1, keepdim=True)
            right = right - now * (scores - left).logsumexp(0)
        if now == regularization:
            return plan / n
        now = max(now / 2, regularization)
