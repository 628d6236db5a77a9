"""What LGViT's exits learn from the finished backbone and from each other."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.devices import without_autocast


def prediction_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher / T, logits / T), both [batch, classes], a mean over images and classes as
    released: a scalar."""
    with without_autocast(logits):
        log_student = (_wide(logits) / temperature).log_softmax(1)
        log_teacher = (_wide(teacher) / temperature).log_softmax(1)
        divergence = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / logits.numel()


def channel_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """KL of the softmax over channels of each token, both [batch, n, width]; summed over tokens, a
    mean over images: a scalar."""
    with without_autocast(features):
        logs = _wide(features).log_softmax(-1), _wide(teacher).log_softmax(-1)
        return F.kl_div(*logs, reduction="batchmean", log_target=True)


def feature_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features [batch, n, width]: a scalar."""
    return F.mse_loss(_wide(features), _wide(teacher))


def gram_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the channels' inner products over tokens, [batch, n, width] and
    [batch, m, width]; products are means over tokens, whose numbers differ: a scalar."""
    with without_autocast(features):
        return F.mse_loss(_gram(features), _gram(teacher))


def towards_last(exits: Sequence[Tensor], loss: object) -> Tensor:
    """Sum of a loss of the features of all exits but the last with those of the last: a scalar."""
    assert callable(loss)
    *earlier, last = exits
    values = [loss(features, last) for features in earlier]
    return torch.stack(values).sum() if values else last.new_zeros(())


def _gram(features: Tensor) -> Tensor:
    wide = _wide(features)
    return wide.transpose(1, 2) @ wide / wide.shape[1]


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
