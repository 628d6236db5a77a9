"""What contrastive objectives have in common: settings, and a softmax with weights."""

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from vitarium.objectives._feature_scores import ScoredByFeatures


class Contrastive(ScoredByFeatures):
    """Settings of objectives that compare projections of two views."""

    temperature: PositiveFloat = 0.1
    """Temperature of the softmax: cosine similarities are divided by it."""
    projector_hidden_dim: PositiveInt | None = None
    """Units of the projector's hidden layer; none: as many as the features."""
    out_dim: int = Field(128, ge=2)
    """Width of the projections, at least 2."""


def weighted_contrast(logits: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows of -(1 / |P|) sum over p of weight_p * log softmax_p; P are the columns of
    which a row's weight is not 0, and a row without any contributes 0.

    logits [n, m], -inf where a column is left out, and weights [n, m] -> a scalar
    """
    log_shares = F.log_softmax(logits, dim=1)
    # -inf * 0 is NaN, and so is its gradient
    terms = torch.where(weights > 0, weights * log_shares.clamp_min(-1e30), 0.0)
    return -(terms.sum(1) / (weights > 0).sum(1).clamp_min(1)).mean()
