"""Entropy of the attention of a vision transformer's heads."""

import math

import torch
from torch import Tensor

from vitarium.evaluation.attention import OnImages, means_by_head
from vitarium.measures.base import EvalModel, Values, measure


class AttentionEntropy(OnImages):
    normalized: bool = False
    """Divide by the logarithm of the number of tokens, so that uniform attention has 1."""


@measure("attention_entropy", unit="nats", paper="Zhai et al. 2023, arXiv 2303.06296")
def attention_entropy(config: AttentionEntropy, subject: EvalModel) -> Values:
    """Mean entropy of the attention over tokens, in nats, per head and block.

    From 0 (one token) to log(tokens); the mean of all queries, class token and registers too.
    Parts: see `means_by_head`.
    """

    def summed(name: str, attention: Tensor) -> tuple[Tensor, int]:
        entropy = torch.special.entr(attention).sum(-1)
        if config.normalized:
            entropy = entropy / math.log(attention.shape[-1])
        count = len(attention) * attention.shape[-1]
        return entropy.sum((0, 2), dtype=torch.float64), count

    return means_by_head(subject, config.num_images, summed)
