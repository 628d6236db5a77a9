"""Rectangles and blends of images, for erasing, cutmix, mixup and colors."""

import torch
from torch import Tensor


def covered(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Which of `size` rows (or columns) lie in [start, end): [...] twice -> bool [..., size]."""
    row = torch.arange(size)
    return (row >= start.unsqueeze(-1)) & (row < end.unsqueeze(-1))


def blend(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """share * images + (1 - share) * others: [..., c, h, w] thrice, which broadcast."""
    return share * images + (1 - share) * others
