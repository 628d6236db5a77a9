"""How alike images are by their labels."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LabelSimilarity = Literal["cosine", "jaccard"]


def share_a_label(targets: Tensor) -> Tensor:
    """targets [batch, classes], at least 0 -> bool [batch, batch]; True on the diagonal."""
    own = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return (targets @ targets.T > 0) | own


def label_similarity(targets: Tensor, how: LabelSimilarity) -> Tensor:
    """targets [batch, classes], at least 0, one-hot or several labels -> [batch, batch] in [0, 1].

    cosine: of the rows. jaccard: labels of both over labels of either (of shares, the sum of minima
    over that of maxima). 1 on the diagonal, and 0 between an image without labels and others.
    """
    values = targets.float()
    if how == "cosine":
        rows = F.normalize(values, dim=1)
        similarity = rows @ rows.T
    else:
        both = torch.minimum(values[:, None], values[None]).sum(-1)
        either = torch.maximum(values[:, None], values[None]).sum(-1)
        similarity = torch.where(either > 0, both / either.clamp_min(1e-12), 0.0)
    own = torch.eye(len(values), dtype=torch.bool, device=values.device)
    return similarity.clamp(0, 1).masked_fill(own, 1.0)
