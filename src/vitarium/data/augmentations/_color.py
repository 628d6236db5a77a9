"""Random colors and blur for whole batches, each image by its own numbers.

Images are float [n, 3, h, w] (or gray, [n, 1, h, w]) in [0, 1]; numbers are float64 [n, ...] in
[0, 1) on the CPU, so which images are touched is known without asking a GPU.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from vitarium.data._to_device import to_device
from vitarium.data.augmentations._boxes import blend
from vitarium.data.augmentations.base import channels

JITTER_NUMBERS = 8
"""Four strengths, and four numbers whose order is the order of the changes."""


def jittered(
    images: Tensor,
    numbers: Tensor,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float = 0.0,
) -> Tensor:
    """Brightness, contrast, saturation and hue changed in a random order, as by v2.ColorJitter.

    Args:
        numbers: [n, JITTER_NUMBERS].
        brightness, contrast, saturation: factors are drawn from 1 ± that (not below 0).
        hue: the shift is drawn from ± that, in turns of the color wheel.
    """
    strengths, order = numbers[:, :4], numbers[:, 4:].argsort(1)
    spans = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)] + [(-hue, hue)]
    images = images.clone()
    for position in range(4):
        for number, (change, (low, high)) in enumerate(zip(_CHANGES, spans, strict=True)):
            which = (order[:, position] == number).nonzero().squeeze(1)
            if low == high or not len(which):
                continue
            drawn = low + (high - low) * strengths[which, number]
            chosen = to_device(which, images.device)
            factor = to_device(drawn.to(images.dtype), images.device).view(-1, 1, 1, 1)
            images[chosen] = change(images[chosen], factor)
    return images


def apply_randomly(
    images: Tensor, numbers: Tensor, probability: float, change: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Change the images whose number, [n, 1], is below `probability`, by `change(images, which)`;
    `which` are their places in the batch, int64 on the CPU."""
    which = (numbers[:, 0] < probability).nonzero().squeeze(1)
    if not len(which):
        return images
    chosen = to_device(which, images.device)
    images = images.clone()
    images[chosen] = change(images[chosen], which)
    return images


def blurred(images: Tensor, sigmas: Tensor, kernel: int) -> Tensor:
    """A Gaussian blur of each image's own sigma (pixels, [n]), as torchvision's gaussian_blur with
    an odd kernel of `kernel` pixels and mirrored edges."""
    sigmas = to_device(sigmas.to(images.dtype), images.device)
    position = torch.arange(kernel, device=images.device) - kernel // 2
    weights = torch.softmax(-0.5 * (position / sigmas.unsqueeze(1)) ** 2, dim=1)
    down, across = (
        torch.einsum("nk,kij->nij", weights, _shifts(kernel, size, images.device)).unsqueeze(1)
        for size in images.shape[-2:]
    )
    return down @ images @ across.transpose(-1, -2)


@lru_cache(maxsize=8)
def _shifts(kernel: int, size: int, device: torch.device) -> Tensor:
    """For each place of a kernel, which pixel every pixel finds there; one-hot [k, size, size]."""
    reach = torch.arange(size) + (torch.arange(kernel) - kernel // 2).unsqueeze(1)
    mirrored = (size - 1) - ((size - 1) - reach.abs()).abs()
    return torch.nn.functional.one_hot(mirrored, size).float().to(device)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, channels(images, 1).mean((-3, -2, -1), keepdim=True), factor).clamp(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, channels(images, 1), factor).clamp(0, 1)


def _hue(images: Tensor, turns: Tensor) -> Tensor:
    """Around the color wheel, in HSV."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    value, span = images.amax(1), images.amax(1) - images.amin(1)
    divisor = span.clamp(min=1e-12)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    turned = sector + 6 * turns.squeeze(1)
    shift = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (shift + turned.unsqueeze(1)) % 6
    return value.unsqueeze(1) - span.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


_CHANGES = (_brightness, _contrast, _saturation, _hue)
