"""Mutual k-NN: share of nearest neighbors that two layers have in common."""

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from vitarium.measures.base import Representation, measure


class MutualKnn(Representation):
    neighbors: PositiveInt = 10
    """Number of nearest neighbors of each image in its batch, by the cosine of their features."""


@measure(
    "mutual_knn",
    unit="fraction",
    title="representations (mutual k-NN)",
    paper="Huh et al. 2024, arXiv 2405.07987",
)
def mutual_knn(config: MutualKnn, features: Tensor) -> Tensor:
    """Mutual k-nearest neighbors: share of neighbors that two models' features share, in [0, 1].

    Features [n, d] -> 1 for each neighbor of each image, else 0: float32 [n * n] (eq. 11).
    Chance gives neighbors / (n - 1). A batch of which all images would be neighbors gives [0].
    """
    n = len(features)
    if n <= config.neighbors + 1:
        return features.new_empty(0)
    unit = F.normalize(features, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(config.neighbors, dim=1).indices
    return torch.zeros_like(similarity).scatter_(1, nearest, 1.0).flatten()
