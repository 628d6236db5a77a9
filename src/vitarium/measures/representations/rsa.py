"""Representational similarity analysis (RSA) of two layers."""

from typing import Literal

import torch
from torch import Tensor

from vitarium.measures.base import NotApplicable, Representation, measure

_DIGITS = 12  # of a distance; what is behind them is rounding, which must not rank equal distances


class Rsa(Representation):
    distance: Literal["correlation", "euclidean", "cosine"] = "correlation"
    """Distance of two images' features: 1 - Pearson correlation, Euclidean, or 1 - cosine."""


@measure(
    "rsa",
    unit="similarity",
    title="representations (RSA)",
    paper="Kriegeskorte et al. 2008, doi 10.3389/neuro.06.004.2008",
)
def rsa(config: Rsa, features: Tensor) -> Tensor:
    """Representational similarity: rank correlation of two models' image distances, in [-1, 1].

    Features [n, d] -> standardized ranks of the distances above the diagonal of the
    dissimilarity matrix, float32 [n (n - 1) / 2]; equal distances have their mean rank. Over
    several batches: the mean of their correlations, weighted by their pairs of images.
    Raises NotApplicable where all distances are the same.
    """
    rows, columns = torch.triu_indices(len(features), len(features), 1, device=features.device)
    # Ranks turn on the last digits of distances, so these are in double precision.
    distances = _distances(features.double(), config.distance)[rows, columns]
    _, index, count = torch.unique(distances, return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0) - (count - 1) / 2.0).double()[index]
    spread = ranks.std(correction=0)
    if spread == 0:
        raise NotApplicable("all images are at the same distance from each other")
    return ((ranks - ranks.mean()) / spread).float()


def _distances(features: Tensor, distance: str) -> Tensor:
    """[n, d] -> [n, n], of the same order as the distances, and equal where they are equal"""
    if distance == "euclidean":
        centered = features - features.mean(0)
        inner = centered @ centered.T
        square = inner.diagonal()
        far = square[:, None] + square - 2 * inner
        return (far / far.max().clamp(min=1e-300)).round(decimals=_DIGITS)
    if distance == "correlation":
        features = features - features.mean(1, keepdim=True)
    unit = features / features.norm(dim=1, keepdim=True)
    return (1 - unit @ unit.T).round(decimals=_DIGITS)
