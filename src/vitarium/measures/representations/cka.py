"""Centered kernel alignment (CKA) of two layers."""

from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from vitarium.measures.base import Representation, measure


class Cka(Representation):
    kernel: Literal["linear", "rbf"] = "linear"
    """Kernel that gives the similarity of two images' features."""
    bandwidth: PositiveFloat = 0.4
    """Standard deviation of the rbf kernel, as a share of the median distance in a batch."""


@measure(
    "cka",
    unit="similarity",
    title="representations (CKA)",
    as_distance="one_minus",
    studies=True,
    heat_map=True,
    paper="Kornblith et al. 2019, arXiv 1905.00414; Nguyen et al. 2021, arXiv 2010.15327",
)
def cka(config: Cka, features: Tensor) -> Tensor:
    """CKA (unbiased, minibatch), the similarity of two models' features: 0 unrelated, 1 the same.

    Features [n, d] -> the upper triangle of their U-centered Gram matrix, float32 [n (n - 1) / 2],
    scaled so that the inner product of two such vectors is HSIC_1 (Nguyen et al., eq. 3). So the
    cosine of vectors over all batches is their eq. 2. It is not biased, so it can be below 0.
    Rotating or scaling features changes nothing.
    """
    n = len(features)
    rows, columns = torch.triu_indices(n, n, 1, device=features.device)
    # U-centring would take the mean out of a linear kernel, too; before, no digits are lost to it.
    centered = features - features.mean(0)
    kernel = gram(centered)
    if config.kernel == "rbf":
        # exp(-distance^2 / (2 (bandwidth * median)^2)), from inner products of centered features
        square = kernel.diagonal()
        distance = (square[:, None] + square - 2 * kernel).clamp(min=0)
        kernel = torch.exp(-distance / (2 * config.bandwidth**2 * distance[rows, columns].median()))
    # Szekely and Rizzo 2014, def. 2: rows without their diagonal sum to 0, unbiasedly
    sums = kernel.sum(1) - kernel.diagonal()
    shift = (sums - sums.sum() / (2 * (n - 1))) / (n - 2)
    upper = (kernel - shift[:, None] - shift)[rows, columns]
    return upper * (2 / (n * (n - 3))) ** 0.5


def gram(features: Tensor) -> Tensor:
    """[n, d] -> inner products [n, n]. Blocks below the diagonal are copied: 5/8 of the work."""
    n, parts = len(features), 4
    if n < 256 or features.is_cuda:  # not worth cutting
        return features @ features.T
    product = features.new_empty(n, n)
    edges = [n * part // parts for part in range(parts + 1)]
    for low, high in pairwise(edges):
        torch.mm(features[low:high], features[:high].T, out=product[low:high, :high])
        product[:low, low:high] = product[low:high, :low].T
    return product
