"""Targets of self-distillation and its losses, in float32 whatever the autocast.

A row of logits has a number per prototype; targets are distributions over prototypes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_ROUNDS = 3
_EPS = 1e-8


def centered_targets(logits: Tensor, center: Tensor, temperature: Tensor) -> Tensor:
    """softmax((logits - center) / temperature) (Caron et al. 2021, arXiv 2104.14294, Eq. 1).

    logits [..., k], center [k], temperature a scalar -> [..., k]
    """
    return ((logits.float() - center) / temperature).softmax(-1)


def sinkhorn_targets(logits: Tensor, temperature: Tensor, counted: Tensor | None = None) -> Tensor:
    """Targets by which all prototypes are used about as much: Sinkhorn-Knopp's algorithm, in
    logarithms, so that no logit is too large for it (Caron et al. 2020, arXiv 2006.09882, Sec. 3).

    logits [n, k]; counted: bool [n], rows between which prototypes are shared out, None: all
    -> [n, k], of which each row sums to 1
    """
    scores = logits.float() / temperature
    for _ in range(_ROUNDS):
        rows = scores if counted is None else scores.masked_fill(~counted.unsqueeze(1), -torch.inf)
        mass = rows.logsumexp(0)
        scores = (scores - mass.nan_to_num(neginf=0.0)).log_softmax(1)  # without rows: no mass
    return scores.exp()


def cross_view_loss(targets: Tensor, log_probabilities: Tensor) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's and a student's view that are not the same.

    targets [views, b, k]; log_probabilities [views + others, b, k], the same views first -> scalar
    """
    views, others = len(targets), len(log_probabilities)
    entropies = -torch.einsum("gbk,vbk->gv", targets, log_probabilities) / targets.shape[1]
    same_view = torch.eye(views, others, dtype=torch.bool, device=entropies.device)
    return entropies.masked_fill(same_view, 0).sum() / (views * (others - 1))


def patch_loss(targets: Tensor, log_probabilities: Tensor, masks: Tensor) -> Tensor:
    """Of each crop the mean cross-entropy over its masked patches, 0 where it has none; then the
    mean over all crops (Zhou et al. 2022, arXiv 2111.07832, Eq. 2).

    [crops, n, k] twice and bool [crops, n] -> scalar
    """
    masked = masks.float()
    entropies = -(targets * log_probabilities).sum(-1) * masked
    return (entropies.sum(1) / masked.sum(1).clamp_min(1)).mean()


def koleo_loss(features: Tensor) -> Tensor:
    """Kozachenko-Leonenko's estimate of entropy, negated: -mean log of the distance between each
    normalized row and its nearest (Sablayrolles et al. 2019, arXiv 1806.03198, Eq. 3).

    features [n, width], n > 1 -> scalar
    """
    unit = F.normalize(features.float(), dim=-1, eps=_EPS)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T).detach().masked_fill(itself, -torch.inf)
    nearest = unit.gather(0, similarity.argmax(1, keepdim=True).expand(-1, unit.shape[1]))
    distances = (unit - nearest + _EPS).norm(dim=1)
    return -(distances + _EPS).log().mean()


def entropy_share(targets: Tensor) -> Tensor:
    """Mean entropy of distributions, as a share of the largest: [..., k] -> scalar from 0 to 1"""
    return torch.special.entr(targets).sum(-1).mean() / math.log(targets.shape[-1])
