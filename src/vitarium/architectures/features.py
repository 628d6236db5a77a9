"""A model's features: what its head sees."""

from torch import Tensor, nn


def features(model: nn.Module, images: Tensor) -> Tensor:
    """Pooled features of images [batch, c, h, w] -> [batch, num_features], without the head."""
    tokens = model.forward_features(images)  # type: ignore[operator]
    pooled: Tensor = model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
    return pooled
