"""Random erasing for whole batches (Zhong et al. 2020, arXiv 1708.04896), with timm's settings."""

import math
from typing import Literal

import torch
from torch import Tensor

from vitarium.data._to_device import to_device
from vitarium.data.augmentations._boxes import covered

Mode = Literal["const", "rand", "pixel"]
_TRIES = 10
_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)
ERASING_NUMBERS = 1 + 2 * _TRIES + 2 + 3 + 1
"""Whether; areas and shapes to try; the place; a color; and the seed of noise."""


def erased(images: Tensor, numbers: Tensor, probability: float, mode: Mode = "const") -> Tensor:
    """Normalized images [n, c, h, w], each with a rectangle erased with `probability`.

    Of ten tries the first that fits is taken, as in timm's RandomErasing.

    numbers: float64 [n, ERASING_NUMBERS], on the CPU.
    mode: fill with 0 (const), one normal color per rectangle (rand), or normal noise (pixel).
    """
    height, width = images.shape[-2:]
    whether, areas, shapes, offsets, color, noise = numbers.split((1, _TRIES, _TRIES, 2, 3, 1), 1)
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * areas)
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    shape = torch.exp(low + (high - low) * shapes)
    tall, wide = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    which = ((whether[:, 0] < probability) & fits.any(1)).nonzero().squeeze(1)
    if not len(which):
        return images
    inside = []  # which rows, and which columns
    for axis, (tried, size) in enumerate(((tall, height), (wide, width))):
        length = tried.gather(1, first)[which, 0]
        start = (offsets[which, axis] * (size - length + 1)).floor()
        inside.append(covered(start, start + length, size))
    chosen, rows, columns = (to_device(v, images.device) for v in (which, *inside))
    mask = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
    images, part = images.clone(), images[chosen]
    images[chosen] = torch.where(mask, _filling(part, color[which], noise[which], mode), part)
    return images


def _filling(part: Tensor, color: Tensor, noise: Tensor, mode: Mode) -> Tensor:
    if mode == "const":
        return torch.zeros_like(part)
    if mode == "rand":
        normal = torch.special.ndtri(color.clamp(1e-9, 1 - 1e-9))
        return to_device(normal[:, : part.shape[1], None, None].to(part.dtype), part.device)
    # each image's noise from its own seed, so that its neighbors in the batch change nothing
    generator, drawn = torch.Generator(part.device), []
    for seed in noise[:, 0].tolist():
        generator.manual_seed(int(seed * 2**53))
        drawn.append(torch.randn(part.shape[1:], device=part.device, generator=generator))
    return torch.stack(drawn).to(part)
