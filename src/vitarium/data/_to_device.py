"""To a device without waiting for it."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor [...] on the device: [...]

    By pinned memory where that is a GPU: from any other, the copy would wait until the GPU has done
    all that was asked of it before, and nothing could be prepared meanwhile.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
