"""To a device: a batch without waiting for it, or all images of a split once."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_SHARE_OF_GPU = 0.1


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor [...] on the device: [...]"""
    # unpinned, a copy to a GPU waits for all that was asked of it before
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


_copies: Any = WeakIdKeyDictionary()


def on_device(device: torch.device, pixels: Tensor) -> Tensor:
    """A split's images, on a GPU (once) where they take little of its memory; else as they are."""
    if device.type != "cuda":
        return pixels
    total = torch.cuda.get_device_properties(device).total_memory
    if pixels.numel() > _SHARE_OF_GPU * total:
        return pixels
    if pixels not in _copies:
        _copies[pixels] = pixels.to(device)
    return _copies[pixels]
