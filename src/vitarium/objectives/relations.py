"""How tokens relate to each other inside a block, and how far two models differ in that."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.objectives.distillation import at_least_float32


def attention_relation(own: Tensor, theirs: Tensor, heads: int = 1) -> Tensor:
    """Soft cross-entropy between the relations of queries, keys and values of two blocks.

    For each of the nine pairs (X, Y) of queries, keys and values, and each relation head of width
    d, R = X Y^T / sqrt(d) over tokens; -sum softmax(R of the teacher) log softmax(R of the
    student), mean over pairs, heads, rows and the batch (Zhang et al. 2022, Sec. 3.3). Its least
    value, where both are equal, is the entropy of the teacher's rows.

    own, theirs: [batch, n, 3 * width], of any two widths that `heads` divides -> a scalar
    """
    with torch.autocast(own.device.type, enabled=False):  # 8 bits are few for logits
        expected = _relations(theirs, heads).softmax(dim=-1)
        found = _relations(own, heads)
        # the same as -(expected * log_softmax(found)).sum(), with one large tensor less
        entropies = found.logsumexp(dim=-1) - (expected * found).sum(dim=-1)
        return entropies.mean()


def hidden_relation(own: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of two blocks' cosine similarities of tokens with each other.

    own, theirs: [batch, n, width], of any two widths -> a scalar
    """
    with torch.autocast(own.device.type, enabled=False):
        return F.mse_loss(_cosines(own), _cosines(theirs))


def hidden_difference(own: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of the tokens themselves: [batch, n, width] twice -> a scalar"""
    with torch.autocast(own.device.type, enabled=False):
        return F.mse_loss(at_least_float32(own), at_least_float32(theirs))


def _relations(qkv: Tensor, heads: int) -> Tensor:
    """All nine as one product: [batch, n, 3 * width] -> [batch, heads, 3n, 3, n]

    Rows are the tokens of queries, keys and values one after the other.
    """
    count = qkv.shape[-2]
    parts = at_least_float32(qkv).unflatten(-1, (3, heads, -1))
    rows = parts.permute(0, 3, 2, 1, 4).flatten(2, 3)
    products = (rows * rows.shape[-1] ** -0.5) @ rows.transpose(-2, -1)
    return products.unflatten(-1, (3, count))


def _cosines(tokens: Tensor) -> Tensor:
    unit = F.normalize(at_least_float32(tokens), dim=-1)
    return unit @ unit.transpose(-2, -1)
