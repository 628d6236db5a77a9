"""Images of batches in their frames: decoded or gathered from memory, and changed view by view."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitarium.data._to_device import to_device
from vitarium.data.augmentations.base import Augmentation
from vitarium.data.base import Images, Split


def changed(augmentation: Augmentation, images: Tensor, numbers: Tensor) -> Tensor:
    """Framed images [k * views * b, c, h, w] of k models, by numbers [k, views * b, numbers]."""
    if not augmentation.changes:
        return augmentation.change(images, numbers.flatten(0, 1))
    count = len(augmentation.changes)
    of_views = images.unflatten(0, (len(numbers), count, -1))  # [k, views, b, c, h, w]
    drawn = numbers.unflatten(1, (count, -1))
    changed = [
        change(of_views[:, view].flatten(0, 1), drawn[:, view].flatten(0, 1))
        for view, change in enumerate(augmentation.changes)
    ]
    by_view = [images.unflatten(0, (len(numbers), -1)) for images in changed]
    return torch.stack(by_view, dim=1).flatten(0, 2)


def as_it_is(batch: Any) -> Any:
    return batch


class Decoded:
    """Batches of images that are decoded and framed now, by the name of the view, uint8 [n, c, h,
    w]: rounded, for a quarter of the bytes to pass on and to keep."""

    def __init__(
        self, split: Split, cut: Callable[[Images, Any], Mapping[str, list[Tensor]]]
    ) -> None:
        self.split, self.cut = split, cut

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, which: Any) -> dict[str, Tensor]:
        views = self.cut(self.split.images, which)
        return {name: torch.stack(images) for name, images in views.items()}


def gather(pixels: Tensor, numbers: Tensor, device: torch.device) -> Tensor:
    """The images of these numbers [n], on the device: [n, c, h, w]"""
    return to_device(pixels[to_device(numbers, pixels.device)], device)


def unpacked(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [...] -> float in [0, 1], on the device."""
    return pixels.to(device, non_blocking=True).float().div_(255)
